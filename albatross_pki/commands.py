"""The commands of Albatross AV5, one dataclass per alternative of the protocol.

Where AV5 keeps older encodings of a command, ``version`` says which one came or is to be written, so that what was
read can be written again as it was; the meaning is always that of the newest one.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from albatross_pki.policies import Policy
from albatross_pki.unikernels import Settings, UnikernelConfig

UNLIMITED = 2**62 - 1  # what AV5 writes for "no limit"


class Version(Enum):
    """The encodings of a command that AV5 knows; ``CURRENT`` is the only one a new client writes."""

    CURRENT = "current"
    V0 = "v0"
    V1 = "v1"
    V3 = "v3"
    V4 = "v4"
    OLD4 = "old4"
    OLD5 = "old5"
    OLD = "old"


# console


@dataclass(frozen=True, slots=True)
class ConsoleAdd:
    """albatrossd announces a unikernel to the console; ``rings`` bounds the buffers kept for its path."""

    rings: int


@dataclass(frozen=True, slots=True)
class ConsoleSubscribe:
    """Lines since a time (UTC) or the last ``count`` ones, then live; exactly one of the two is given."""

    since: datetime | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if (self.since is None) == (self.count is None):
            raise TypeError("a subscription has either since or count")


@dataclass(frozen=True, slots=True)
class ConsoleInactive:
    """Which consoles of a path are kept of unikernels that do not run?"""


# statistics


@dataclass(frozen=True, slots=True)
class StatsAdd:
    """``network`` pairs each interface's name inside the unikernel with its tap on the host."""

    vmmdev: str
    pid: int
    network: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StatsRemove:
    """albatrossd tells statistics that a unikernel is gone."""


@dataclass(frozen=True, slots=True)
class StatsSubscribe:
    """Statistics of a unikernel, or of all below a path, as they are taken."""


@dataclass(frozen=True, slots=True)
class StatsInitial:
    """albatrossd and statistics begin to talk."""


# unikernel


@dataclass(frozen=True, slots=True)
class UnikernelInfoRequest:
    """What runs below a path; ``version``: CURRENT, OLD4 or OLD5."""

    version: Version = Version.CURRENT


@dataclass(frozen=True, slots=True)
class UnikernelCreate:
    """``force`` replaces a unikernel of that name. ``version``: CURRENT, V3 or V4."""

    config: UnikernelConfig
    force: bool = False
    version: Version = Version.CURRENT


@dataclass(frozen=True, slots=True)
class UnikernelRestart:
    """``settings`` replace the old ones; ``None`` keeps them. ``version`` of the settings: CURRENT, V0 or V1."""

    settings: Settings | None = None
    version: Version = Version.CURRENT


@dataclass(frozen=True, slots=True)
class UnikernelDestroy:
    """End a unikernel and forget it."""


@dataclass(frozen=True, slots=True)
class UnikernelGet:
    """Configuration and image; ``level`` is a zlib level, 0 for an uncompressed answer."""

    level: int


# policy


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """The policies of a path and of everything below it."""


@dataclass(frozen=True, slots=True)
class PolicyAdd:
    """The policy of a path, instead of the one before."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class PolicyRemove:
    """Forget the policy of a path."""


# block


@dataclass(frozen=True, slots=True)
class BlockInfoRequest:
    """A block device, or all of a path and below it."""


@dataclass(frozen=True, slots=True)
class BlockAdd:
    """A new block device of ``size_mb`` mebibytes."""

    size_mb: int


@dataclass(frozen=True, slots=True)
class BlockAddOld:
    """A new block device with its content inside the message, if there is some."""

    size_mb: int
    compressed: bool
    content: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class BlockRemove:
    """Remove a block device with its content."""


@dataclass(frozen=True, slots=True)
class BlockSet:
    """The content follows on the stream."""

    compressed: bool


@dataclass(frozen=True, slots=True)
class BlockSetOld:
    """The content of a block device inside the message."""

    compressed: bool
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BlockDump:
    """``level`` is a zlib level, 0 for uncompressed; the answer is a stream."""

    level: int


@dataclass(frozen=True, slots=True)
class BlockDumpOld:
    """As ``BlockDump``, answered with one message."""

    level: int


ConsoleCommand = ConsoleAdd | ConsoleSubscribe | ConsoleInactive
StatsCommand = StatsAdd | StatsRemove | StatsSubscribe | StatsInitial
UnikernelCommand = UnikernelInfoRequest | UnikernelCreate | UnikernelRestart | UnikernelDestroy | UnikernelGet
PolicyCommand = PolicyInfo | PolicyAdd | PolicyRemove
BlockCommand = (
    BlockInfoRequest | BlockAdd | BlockAddOld | BlockRemove | BlockSet | BlockSetOld | BlockDump | BlockDumpOld
)
Command = ConsoleCommand | StatsCommand | UnikernelCommand | PolicyCommand | BlockCommand


def has_arguments(command: object) -> bool:
    """Whether a command brings arguments for a unikernel: in a certificate they stand in the clear."""
    match command:
        case UnikernelCreate(config=config):
            return bool(config.settings.arguments)
        case UnikernelRestart(new) if new is not None:
            return bool(new.arguments)
    return False
