"""What breaks while somebody is served: the client says one clear line and has its exit status, and nothing is left.

The client is ours, as people call it; what breaks is a daemon, the console, the disk, or the endpoint itself.
"""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from albatross_pki.authorised import Effect, Outcome
from albatross_pki.client.remote_cli import program as remote_tls
from albatross_pki.commands import BlockDump, ConsoleSubscribe, UnikernelCreate, UnikernelDestroy
from albatross_pki.console_script import execute
from albatross_pki.extensions import Constraints
from albatross_pki.messages import Message
from albatross_pki.replies import BlockChunk, BlockImage, ConsoleLine, Text
from albatross_pki.unikernels import Settings, UnikernelConfig
from tests.endpoint.deployment import Asked, Av5Daemon, Host, eventually, say, whole_host
from tests.pki_builder import NOW, Issued, policy

HELLO = Path(__file__).parents[2] / "examples" / "unikernels" / "hello.spt"
Call = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with whole_host(tmp_path) as made:
        yield made


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Call:
    """The client with a leaf: its exit status, and the lines that it says to people."""

    def call(host: Host, leaf: Issued, *arguments: str) -> tuple[int, list[str]]:
        for name, octets in (("leaf.pem", leaf.chain_pem), ("leaf.key", leaf.key_pem)):
            (tmp_path / name).write_bytes(octets)
        files = [str(host.deployment.file("cacert.pem")), str(tmp_path / "leaf.pem"), str(tmp_path / "leaf.key")]
        words = [*files, f"localhost:{host.port}", *arguments]
        capsys.readouterr()
        status = execute(remote_tls(), words, "albatross-client-remote-tls")
        return status, capsys.readouterr().err.splitlines()

    return call


def once(host: Host) -> Issued:
    return host.deployment.root.delegate("dev").leaf("hello", UnikernelDestroy(), Constraints(once=True))


def create(host: Host) -> Issued:
    dev = host.deployment.root.delegate("dev", policy(memory_mb=64))
    config = UnikernelConfig(b"", Settings(memory_mb=32))
    return dev.leaf("hello", UnikernelCreate(config), binding=HELLO.read_bytes())


def test_p29_no_daemon_is_one_line_and_uses_nothing_up(host: Host, call: Call) -> None:
    leaf = once(host)
    host.daemon.close()
    # a socket that nobody answers on, as a daemon leaves it that was killed
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(host.deployment.socket_path("extended.sock")))
    status, said = call(host, leaf)
    assert status == 117
    assert len(said) == 1
    assert said[0].startswith("error: couldn't reach service: albatrossd is not running")
    host.deployment.socket_path("extended.sock").unlink()
    host.daemon = type(host.daemon)(host.deployment.socket_path("extended.sock"))
    try:
        assert call(host, leaf) == (0, []), "the one-time certificate is as good as before"
    finally:
        host.daemon.close()


@pytest.mark.parametrize("begun", [False, True])
def test_p29_a_daemon_that_is_killed_within_its_answer(host: Host, call: Call, begun: bool, tmp_path: Path) -> None:
    def die(asked: Asked) -> Outcome:
        if begun:
            say(asked.answers, asked.request.name, BlockImage(False))
            say(asked.answers, asked.request.name, BlockChunk(b"x" * 1000))
        raise BrokenPipeError  # its connections end with it, and no outcome comes

    host.daemon.doing = die
    target = tmp_path / "disk"
    leaf = host.deployment.root.delegate("dev").leaf("disk", BlockDump(0))
    status, said = call(host, leaf, "--to", str(target)) if begun else call(host, once(host))
    assert status == 117
    assert len(said) == 1
    assert ("in the middle of its answer" if begun else "without an answer") in said[0]
    assert not target.exists() or not begun
    eventually(lambda: host.deployment.audit[-1]["kind"] == "outcome")
    assert host.deployment.audit[-1]["effect"] == "unknown"
    assert host.deployment.spooled == []


def test_p29_a_console_that_goes_away_is_told(host: Host, call: Call) -> None:
    going = threading.Event()

    def subscribed(message: Message, connection: socket.socket) -> bool:
        say(connection, message.header.name, Text("subscribed"))
        say(connection, message.header.name, ConsoleLine(NOW, b"a line"))
        going.set()
        return False

    console = Av5Daemon(host.deployment.socket_path("console.sock"), subscribed)
    try:
        leaf = host.deployment.root.delegate("dev").leaf("hello", ConsoleSubscribe(count=1))
        status, said = call(host, leaf)
        assert going.is_set()
        assert status == 0, "the console ends a stream in an orderly way when its unikernel has gone"
        assert said == []
    finally:
        console.close()
    status, said = call(host, leaf)
    assert status == 117
    assert said[0].startswith("error: couldn't reach service: albatross-console is not running")


def test_p29_a_full_disk_is_one_line(tmp_path: Path, call: Call) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    spool = tmp_path / "small"
    spool.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(spool)], check=True)
    try:
        with whole_host(tmp_path, endpoint=("--spool", str(spool), "--spool-reserve", "1")) as host:
            status, said = call(host, create(host), "--stream", str(HELLO))
            assert status == 117
            assert len(said) == 1
            assert "the endpoint's disk is full" in said[0]
            assert os.listdir(spool) == []
            assert host.daemon.asked == []
    finally:
        subprocess.run(["umount", str(spool)], check=True)


def test_p29_an_endpoint_that_is_killed_is_one_line(host: Host, call: Call) -> None:
    began, going = threading.Event(), threading.Event()

    def slowly(_: Asked) -> Outcome:
        began.set()
        assert going.wait(20)
        return Outcome(True, Effect.CHANGED, "")

    host.daemon.doing = slowly

    def kill() -> None:
        assert began.wait(20)
        host.endpoint.process.send_signal(signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    status, said = call(host, host.deployment.root.delegate("dev").leaf("hello", UnikernelDestroy()))
    killing.join(20)
    going.set()
    assert status == 121
    assert len(said) == 1
    assert said[0].startswith("error: ")
    eventually(lambda: host.deployment.audit[-1]["kind"] == "outcome")
    assert host.deployment.audit[-1]["effect"] == "changed", "what came of it is recorded all the same"
    host.endpoint.stop()
    host.endpoint = host.deployment.endpoint()


def test_p29_no_authoriser_is_one_line(host: Host, call: Call) -> None:
    host.authoriser.stop(signal.SIGKILL)
    status, said = call(host, once(host))
    assert status == 117
    assert len(said) == 1
    assert "albatross-authorise" in said[0]
    host.authoriser = host.deployment.authoriser()
    assert call(host, once(host)) == (0, [])
