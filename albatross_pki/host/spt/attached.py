"""Devices that are attached to a unikernel, and the confinement of its process."""

from collections.abc import Sequence
from dataclasses import dataclass

from albatross_pki.errors import check_range
from albatross_pki.image.solo5 import DeviceKind, Manifest
from albatross_pki.text import to_octets

FIRST_DESCRIPTOR = 3  # of devices; 0 is /dev/null, 1 and 2 are the console
MAX_SECTOR = 32768
MAX_CPU = 8191
MAX_PATH = 4000
TITLE_OCTETS = 15  # what Linux keeps of a process' name


@dataclass(frozen=True, slots=True)
class AttachedNet:
    """A tap: an open, non-blocking descriptor of it, the unikernel's MAC address (six octets) and the MTU."""

    name: str
    descriptor: int
    mac: bytes
    mtu: int

    @property
    def kind(self) -> DeviceKind:
        return DeviceKind.NET

    def violations(self) -> list[str]:
        """What is wrong with these values, as sentences."""
        wrong = [] if len(self.mac) == 6 else [f"network interface '{self.name}': a MAC address has six octets"]
        if not 68 <= self.mtu <= 0xFFFF:
            wrong.append(f"network interface '{self.name}': an MTU of {self.mtu} is not possible")
        return wrong


@dataclass(frozen=True, slots=True)
class AttachedBlock:
    """A disk: a descriptor open for reading and writing, its capacity and sector size in octets."""

    name: str
    descriptor: int
    capacity: int
    sector_size: int

    @property
    def kind(self) -> DeviceKind:
        return DeviceKind.BLOCK

    def violations(self) -> list[str]:
        """What is wrong with these values, as sentences; the rules are those of Solo5's tenders."""
        size = self.sector_size
        if not 512 <= size <= MAX_SECTOR or size & (size - 1):
            return [
                f"block device '{self.name}': a sector of {size} octets is no power of two from 512 to {MAX_SECTOR}"
            ]
        if self.capacity < size or self.capacity % size:
            return [
                f"block device '{self.name}': {self.capacity} octets are not one or more sectors of {size} octets",
            ]
        return []


AttachedDevice = AttachedNet | AttachedBlock


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a unikernel's process gives up before the unikernel's first instruction.

    ``uid`` and ``gid`` (default: the same number) become its only identity; they need root, and without them it stays
    whoever started it, without capabilities. ``cpuids`` are the CPUs that it may use, empty for all. ``title`` is
    the name that ``ps`` shows. ``cgroup`` is the directory of a cgroup that it enters first; ``out_of_memory_score`` is
    added to its badness. ``inspectable`` leaves it open to debuggers of the same user.
    """

    title: str = "unikernel"
    uid: int | None = None
    gid: int | None = None
    cpuids: frozenset[int] = frozenset()
    cgroup: str | None = None
    out_of_memory_score: int | None = 500
    inspectable: bool = False

    def __post_init__(self) -> None:
        for field, number in (("uid", self.uid), ("gid", self.gid)):
            if number is not None:
                check_range(field, number, 1, 0xFFFFFFFE)  # the highest means "unchanged"
        if self.cgroup is not None:
            check_range("octets of the cgroup's path", len(to_octets(self.cgroup)), 1, MAX_PATH)
        for cpu in self.cpuids:
            check_range("cpu", cpu, 0, MAX_CPU)
        if self.out_of_memory_score is not None:
            check_range("out-of-memory score", self.out_of_memory_score, -1000, 1000)
        if self.gid is not None and self.uid is None:
            raise TypeError("a group without a user confines nothing")


def attachment_violations(manifest: Manifest, devices: Sequence[AttachedDevice]) -> list[str]:
    """Every difference between declared and attached devices, and every impossible value, as sentences."""
    declared = {device.name: device.kind for device in manifest.devices}
    wrong: list[str] = []
    for index, device in enumerate(devices):
        if declared.get(device.name) is not device.kind:
            wrong.append(f"device '{device.name}' of type {device.kind.value} is not declared in the manifest")
        elif any(earlier.name == device.name for earlier in devices[:index]):
            wrong.append(f"device '{device.name}' is attached twice")
        wrong += device.violations()
    attached = {device.name for device in devices}
    wrong += [
        f"device '{device.name}' of type {device.kind.value} is declared in the manifest but not attached"
        for device in manifest.devices
        if device.name not in attached
    ]
    return wrong
