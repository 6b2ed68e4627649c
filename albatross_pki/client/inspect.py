"""What an image is, and what it asks for, before anybody deploys it."""

import hashlib
from typing import TYPE_CHECKING, Any

from albatross_pki.client.files import BadFile, read_file

if TYPE_CHECKING:
    from albatross_pki.image.solo5 import Solo5Image

_MACHINES = {62: "x86_64", 183: "aarch64"}


def image_document(path: str) -> dict[str, Any]:
    """The image in the file ``path`` as a document (``docs/output.md``); raises ``BadFile``."""
    from albatross_pki.image.elf import BadImage
    from albatross_pki.image.solo5 import parse_image

    octets = read_file(path)
    try:
        image = parse_image(octets)
    except BadImage as error:
        raise BadFile(path, error.message, hint=error.hint) from error
    return {
        "digest": hashlib.sha256(octets).hexdigest(),
        "size": len(octets),
        "machine": _MACHINES.get(image.machine, str(image.machine)),
        "target": image.abi.target.name.lower(),
        "abi_version": image.abi.version,
        "devices": [{"name": device.name, "kind": device.kind.name.lower()} for device in image.manifest.devices],
        "create_options": _options(image),
    }


def image_lines(document: dict[str, Any]) -> list[str]:
    """The document for people."""
    devices = ", ".join(f"{device['name']} ({device['kind']})" for device in document["devices"])
    return [
        f"digest   {document['digest']}",
        f"size     {document['size']} octets",
        f"made for {document['target']} (ABI {document['abi_version']}) on {document['machine']}",
        f"devices  {devices or 'none'}",
        f"create   {' '.join(document['create_options']) or 'needs no devices'}",
    ]


def _options(image: "Solo5Image") -> list[str]:
    """What ``create`` has to be given for the image's devices."""
    form = {"NET": "--net={}:BRIDGE", "BLOCK": "--block={}:DEVICE"}
    return [form[device.kind.name].format(device.name) for device in image.manifest.devices]
