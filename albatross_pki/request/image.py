"""The image of a create: read, checked against what it is to be given, then bound by its digest or embedded.

1. a Solo5 image is parsed, and its manifest compared with the devices that were asked for, before anything is made:
   every difference is reported at once;
2. by default the image stays outside: the configuration's is empty and a binding (SHA-256, size) says which one it is;
3. embedded, it is compressed if a level is given. That is the form that upstream's servers take.
"""

import hashlib
from dataclasses import replace

from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.extensions import ImageBinding
from albatross_pki.files import read_file
from albatross_pki.image.devices import device_mismatches
from albatross_pki.image.solo5 import parse_image
from albatross_pki.unikernels import UnikernelConfig, UnikernelType
from albatross_pki.wire.compression import compress

DEFAULT_LEVEL = 9  # what upstream's clients use on the way to another machine
_IMAGE_LIMIT = 1 << 30  # octets


def with_image(
    config: UnikernelConfig, path: str, *, embed: bool, level: int = DEFAULT_LEVEL
) -> tuple[UnikernelConfig, ImageBinding | None]:
    """``config`` with the image in the file ``path``, and the binding if it is not embedded.

    Raises ``BadImage``, or ``Refused`` with every device that does not match. A bhyve configuration has no image.
    """
    if config.typ is UnikernelType.BHYVE:
        return config, None
    image = read_file(path, _IMAGE_LIMIT)
    if not image:
        raise AlbatrossError(f"{path} is empty")
    mismatches = device_mismatches(parse_image(image).manifest, config.settings)
    if mismatches:
        raise Refused(mismatches)
    if not embed:
        return config, ImageBinding(hashlib.sha256(image).digest(), len(image))
    if level == 0:
        return replace(config, image=image, compressed=False), None
    return replace(config, image=compress(image, level), compressed=True), None
