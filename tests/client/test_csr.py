"""``albatross-client … --csr``: every command that a certificate can carry becomes a request, and no other does."""

import shutil
from pathlib import Path

import click
import pytest

from albatross_pki.ca.csr import read_request
from albatross_pki.client.cli import program
from albatross_pki.console_script import execute
from albatross_pki.policy.constraints import command_word
from tests.e2e.site import HELLO

# what is typed, and the word and label of what the request then holds
REQUESTS: dict[str, tuple[str, str, str]] = {
    "info": ("info -n web", "info", "web"),
    "get": ("get web", "get", "web"),
    "create": ("create web hello.spt", "create", "web"),
    "destroy": ("destroy web", "destroy", "web"),
    "restart": ("restart web --replace-arguments --mem 16", "restart-arguments", "web"),
    "policy": ("policy", "policy-info", "."),
    "add-policy": ("add-policy dev 1 --mem 32", "policy-add", "dev"),
    "replace-policy": ("replace-policy dev 1 --mem 32", "policy-add", "dev"),
    "block": ("block", "block-info", "."),
    "create-block": ("create-block vol 1", "block-add", "vol"),
    "set-block": ("set-block vol content", "block-set", "vol"),
    "dump-block": ("dump-block vol", "block-dump", "vol"),
    "destroy-block": ("destroy-block vol", "block-remove", "vol"),
    "console": ("console web", "console", "web"),
    "inactive-consoles": ("inactive-consoles", "consoles", "."),
    "stats": ("stats -n web", "stats", "web"),
    "status": ("status", "status", "."),
    "stop": ("stop web", "stop", "web"),
    "start": ("start web", "start", "web"),
    "rollback": ("rollback web", "rollback", "web"),
    "events": ("events", "events", "."),
    "host-info": ("host-info", "host-info", "."),
}
# what no request can be, and what the refusal says
REFUSED = {
    "remove-policy": ("remove-policy -p dev", "a certificate cannot remove a policy"),
    "stats-add": ("stats-add 1", "a certificate cannot add or remove processes"),
    "stats-remove": ("stats-remove", "a certificate cannot add or remove processes"),
    "update": ("update web", "update with CSR not supported"),
    "top": ("top", "top with CSR not supported"),
    "plan": ("plan file.toml", "plan with CSR not supported"),
    "apply": ("apply file.toml", "apply with CSR not supported"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(HELLO, "hello.spt")
    for name in ("content", "file.toml"):
        Path(name).write_text("")
    return tmp_path


def run(line: str) -> int:
    return execute(program(), [*line.split(), "--csr"], "albatross-client")


def test_every_command_with_csr_is_in_one_of_the_tables() -> None:
    group = program()
    assert isinstance(group, click.Group)
    context = click.Context(group)
    commands = {word: group.get_command(context, word) for word in group.list_commands(context)}
    with_csr = {
        word
        for word, command in commands.items()
        if command is not None and any("--csr" in parameter.opts for parameter in command.params)
    }
    assert with_csr == set(REQUESTS) | set(REFUSED)


@pytest.mark.parametrize("word", REQUESTS)
def test_a_request_holds_what_was_typed(word: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line, meaning, label = REQUESTS[word]
    assert run(line) == 0
    (file,) = place.glob("*.req")
    facts = read_request(file.read_bytes(), file.name)
    assert facts.command is not None
    assert (command_word(facts.command), facts.label) == (meaning, label)
    assert capsys.readouterr().out == ""
    (key,) = place.glob("*.key")
    assert (key.stem, key.stat().st_mode & 0o777) == (file.stem, 0o400)
    before = key.read_bytes()
    assert run(line) == 0, "requests are made again"
    assert key.read_bytes() == before, "keys are not"


@pytest.mark.parametrize("word", REFUSED)
def test_p30_what_no_request_can_say_is_refused(word: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line, text = REFUSED[word]
    assert run(line) == 124
    error = capsys.readouterr().err
    assert text in error
    assert "hint: " in error
    assert not [*place.glob("*.req"), *place.glob("*.key")]


def test_p30_a_request_does_not_leave_content_away_in_silence(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("create-block vol 1 --data content") == 124
    assert "hint: ask for 'create-block' without --data, then for 'set-block vol FILE'" in capsys.readouterr().err
    assert not [*place.glob("*.req")]


@pytest.mark.parametrize(
    "words", ["create web nowhere.spt", "info -d localhost", "info --socket x", "create web content"]
)
def test_what_is_refused_makes_no_files(words: str, place: Path) -> None:
    assert run(words) == 124
    assert not [*place.glob("*.req"), *place.glob("*.key")]
