"""Options as people shorten them, by cmdliner's rules."""

import contextlib
from collections.abc import Callable

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatross_pki.client.bistro_cli import program as bistro
from albatross_pki.client.cli import program as client
from albatross_pki.client.remote_cli import program as remote_tls
from albatross_pki.console_script import execute
from albatross_pki.option_prefixes import spelled_out

COMMAND = click.Command(
    "c",
    params=[
        click.Option(["--cpu"], multiple=True),
        click.Option(["--cpus"]),
        click.Option(["-d", "--destination"]),
        click.Option(["-f", "--follow/--no-follow"]),
        click.Option(["--ca"]),
        click.Option(["--ca-key"]),
        click.Option(["--arg"], multiple=True),
    ],
)


@pytest.mark.parametrize(
    ("typed", "whole"),
    [
        (["--dest", "h"], ["--destination", "h"]),
        (["--dest=h=1"], ["--destination=h=1"]),
        (["--no-f", "x"], ["--no-follow", "x"]),
        (["--cpu", "1", "--cpu=2"], ["--cpu", "1", "--cpu=2"]),
        (["--ca", "--ca-k"], ["--ca", "--ca-k"]),
        (["-d", "--dest"], ["-d", "--dest"]),
        (["--ar", "--dest", "--ar=--cp"], ["--arg", "--dest", "--arg=--cp"]),
        (["--", "--dest"], ["--", "--dest"]),
        (["--he"], ["--help"]),
        (["--unknown", "--dest", "h"], ["--unknown", "--destination", "h"]),
        (["-", "", "-x"], ["-", "", "-x"]),
        (["--dest"], ["--destination"]),
    ],
)
def test_a_unique_prefix_is_the_option(typed: list[str], whole: list[str]) -> None:
    assert spelled_out(COMMAND, typed) == whole


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        (["--cp", "1"], "option '--cp' ambiguous and could be either '--cpu' or '--cpus'"),
        (["--c"], "option '--c' ambiguous and could be either '--cpu' or '--cpus' or '--ca' or '--ca-key'"),
        (["-d", "a", "--dest", "b"], "option '--destination' cannot be repeated"),
    ],
)
def test_what_could_be_several_is_refused(typed: list[str], text: str) -> None:
    with pytest.raises(click.UsageError, match=text.replace("(", "[(]")):
        spelled_out(COMMAND, typed)


@given(
    st.lists(st.sampled_from(["--cpu", "--ca=x", "-f", "--arg", "--follow", "x", "--", "-d", "--cpu=--ca"]), max_size=8)
)
def test_whole_options_stay_as_they_are(typed: list[str]) -> None:
    with contextlib.suppress(click.UsageError):  # of what comes twice
        assert spelled_out(COMMAND, typed) == typed


@pytest.mark.parametrize("program", [client, bistro])
def test_the_programs_understand_prefixes(
    program: Callable[[], click.Command], capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(program(), ["crea", "--hel"], "p") == 124  # create or create-block
    assert execute(program(), ["info", "--hel"], "p") == 0
    assert "--destination" in capsys.readouterr().out
    assert execute(program(), ["info", "--server", "x"], "p") == 124
    told = capsys.readouterr().err
    assert "option '--server' ambiguous and could be either '--server-ca' or '--server-name'" in told
    assert "hint: p info --help" in told
    assert execute(program(), ["info", "--output", "name", "--out=json"], "p") == 124
    assert "option '--output' cannot be repeated" in capsys.readouterr().err


def test_a_program_of_one_command_understands_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(remote_tls(), ["--hel"], "p") == 0
    assert execute(remote_tls(), ["--server", "x"], "p") in (0, 124)
    assert "Traceback" not in capsys.readouterr().err
