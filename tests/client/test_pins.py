"""Servers without a name: who is asked, what is kept, and that a change is never waved through."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from albatross_pki.client.files import BadFile
from albatross_pki.client.pins import keep_pin, known_pin, pins_path
from albatross_pki.replies import Unikernels
from tests.client.peers import TlsServer, said
from tests.pki_builder import Authority, policy

ONE, TWO = bytes(32), bytes(range(32))


def test_a_pin_that_is_kept_is_known_again(tmp_path: Path) -> None:
    file = tmp_path / "config" / "pins"
    assert known_pin("host", 1025, str(file)) is None
    keep_pin("Host", 1025, ONE, str(file))
    keep_pin("::1", 1025, TWO, str(file))
    assert (known_pin("host", 1025, str(file)), known_pin("::1", 1025, str(file))) == (ONE, TWO)
    assert known_pin("host", 1026, str(file)) is None
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_that_people_write(tmp_path: Path) -> None:
    file = tmp_path / "pins"
    file.write_text(f"# our servers\n\nhost:1025   {TWO.hex(':').upper()}")
    assert known_pin("host", 1025, str(file)) == TWO
    keep_pin("other", 1, ONE, str(file))
    assert known_pin("other", 1, str(file)) == ONE
    assert file.read_text().startswith("# our servers\n")


@pytest.mark.parametrize("line", ["host:1025", "host:1025 abc", f"host {ONE.hex()}", f"host:1 {ONE.hex()}00"])
def test_a_line_that_is_no_pin_is_refused_whoever_it_is_about(tmp_path: Path, line: str) -> None:
    file = tmp_path / "pins"
    file.write_text(line + "\n")
    with pytest.raises(BadFile, match="not a pin"):
        known_pin("another", 1025, str(file))


def test_where_pins_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    assert pins_path() == "/config/albatross/pins"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert pins_path() == "/home/me/.config/albatross/pins"


def at_a_terminal(directory: Path, port: int, answer: str) -> tuple[int, str]:
    """Exit status and screen of an ``info`` at a pseudo-terminal whose user types ``answer``."""
    controller, terminal = pty.openpty()
    program = "from albatross_pki.client.bistro_cli import main; main()"
    os.write(controller, answer.encode() + b"\n")
    with subprocess.Popen(
        [sys.executable, "-c", program, "info", "-d", f"localhost:{port}"],
        cwd=directory,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"XDG_CONFIG_HOME": str(directory), "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        os.close(terminal)
        status = process.wait(30)
    screen = os.read(controller, 1 << 16).decode()
    os.close(controller)
    return status, screen


def test_p15_a_person_is_asked_once_and_never_about_a_change(tmp_path: Path) -> None:
    root = Authority.root()
    dev = root.delegate("dev", policy())
    for name, content in (("ca.pem", dev.chain_pem), ("ca.key", dev.key_pem), ("cacert.pem", root.pem)):
        (tmp_path / name).write_bytes(content)
    first, second = root.server(names=[]), root.server(names=[])
    with TlsServer(tmp_path, first, root.pem, [], *[said(Unikernels(()))] * 2) as peer:
        status, screen = at_a_terminal(tmp_path, peer.port, "n")
        assert (status, first.facts.digest.hex() in screen) == (120, True)
        assert not (tmp_path / "albatross").exists()
        status, screen = at_a_terminal(tmp_path, peer.port, "y")
        assert (status, "no unikernels" in screen) == (0, True), screen
        assert known_pin("localhost", peer.port, str(tmp_path / "albatross" / "pins")) == first.facts.digest
        status, screen = at_a_terminal(tmp_path, peer.port, "")
        assert (status, "[y/N]" in screen) == (0, False)
    pins = tmp_path / "albatross" / "pins"
    with TlsServer(tmp_path, second, root.pem, []) as peer:
        pins.write_text(f"localhost:{peer.port} {first.facts.digest.hex()}\n")
        status, screen = at_a_terminal(tmp_path, peer.port, "y")
        assert (status, "and not the one pinned" in screen.replace("\r\n", " "), "[y/N]" in screen) == (
            120,
            True,
            False,
        )


def test_a_pin_that_cannot_be_kept_is_a_warning(tmp_path: Path) -> None:
    """The person has said that it is the server."""
    root = Authority.root()
    dev = root.delegate("dev", policy())
    for name, content in (("ca.pem", dev.chain_pem), ("ca.key", dev.key_pem), ("cacert.pem", root.pem)):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "albatross").write_text("no directory, to root neither\n")
    with TlsServer(tmp_path, root.server(names=[]), root.pem, said(Unikernels(()))) as peer:
        status, screen = at_a_terminal(tmp_path, peer.port, "y")
    assert (status, "no unikernels" in screen) == (0, True), screen
    assert f"warning: the pin cannot be kept: {tmp_path / 'albatross'}: file exists" in screen
