"""Several hosts at once: real processes, servers of the test's own, answers side by side."""

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from albatross_pki.client import several_hosts
from albatross_pki.client.several_hosts import ask_hosts
from albatross_pki.names import Name
from albatross_pki.replies import ConsoleLine, Empty, Failure, Policies, Unikernels
from tests.client.peers import TlsServer, said
from tests.client.test_remote import DEV, ROOT
from tests.client.test_show import DEV_WEB, WEB
from tests.pki_builder import NOW, policy

PROGRAMS = Path(sys.executable).parent
POLICY = said(Policies(((Name.parse("dev:"), policy(unikernels=7)),)))


class Fleet:
    """Named servers, and one command to those of them that are asked for."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory, self._stack = directory, stack
        self._entries = ""
        for name, octets in (("ca.pem", DEV.chain_pem), ("ca.key", DEV.key_pem), ("cacert.pem", ROOT.pem)):
            (directory / name).write_bytes(octets)

    def serve(self, name: str, answer: list[bytes]) -> None:
        place = self._directory / name
        place.mkdir()
        self.name(name, self._stack.enter_context(TlsServer(place, ROOT.server(), ROOT.pem, answer)).port)

    def name(self, name: str, port: int) -> None:
        self._entries += f'[hosts.{name}]\ndestination = "localhost:{port}"\n'

    def run(self, *words: str, program: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        with self.start(*words, program=program) as process:
            out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def start(self, *words: str, program: Sequence[str] = (), stdout: int = subprocess.PIPE) -> "subprocess.Popen[str]":
        (self._directory / "hosts.toml").write_text(self._entries)
        return subprocess.Popen(
            [*(program or [str(PROGRAMS / "albatross-client-bistro")]), *words],
            cwd=self._directory,
            env={"PATH": os.environ["PATH"], "ALBATROSS_CONFIG": "hosts.toml", "HOME": str(self._directory)},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )


def fleet_of(directory: Path, stack: ExitStack, answers: Sequence[tuple[str, list[bytes]]]) -> Fleet:
    fleet = Fleet(directory, stack)
    for name, answer in answers:
        fleet.serve(name, answer)
    return fleet


BOTH = (("blue", POLICY), ("green", POLICY))


def test_tables_stand_under_the_names(tmp_path: Path) -> None:
    with ExitStack() as stack:
        done = fleet_of(tmp_path, stack, BOTH).run("policy", "--host", "green", "--host", "blue")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == ["green:", "blue:"]
    assert sum("7" in line for line in lines) == 2


def test_a_host_that_fails_hides_no_other_and_gives_the_status(tmp_path: Path) -> None:
    with ExitStack() as stack:
        fleet = fleet_of(tmp_path, stack, (("blue", said(Failure("not now"))), ("green", POLICY)))
        done = fleet.run("policy", "--all-hosts", "-o", "json")
    assert done.returncode == 117
    assert done.stderr == "error: blue: not now\n"
    documents = json.loads(done.stdout)
    assert [each["host"] for each in documents] == ["blue", "green"]
    assert (documents[0]["answer"], documents[0]["error"]) == (None, "not now")
    assert (documents[1]["answer"][0]["unikernels"], documents[1]["error"]) == (7, None)


def test_a_host_that_is_not_there(tmp_path: Path) -> None:
    with ExitStack() as stack:
        fleet = fleet_of(tmp_path, stack, (("green", POLICY),))
        fleet.name("gone", 1)
        done = fleet.run("policy", "--host", "green", "--host", "gone", "--host", "unknown", "-o", "name")
    assert done.returncode == 122
    assert done.stdout == "green dev\n"
    assert "error: gone: " in done.stderr
    assert "error: unknown: there is no host 'unknown'" in done.stderr


def test_lines_of_consoles_come_with_their_hosts(tmp_path: Path) -> None:
    with ExitStack() as stack:
        answers = [(name, said(Empty(), ConsoleLine(NOW, name.encode()))) for name in ("blue", "green")]
        fleet = fleet_of(tmp_path, stack, answers)
        done = fleet.run("console", "a", "--lines", "1", "--all-hosts")
    assert done.returncode == 0, done.stderr
    assert sorted(line.split()[0] + line.split()[-1] for line in done.stdout.splitlines()) == ["blueblue", "greengreen"]


def test_documents_of_streams_say_their_host(tmp_path: Path) -> None:
    with ExitStack() as stack:
        answers = [(name, said(Empty(), ConsoleLine(NOW, b"x"))) for name in ("blue", "green")]
        done = fleet_of(tmp_path, stack, answers).run("console", "a", "--lines", "1", "--all-hosts", "-o", "json")
    assert sorted(json.loads(line)["host"] for line in done.stdout.splitlines()) == ["blue", "green"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("destroy", "a"), "error: destroy is for one host at a time"),
        (("get", "a"), "error: get is for one host at a time"),
        (("info", "-d", "localhost:1"), "error: --destination and several hosts exclude each other"),
        (("info", "--output", "xml"), "error: invalid value for '-o'"),
    ],
)
def test_what_is_not_for_several_hosts_is_refused_once(words: tuple[str, ...], text: str, tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, ExitStack())
    fleet.name("blue", 1)
    fleet.name("green", 1)
    done = fleet.run(*words, "--host", "blue", "--host", "green")
    assert done.returncode == 124
    assert done.stderr.count("error: ") == 1
    assert done.stderr.startswith(text)


def test_no_host_at_all(tmp_path: Path) -> None:
    done = Fleet(tmp_path, ExitStack()).run("info", "--all-hosts")
    assert (done.returncode, done.stderr) == (124, "error: no host is named in hosts.toml\n")


def test_ctrl_c_ends_every_process(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        fleet = Fleet(tmp_path, ExitStack())
        for name in ("blue", "green"):
            fleet.name(name, int(silent.getsockname()[1]))
        with fleet.start("info", "--all-hosts") as process:
            connections = [silent.accept()[0] for _ in range(2)]
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        for connection in connections:
            connection.settimeout(20)
            while connection.recv(1 << 16):
                pass  # the hello; then its process is gone
            connection.close()


LOADED_BY_EACH = """
import sys
from albatross_pki.client import several_hosts
be_one = several_hosts._be_one
def be_one_and_tell(name, *how):
    before = set(sys.modules)
    status = be_one(name, *how)
    print("loaded:", *sorted(set(sys.modules) - before), file=sys.stderr, flush=True)
    return status
several_hosts._be_one = be_one_and_tell
from albatross_pki.client.bistro_cli import main
main()
"""


def test_what_all_hosts_need_is_loaded_once(tmp_path: Path) -> None:
    with ExitStack() as stack:
        fleet = fleet_of(tmp_path, stack, [("red", POLICY), ("blue", POLICY)])
        done = fleet.run("policy", "--all-hosts", program=(sys.executable, "-c", LOADED_BY_EACH))
    assert (done.returncode, done.stderr.split("\n")) == (0, ["loaded:", "loaded:", ""])


def test_a_document_that_was_cut_ends_nobody_else(capfd: pytest.CaptureFixture[str]) -> None:
    def ask(name: str) -> int:
        sys.stdout.write('{"line": "x"}\n' + ('{"li' if name == "cut" else ""))
        return 137 if name == "cut" else 0

    assert ask_hosts(["cut", "whole"], "console", {"form": "json"}, ask) == 137
    out, err = capfd.readouterr()
    documents = sorted(json.loads(line)["host"] for line in out.splitlines())
    assert documents == ["cut", "whole"]
    assert err == "error: cut: its last line is not whole\n"


def test_who_is_not_there_is_told_while_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one ends only when that was told."""
    heard, told = os.pipe()
    monkeypatch.setattr(several_hosts, "_tell", lambda name, line: os.write(told, f"{name} {line}".encode()))

    def ask(name: str) -> int:
        if name == "down":
            sys.stderr.write("error: connection refused\n")
            return 122
        ready, _, _ = select.select([heard], [], [], 20)
        return 0 if ready else 1

    with ExitStack() as stack:
        for each in (heard, told):
            stack.callback(os.close, each)
        assert ask_hosts(["up", "down"], "stats", {"form": "table"}, ask) == 122
        assert os.read(heard, 100) == b"down error: connection refused"


def test_on_a_terminal_answers_are_as_a_terminal_has_them(tmp_path: Path) -> None:
    """Relative times, and no line wider than the terminal, although each host's process writes into a pipe."""
    running = said(Unikernels(((DEV_WEB, WEB),)))
    with ExitStack() as stack:
        fleet = fleet_of(tmp_path, stack, (("blue", running), ("green", running)))
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 110, 0, 0))
        with fleet.start("info", "--all-hosts", stdout=theirs) as process:
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # EIO is the end of a terminal
                while octets := os.read(ours, 1 << 16):
                    shown += octets
            assert process.wait(60) == 0
        os.close(ours)
    lines = shown.decode().splitlines()
    assert [line for line in lines if not line.startswith("  ")] == ["blue:", "green:"]
    assert sum(" ago" in line for line in lines) == 2, lines
    assert max(map(len, lines)) == 110  # digests give way
