"""Every verb explains itself, and every wrong command line ends with 124 and a hint."""

import shlex
import shutil
from pathlib import Path

import click
import pytest

from albatross_pki.ca.cli import _VERBS
from albatross_pki.ca.csr import read_request
from albatross_pki.client.local_cli import program as host_program
from albatross_pki.request.cli import NEVER_IN_A_LEAF
from albatross_pki.request.cli import program as provision_request
from tests.ca.programs import EXAMPLES, Program

GROUPS = ("ledger show", "ledger verify", "ledger reconcile")


@pytest.mark.parametrize("verb", [*_VERBS, *GROUPS])
def test_each_verb_of_the_ca_has_help(ca: Program, verb: str) -> None:
    said = ca(*verb.split(), "--help").out
    assert said.startswith("Usage: albatross-provision-ca")
    assert len(said.splitlines()) > 4


@pytest.mark.parametrize("verb", sorted(provision_request.commands))
def test_each_verb_of_the_request_tool_has_help(ask: Program, verb: str) -> None:
    said = ask(verb, "--help").out
    assert said.startswith("Usage: albatross-provision-request")
    assert "--key-type" in said


@pytest.mark.parametrize(
    "arguments",
    [("sign",), ("sign", "nothing.pem", "db", "key", "csr"), ("generate", "ca"), ("fly",), ("list", "db", "--fly")],
)
def test_what_cannot_be_parsed_ends_with_124(ca: Program, arguments: tuple[str, ...]) -> None:
    said = ca(*arguments, check=False)
    assert said.status == 124
    assert said.err.startswith("error: ")
    assert "\nhint: albatross-provision-ca" in said.err


def test_a_wrong_delegation_is_told_about_the_word_that_was_typed(ask: Program) -> None:
    said = ask("delegation", "../x", "1", check=False)
    assert "invalid value for 'LABEL'" in said.err
    assert "hint: albatross-provision-request delegation --help" in said.err


def examples(said: str) -> list[str]:
    """The lines of a help text that are there to be typed."""
    return [line.strip() for line in said.splitlines() if line.startswith("      albatross-")]


VERBS = sorted(set(provision_request.commands) - set(NEVER_IN_A_LEAF))


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_of_each_verb_makes_a_request_when_typed(ask: Program, workplace: Path, verb: str) -> None:
    shutil.copy(EXAMPLES / "echo-net.spt", "web.spt")
    Path("disk.img").write_bytes(bytes(512))
    (line,) = examples(ask(verb, "--help").out)
    program, *arguments = shlex.split(line)
    assert (program, arguments[0]) == ("albatross-provision-request", verb)
    ask(*arguments)
    (made,) = workplace.glob("*.req")
    read_request(made.read_bytes(), made.name)


@pytest.mark.parametrize("verb", NEVER_IN_A_LEAF)
def test_a_verb_that_no_certificate_carries_says_where_it_belongs(ask: Program, verb: str) -> None:
    (line,) = examples(ask(verb, "--help").out)
    program, word, *arguments = shlex.split(line)
    assert (program, word) == ("albatross-client-local", verb)
    group = host_program()
    assert isinstance(group, click.Group)
    command = group.get_command(click.Context(group), verb)
    assert command is not None
    command.make_context(verb, arguments)
    assert f"\n  {verb} " not in ask("--help").out


@pytest.mark.parametrize("verb", [*(verb for verb in _VERBS if verb != "ledger"), *GROUPS])
def test_the_examples_of_each_verb_of_the_ca_work_when_typed(ca: Program, ask: Program, dev: Path, verb: str) -> None:
    """Where there is a CA ``ca`` with a delegation ``dev`` and a leaf ``hello``, what a verb makes is not there yet."""
    ask("info", "--name=hello")
    ca("sign", "cacert.pem", "db", "ca.key", "hello.req", "--as=leaf")
    ca("crl", "cacert.pem", "db", "ca.key")
    Path("audit.log").touch()
    if verb == "restore":
        ca("backup", "cacert.pem", "db", "ca.key", "ca.backup")
    for made in {"generate": dev.iterdir(), "sign": [Path("dev.pem")]}.get(verb, ()):
        made.unlink()
    lines = [shlex.split(line.partition(" && ")[0]) for line in examples(ca(*verb.split(), "--help").out)]
    own = [arguments for program, *arguments in lines if " ".join(arguments).startswith(verb)]
    assert own
    for arguments in own:
        assert ca(*arguments, check=False).status == (1 if verb == "needs-renewal" else 0), arguments
