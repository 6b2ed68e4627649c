"""Whatever a file holds, what comes out is an answer or an error of ours."""

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from albatross_pki.ca.certify import certify
from albatross_pki.ca.cli_sign import output_name, plan_words
from albatross_pki.ca.csr import RequestFacts, read_request
from albatross_pki.ca.inspection import inspect_file, lines
from albatross_pki.ca.issuer import Issuer, assemble
from albatross_pki.ca.ledger import Issued, Ledger, LedgerView, ledger_path
from albatross_pki.ca.plan import Terms, make_plan
from albatross_pki.ca.tokens import parse_uri
from albatross_pki.commands import PolicyAdd, UnikernelCreate, UnikernelDestroy, UnikernelInfoRequest
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.extensions import COMMAND_WORDS, Constraints, ImageBinding
from albatross_pki.journal.log import Journal, verify
from albatross_pki.keys import generate_key
from albatross_pki.pem import read_blocks
from albatross_pki.policies import Policy
from albatross_pki.policy.roles import Dialect, Role
from albatross_pki.request.csr import Wanted, make_request
from albatross_pki.unikernels import Settings, UnikernelConfig
from fuzz.claims import signed_request
from fuzz.corpus import seeds
from fuzz.mutation import mutate
from tests.ca.programs import Program
from tests.pki_builder import NOW, Authority, policy

VECTORS = Path(__file__).parent.parent / "vectors"
KEY = generate_key()
SEEDS = [
    block.der
    for name in ("alice.req", "bob.pem", "leaf/create.req", "leaf/create-full.pem", "leaf/console-since.req")
    for block in read_blocks((VECTORS / "pki" / "ed25519" / name).read_bytes(), name)
] + [(VECTORS / "state" / "full.der").read_bytes()]


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    octets = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(octets) - 1))
        octets[place] = draw(st.integers(0, 255))
    return bytes(octets[: draw(st.integers(1, len(octets)))] if draw(st.booleans()) else octets)


@given(mutations())
@settings(max_examples=300)
def test_files_of_strangers_are_read_or_refused(octets: bytes) -> None:
    for read in (
        lambda: read_request(octets, "x"),
        lambda: [list(lines(document)) for document in inspect_file(octets, "x")],
        lambda: assemble([octets], KEY, "x"),
    ):
        with contextlib.suppress(AlbatrossError):
            read()


@given(st.text())
def test_token_uris_are_read_or_refused(text: str) -> None:
    for uri in (text, f"pkcs11:{text}", f"pkcs11:object=a;{text}?{text}"):
        with contextlib.suppress(AlbatrossError):
            parse_uri(uri)


@pytest.fixture
def ledger_octets(tmp_path: Path) -> bytes:
    """A ledger with one certificate."""
    database = str(tmp_path / "db")
    with Ledger.open(database, now=datetime.now(UTC)) as ledger:
        ledger.record_issued([Issued(*("ab" * 16,) * 12)])
    return Path(ledger_path(database)).read_bytes()


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=3), st.booleans())
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_ledger_is_read_or_refused(
    tmp_path: Path, ledger_octets: bytes, place: int, octets: bytes, cut: bool
) -> None:
    path, content = tmp_path / "damaged", ledger_octets
    place %= len(content)
    path.write_bytes(content[:place] + octets + (b"" if cut else content[place + len(octets) :]))
    with contextlib.suppress(AlbatrossError):
        LedgerView.read(str(path))
    with contextlib.suppress(AlbatrossError):
        verify(str(path))
    with contextlib.suppress(AlbatrossError):
        Journal.open(str(path)).close()


ROOT = Authority.root()
WORDS = st.frozensets(st.sampled_from(sorted(COMMAND_WORDS)), max_size=4)
CONSTRAINTS = st.builds(
    Constraints,
    commands=st.none() | WORDS,
    names=st.none() | st.frozensets(st.sampled_from(["web", "web*", "mail", "*"]), max_size=2),
    hosts=st.none() | st.frozensets(st.sampled_from(["a.example", "b.example"]), max_size=2),
    once=st.booleans(),
).filter(lambda constraints: constraints != Constraints())
POLICIES = st.builds(
    Policy,
    cpuids=st.frozensets(st.integers(0, 2), max_size=2),
    unikernels=st.integers(0, 3),
    memory_mb=st.integers(10, 100),
    block_mb=st.none() | st.integers(0, 3),
)


@pytest.mark.parametrize("kind", ["delegation", "leaf"])
@given(above=st.none() | CONSTRAINTS, asked=st.none() | CONSTRAINTS, wanted=POLICIES, change=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_decision_is_the_same_with_and_without_the_root(
    kind: str, above: Constraints | None, asked: Constraints | None, wanted: Policy, change: bool
) -> None:
    """What a developer may sign does not depend on whether ``cacert.pem`` lies beside the bundle."""
    dev = ROOT.delegate("dev", policy(unikernels=2, memory_mb=64), constraints=above, path_length=None)
    command = PolicyAdd(wanted) if kind == "delegation" else UnikernelDestroy() if change else UnikernelInfoRequest()
    request = RequestFacts(b"", "web", KEY.public_key(), command=command, constraints=asked)
    outcomes: list[tuple[str, ...]] = []
    for roots in ([], [ROOT.der]):
        issuer = assemble(dev.ders, dev.key, "dev", roots)
        try:
            plan = make_plan(request, issuer, Terms(Role(kind)), NOW)
            certify(plan, issuer, now=NOW)
            outcomes.append(())
        except Refused as refused:
            outcomes.append(refused.reasons)
    assert outcomes[0] == outcomes[1]


def signing(request: bytes, role: str, ca: Program) -> str:
    Path("x.req").write_bytes(request)
    return ca("sign", "cacert.pem", "db", "ca.key", "x.req", f"--as={role}", "--output=x.pem", "--force").err


def test_a_long_list_does_not_hide_what_stands_around_it(ca: Program, workplace: Path) -> None:
    ca("generate", "ca", "db")
    bridges = frozenset(f"br{number:05}" for number in range(5000))
    command = PolicyAdd(Policy(frozenset(range(200)), 2, 64, None, bridges))
    said = signing(make_request(Wanted("dev", command), generate_key()), "delegation", ca).splitlines()
    assert len("".join(said)) < 4000
    assert said[0] == 'signing delegation dev below "ca"'
    assert said[1].startswith("  delegation of 2 unikernels, cpu 0 1 2 ")
    assert " 99 … and 100 more, 64 MB memory, no block storage, bridges br00000 " in said[1]
    assert said[1].endswith(" br00099 … and 4900 more")


def test_an_argument_cannot_end_its_quotes(ca: Program, workplace: Path) -> None:
    ca("generate", "ca", "db")
    command = UnikernelCreate(UnikernelConfig(b"", Settings(arguments=("--a' '--b", "c\\", "\x1b[2J", ""))))
    wanted = Wanted("hello", command, binding=ImageBinding(bytes(32), 5))
    said = signing(make_request(wanted, generate_key()), "leaf", ca)
    assert "\n  arguments '--a\\' \\'--b' 'c\\\\' '\\x1b[2J' ''\n" in said


ROOT = Authority.root()
TEAM = ROOT.delegate("team", policy(100, 4096, range(8), 1000, ("service", "internal")), path_length=2)
CI = ROOT.permit("ci", Constraints(commands=frozenset({"info", "create"}), names=frozenset({"h*"})))
SIGNERS = [
    assemble([ROOT.der], ROOT.key, "root"),
    assemble(TEAM.ders, TEAM.key, "team", [ROOT.der]),
    assemble(CI.ders, CI.key, "ci", [ROOT.der]),
]


@settings(max_examples=150)
@given(st.data(), st.integers(0, 2**32), st.sampled_from(SIGNERS), st.sampled_from(Dialect), st.binary(min_size=1))
def test_what_a_stranger_asks_for_is_refused_or_becomes_what_a_server_takes(
    draw: st.DataObject, seed: int, signer: Issuer, dialect: Dialect, junk: bytes
) -> None:
    """In every role: words and file names that can be shown, and no refusal but one with its reason."""
    octets = mutate(
        draw.draw(st.sampled_from(seeds("requests"))), 1 << 16, seed, lambda content, _: content[:-1] + junk
    )
    with contextlib.suppress(AlbatrossError):
        request = read_request(signed_request(octets), "x.req")
        for role in (Role.DELEGATION, Role.LEAF, Role.SERVER):
            with contextlib.suppress(Refused):
                plan = make_plan(request, signer, Terms(role, dialect, unbound=True), NOW)
                assert all(line.isprintable() for line in plan_words(plan, request, signer))
                assert "/" not in output_name(plan)
                certified = certify(plan, signer, now=NOW)
                assert certified.judgement is None or certified.judgement.accepted
