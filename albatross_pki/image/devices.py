"""Whether the devices that are given to a unikernel are exactly those that its manifest declares.

A tender starts a unikernel only if every declared device is attached and nothing else is. ``device_mismatches`` says
so beforehand, for people, all at once: which devices are missing, which are unknown, which are of the other kind.
"""

from collections import Counter
from collections.abc import Iterable

from albatross_pki.image.solo5 import DeviceKind, Manifest
from albatross_pki.text import printable
from albatross_pki.unikernels import Settings

_OPTION = {DeviceKind.BLOCK: "--block={}", DeviceKind.NET: "--net={}"}
_WHERE = {DeviceKind.BLOCK: "DEVICE", DeviceKind.NET: "BRIDGE"}
_WORD = {DeviceKind.BLOCK: "block device", DeviceKind.NET: "network interface"}


def device_mismatches(manifest: Manifest, settings: Settings) -> list[str]:
    """Every difference as one sentence, empty if there is none; the order is block devices, then interfaces."""
    given = {
        DeviceKind.BLOCK: [block.name for block in settings.blocks],
        DeviceKind.NET: [interface.name for interface in settings.interfaces],
    }
    sentences: list[str] = []
    if not manifest.devices and not any(given.values()):
        return sentences  # nothing to compare, as for most
    for kind, names in given.items():
        other = DeviceKind.NET if kind is DeviceKind.BLOCK else DeviceKind.BLOCK
        sentences += _twice(kind, names)
        sentences += _missing(manifest, kind, names, given[other])
        sentences += _unknown(manifest, kind, other, names)
    return sentences


def _twice(kind: DeviceKind, names: Iterable[str]) -> list[str]:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    return [f"{_WORD[kind]} '{printable(name)}' is given more than once" for name in repeated]


def _missing(manifest: Manifest, kind: DeviceKind, names: Iterable[str], others: Iterable[str]) -> list[str]:
    return [
        f"the unikernel needs the {_WORD[kind]} '{name}', which is not given: "
        f"add {_OPTION[kind].format(name)}:{_WHERE[kind]}"
        for name in manifest.of_kind(kind)
        if name not in names and name not in others
    ]


def _unknown(manifest: Manifest, kind: DeviceKind, other: DeviceKind, names: Iterable[str]) -> list[str]:
    sentences = []
    for name in dict.fromkeys(names):
        if name in manifest.of_kind(kind):
            continue
        if name in manifest.of_kind(other):
            sentences.append(
                f"'{name}' is a {_WORD[other]} of the unikernel, not a {_WORD[kind]}: "
                f"say {_OPTION[other].format(name)} instead of {_OPTION[kind].format(name)}"
            )
        else:
            sentences.append(
                f"{_WORD[kind]} '{printable(name)}' is not known to the unikernel, which declares "
                f"{_declared(manifest, kind)}"
            )
    return sentences


def _declared(manifest: Manifest, kind: DeviceKind) -> str:
    names = [f"'{name}'" for name in manifest.of_kind(kind)]
    return ", ".join(names) if names else f"no {_WORD[kind]}"
