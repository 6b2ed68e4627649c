"""What an spt unikernel finds in its memory when it starts: boot information, manifest, command line.

All three stand one behind the other from ``BOOT`` on (Solo5 ``spt_abi.h``): 40 octets of boot information, the manifest
with what the tender filled in (descriptors, addresses, sizes), the command line ended by a zero.
"""

import struct
from collections.abc import Sequence

from albatross_pki.host.spt.attached import FIRST_DESCRIPTOR, AttachedBlock, AttachedDevice
from albatross_pki.image.loading import Layout
from albatross_pki.image.solo5 import DeviceKind, Manifest

BOOT = 0x11000
MAX_COMMAND_LINE = 8191  # octets without the zero

_BOOT_INFO = struct.Struct("<QQQQii")
_MANIFEST_HEAD = struct.Struct("<II")
_ENTRY = struct.Struct("<68sI16si4xB7x")
_RESERVED_FIRST = 0x40000000
_KIND_NUMBER = {DeviceKind.BLOCK: 1, DeviceKind.NET: 2}


def boot_information(
    layout: Layout, manifest: Manifest, devices: Sequence[AttachedDevice], command_line: bytes
) -> bytes:
    """The octets at ``BOOT``; ``devices`` are those of the manifest, with descriptors from 3 on in the order given."""
    filled_in = filled_manifest(manifest, devices)
    manifest_at = BOOT + _BOOT_INFO.size
    epoll = FIRST_DESCRIPTOR + len(devices)
    head = _BOOT_INFO.pack(layout.memory, layout.image_end, manifest_at + len(filled_in), manifest_at, epoll, epoll + 1)
    return head + filled_in + command_line + b"\0"


def filled_manifest(manifest: Manifest, devices: Sequence[AttachedDevice]) -> bytes:
    """The manifest as the unikernel reads it."""
    by_name = {device.name: (number, device) for number, device in enumerate(devices, FIRST_DESCRIPTOR)}
    entries = [_MANIFEST_HEAD.pack(1, len(manifest.devices) + 1), _ENTRY.pack(b"", _RESERVED_FIRST, b"", 0, 0)]
    for declared in manifest.devices:
        descriptor, device = by_name[declared.name]
        entries.append(
            _ENTRY.pack(declared.name.encode("ascii"), _KIND_NUMBER[declared.kind], _details(device), descriptor, 1)
        )
    return b"".join(entries)


def _details(device: AttachedDevice) -> bytes:
    if isinstance(device, AttachedBlock):
        return struct.pack("<QH", device.capacity, device.sector_size)
    return device.mac + struct.pack("<H", device.mtu)
