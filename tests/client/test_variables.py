"""Every option of the client programs can stand in the environment."""

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from albatross_pki.ca.csr import read_request
from albatross_pki.client.bistro_cli import program as bistro
from albatross_pki.client.cli import program as client
from albatross_pki.client.local_cli import program as local
from albatross_pki.client.options import ACTS_OF_A_CA
from albatross_pki.client.remote_cli import program as remote_tls
from albatross_pki.client.variables import PREFIX, variable_of
from albatross_pki.commands import PolicyAdd
from albatross_pki.console_script import execute

PROGRAMS: tuple[Callable[[], click.Command], ...] = (client, bistro, local, remote_tls)


def commands(program: click.Command) -> Iterator[click.Command]:
    if not isinstance(program, click.Group):
        yield program
        return
    context = click.Context(program)
    for word in program.list_commands(context):
        command = program.get_command(context, word)
        if command is not None and word not in ACTS_OF_A_CA:
            yield command


def requested(file: Path) -> frozenset[int]:
    """The CPUs of the policy that a request asks for."""
    wanted = read_request(file.read_bytes(), str(file)).command
    assert isinstance(wanted, PolicyAdd)
    return wanted.policy.cpuids


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_option_has_its_variable(program: Callable[[], click.Command]) -> None:
    for command in commands(program()):
        named = {
            option.name: option.envvar
            for option in command.params
            if isinstance(option, click.Option) and option.name != "version"
        }
        assert all(str(variable).startswith(PREFIX) for variable in named.values()), (command.name, named)
        assert len(set(named.values())) == len(named), command.name


def test_variables_are_called_like_options() -> None:
    assert variable_of(click.Option(["-o", "--output", "form"])) == "ALBATROSS_OUTPUT"
    assert variable_of(click.Option(["--ca-key"])) == "ALBATROSS_CA_KEY"


def test_a_variable_is_an_option_and_what_is_typed_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALBATROSS_TMPDIR", str(tmp_path / "variable"))
    assert execute(client(), ["info"], "c") == 122
    assert str(tmp_path / "variable") in capsys.readouterr().err
    assert execute(client(), ["info", "--tmpdir", str(tmp_path / "typed")], "c") == 122
    assert str(tmp_path / "typed") in capsys.readouterr().err
    monkeypatch.setenv("ALBATROSS_OUTPUT", "xml")
    assert execute(client(), ["info"], "c") == 124
    assert "'xml'" in capsys.readouterr().err


def test_repeated_and_flag_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALBATROSS_CPU", "0 1")
    monkeypatch.setenv("ALBATROSS_CSR", "1")
    assert execute(client(), ["add-policy", "dev", "4"], "c") == 0
    assert requested(Path("dev.req")) == frozenset({0, 1})
