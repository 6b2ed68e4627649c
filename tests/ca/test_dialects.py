"""The upstream dialect is upstream's: shown against every certificate and request that its programs made.

Keys, serials, times, signatures and the bits of KeyUsage may differ (DER wants them minimal); nothing else does.
What we refuse to sign although upstream signs it stands in ``REFUSED`` with the reason.
"""

import zlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from albatross_pki.ca.certify import certify
from albatross_pki.ca.csr import RequestFacts, read_request
from albatross_pki.ca.issuer import Issuer, assemble
from albatross_pki.ca.oneshot import issue_oneshot
from albatross_pki.ca.plan import Terms, make_plan
from albatross_pki.ca.root import make_root
from albatross_pki.commands import PolicyAdd, UnikernelCreate
from albatross_pki.errors import Refused
from albatross_pki.extensions import ALBATROSS_OID
from albatross_pki.keys import load_key
from albatross_pki.pem import bundle, certificates
from albatross_pki.policy.certificates import read_certificate
from albatross_pki.policy.roles import Dialect, Role
from tests.ca.programs import Program

VECTORS = Path(__file__).parent.parent / "vectors"
PKI = VECTORS / "pki"
KEY_TYPES = ("ed25519", "mixed", "p256", "p384", "p521", "rsa2048")
WHEN = datetime(2026, 11, 22, tzinfo=UTC)  # the vectors are valid from 2026-11-21 on

REFUSED = {
    "policy-add-path": "invalid label",  # a common name of two labels cannot become part of a path
    "policy-remove": "cannot be in a certificate",  # no server takes it from one
    "stats-add": "cannot be in a certificate",
    "stats-remove": "cannot be in a certificate",
}
REQUESTS = sorted(str(path.relative_to(PKI)) for path in PKI.rglob("*.req"))


def issuers_of(certificate: Path) -> Issuer:
    """Who signed a vector, found by trying the three that can sign."""
    directory = PKI / certificate.relative_to(PKI).parts[0]
    theirs = read_certificate(certificates(certificate.read_bytes(), "vector")[0])
    root = certificates((directory / "cacert.pem").read_bytes(), "root")
    for chain, key in (("cacert.pem", "ca.key"), ("alice.pem", "alice.key"), ("bob.pem", "bob.key")):
        ders = certificates((directory / chain).read_bytes(), chain)
        if read_certificate(ders[0]).subject == theirs.issuer:
            return assemble(ders, load_key((directory / key).read_bytes(), key), chain, root)
    raise AssertionError(f"nobody signed {certificate}")


def extensions_of(der: bytes) -> dict[str, tuple[bool, object]]:
    """Criticality and meaning of each extension; of the Albatross extension, its command."""
    facts = read_certificate(der)
    found: dict[str, tuple[bool, object]] = {}
    for extension in facts.parsed.extensions:
        oid = extension.oid.dotted_string
        found[oid] = (extension.critical, facts.albatross if oid == ALBATROSS_OID else extension.value)
    return found


def sign(request: RequestFacts, issuer: Issuer, role: Role) -> bytes:
    plan = make_plan(request, issuer, Terms(role, Dialect.UPSTREAM, unbound=True), WHEN)
    return certify(plan, issuer, now=WHEN).bundle[0]


@pytest.mark.parametrize("name", REQUESTS)
def test_what_upstream_signs_we_sign_alike(name: str) -> None:
    path = PKI / name
    theirs = certificates(path.with_suffix(".pem").read_bytes(), name)[0]
    request = read_request(path.read_bytes(), name)
    role = Role.DELEGATION if isinstance(request.command, PolicyAdd) else Role.LEAF
    reason = REFUSED.get(path.stem)
    if reason is not None:
        with pytest.raises(Refused, match=reason):
            sign(request, issuers_of(path.with_suffix(".pem")), role)
        return
    ours = sign(request, issuers_of(path.with_suffix(".pem")), role)
    assert extensions_of(ours) == extensions_of(theirs)
    assert list(extensions_of(ours)) == list(extensions_of(theirs)), "in the same order"
    left, right = x509.load_der_x509_certificate(ours), x509.load_der_x509_certificate(theirs)
    assert left.issuer.public_bytes() == right.issuer.public_bytes()
    assert left.subject.public_bytes() == right.subject.public_bytes()
    assert left.public_key() == right.public_key()
    assert left.signature_algorithm_oid == right.signature_algorithm_oid


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_roots_are_alike(key_type: str) -> None:
    directory = PKI / key_type
    theirs = certificates((directory / "cacert.pem").read_bytes(), "root")[0]
    key = load_key((directory / "ca.key").read_bytes(), "ca.key")
    ours, _ = make_root("ca", key, Dialect.UPSTREAM, WHEN - WHEN.replace(day=1), WHEN)
    assert extensions_of(ours) == extensions_of(theirs)
    assert read_certificate(ours).subject == read_certificate(theirs).subject


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_server_certificates_are_alike(key_type: str) -> None:
    directory = PKI / key_type
    theirs = certificates((directory / "server.pem").read_bytes(), "server")[0]
    key = load_key((directory / "server.key").read_bytes(), "server.key")
    ours = sign(RequestFacts(b"", "server", key.public_key()), issuers_of(directory / "server.pem"), Role.SERVER)
    assert extensions_of(ours) == extensions_of(theirs)
    assert read_certificate(ours).subject == read_certificate(theirs).subject


@pytest.mark.parametrize("name", ["bob.pem", "leaf/create-full.bundle.pem", "leaf/destroy.bundle.pem"])
def test_the_bundle_is_the_one_upstream_needs(name: str) -> None:
    """The new certificate, everything above it in order, no root: what had to be put together by hand before."""
    theirs = certificates((PKI / "ed25519" / name).read_bytes(), name)
    stem = name.replace(".bundle", "").removesuffix(".pem")
    request = read_request((PKI / "ed25519" / f"{stem}.req").read_bytes(), stem)
    role = Role.DELEGATION if isinstance(request.command, PolicyAdd) else Role.LEAF
    issuer = issuers_of(PKI / "ed25519" / f"{stem}.pem")
    plan = make_plan(request, issuer, Terms(role, Dialect.UPSTREAM), WHEN)
    assert list(certify(plan, issuer, now=WHEN).bundle[1:]) == theirs[1:]


@pytest.mark.parametrize("name", ["create", "force-create", "destroy", "info-one", "get", "create-full"])
def test_upstreams_requests_are_signed_natively_below_upstreams_delegations(name: str) -> None:
    """The other direction: what its users have goes on being useful."""
    path = PKI / "ed25519" / "leaf" / f"{name}.req"
    issuer = issuers_of(path.with_suffix(".pem"))
    plan = make_plan(read_request(path.read_bytes(), name), issuer, Terms(Role.LEAF), WHEN)
    facts = read_certificate(certify(plan, issuer, now=WHEN).bundle[0])
    assert (facts.constraints is not None and facts.constraints.once) is (name not in ("info-one", "get"))


# one-shot commands: the leaf that is made in memory and thrown away

ONESHOT_REFUSED = {
    "policy-add-root": "for a delegation, which a leaf cannot hold",
    "policy-remove-root": "cannot be in a certificate",
}
ONESHOTS = sorted(path.name.removesuffix(".bundle.pem") for path in (VECTORS / "oneshot").glob("*.bundle.pem"))


@pytest.mark.parametrize("name", ONESHOTS)
def test_a_one_shot_leaf_is_alike(name: str) -> None:
    """Its key is a new one, so its identifier is another; everything else is upstream's, and so is the chain."""
    theirs = certificates((VECTORS / "oneshot" / f"{name}.bundle.pem").read_bytes(), name)
    leaf, above = read_certificate(theirs[0]), [read_certificate(der) for der in theirs[1:]]
    directory = PKI / next((kind for kind in KEY_TYPES if name.startswith(f"{kind}-")), "ed25519")
    key = load_key((directory / f"{above[0].common_name}.key").read_bytes(), "key")
    assert leaf.albatross is not None
    label = leaf.common_name or None
    command = leaf.albatross.command

    def issue() -> bytes:
        chain, _ = issue_oneshot(
            *(bundle(theirs[1:]), key, label, command), dialect=Dialect.UPSTREAM, unbound=True, now=WHEN
        )
        assert chain[1:] == [link.der for link in above if not link.self_issued], "the root is never sent"
        return chain[0]

    if name in ONESHOT_REFUSED:
        with pytest.raises(Refused, match=ONESHOT_REFUSED[name]):
            issue()
        return
    ours = read_certificate(issue())
    assert ours.common_name == (label or "."), "an endpoint refuses the empty name that upstream gives one of them"
    assert (ours.issuer, ours.not_after - ours.not_before) == (leaf.issuer, leaf.not_after - leaf.not_before)
    left, right = extensions_of(ours.der), extensions_of(leaf.der)
    assert list(left) == list(right), "in the same order"
    for own in (left, right):
        assert own.pop(x509.SubjectKeyIdentifier.oid.dotted_string)[0] is False
    assert left == right


# the request tool: the same words typed, the same request


def typed(*arguments: str) -> tuple[str, ...]:
    return arguments


TINY, DEVICES = str(VECTORS / "images/tiny.hvt"), str(VECTORS / "images/tiny-dev.hvt")
FULL = (
    *("--cpu=0", "--cpu=1", "--mem=48", "--arg=--first=1", "--arg=--second=two words", "--block=data:storage@4096"),
    *("--net=service:internal@02:00:00:00:00:01", "--restart-on-fail", "--exit-code=2", "--exit-code=3"),
    *("--startup=5", "--no-add-name", "--compression-level=0"),
)
FULL_RESTART = (
    *("--replace-arguments", "--cpu=0", "--cpu=1", "--mem=40", "--block=data:storage@512", "--no-add-name"),
    *("--net=service:internal@02:00:00:00:00:02", "--exit-code=2", "--restart-on-fail"),
)
ALICE = typed("add-policy", "alice", "4", "--cpu=0", "--cpu=1", "--mem=256", "--block=100", "--bridge=service")
LINES = {
    "alice": (*ALICE, "--bridge=internal"),
    "bob": typed("add_policy", "bob", "2", "--cpu=1", "--mem=64", "--block=10", "--bridge=service"),
    "carol": typed("delegation", "carol", "1", "--cpu=0", "--mem=32"),
    "leaf/info-one": typed("info", "-n", "hello"),
    "leaf/create": typed("create", "hello", TINY, "--cpu=1"),
    "leaf/create-uncompressed": typed("create", "hello", TINY, "--cpu=1", "--compression-level=0"),
    "leaf/create-full": typed("create", "full", DEVICES, *FULL),
    "leaf/create-devdefault": typed("create", "devs", DEVICES, "--block=data", "--net=service", "--restart-on-fail"),
    "leaf/force-create": typed("create", "hello", TINY, "--cpu=1", "--force"),
    "leaf/restart": typed("restart", "hello"),
    "leaf/restart-args": typed(
        *("restart", "hello", "--replace-arguments", "--cpu=1", "--mem=24", "--arg=--again", "--startup=3"),
        "--restart-on-fail",
    ),
    "leaf/restart-args-full": typed("restart", "full", *FULL_RESTART),
    "leaf/destroy": typed("destroy", "hello"),
    "leaf/get": typed("get", "hello"),
    "leaf/get-0": typed("get", "hello", "--compression-level=0"),
    "leaf/policy-info-sub": typed("policy", "--path=bob"),
    "leaf/block-info-one": typed("block", "--name=storage"),
    "leaf/block-create": typed("create-block", "storage", "4"),
    "leaf/block-set": typed("set_block", "storage", TINY),
    "leaf/block-set-0": typed("set-block", "storage", TINY, "--compression-level=0"),
    "leaf/block-dump": typed("dump-block", "storage"),
    "leaf/block-dump-0": typed("dump-block", "storage", "--compression-level=0"),
    "leaf/block-destroy": typed("destroy-block", "storage"),
    "leaf/console-count": typed("console", "hello", "--count=7"),
    "leaf/console-since": typed("console", "hello", "--since=2024-02-29T12:34:56Z"),
    "leaf/console-since-frac": typed("console", "hello", "--since=2024-02-29T12:34:56.789Z"),
    "leaf/stats-subscribe": typed("stats", "-n", "hello"),
}
# what the request tool never writes: others' common names, and commands that no leaf may carry
NOT_OURS = frozenset({"block-create-data", *REFUSED})


def with_plain_image(request: RequestFacts) -> RequestFacts:
    """Two zlib implementations make different streams of one image."""
    if isinstance(request.command, UnikernelCreate) and request.command.config.compressed:
        config = replace(request.command.config, image=zlib.decompress(request.command.config.image))
        return replace(request, command=replace(request.command, config=config))
    return request


@pytest.mark.parametrize(
    "name", [name for name in REQUESTS if Path(name).stem not in NOT_OURS and "colon-" not in name]
)
def test_the_same_words_make_the_same_request(name: str, ask: Program) -> None:
    path = PKI / name
    words = LINES[str(Path(*Path(name).parts[1:]).with_suffix(""))]
    made = ask(*words, "--dialect=upstream", "--key", path.with_suffix(".key"), "-o", "ours.req")
    assert made.out == ""
    theirs, ours = read_request(path.read_bytes(), name), read_request(Path("ours.req").read_bytes(), "ours")
    if with_plain_image(theirs) != theirs:
        assert replace(with_plain_image(ours), der=b"") == replace(with_plain_image(theirs), der=b"")
        return
    information = [x509.load_der_x509_csr(facts.der).tbs_certrequest_bytes for facts in (ours, theirs)]
    assert information[0] == information[1]


def test_every_request_of_the_vectors_is_accounted_for() -> None:
    stems = {str(Path(*Path(name).parts[1:]).with_suffix("")) for name in REQUESTS}
    others = {stem for stem in stems if Path(stem).name in NOT_OURS or "colon-" in stem}
    assert stems - others == set(LINES)
