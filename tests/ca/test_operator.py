"""The operator at the terminal, two operators at once, and what is never written down."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from albatross_pki.ca.certificate import new_serial
from albatross_pki.ca.certify import certify
from albatross_pki.ca.csr import RequestFacts, read_request
from albatross_pki.ca.issuer import assemble
from albatross_pki.ca.openssl import openssl_refuses
from albatross_pki.ca.plan import Terms, make_plan
from albatross_pki.commands import UnikernelDestroy
from albatross_pki.errors import Refused
from albatross_pki.journal.log import read_entries
from albatross_pki.keys import generate_key, key_pem
from albatross_pki.pem import certificates
from albatross_pki.policy.roles import Role
from tests.ca.programs import HELLO, Program, Token
from tests.pki_builder import NOW, Authority, policy

CA = "import sys; sys.path.insert(0, sys.argv.pop(1)); from albatross_pki.ca.cli import main; main()"
ROOT = str(Path(__file__).parent.parent.parent)
ASK = CA.replace("ca.cli", "request.cli")
REQUEST = (sys.executable, "-c", ASK, ROOT)
ROLE = "sign it as (delegation, leaf, server): "
FIRST, AGAIN, PIN = "passphrase for ca.key: ", "once more: ", "PIN for "
SIGN = (sys.executable, "-c", CA, ROOT, "sign", "cacert.pem", "db", "ca.key")


def on_a_terminal(arguments: tuple[str, ...], *answers: tuple[str, bytes]) -> tuple[int, str]:
    """Run a program on a terminal at which somebody answers prompts; its status, and what the terminal showed.

    An answer is typed when its prompt is there: who asks for a passphrase throws away what was typed before.
    """
    child, terminal = pty.fork()
    if child == 0:
        os.execv(arguments[0], arguments)
    shown, waiting, read_to = b"", list(answers), 0
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
            while waiting and (at := shown.find(waiting[0][0].encode(), read_to)) >= 0:
                prompt, typed = waiting.pop(0)
                read_to = at + len(prompt)
                os.write(terminal, typed)
    except OSError:  # Linux says so when the other side is gone
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()


def test_p17_on_a_terminal_the_operator_is_asked(dev: Path, ask: Program) -> None:
    ask("delegation", "web", 1, "--mem=32")
    status, shown = on_a_terminal((*SIGN, "web.req"), (ROLE, b"leaf\n"))
    assert (status, Path("web.pem").exists()) == (124, False), shown
    status, shown = on_a_terminal((*SIGN, "web.req"), (ROLE, b"what?\n"), (ROLE, b"delegation\n"))
    assert (status, Path("web.pem").exists()) == (0, True), shown
    assert shown.count(ROLE) == 2


def test_at_the_end_of_the_terminal_nothing_is_signed(dev: Path, ask: Program) -> None:
    ask("delegation", "web", 1, "--mem=32")
    status, shown = on_a_terminal((*SIGN, "web.req"), (ROLE, b"\x04"))
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


# a key under a passphrase that is typed

GENERATE = (*SIGN[:4], "generate", "ca", "db", "--passphrase")
HORSE = (FIRST, b"correct horse\n")


@pytest.fixture
def protected(workplace: Path, ask: Program) -> Path:
    """A CA whose key is under the passphrase "correct horse", and a request for a delegation ``dev``."""
    status, shown = on_a_terminal(GENERATE, HORSE, (AGAIN, HORSE[1]))
    assert status == 0, shown
    assert "horse" not in shown, "what is typed is not shown"
    assert b"ENCRYPTED" in Path("ca.key").read_bytes()
    ask("delegation", "dev", 1)
    return workplace


def test_a_passphrase_is_asked_for_on_the_terminal(protected: Path, ca: Program) -> None:
    status, shown = on_a_terminal((*SIGN, "dev.req", "--as=delegation"), HORSE)
    assert status == 0, shown
    assert "horse" not in shown
    ca("verify", "dev.pem", "--ca=cacert.pem")
    ca("revoke", "db", "dev")
    crl = (*SIGN[:4], "crl", "cacert.pem", "db", "ca.key")
    assert on_a_terminal(crl, HORSE)[0] == 0
    assert ca("verify", "dev.pem", "--ca=cacert.pem", "--crl=ca.crl", check=False).status == 116


@pytest.mark.parametrize(
    ("typed", "status", "said"),
    [
        (b"battery\n", 124, "error: ca.key: wrong passphrase, or not a private key"),
        (b"\n", 124, "error: ca.key: an empty passphrase is none"),
        (b"\x04", 130, ""),
        (b"\x03", 130, ""),
    ],
    ids=["wrong", "empty", "end", "Ctrl-C"],
)
def test_without_the_passphrase_nothing_is_signed(protected: Path, typed: bytes, status: int, said: str) -> None:
    ledger = Path("db.ledger").read_bytes()
    ended, shown = on_a_terminal((*SIGN, "dev.req", "--as=delegation"), (FIRST, typed))
    assert ended == status, shown
    assert said in shown
    assert "Traceback" not in shown
    assert not Path("dev.pem").exists()
    assert Path("db.ledger").read_bytes() == ledger


@pytest.mark.parametrize("typed", [b"correct hoarse\n", b"\x04", b"\n"], ids=["other", "end", "empty"])
def test_a_passphrase_that_is_not_typed_twice_makes_no_ca(workplace: Path, typed: bytes) -> None:
    status, shown = on_a_terminal(GENERATE, HORSE, (AGAIN, typed))
    assert status in (124, 130), shown
    assert "Traceback" not in shown
    assert list(workplace.iterdir()) == []


def test_a_request_is_made_with_a_protected_key(protected: Path, ca: Program) -> None:
    """The request program asks as well; the new certificate is about that key."""
    request = (*REQUEST, "info", "--name=hello", "--key=ca.key")
    status, shown = on_a_terminal(request, (FIRST, b"battery\n"))
    assert (status, Path("hello.req").exists()) == (124, False), shown
    assert "wrong passphrase" in shown
    status, shown = on_a_terminal(request, HORSE)
    assert status == 0, shown
    assert read_request(Path("hello.req").read_bytes(), "hello.req").label == "hello"


def test_a_pin_is_asked_for_on_the_terminal(workplace: Path, token: Token) -> None:
    Path("import.pem").write_bytes(key_pem(generate_key()))
    token.tool(["--import", "import.pem", "--token", token.label, "--label", "ca", "--id", "01", "--pin", token.pin])
    uri = token.uri("ca").partition("&pin-source")[0]
    generate = (*SIGN[:4], "generate", "ca", "db", "--key", uri)
    status, shown = on_a_terminal(generate, (PIN, b"9999\n"))
    assert (status, Path("cacert.pem").exists()) == (124, False), shown
    assert "the token refuses" in shown
    status, shown = on_a_terminal(generate, (PIN, f"{token.pin}\n".encode()))
    assert (status, Path("cacert.pem").exists()) == (0, True), shown
    assert token.pin not in shown
