"""Every verb explains itself, and every wrong command line ends with 124 and a hint."""

import pytest

from albatross_pki.ca.cli import _VERBS
from albatross_pki.request.cli import program as provision_request
from tests.ca.programs import Program

GROUPS = ("ledger show", "ledger verify", "ledger reconcile")


@pytest.mark.parametrize("verb", [*_VERBS, *GROUPS])
def test_each_verb_of_the_ca_has_help(ca: Program, verb: str) -> None:
    said = ca(*verb.split(), "--help").out
    assert said.startswith("Usage: albatross-provision-ca")
    assert len(said.splitlines()) > 4
    examples = [line for line in said.splitlines() if line.startswith(f"      albatross-provision-ca {verb} ")]
    assert examples or verb == "ledger", "every verb shows a command to type"


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


@pytest.mark.parametrize("verb", ["create", "delegation", "permissions", "server"])
def test_requests_that_need_thought_have_an_example(ask: Program, verb: str) -> None:
    assert f"\n      albatross-provision-request {verb} " in ask(verb, "--help").out
