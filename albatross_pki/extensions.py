"""What stands in certificates: Albatross' own extension and the three of albatross-pki.

The ASN.1 is in ``docs/wire.md``; the object identifiers of ours lie below a UUID (ITU-T X.667), all three critical.
"""

from dataclasses import dataclass
from datetime import datetime

from albatross_pki import PROTOCOL_VERSION
from albatross_pki.commands import Command

ALBATROSS_OID = "1.3.6.1.4.1.49836.42"
PKI_ARC = "2.25.117964483095047013569450036124453504234"
CONSTRAINTS_OID = f"{PKI_ARC}.1"
IMAGE_BINDING_OID = f"{PKI_ARC}.2"
COMMAND_OID = f"{PKI_ARC}.3"

COMMAND_WORDS = frozenset(
    {
        *("info", "status", "get", "events", "host-info"),
        *("create", "force-create", "restart", "restart-arguments", "destroy", "stop", "start", "rollback"),
        *("console", "consoles", "stats", "policy-info", "crl-update"),
        *("block-info", "block-add", "block-remove", "block-set", "block-dump"),
    }
)


@dataclass(frozen=True, slots=True)
class AlbatrossExtension:
    """The Albatross extension: one command (in a delegation: ``policy add``)."""

    command: Command
    version: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class Constraints:
    """What the holder of a certificate, and everybody below, may do; ``None`` inherits, an empty set allows nothing.

    ``images`` and ``deployments`` are SHA-256 digests; ``names`` are patterns in lower case with ``*`` at most as the
    last character; ``hosts`` are endpoint names. ``once``: each leaf below has effect at most once.
    """

    commands: frozenset[str] | None = None
    images: frozenset[bytes] | None = None
    names: frozenset[str] | None = None
    hosts: frozenset[str] | None = None
    deployments: frozenset[bytes] | None = None
    once: bool = False


@dataclass(frozen=True, slots=True)
class ImageBinding:
    """The SHA-256 and the size in octets of the uncompressed image that a leaf's command is about."""

    digest: bytes
    size: int


@dataclass(frozen=True, slots=True)
class CrlUpdate:
    """A CRL follows on the stream."""


@dataclass(frozen=True, slots=True)
class Events:
    """What happened below a path since a time (UTC), then live; without a time only what is yet to come."""

    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rollback:
    """Back to the previous image and configuration of a unikernel."""


@dataclass(frozen=True, slots=True)
class HostInfo:
    """Tenders and ABIs, capacity and use of a path, head of the audit log."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Keep configuration and blocks, do not run."""


@dataclass(frozen=True, slots=True)
class Start:
    """Run again what was stopped."""


@dataclass(frozen=True, slots=True)
class Status:
    """Like info, with wanted and actual state, restarts, back-off, last exit and limits exceeded."""


ExtendedCommand = CrlUpdate | Events | Rollback | HostInfo | Stop | Start | Status
AnyCommand = Command | ExtendedCommand
