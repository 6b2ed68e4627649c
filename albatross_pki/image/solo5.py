"""What a Solo5 image says about itself: machine, target and version of the ABI, and the devices it wants.

``parse_image`` reads, in this order: the ELF headers; the ABI note ("ABI1": target, version, two zero words); the
manifest note ("MFT1": version 1, a nameless first entry, then at most 63 devices). Everything that Solo5's own
``solo5-elftool`` refuses is refused here, in its words where people know them, and a little more: names other than
``[A-Za-z0-9]+``, the same name twice, octets behind a name's end. The only exception is ``BadImage``.

Whether the image fits into memory is for ``loading``, whether its devices are given for ``devices``. A compressed
image is inflated by the caller. If the octets are a mapping of a file, the caller owns that file: one that somebody
else can truncate would end the process with SIGBUS.

Source: Solo5's ``abi/mft_abi.h`` and ``elf_abi.h`` (ABI note version 1, manifest version 1).
"""

import re
import struct
from dataclasses import dataclass
from enum import Enum, IntEnum

from albatross_pki.image.elf import PT_NOTE, BadImage, Elf, Octets, first_note, read_elf
from albatross_pki.text import printable

MAX_DEVICES = 63

_OWNER = b"Solo5\0\0\0"
_ABI, _MANIFEST = 0x31494241, 0x3154464D
_ABI_BODY = struct.Struct("<IIII")
_MANIFEST_HEAD = struct.Struct("<4xII")  # the padding puts the head at a multiple of eight
_ENTRY = struct.Struct("<68sI16s8sB7s")  # name, type, union u, union b, attached, padding
_MAX_DESCRIPTOR = _MANIFEST_HEAD.size + (MAX_DEVICES + 1) * _ENTRY.size
_RESERVED_FIRST = 0x40000000
_DEVICE_NAME = re.compile(rb"[A-Za-z0-9]{1,67}")


class Target(IntEnum):
    """The host interface that an image was linked for; the numbers of the ABI note."""

    HVT = 1
    SPT = 2
    VIRTIO = 3
    MUEN = 4
    GENODE = 5
    XEN = 6


class DeviceKind(Enum):
    """A device's type in the manifest, under the name that Solo5 prints for it."""

    BLOCK = "BLOCK_BASIC"
    NET = "NET_BASIC"


_KINDS = {1: DeviceKind.BLOCK, 2: DeviceKind.NET}


@dataclass(frozen=True, slots=True)
class Abi:
    """Which tender can run the image: ``version`` counts per target."""

    target: Target
    version: int


@dataclass(frozen=True, slots=True)
class Device:
    """A device that the image declares; its handle inside the unikernel is its position in the manifest plus one."""

    name: str
    kind: DeviceKind


@dataclass(frozen=True, slots=True)
class Manifest:
    devices: tuple[Device, ...] = ()

    def of_kind(self, kind: DeviceKind) -> tuple[str, ...]:
        """The names of all devices of ``kind``, in the manifest's order."""
        return tuple(device.name for device in self.devices if device.kind is kind)


@dataclass(frozen=True, slots=True)
class Solo5Image:
    """What ``parse_image`` found; it refers to the image's octets by offset and does not keep them."""

    elf: Elf
    abi: Abi
    manifest: Manifest

    @property
    def machine(self) -> int:
        """The ELF machine: 62 for x86_64, 183 for aarch64."""
        return self.elf.machine

    @property
    def entry(self) -> int:
        """The address at which the unikernel starts."""
        return self.elf.entry


def parse_image(octets: Octets) -> Solo5Image:
    """Read an uncompressed image; raises ``BadImage`` and nothing else, whatever the octets are."""
    with memoryview(octets) as whole, whole.cast("B") as view:
        elf = read_elf(view)
        notes = _solo5_notes(view, elf)
    if _ABI not in notes:
        raise BadImage("no Solo5 ABI information found in the image", hint=_hint_for_foreign(_MANIFEST in notes))
    abi = _parse_abi(notes[_ABI])
    if _MANIFEST not in notes:
        raise BadImage("manifest not found")
    return Solo5Image(elf, abi, _parse_manifest(notes[_MANIFEST]))


def _hint_for_foreign(has_manifest: bool) -> str | None:
    return None if has_manifest else "an ordinary program is not a unikernel: it has to be built for Solo5"


def _solo5_notes(view: memoryview, elf: Elf) -> dict[int, bytes]:
    notes: dict[int, bytes] = {}
    for header in elf.headers:
        if header.kind == PT_NOTE and (note := first_note(view, header, _OWNER, _MAX_DESCRIPTOR)):
            notes.setdefault(note.kind, note.descriptor)
    return notes


def _parse_abi(descriptor: bytes) -> Abi:
    if len(descriptor) != _ABI_BODY.size:
        raise BadImage("abi manifest size mismatch")
    target, version, *reserved = _ABI_BODY.unpack(descriptor)
    for index, word in enumerate(reserved):
        if word:
            raise BadImage(f"non-zero reserved{index}")
    try:
        return Abi(Target(target), version)
    except ValueError:
        raise BadImage(f"unknown abi target: {target}") from None


def _parse_manifest(descriptor: bytes) -> Manifest:
    if len(descriptor) < _MANIFEST_HEAD.size:
        raise BadImage("manifest too small")
    version, count = _MANIFEST_HEAD.unpack_from(descriptor)
    if version != 1:
        raise BadImage("unsupported manifest version")
    if count == 0:
        raise BadImage("zero manifest entries")
    if count > MAX_DEVICES + 1:
        raise BadImage("too many manifest entries")
    if len(descriptor) != _MANIFEST_HEAD.size + count * _ENTRY.size:
        raise BadImage("unexpected note size")
    entries = list(_ENTRY.iter_unpack(descriptor[_MANIFEST_HEAD.size :]))
    _check_first(*entries[0])
    devices = tuple(_parse_device(*entry) for entry in entries[1:])
    if len({device.name for device in devices}) != len(devices):
        raise BadImage("the manifest declares a device name twice")
    return Manifest(devices)


def _check_first(name: bytes, kind: int, union: bytes, handle: bytes, attached: int, padding: bytes) -> None:
    if kind != _RESERVED_FIRST:
        raise BadImage("expected RESERVED_FIRST")
    if any(name) or any(union) or any(handle) or attached or any(padding):
        raise BadImage("non-zero RESERVED_FIRST")


def _parse_device(name: bytes, kind: int, union: bytes, handle: bytes, attached: int, padding: bytes) -> Device:
    if kind == _RESERVED_FIRST:
        raise BadImage("found RESERVED_FIRST not as first entry")
    if kind not in _KINDS:
        raise BadImage(f"unknown manifest entry type: {kind}")
    if name[-1]:
        raise BadImage("unterminated device name")
    text, _, rest = name.partition(b"\0")
    if not _DEVICE_NAME.fullmatch(text) or any(rest):
        raise BadImage(f"invalid device name '{printable(text)}' (only [a-zA-Z0-9] allowed, 1 to 67 chars)")
    for field, value in (("u", any(union)), ("b", any(handle)), ("attached", attached), ("padding", any(padding))):
        if value:
            raise BadImage(f"non-zero mft_entry.{field}")
    return Device(text.decode("ascii"), _KINDS[kind])
