"""What travels between endpoint, authoriser and albatrossd beside AV5.

``docs/wire.md`` has the ASN.1 and the flows. An ``AuthorisedRequest`` is made by the fold over a certificate chain
and by nothing else; albatrossd believes it because the authoriser's user sent it.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from albatross_pki.extensions import AnyCommand, ExtendedCommand, ImageBinding
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy


@dataclass(frozen=True, slots=True)
class CertificateId:
    """The issuer's key (SHA-256 of its SubjectPublicKeyInfo) and the serial: what revocation and replay go by."""

    issuer_key: bytes
    serial: int


@dataclass(frozen=True, slots=True)
class ChainPolicy:
    """The policy that one delegation of a chain carries, for the path that it stands for."""

    path: Path
    policy: Policy
    certificate: CertificateId
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class AuthorisedRequest:
    """A command that a whole chain allows.

    ``policies`` are those of the chain, root side first. ``images`` and ``deployments`` are the SHA-256 digests that
    may be made to run, ``None`` for any. ``not_after`` is the earliest end of validity in the chain: streams end then.
    ``may_get`` tells whether answers may show arguments. The image of a create, if it travelled outside the
    certificate, comes as a descriptor beside the message; ``binding`` says what it must be.
    """

    name: Name
    command: AnyCommand
    policies: tuple[ChainPolicy, ...]
    leaf: CertificateId
    not_after: datetime
    images: frozenset[bytes] | None = None
    deployments: frozenset[bytes] | None = None
    binding: ImageBinding | None = None
    may_get: bool = False


class Effect(Enum):
    """What a request did to the host; only ``NONE`` lets a one-time certificate be used again."""

    NONE = "none"
    CHANGED = "changed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What albatrossd reports to the authoriser when a request is over."""

    succeeded: bool
    effect: Effect
    text: str


class Stream(Enum):
    """What the client has to stream after the handshake, before or after its command is executed."""

    NOTHING = "nothing"
    IMAGE = "image"  # spooled by the endpoint, then handed over
    BLOCK = "block"  # relayed to albatrossd while it comes
    CRL = "crl"  # spooled, then handed over


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """Endpoint to authoriser: the certificates as OpenSSL verified them, leaf first, without the anchor."""

    peer: str  # address of the client, for the audit log
    certificates: tuple[bytes, ...]  # DER


@dataclass(frozen=True, slots=True)
class Verdict:
    """Authoriser to endpoint: accepted, with what to spool and how much, or refused for ``reasons``.

    ``stream_limit`` is the largest number of octets to spool, as they come. If there is nothing to spool, the
    descriptor that answers come from is beside an accepted verdict.
    """

    name: Name
    reasons: tuple[str, ...] = ()
    stream: Stream = Stream.NOTHING
    stream_limit: int = 0
    answers: str = "single"  # "single", "read" or "dump": how answers are shaped

    @property
    def accepted(self) -> bool:
        return not self.reasons


@dataclass(frozen=True, slots=True)
class ExecuteRequest:
    """Endpoint to authoriser, on the connection of an accepted verdict: go. The spool's descriptor comes beside it.

    ``digest`` is the SHA-256 of the spooled octets as they came. It serves to refuse early; nothing relies on it.
    """

    spooled: int  # octets
    digest: bytes = b""  # empty if nothing was spooled


@dataclass(frozen=True, slots=True)
class Executing:
    """Authoriser to endpoint: the connected descriptor that answers come from is beside this message."""


@dataclass(frozen=True, slots=True)
class LocalRequest:
    """Somebody on the host to albatrossd: a command that AV5 has no place for, answered in AV5 on this connection."""

    name: Name
    command: ExtendedCommand


MOST_CERTIFICATE_IDS = 4096  # in one message about revocation; more are asked for page by page


@dataclass(frozen=True, slots=True)
class AskRemembered:
    """Authoriser to albatrossd: of which delegations does it remember policies, behind ``after``?"""

    after: CertificateId | None = None


@dataclass(frozen=True, slots=True)
class Remembered:
    """The answer: certificates in ascending order; more may follow the last one if there are as many as fit."""

    certificates: tuple[CertificateId, ...]


@dataclass(frozen=True, slots=True)
class Revoked:
    """Authoriser to albatrossd: of those that it remembers, these are revoked. An ``Outcome`` answers.

    Their policies are to be forgotten; with ``stop``, what runs below them is stopped before.
    """

    certificates: tuple[CertificateId, ...]
    stop: bool


SideMessage = (
    AuthorisedRequest
    | Outcome
    | JudgeRequest
    | Verdict
    | ExecuteRequest
    | Executing
    | LocalRequest
    | AskRemembered
    | Remembered
    | Revoked
)
