"""What can happen on a host, as values, and the JSON document that is recorded and told of each.

An event is about a name: a unikernel, a block device, or a path (policies; the daemon itself is about the root). It
says who asked for it where somebody did. Arguments of unikernels are never part of it: whoever may follow events need
not be one who may ``get``. ``docs/events.md`` has the schema; a test holds the two together.

Nothing here decides when something is recorded; see ``events_log``.
"""

import json
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, ClassVar

from albatross_pki.authorised import CertificateId
from albatross_pki.host.restarts import Exit
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.text import printable

By = int | CertificateId | None  # the user of a local peer, the leaf of a chain, or nobody

LAST_LINES = 10  # of the console, kept with the end of a unikernel
LINE_CHARACTERS = 200
REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class DaemonStarted:
    word: ClassVar[str] = "daemon-started"
    version: str


@dataclass(frozen=True, slots=True)
class DaemonStopped:
    """``left_running`` is the number of unikernels that go on without the daemon."""

    word: ClassVar[str] = "daemon-stopped"
    left_running: int


@dataclass(frozen=True, slots=True)
class Created:
    """A name that was not there is wanted from now on."""

    word: ClassVar[str] = "created"
    deployment: int
    image: bytes  # SHA-256
    memory_mb: int


@dataclass(frozen=True, slots=True)
class Replaced:
    """A new deployment took the place of the one before it."""

    word: ClassVar[str] = "replaced"
    deployment: int
    image: bytes
    memory_mb: int


@dataclass(frozen=True, slots=True)
class RolledBack:
    """An older deployment is the current one again."""

    word: ClassVar[str] = "rolled-back"
    deployment: int
    image: bytes
    memory_mb: int


@dataclass(frozen=True, slots=True)
class Restarted:
    """The same deployment runs again because somebody asked for it."""

    word: ClassVar[str] = "restarted"
    deployment: int


@dataclass(frozen=True, slots=True)
class NotReplaced:
    """A successor did not come up; ``reason`` says why, and what became of the old one."""

    word: ClassVar[str] = "not-replaced"
    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """Kept, not to run; ``reason`` is there if nobody asked for it."""

    word: ClassVar[str] = "stopped"
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Resumed:
    """To run again after a stop."""

    word: ClassVar[str] = "resumed"


@dataclass(frozen=True, slots=True)
class Destroyed:
    """Not wanted any more, because somebody said so."""

    word: ClassVar[str] = "destroyed"


@dataclass(frozen=True, slots=True)
class Started:
    """A process was made."""

    word: ClassVar[str] = "started"
    deployment: int
    tender: str


@dataclass(frozen=True, slots=True)
class Adopted:
    """A process that outlived its daemon is supervised by the next one."""

    word: ClassVar[str] = "adopted"
    deployment: int


@dataclass(frozen=True, slots=True)
class Exited:
    """A process ended. ``code`` or ``signal`` is there if it is known; ``exit`` says it for people."""

    word: ClassVar[str] = "exited"
    exit: str
    code: int | None = None
    signal: int | None = None

    @classmethod
    def of(cls, ended: Exit) -> "Exited":
        return cls(str(ended), ended.code, ended.signal)


@dataclass(frozen=True, slots=True)
class LastLines:
    """What the console had from a unikernel when its process ended, unasked."""

    word: ClassVar[str] = "last-lines"
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Waiting:
    """It starts again in so many seconds; ``failures`` is the length of the series of short runs."""

    word: ClassVar[str] = "waiting"
    seconds: float
    failures: int


@dataclass(frozen=True, slots=True)
class FailedToStart:
    word: ClassVar[str] = "failed-to-start"
    reason: str


@dataclass(frozen=True, slots=True)
class Over:
    """It ended and is not restarted: it is forgotten."""

    word: ClassVar[str] = "over"
    exit: str


@dataclass(frozen=True, slots=True)
class PolicySet:
    word: ClassVar[str] = "policy-set"
    unikernels: int
    memory_mb: int
    block_mb: int | None
    cpuids: tuple[int, ...]
    bridges: tuple[str, ...]

    @classmethod
    def of(cls, policy: Policy) -> "PolicySet":
        return cls(
            policy.unikernels,
            policy.memory_mb,
            policy.block_mb,
            tuple(sorted(policy.cpuids)),
            tuple(sorted(policy.bridges)),
        )


@dataclass(frozen=True, slots=True)
class PolicyRemoved:
    word: ClassVar[str] = "policy-removed"


@dataclass(frozen=True, slots=True)
class Revoked:
    """The delegation of a path, which this host had seen, was revoked: its policy is forgotten."""

    word: ClassVar[str] = "revoked"
    certificate: str  # its serial in hexadecimal
    issuer_key: bytes

    @classmethod
    def of(cls, delegation: CertificateId) -> "Revoked":
        return cls(f"{delegation.serial:x}", delegation.issuer_key)


@dataclass(frozen=True, slots=True)
class BlockCreated:
    word: ClassVar[str] = "block-created"
    size_mb: int


@dataclass(frozen=True, slots=True)
class BlockReplaced:
    """Its content was replaced as a whole."""

    word: ClassVar[str] = "block-replaced"


@dataclass(frozen=True, slots=True)
class BlockRemoved:
    word: ClassVar[str] = "block-removed"


What = (
    DaemonStarted
    | DaemonStopped
    | Created
    | Replaced
    | RolledBack
    | Restarted
    | NotReplaced
    | Stopped
    | Resumed
    | Destroyed
    | Started
    | Adopted
    | Exited
    | LastLines
    | Waiting
    | FailedToStart
    | Over
    | PolicySet
    | PolicyRemoved
    | Revoked
    | BlockCreated
    | BlockReplaced
    | BlockRemoved
)


def document(what: What, at: datetime, by: By, identity: str) -> str:
    """The JSON object that is recorded, on one line: all members but ``name``, which depends on who looks."""
    members: dict[str, Any] = {
        "id": identity,
        "time": _time(at),
        "event": what.word,
    }
    for field in fields(what):
        value = getattr(what, field.name)
        if value is not None:
            members[field.name] = _shown(value)
    if isinstance(by, CertificateId):
        members["by"] = {"certificate": f"{by.serial:x}", "issuer_key": by.issuer_key.hex()}
    elif by is not None:
        members["by"] = {"user": by}
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"))


def named(text: str, name: Name) -> str:
    """A recorded document with its name in front: letters, digits, dots, hyphens and colons need no escape."""
    return f'{{"name":"{name}",{text[1:]}'


def subscribed(path: Name, kept_since: datetime | None) -> str:
    """The first document of a subscription."""
    oldest = "null" if kept_since is None else f'"{_time(kept_since)}"'
    return f'{{"name":"{path}","event":"subscribed","kept_since":{oldest}}}'


def caught_up(path: Name) -> str:
    """The document behind everything that was recorded already."""
    return f'{{"name":"{path}","event":"caught-up"}}'


def missed(path: Name, count: int) -> str:
    """What a subscriber gets in the place of ``count`` events that it was too slow for."""
    return f'{{"name":"{path}","event":"missed","count":{count}}}'


def means(asked: Name, name: Name) -> bool:
    """Whether one who asks about ``asked`` hears of ``name``: itself, or everything at and below a path."""
    return asked.path.contains(name.path) if asked.is_path else asked == name


def seen(asked: Name, name: Name) -> Name:
    """``name`` as one who asks about ``asked`` sees it: relative to a path, full where it is that very name."""
    return name.relative_to(asked.path) if asked.is_path else name


def top_of(path: Path) -> str:
    """The top-level label of ``path``, empty for the root: whose share of the record an event takes."""
    return path.labels[0] if path.labels else ""


def _shown(value: object) -> object:
    match value:
        case bytes():
            return value.hex()
        case str():
            return printable(value, REASON_CHARACTERS)
        case tuple():
            return [printable(each, LINE_CHARACTERS) if isinstance(each, str) else each for each in value]
        case _:
            return value


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
