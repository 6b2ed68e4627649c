"""Judging: chains, revocation lists, admission. Nothing but processor time.

* a chain of root, two delegations and a leaf, read and judged, against verifying its signatures alone;
* the same with a revocation list of 100,000 entries of the root, against the same without any;
* admission to a tree of 100,000 unikernels against admission to one of 10.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from time import process_time

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from albatross_pki.commands import PolicyAdd, UnikernelInfoRequest
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.policy.certificates import read_certificate
from albatross_pki.policy.chain import JudgeOptions, judge_bundle, read_anchors
from albatross_pki.policy.profiles import (
    Extensions,
    delegation_extensions,
    key_identifier,
    leaf_extensions,
    root_extensions,
)
from albatross_pki.policy.revocation import Revocations, read_crl
from albatross_pki.policy.roles import Dialect
from albatross_pki.policy.tree import ResourceTree
from albatross_pki.unikernels import Settings
from bench.measure import Row, compare

MANY, FEW = 100_000, 10
REPEAT = 200
NOW = datetime.now(UTC).replace(microsecond=0)
POLICY = Policy(frozenset({0, 1}), 1 << 40, 1 << 40, None, frozenset())


def seconds(action: Callable[[], None]) -> Callable[[], float]:
    """``action`` as a measurement of the seconds of processor time that it takes."""

    def measured() -> float:
        begin = process_time()
        action()
        return process_time() - begin

    return measured


def rows() -> Iterator[Row]:
    yield from chain_rows()
    yield admission_row()


def chain_rows() -> Iterator[Row]:
    keys = [Ed25519PrivateKey.generate() for _ in range(4)]
    chain = _chain(keys)
    ders = [certificate.public_bytes(Encoding.DER) for certificate in reversed(chain[1:])]
    anchors = read_anchors([chain[0].public_bytes(Encoding.DER)])

    def judging(options: JudgeOptions) -> Callable[[], None]:
        def judged() -> None:
            for _ in range(REPEAT):
                if not judge_bundle(ders, anchors, now=NOW, options=options).accepted:
                    raise RuntimeError("the chain of the bench is refused")

        return judged

    def verifying() -> None:
        for _ in range(REPEAT):
            chain[0].verify_directly_issued_by(chain[0])
            for above, below in pairwise(chain):
                below.verify_directly_issued_by(above)

    plain = seconds(judging(JudgeOptions()))
    name = f"judging {REPEAT} chains of four"
    yield compare(name, plain, "their signatures alone", seconds(verifying))
    listed = seconds(judging(JudgeOptions(revocations=_list(chain[0], keys[0]))))
    yield compare(f"{name}, with a list of {MANY:,}", listed, "without", plain, at_most=1.25)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _chain(keys: list[Ed25519PrivateKey]) -> list[x509.Certificate]:
    """Root, delegation ``dev``, delegation ``sub``, leaf ``hello``."""
    native = Dialect.NATIVE
    publics = [key.public_key() for key in keys]
    extensions: list[Extensions] = [root_extensions(native, publics[0])]
    for place in (1, 2):
        above = key_identifier(publics[place - 1])
        extensions.append(
            delegation_extensions(native, publics[place], above, PolicyAdd(POLICY).policy, None, 5 - place)
        )
    above = key_identifier(publics[2])
    extensions.append(leaf_extensions(native, publics[3], above, UnikernelInfoRequest(), None, None))
    labels = ["ca", "dev", "sub", "hello"]
    return [
        _certificate(labels[place], labels[max(0, place - 1)], keys[place], keys[max(0, place - 1)], extensions[place])
        for place in range(4)
    ]


def _certificate(
    subject: str, issuer: str, key: Ed25519PrivateKey, signer: Ed25519PrivateKey, extensions: Extensions
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(hours=1))
        .not_valid_after(NOW + timedelta(days=1))
    )
    for extension in extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(signer, None)


def _list(issuer: x509.Certificate, key: Ed25519PrivateKey) -> Revocations:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(NOW)
        .next_update(NOW + timedelta(days=1))
        .add_extension(x509.CRLNumber(1), critical=False)
    )
    revoked = x509.RevokedCertificateBuilder().revocation_date(NOW)
    # add_revoked_certificate copies what is there already, each time
    builder._revoked_certificates = [revoked.serial_number(2**100 + number).build() for number in range(MANY)]
    crl = read_crl(builder.sign(key, None).public_bytes(Encoding.DER))
    view, reasons = Revocations().accept(crl, read_certificate(issuer.public_bytes(Encoding.DER)), NOW)
    if reasons:
        raise RuntimeError(f"the list of the bench is refused: {reasons}")
    return view


def admission_row() -> Row:
    """One more unikernel, four levels down, admitted and charged and taken out again."""

    def admitting(tree: ResourceTree) -> Callable[[], None]:
        name, settings = Name(Path(("t1", "a", "b", "c")), "new"), Settings()

        def admitted() -> None:
            for _ in range(10 * REPEAT):
                if tree.reserve(name, settings, lambda _: POLICY):
                    raise RuntimeError("the unikernel of the bench is refused")
                tree.remove(name)

        return admitted

    return compare(
        f"{10 * REPEAT:,} admissions to {MANY:,} unikernels",
        seconds(admitting(_tree(MANY))),
        f"to {FEW}",
        seconds(admitting(_tree(FEW))),
        at_most=2,
    )


def _tree(size: int) -> ResourceTree:
    tree, settings = ResourceTree(), Settings()
    for number in range(size):
        tree.add(Name(Path((f"t{number % 100}", "a", "b", "c")), f"u{number}"), settings)
    return tree
