"""The CA: what a certificate costs beyond its signature, and what 100,000 of them cost.

* a leaf through plan, profile and self-check against a bare ``sign()`` of the same key and the same octets; with the
  ledger's write to the disk against one append and fsync(2) of as many octets;
* ``list`` and ``revoke`` as processes in a database of 100,000 certificates, each under one second;
* a revocation list of 100,000 entries: making it, reading it, looking one serial up after that.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from albatross_pki.ca.certify import certify
from albatross_pki.ca.csr import RequestFacts
from albatross_pki.ca.issue import issue
from albatross_pki.ca.issuer import Issuer, assemble
from albatross_pki.ca.ledger import Issued, Ledger, Revoked, ledger_path, write_time
from albatross_pki.ca.plan import Terms, make_plan
from albatross_pki.ca.revocation import make_crl
from albatross_pki.ca.root import make_root
from albatross_pki.commands import PolicyAdd, UnikernelDestroy
from albatross_pki.journal.log import Journal
from albatross_pki.keys import KeyType, PrivateKey, generate_key, signature_hash
from albatross_pki.policies import Policy
from albatross_pki.policy.revocation import read_crl
from albatross_pki.policy.roles import Dialect, Role
from bench.measure import Row, compare, seconds, shown, spread

MANY = 100_000
BATCH = 50
_ISSUED = UnikernelDestroy()


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as directory:
        for kind in (KeyType.ED25519, KeyType.P256, KeyType.RSA2048):
            yield signing_row(_delegation(kind), kind)
        yield ledger_row(_delegation(KeyType.ED25519), directory)
        database = os.path.join(directory, "many.db")
        fill(database)
        yield from process_rows(database)
    yield from crl_rows()


def _delegation(kind: KeyType) -> Issuer:
    """A delegation with a key of this kind, ready to sign leaves."""
    now = datetime.now(UTC)
    root_key, key = generate_key(kind), generate_key(kind)
    root, _ = make_root("ca", root_key, Dialect.NATIVE, timedelta(days=10), now)
    request = RequestFacts(b"", "dev", key.public_key(), command=PolicyAdd(Policy(frozenset({0}), 5, 64)))
    issuer = assemble([root], root_key, "root")
    made = certify(make_plan(request, issuer, Terms(Role.DELEGATION), now), issuer, now=now)
    return assemble(list(made.bundle), key, "dev", [root])


def _bare_signatures(key: PrivateKey) -> Callable[[], None]:
    """``BATCH`` signatures over as many octets as a leaf has."""
    content, algorithm = os.urandom(400), signature_hash(key.public_key())

    def sign() -> None:
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding

        for _ in range(BATCH):
            if isinstance(key, ed25519.Ed25519PrivateKey):
                key.sign(content)
            elif algorithm is not None and isinstance(key, ec.EllipticCurvePrivateKey):
                key.sign(content, ec.ECDSA(algorithm))
            elif algorithm is not None and not isinstance(key, ec.EllipticCurvePrivateKey):
                key.sign(content, padding.PKCS1v15(), algorithm)

    return sign


def _request() -> RequestFacts:
    return RequestFacts(b"", "hello", generate_key().public_key(), command=_ISSUED)


def signing_row(issuer: Issuer, kind: KeyType) -> Row:
    request, terms, now = _request(), Terms(Role.LEAF), datetime.now(UTC)

    def certificates() -> None:
        for _ in range(BATCH):
            certify(make_plan(request, issuer, terms, now), issuer, now=now)

    name = f"{BATCH} leaves signed and judged, {kind.value}"
    return compare(name, seconds(certificates), f"{BATCH} bare sign()", seconds(_bare_signatures(issuer.key)))


def ledger_row(issuer: Issuer, directory: str) -> Row:
    request, terms, now = _request(), Terms(Role.LEAF), datetime.now(UTC)
    database, plain = os.path.join(directory, "one.db"), os.path.join(directory, "plain")

    def issued() -> None:
        with Ledger.open(database, now=now) as ledger:
            issue(request, issuer, terms, ledger, now=now)

    def written() -> None:
        descriptor = os.open(plain, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, bytes(700))
        os.fsync(descriptor)
        os.close(descriptor)

    return compare("a leaf signed and recorded", seconds(issued), "append and fsync", seconds(written), rounds=21)


def fill(database: str) -> None:
    """A ledger of ``MANY`` leaves and delegations, as signing would have written it."""
    now = datetime.now(UTC)
    with Journal.open(ledger_path(database), 0o600) as journal:
        journal.append({"kind": "opened", "time": write_time(now), "format": 1, "dialect": "native"})
        journal.append_all([_entry(number, now).entry() for number in range(MANY)])
    Path(database).write_text("".join(f"{number + 1:032x} web{number}\n" for number in range(MANY)))


def _entry(number: int, now: datetime) -> Issued:
    digest = f"{number:064x}"
    return Issued(
        serial=f"{number + 1:x}",
        issuer="ab" * 32,
        key=digest,
        role="leaf" if number % 10 else "delegation",
        path="dev:",
        label=f"web{number}",
        rights=digest,
        not_before=write_time(now),
        not_after=write_time(now + timedelta(days=number % 400)),
        digest=digest,
        word="force-create",
        time=write_time(now),
    )


def _process(*arguments: str) -> Callable[[], None]:
    program = "from albatross_pki.ca.cli import main; main()"

    def run() -> None:
        subprocess.run(
            [sys.executable, "-c", program, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    return run


def process_rows(database: str) -> Iterator[Row]:
    start = seconds(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
    ledger = Path(ledger_path(database))

    def parse() -> None:
        for line in ledger.read_bytes().splitlines():
            json.loads(line)

    parsed = seconds(parse)
    yield _under(f"list of {MANY:,}", seconds(_process("list", database)), "json.loads of each line", parsed)
    words = ("list", database, "--expiring", "3d", "--json")
    yield _under(f"list --expiring of {MANY:,}", seconds(_process(*words)), "json.loads of each line", parsed)
    serials = iter(range(2, MANY))

    def revoke() -> None:
        _process("revoke", database, f"dev:web{next(serials) * 10 + 1}")()

    yield _under(f"revoke, one name of {MANY:,}", seconds(revoke), "python -c pass", start)


def _under(name: str, ours: Callable[[], float], yardstick: str, theirs: Callable[[], float]) -> Row:
    """A row whose bound is one second."""
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(5)]
    mine, reference = [pair[0] for pair in pairs], median(pair[1] for pair in pairs)
    value = median(mine)
    text = f"{yardstick} {shown(reference, 's')}"
    return Row(name, shown(value, "s"), text, value / reference, "< 1 s", value < 1, spread(mine))


def crl_rows() -> Iterator[Row]:
    issuer, now = _delegation(KeyType.ED25519), datetime.now(UTC)
    time, key = write_time(now), "ab" * 32
    revoked = [Revoked(f"{number + 2**120:x}", key, "superseded", time) for number in range(MANY)]
    made = [make_crl(issuer, revoked, 1, now, timedelta(days=30))]

    def make() -> None:
        made[0] = make_crl(issuer, revoked, 1, now, timedelta(days=30))

    begin = [seconds(make)() for _ in range(3)]
    yield Row(f"CRL of {MANY:,} entries made and judged", shown(median(begin), "s"), spread=None)
    der = made[0].der
    read = [seconds(lambda: read_crl(der))() for _ in range(3)]
    yield Row(f"CRL of {MANY:,} entries read", shown(median(read), "s"), f"{len(der):,} bytes")
    crl, one = read_crl(der), 2**120 + MANY // 2
    small = frozenset({one})

    def look() -> None:
        for _ in range(10_000):
            one in crl.serials  # noqa: B015

    def look_small() -> None:
        for _ in range(10_000):
            one in small  # noqa: B015

    yield compare("10,000 look-ups in that CRL", seconds(look), "in a CRL of one", seconds(look_small), at_most=3)
