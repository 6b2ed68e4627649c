"""What fuzzing starts from: the vectors of the tests, and an example of each message that only we have."""

import hashlib
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from cryptography import x509

from albatross_pki.authorised import (
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
    Stream,
    Verdict,
)
from albatross_pki.commands import UNLIMITED, BlockDump
from albatross_pki.extensions import (
    ALBATROSS_OID,
    Constraints,
    CrlUpdate,
    Events,
    HostInfo,
    ImageBinding,
    Rollback,
    Start,
    Status,
    Stop,
)
from albatross_pki.names import Name
from albatross_pki.names import Path as NamePath
from albatross_pki.pem import certificates
from albatross_pki.policies import Policy
from albatross_pki.wire.configuration import encode_config
from albatross_pki.wire.extension import encode_constraints, encode_extended_command, encode_image_binding
from albatross_pki.wire.framing import END_OF_STREAM, frame
from albatross_pki.wire.side import encode_side
from albatross_pki.wire.state import decode_state_dump
from fuzz.mutation import parse
from tests.pki_builder import Authority

VECTORS = Path(__file__).parent.parent / "tests" / "vectors"
UNIKERNELS = Path(__file__).parent.parent / "examples" / "unikernels"
_NOW = datetime(2026, 1, 31, 23, 59, 59, 123000, UTC)
_DIGEST = bytes(range(32))


@cache
def seeds(entry_point: str) -> list[bytes]:
    """The octets that fuzzing of ``entry_point`` starts from."""
    makers: dict[str, Callable[[], list[bytes]]] = {
        "messages": _messages,
        "certificate_extensions": _certificate_extensions,
        "constraints": _constraints,
        "image_bindings": lambda: [encode_image_binding(ImageBinding(_DIGEST, size)) for size in (1, 1144, 1 << 40)],
        "extended_commands": _extended_commands,
        "state_dumps": _state_dumps,
        "configurations": _configurations,
        "side_messages": _side_messages,
        "framing": lambda: _cut_everywhere(frame(b"abc") + frame(bytes(300)) + END_OF_STREAM, b"\xff\xff\xff\xff"),
        "compression": _compressed,
        "certificates": _certificates,
        "revocation_lists": _revocation_lists,
        "requests": _requests,
        "images": lambda: _all("images/*.hvt") + [file.read_bytes() for file in sorted(UNIKERNELS.glob("*.spt"))],
    }
    return makers[entry_point]()


def write(entry_point: str, directory: Path) -> None:
    """One file per seed, named by its digest."""
    directory.mkdir(parents=True, exist_ok=True)
    for octets in seeds(entry_point):
        (directory / hashlib.sha256(octets).hexdigest()[:20]).write_bytes(octets)


def _all(*patterns: str) -> list[bytes]:
    return [file.read_bytes() for pattern in patterns for file in sorted(VECTORS.glob(pattern))]


def _messages() -> list[bytes]:
    return _all("encoded/wire-*/*.der", "wire/**/*.der", "remote/**/*.der")


def _certificate_extensions() -> list[bytes]:
    return _all("encoded/cert-extension/*.der") + _in_certificates()


def _constraints() -> list[bytes]:
    full = Constraints(
        *(frozenset({"create", "info"}), frozenset({_DIGEST}), frozenset({"web*", "a"})),
        *(frozenset({"host.example", "127.0.0.1"}), frozenset({_DIGEST, bytes(32)})),
        once=True,
    )
    alone = ({name: getattr(full, name)} for name in ("commands", "images", "names", "hosts", "deployments", "once"))
    return [encode_constraints(one) for one in (full, *(Constraints(**fields) for fields in alone))]


def _extended_commands() -> list[bytes]:
    commands = (CrlUpdate(), Events(), Events(_NOW), Rollback(), HostInfo(), Stop(), Start(), Status())
    return [encode_extended_command(command) for command in commands]


def _in_certificates() -> list[bytes]:
    """Albatross' extension in the certificates that upstream made."""
    found = set()
    for pattern in ("pki/*/*.pem", "pki/*/leaf/*.pem", "oneshot/*.pem", "negative/*.pem"):
        for file in VECTORS.glob(pattern):
            for certificate in x509.load_pem_x509_certificates(file.read_bytes()):
                for extension in certificate.extensions:
                    if extension.oid.dotted_string == ALBATROSS_OID:
                        assert isinstance(extension.value, x509.UnrecognizedExtension)
                        found.add(extension.value.value)
    return sorted(found)


def _state_dumps() -> list[bytes]:
    return _all("encoded/state/*.der", "state/*.der")


def _configurations() -> list[bytes]:
    return sorted(
        {encode_config(config) for dump in _state_dumps() for _, config in decode_state_dump(dump).unikernels}
    )


def _side_messages() -> list[bytes]:
    policy = Policy(frozenset({0, 1}), UNLIMITED, 1024, 100, frozenset({"service"}))
    certificate = CertificateId(_DIGEST, 2**79)
    chain = (ChainPolicy(NamePath(("a", "b")), policy, certificate, _NOW, _NOW),)
    digests = frozenset({_DIGEST, bytes(32)})
    return [
        encode_side(one)
        for one in (
            AuthorisedRequest(Name.parse("a:b:c"), BlockDump(9), chain, certificate, _NOW),
            AuthorisedRequest(
                *(Name.parse("a:b:c"), Status(), chain, certificate, _NOW),
                *(digests, digests, ImageBinding(_DIGEST, 7), True),
            ),
            Outcome(True, Effect.CHANGED, "created unikernel"),
            JudgeRequest("192.0.2.1:40000", (b"0\x03\x02\x01\x05", b"")),
            Verdict(Name.parse(":"), ("no", "not at all")),
            Verdict(Name.parse("a:b"), (), Stream.IMAGE, 4096, "dump"),
            ExecuteRequest(0),
            ExecuteRequest(4096, _DIGEST),
            Executing(),
            LocalRequest(Name.parse("a:b:"), Events(_NOW)),
            AskRemembered(CertificateId(_DIGEST, 1)),
            Remembered((CertificateId(_DIGEST, 1), CertificateId(_DIGEST, 2**159))),
            Revoked((CertificateId(_DIGEST, 1),), True),
        )
    ]


def _compressed() -> list[bytes]:
    zipped = [zlib.compress(b"an image" * 50, level) for level in (0, 1, 6, 9)]
    return _cut_everywhere(*zipped, zlib.compress(bytes(1 << 17), 9))


def _cut_everywhere(*streams: bytes) -> list[bytes]:
    return [bytes((cut,)) + octets for cut in (0, 3, 200) for octets in streams]


def _certificates() -> list[bytes]:
    """Those that upstream made, and some of ours with everything that ours have."""
    files = [file.read_bytes() for file in sorted(VECTORS.glob("pki/*/*.pem"))]
    theirs = {der for file in files for der in certificates(file, "vector")}
    dev = Authority.root().delegate("dev", constraints=Constraints(names=frozenset({"web*"}), once=True), path_length=1)
    ours = [dev, dev.leaf("web", Status()), dev.leaf("web", binding=b"image"), dev.server()]
    return sorted(theirs) + [one.der for one in ours]


def _revocation_lists() -> list[bytes]:
    """Good ones, and one of each kind that is not taken."""
    root = Authority.root()
    partition = x509.IssuingDistributionPoint(
        full_name=[x509.UniformResourceIdentifier("http://example/crl")],
        relative_name=None,
        only_contains_user_certs=True,
        only_contains_ca_certs=False,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )
    key_id = x509.AuthorityKeyIdentifier(bytes(20), None, None)
    reasons = (x509.ReasonFlags.key_compromise, x509.ReasonFlags.remove_from_crl)
    return [
        root.crl(),
        root.crl([root.leaf(), 7], 2, add=[(key_id, False)]),
        root.crl(number=None),
        root.crl(add=[(x509.DeltaCRLIndicator(1), True)]),
        root.crl(add=[(partition, True)]),
        *(root.crl([7], entry=[(x509.CRLReason(reason), False)]) for reason in reasons),
    ]


def _requests() -> list[bytes]:
    """Subject and attributes of the requests that upstream made."""
    found = []
    for file in sorted(VECTORS.glob("pki/ed25519/**/*.req")):
        tree = parse(x509.load_pem_x509_csr(file.read_bytes()).tbs_certrequest_bytes)
        tree.parts = [tree.parts[1], tree.parts[3]]
        found.append(tree.encoded())
    return found
