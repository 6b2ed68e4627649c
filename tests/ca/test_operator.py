"""The operator at the terminal, two operators at once, and what is never written down."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from albatross_pki.ca.certificate import new_serial
from albatross_pki.ca.csr import RequestFacts
from albatross_pki.ca.issue import certify
from albatross_pki.ca.issuer import assemble
from albatross_pki.ca.openssl import openssl_refuses
from albatross_pki.ca.plan import Terms, make_plan
from albatross_pki.commands import UnikernelDestroy
from albatross_pki.errors import Refused
from albatross_pki.journal.log import read_entries
from albatross_pki.keys import generate_key
from albatross_pki.pem import certificates
from albatross_pki.policy.roles import Role
from tests.ca.programs import HELLO, Program
from tests.pki_builder import NOW, Authority, policy

CA = "import sys; sys.path.insert(0, sys.argv.pop(1)); from albatross_pki.ca.cli import main; main()"
ROOT = str(Path(__file__).parent.parent.parent)
SIGN = (sys.executable, "-c", CA, ROOT, "sign", "cacert.pem", "db", "ca.key")


def on_a_terminal(arguments: tuple[str, ...], typed: bytes) -> tuple[int, str]:
    """Run a program on a terminal at which somebody types; its status, and what the terminal showed."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(arguments[0], arguments)
    os.write(terminal, typed)
    shown = b""
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:  # Linux says so when the other side is gone
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()


def test_p17_on_a_terminal_the_operator_is_asked(dev: Path, ask: Program) -> None:
    ask("delegation", "web", 1, "--mem=32")
    status, shown = on_a_terminal((*SIGN, "web.req"), b"leaf\n")
    assert (status, Path("web.pem").exists()) == (124, False), shown
    status, shown = on_a_terminal((*SIGN, "web.req"), b"what?\ndelegation\n")
    assert (status, Path("web.pem").exists()) == (0, True), shown
    assert "sign it as (delegation, leaf, server)" in shown


def test_at_the_end_of_the_terminal_nothing_is_signed(dev: Path, ask: Program) -> None:
    ask("delegation", "web", 1, "--mem=32")
    status, shown = on_a_terminal((*SIGN, "web.req"), b"\x04")
    assert status == 130
    assert "Traceback" not in shown
    assert not Path("web.pem").exists()


def test_two_signings_at_once_see_each_other(dev: Path, ask: Program) -> None:
    """Four requests with one label and four keys, signed at the same moment: one gets it."""
    requests = []
    for number in range(4):
        ask("delegation", "prize", 1, "--mem=32", f"--key={number}.key", "-o", f"{number}.req")
        requests.append((*SIGN, f"{number}.req", "--as=delegation", "-o", f"{number}.pem"))
    running = [subprocess.Popen(request, stderr=subprocess.DEVNULL) for request in requests]
    assert sorted(process.wait() for process in running) == [0, 124, 124, 124]
    labels = [entry["label"] for entry in read_entries("db.ledger") if entry["kind"] == "issued"]
    assert labels.count("prize") == 1


def test_p19_arguments_and_keys_are_not_recorded(dev: Path, ca: Program, ask: Program) -> None:
    ask("create", "web", HELLO, "--arg=--password=hunter2")
    said = ca("sign", "dev.pem", "dev.db", "dev.key", "web.req", "--as=leaf")
    assert "hunter2" in said.err, "who signs must see it"
    recorded = Path("dev.db").read_text() + Path("dev.db.ledger").read_text()
    assert "hunter2" not in recorded
    assert "PRIVATE" not in recorded


def test_a_ledger_that_cannot_be_written_means_nothing_is_signed(dev: Path, ca: Program, ask: Program) -> None:
    ask("info")
    os.mkdir("dev.db.ledger")
    refused = ca("sign", "dev.pem", "dev.db", "dev.key", "path-info.req", "--as=leaf", check=False)
    assert refused.status == 124
    assert refused.errors
    assert not Path("path-info.pem").exists()


@pytest.mark.parametrize("content", [b"hello\n", b'{"n":1}\n[]\n', b'{"n":1,"kind":"issued"}\n', b"\xff\xfe\n"])
def test_a_ledger_that_is_none_means_nothing_is_signed(dev: Path, ca: Program, ask: Program, content: bytes) -> None:
    ask("info")
    Path("dev.db.ledger").write_bytes(content)
    refused = ca("sign", "dev.pem", "dev.db", "dev.key", "path-info.req", "--as=leaf", check=False)
    assert refused.status == 124
    assert not Path("path-info.pem").exists()
    assert Path("dev.db.ledger").read_bytes() == content


def test_the_second_judge_sees_what_is_wrong() -> None:
    root = Authority.root()
    dev = root.delegate("dev", policy())
    assert openssl_refuses(dev.ders, root.der, NOW) is None
    assert openssl_refuses(dev.ders, Authority.root().der, NOW) is not None


def test_serials_are_positive_random_and_short_enough() -> None:
    serials = {new_serial() for _ in range(1000)}
    assert len(serials) == 1000
    assert all(0 < serial < 2**127 and serial.bit_length() == 127 for serial in serials)


def test_an_issuer_finds_its_chain_in_any_order() -> None:
    root = Authority.root()
    one = root.delegate("one", policy(), path_length=None)
    two = one.delegate("two", policy(), path_length=None)
    three = two.delegate("three", policy())
    issuer = assemble([three.der, root.der, one.der, two.der], three.key, "x")
    assert [link.common_name for link in issuer.chain] == ["three", "two", "one"]
    assert issuer.anchor is not None
    assert str(issuer.path) == "one:two:three"
    assert certificates(three.chain_pem, "x") == [three.der, two.der, one.der]


def test_what_the_second_judge_refuses_is_not_signed() -> None:
    root = Authority.root()
    issuer = assemble([root.der], root.key, "x")
    request = RequestFacts(b"", "web", generate_key().public_key(), command=UnikernelDestroy())
    plan = make_plan(request, issuer, Terms(Role.LEAF), NOW)
    certify(plan, issuer, now=NOW, second_judge=openssl_refuses)
    with pytest.raises(Refused, match="OpenSSL refuses the chain: no good"):
        certify(plan, issuer, now=NOW, second_judge=lambda path, anchor, now: "no good")
