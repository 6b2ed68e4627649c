"""What a unikernel is asked to be (configuration) and what it is (info)."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from albatross_pki.names import Name

DEFAULT_STARTUP = 50
DEFAULT_SECTOR_SIZE = 512


class UnikernelType(Enum):
    SOLO5 = "solo5"
    BHYVE = "bhyve"


@dataclass(frozen=True, slots=True)
class FailBehaviour:
    """``restart`` is ``None`` to stay down after any exit; a set of exit codes to restart on, empty for all."""

    restart: frozenset[int] | None = None


QUIT = FailBehaviour()


@dataclass(frozen=True, slots=True)
class BlockDevice:
    """A disk of a unikernel: ``name`` in its manifest, ``device`` the host's label for it (default: the same)."""

    name: str
    device: str | None = None
    sector_size: int | None = None  # octets, a power of two from 512

    @property
    def host_device(self) -> str:
        return self.device if self.device is not None else self.name


@dataclass(frozen=True, slots=True)
class NetworkInterface:
    """A network device of a unikernel: ``name`` in its manifest, ``bridge`` on the host (default: the same)."""

    name: str
    bridge: str | None = None
    mac: bytes | None = None  # six octets; derived from the names if absent

    @property
    def host_bridge(self) -> str:
        return self.bridge if self.bridge is not None else self.name


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about a unikernel but its image; this is what ``restart`` can replace.

    ``arguments`` distinguishes none (``None``) from an empty list. ``startup`` orders starts at boot, absent is 50.
    """

    cpuids: frozenset[int] = frozenset({0})
    memory_mb: int = 32
    fail_behaviour: FailBehaviour = QUIT
    startup: int | None = None
    add_name: bool = True
    blocks: tuple[BlockDevice, ...] = ()
    interfaces: tuple[NetworkInterface, ...] = ()
    arguments: tuple[str, ...] | None = field(default=None, repr=False)  # often secrets: never in a log by accident
    cpus: int = 1
    linux_boot_partition: str | None = None


@dataclass(frozen=True, slots=True)
class UnikernelConfig:
    """A configuration with its image, zlib-compressed if ``compressed``; an empty image travels elsewhere."""

    image: bytes = field(repr=False)
    settings: Settings
    compressed: bool = False
    typ: UnikernelType = UnikernelType.SOLO5


@dataclass(frozen=True, slots=True)
class BlockDeviceInfo:
    """A disk of a running unikernel: its name in the manifest, and the host's."""

    name: str
    host_device: str
    sector_size: int
    size_mb: int


@dataclass(frozen=True, slots=True)
class InterfaceInfo:
    """A network device of a running unikernel: its name in the manifest, its bridge, its address."""

    name: str
    host_bridge: str
    mac: bytes


@dataclass(frozen=True, slots=True)
class UnikernelInfo:
    """What a host tells about a unikernel. ``digest`` is the SHA-256 of the image (BHyve: the VM's name)."""

    cpuids: frozenset[int]
    memory_mb: int
    digest: bytes
    fail_behaviour: FailBehaviour = QUIT
    startup: int | None = None
    blocks: tuple[BlockDeviceInfo, ...] = ()
    interfaces: tuple[InterfaceInfo, ...] = ()
    arguments: tuple[str, ...] | None = field(default=None, repr=False)
    started: datetime | None = None  # UTC, milliseconds; None (absent on the wire) reads as 1970-01-01
    cpus: int = 1
    linux_boot_partition: str | None = None
    typ: UnikernelType = UnikernelType.SOLO5


@dataclass(frozen=True, slots=True)
class BlockInfo:
    """A block device of the host; ``active`` while a unikernel has it."""

    name: Name
    size_mb: int
    active: bool
