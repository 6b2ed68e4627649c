"""Our own messages beside AV5, between endpoint, authoriser and albatrossd; each travels in one frame.

    SideMessage ::= CHOICE { authorised [0] AuthorisedRequest, outcome [1] Outcome, judge [2] JudgeRequest,
                             verdict [3] Verdict, execute [4] ExecuteRequest, executing [5] NULL,
                             local [6] LocalRequest, askRemembered [7] AskRemembered,
                             remembered [8] Remembered, revoked [9] Revoked }
    AuthorisedRequest ::= SEQUENCE { name Name, command AnyCommand, policies SEQUENCE OF ChainPolicy,
      leaf CertificateId, notAfter GeneralizedTime, images [0] SEQUENCE OF Digest OPTIONAL,
      deployments [1] SEQUENCE OF Digest OPTIONAL, binding [2] ImageBinding OPTIONAL, mayGet [3] NULL OPTIONAL }
    AnyCommand     ::= CHOICE { albatross [0] Command, extended [1] ExtendedCommand.command }
    ChainPolicy    ::= SEQUENCE { path Name, policy Policy, certificate CertificateId,
                                  notBefore GeneralizedTime, notAfter GeneralizedTime }
    CertificateId  ::= SEQUENCE { issuerKey Digest, serial INTEGER (0..2^160-1) }
    Outcome        ::= SEQUENCE { succeeded BOOLEAN, effect ENUMERATED { none(0), changed(1), unknown(2) },
                                  text UTF8String }
    JudgeRequest   ::= SEQUENCE { peer UTF8String, certificates SEQUENCE OF OCTET STRING }
    Verdict        ::= SEQUENCE { name Name, reasons SEQUENCE OF UTF8String,
      stream ENUMERATED { nothing(0), image(1), block(2), crl(3) }, streamLimit INTEGER,
      answers ENUMERATED { single(0), read(1), dump(2) } }
    ExecuteRequest ::= SEQUENCE { spooled INTEGER, digest OCTET STRING (SIZE (0 | 32)) }
    LocalRequest   ::= SEQUENCE { name Name, command ExtendedCommand.command }
    AskRemembered  ::= SEQUENCE { after [0] CertificateId OPTIONAL }
    Remembered     ::= SEQUENCE { certificates SEQUENCE SIZE (0..4096) OF CertificateId }
    Revoked        ::= SEQUENCE { certificates SEQUENCE SIZE (0..4096) OF CertificateId, stop BOOLEAN }
    Digest         ::= OCTET STRING (SIZE (32))

A path is written as the name that stands for the path itself, ``a:b:``. Sender and receiver are of one version, that
of the installation, so there is none in the messages.
"""

from albatross_pki.authorised import (
    MOST_CERTIFICATE_IDS,
    AskRemembered,
    AuthorisedRequest,
    CertificateId,
    ChainPolicy,
    Effect,
    ExecuteRequest,
    Executing,
    JudgeRequest,
    LocalRequest,
    Outcome,
    Remembered,
    Revoked,
    SideMessage,
    Stream,
    Verdict,
)
from albatross_pki.extensions import AnyCommand
from albatross_pki.names import Name, Path
from albatross_pki.wire import der
from albatross_pki.wire.command import COMMAND, COMMAND_KEYS
from albatross_pki.wire.composite import (
    Choice,
    Explicit,
    ListOf,
    OrderedListOf,
    flag,
    nothing,
    optional,
    record,
    required,
    whole,
)
from albatross_pki.wire.der import Codec, Source
from albatross_pki.wire.elements import POLICY
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.extension import EXTENDED, EXTENDED_KEYS, IMAGE_BINDING
from albatross_pki.wire.primitives import (
    FLAG,
    NAME,
    NATURAL,
    OCTETS,
    SHA256,
    TEXT,
    TIME,
    TRUTH,
    Enumerated,
    Integer,
    OctetString,
)
from albatross_pki.wire.tolerance import Form

MOST_CERTIFICATES = 32  # a chain has nine at most; the judge says what is wrong with more
MOST_POLICIES = 32


class _PathText(Codec[Path]):
    """A path, as the name that stands for it."""

    identifiers = NAME.identifiers

    def read(self, source: Source, identifier: int, start: int, stop: int, /) -> Path:
        name = NAME.read(source, identifier, start, stop)
        if not name.is_path:
            raise MalformedMessage(f'"{name}" is not a path')
        return name.path

    def write(self, value: Path, pieces: list[bytes], /) -> int:
        return NAME.write(Name.of_path(value), pieces)


_DIGESTS = OrderedListOf(SHA256, bytes)

_CERTIFICATE_ID = record(CertificateId, required("issuer_key", SHA256), required("serial", Integer(0, 2**160 - 1)))

_CHAIN_POLICY = record(
    ChainPolicy,
    required("path", _PathText()),
    required("policy", POLICY),
    required("certificate", _CERTIFICATE_ID),
    required("not_before", TIME),
    required("not_after", TIME),
)

_ANY_COMMAND = Choice[AnyCommand](
    whole(0, "albatross", COMMAND, *COMMAND_KEYS),
    whole(1, "extended", EXTENDED, *EXTENDED_KEYS),
)

_AUTHORISED = record(
    AuthorisedRequest,
    required("name", NAME),
    required("command", _ANY_COMMAND),
    required("policies", ListOf(_CHAIN_POLICY, MOST_POLICIES)),
    required("leaf", _CERTIFICATE_ID),
    required("not_after", TIME),
    optional("images", Explicit(0, _DIGESTS)),
    optional("deployments", Explicit(1, _DIGESTS)),
    optional("binding", Explicit(2, IMAGE_BINDING)),
    flag("may_get", Explicit(3, FLAG)),
)

_OUTCOME = record(
    Outcome,
    required("succeeded", TRUTH),
    required("effect", Enumerated({0: Effect.NONE, 1: Effect.CHANGED, 2: Effect.UNKNOWN})),
    required("text", TEXT),
)

_JUDGE = record(JudgeRequest, required("peer", TEXT), required("certificates", ListOf(OCTETS, MOST_CERTIFICATES)))

_VERDICT = record(
    Verdict,
    required("name", NAME),
    required("reasons", ListOf(TEXT)),
    required("stream", Enumerated({0: Stream.NOTHING, 1: Stream.IMAGE, 2: Stream.BLOCK, 3: Stream.CRL})),
    required("stream_limit", NATURAL),
    required("answers", Enumerated({0: "single", 1: "read", 2: "dump"})),
)

_EXECUTE = record(ExecuteRequest, required("spooled", NATURAL), required("digest", OctetString(0, 32)))

_LOCAL = record(LocalRequest, required("name", NAME), required("command", EXTENDED))

_CERTIFICATE_IDS = ListOf(_CERTIFICATE_ID, MOST_CERTIFICATE_IDS)

_ASK_REMEMBERED = record(AskRemembered, optional("after", Explicit(0, _CERTIFICATE_ID)))

_REMEMBERED = record(Remembered, required("certificates", _CERTIFICATE_IDS))

_REVOKED = record(Revoked, required("certificates", _CERTIFICATE_IDS), required("stop", TRUTH))

_SIDE = Choice[SideMessage](
    whole(0, "authorised", _AUTHORISED, AuthorisedRequest),
    whole(1, "outcome", _OUTCOME, Outcome),
    whole(2, "judge", _JUDGE, JudgeRequest),
    whole(3, "verdict", _VERDICT, Verdict),
    whole(4, "execute", _EXECUTE, ExecuteRequest),
    nothing(5, "executing", Executing()),
    whole(6, "local", _LOCAL, LocalRequest),
    whole(7, "askRemembered", _ASK_REMEMBERED, AskRemembered),
    whole(8, "remembered", _REMEMBERED, Remembered),
    whole(9, "revoked", _REVOKED, Revoked),
)


def encode_side(message: SideMessage) -> bytes:
    """The DER of a message beside AV5; raises ``MalformedMessage`` for values that have none."""
    return der.encode(_SIDE, message, "side message")


def decode_side(octets: bytes | bytearray | memoryview, forms: set[Form] | None = None) -> SideMessage:
    """Read a message beside AV5; raises ``MalformedMessage``. ``forms`` receives the tolerated forms that were met."""
    return der.decode(_SIDE, octets, "side message", forms)
