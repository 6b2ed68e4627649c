"""Every command of every client program explains itself, and what it says can be typed."""

import importlib
import shlex
import shutil
from pathlib import Path

import click
import pytest

from albatross_pki.client import explaining
from albatross_pki.client.bistro_cli import program as bistro
from albatross_pki.client.cli import program as client
from albatross_pki.client.dump_cli import program as inspect_dump
from albatross_pki.client.local_cli import program as local
from albatross_pki.client.remote_cli import program as remote_tls
from albatross_pki.client.update_cli import SOMETHING_TO_DO
from albatross_pki.console_script import execute
from tests.e2e.site import HELLO

PROGRAMS = {
    "albatross-client": client,
    "albatross-client-local": local,
    "albatross-client-bistro": bistro,
    "albatross-client-remote-tls": remote_tls,
    "albatross-client-inspect-dump": inspect_dump,
}
OTHERS = {"albatross-provision-ca": "albatross_pki.ca.cli:provision_ca"}
GROUPS = ("albatross-client", "albatross-client-local", "albatross-client-bistro")
ELSEWHERE = ("generate", "sign")  # they are explained where they are at home


def words(program: str) -> list[str]:
    command = PROGRAMS[program]()
    return command.list_commands(click.Context(command)) if isinstance(command, click.Group) else []


COMMANDS = [(program, word) for program in PROGRAMS for word in words(program)]
ALONE = [(program, "") for program in PROGRAMS]


def help_of(program: str, word: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert execute(PROGRAMS[program](), [*([word] if word else []), "--help"], program) == 0
    return capsys.readouterr().out.splitlines()


def section(lines: list[str], title: str) -> list[str]:
    """The lines of one part of a help page."""
    at = lines.index(f"  {title}") + 1
    end = next((number for number in range(at, len(lines)) if not lines[number].strip()), len(lines))
    return [line.strip() for line in lines[at:end]]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with every file that an example names."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(HELLO, "web.hvt")
    for name in ("disk.img", "web.toml", "web.pem", "web.key", "cacert.pem", "dev.req", "ca.key", "state.bak"):
        Path(name).touch()
    (tmp_path / "hosts.toml").write_text('[hosts.blue]\ndestination = "blue.example"\n')
    monkeypatch.setenv("ALBATROSS_CONFIG", str(tmp_path / "hosts.toml"))
    return tmp_path


def parse(line: str) -> None:
    """Parse what stands in a help page, without doing it."""
    program, *arguments = shlex.split(line)
    if program in OTHERS:
        module, _, name = OTHERS[program].partition(":")
        command = getattr(importlib.import_module(module), name)
    else:
        command = PROGRAMS[program]()
    context = command.make_context(program, arguments)
    if isinstance(command, click.Group):
        word, found, rest = command.resolve_command(context, arguments)
        assert found is not None
        found.make_context(word, rest, parent=context)


@pytest.mark.parametrize(("program", "word"), [*COMMANDS, *ALONE])
def test_every_command_shows_examples_that_can_be_typed(
    program: str, word: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = help_of(program, word, capsys)
    if word in ELSEWHERE:
        shown = [line.strip() for line in lines if line.startswith("      albatross-")]
    else:
        shown = section(lines, "EXAMPLES")
        assert all(line.startswith(f"{program} {word}".rstrip()) for line in shown)
    assert shown
    for line in shown:
        parse(line)


@pytest.mark.parametrize(("program", "word"), [each for each in COMMANDS if each[1] not in ELSEWHERE])
def test_every_command_tells_its_arguments_and_its_exit_codes(
    program: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = help_of(program, word, capsys)
    usage = " ".join(lines[: lines.index("")]).replace("[OPTIONS]", "").split()[3:]
    told = section(lines, "POSITIONAL ARGUMENTS") if usage else []
    assert [line.split()[0] for line in told] == usage
    codes = section(lines, "EXIT CODES")
    assert codes[0].startswith("0 ")
    assert any(code.startswith("124 ") for code in codes)
    assert codes[-1].startswith("124 " if word in explaining.NO_HOST else "130 ")


def test_a_command_with_a_special_exit_code_tells_it(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("plan", "update"):
        assert section(help_of("albatross-client", word, capsys), "EXIT CODES")[1].startswith(f"{SOMETHING_TO_DO} ")


def test_no_example_is_of_a_command_that_is_not_there() -> None:
    known = {word for _, word in COMMANDS} | set(PROGRAMS)
    assert sorted(set(explaining.EXAMPLES) - known) == []
