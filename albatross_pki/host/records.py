"""What albatrossd writes down, as values: deployments, the unikernels that refer to them, and processes.

A *deployment* is one accepted configuration of a name with its image; a new configuration is a new deployment. A
unikernel refers to its current one; older ones of the same name are kept for rollback. A *process record* is written
before a process is made, so that a daemon that died in between can tell its own processes from everybody else's.
"""

from dataclasses import dataclass, field
from datetime import datetime

from albatross_pki.authorised import ChainPolicy
from albatross_pki.host.lifecycle import Wanted
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.unikernels import Settings, UnikernelConfig, UnikernelType


@dataclass(frozen=True, slots=True)
class Deployment:
    """One configuration of ``name``. ``image`` is the SHA-256 of the uncompressed image, ``size`` its octets."""

    number: int  # grows with every deployment that this host ever accepted
    name: Name
    settings: Settings
    image: bytes
    size: int
    created: datetime
    typ: UnikernelType = UnikernelType.SOLO5

    def config(self, image: bytes = b"") -> UnikernelConfig:
        """As AV5 has it; the image is not part of a deployment."""
        return UnikernelConfig(image=image, settings=self.settings, compressed=False, typ=self.typ)


@dataclass(frozen=True, slots=True)
class AttachedTap:
    """A tap that belongs to a process: the device's name inside the unikernel, and the interface on the host."""

    device: str
    interface: str
    bridge: str


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process that was, or was about to be, made.

    ``token`` is in the process's title (or its console is the fifo of ``name``), which finds it where ``pid`` and
    ``start_ticks`` (field 22 of proc(5)'s stat) were not yet recorded. ``boot`` tells reboots apart.
    """

    token: str
    name: Name
    deployment: int
    boot: str
    tender: str
    uid: int
    taps: tuple[AttachedTap, ...] = ()
    pid: int | None = None
    start_ticks: int | None = None
    started: datetime | None = None


@dataclass(frozen=True, slots=True)
class UnikernelRecord:
    """What is wanted of one name, and its deployments, the current one first, then from newest to oldest."""

    wanted: Wanted
    deployments: tuple[Deployment, ...]

    @property
    def name(self) -> Name:
        return self.deployments[0].name


@dataclass(frozen=True, slots=True)
class ChainPolicies:
    """A change in the policies that are remembered of chains."""

    fresh: tuple[ChainPolicy, ...] = ()
    stale: tuple[ChainPolicy, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the state holds."""

    unikernels: tuple[UnikernelRecord, ...] = ()
    processes: tuple[ProcessRecord, ...] = ()
    operator: tuple[tuple[Path, Policy], ...] = ()
    remembered: tuple[ChainPolicy, ...] = ()
    images: frozenset[bytes] = field(default_factory=frozenset)
    next_number: int = 1
