"""``albatross-host crl reset`` where the authoriser's user, or whoever has it, has put something in the way."""

import os
import socket
from pathlib import Path

import pytest

from albatross_pki.console_script import execute
from albatross_pki.host.host_cli import program


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # short names: sockets are bound here
    for inside in ("authorise", "run/util"):
        (tmp_path / "host" / inside).mkdir(parents=True)
    return tmp_path / "host"


def reset() -> int:
    return execute(program, ("crl", "reset", "host"), "albatross-host")


def test_without_an_authoriser_it_is_for_the_next_start(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert reset() == 0
        assert "are forgotten when albatross-authorise starts" in capsys.readouterr().out
    assert (host / "authorise" / "crl-reset").stat().st_mode & 0o777 == 0o600


def test_p19_a_link_is_not_followed_and_a_fifo_not_waited_for(host: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = host / "authorise" / "crl-reset"
    asked.symlink_to(host / "victim")
    assert reset() == 124
    assert "crl-reset: too many levels of symbolic links" in capsys.readouterr().err
    assert not (host / "victim").exists()
    asked.unlink()
    os.mkfifo(asked)
    assert reset() == 124
    assert "crl-reset: no such device or address" in capsys.readouterr().err


def test_p05_an_authoriser_that_takes_no_connection_is_not_waited_for(
    host: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket(socket.AF_UNIX) as stalled, socket.socket(socket.AF_UNIX) as waiting:
        stalled.bind("host/run/util/authorise.sock")
        stalled.listen(0)
        waiting.connect("host/run/util/authorise.sock")
        assert reset() == 124
    assert capsys.readouterr().err == (
        "error: albatross-authorise takes no connection, and has not been told\n"
        "hint: it does it at its next start, or at SIGHUP\n"
    )
