"""albatross-stats as a process, with a stand-in for albatrossd at the other end of its inverted connection."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path as FilePath

import pytest

from albatross_pki.commands import Command, PolicyInfo, StatsAdd, StatsInitial, StatsRemove, StatsSubscribe
from albatross_pki.host.stats import MAX_SUBSCRIBERS
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import Empty, Failure, Statistics, Text
from albatross_pki.transport.blocking import Connection
from albatross_pki.transport.errors import ConnectionCut
from albatross_pki.wire.framing import FrameDecoder, frame
from albatross_pki.wire.message import decode_message, encode_message

DEADLINE = 20.0
START = "from albatross_pki.host.stats_cli import main; main()"


class Albatrossd:
    """Accepts the statistics daemon and tells it things."""

    def __init__(self, path: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.listener.settimeout(DEADLINE)
        self.connection = socket.socket()
        self.sequence = 0

    def accept(self) -> None:
        self.connection.close()
        self.connection, _ = self.listener.accept()
        self.connection.settimeout(DEADLINE)
        assert self._receive() == Message(Header(), StatsInitial())
        self._send(Message(Header(), Empty()))
        self.sequence = 0

    def tell(self, name: str, command: Command) -> object:
        self.sequence += 1
        header = Header(Name.parse(name), self.sequence)
        self._send(Message(header, command))
        answer = self._receive()
        assert answer.header == header
        return answer.payload

    def close(self) -> None:
        self.connection.close()
        self.listener.close()

    def _send(self, message: Message) -> None:
        self.connection.sendall(frame(encode_message(message)))

    def _receive(self) -> Message:
        decoder = FrameDecoder(1 << 16)
        while True:
            octets = self.connection.recv(4096)
            assert octets
            for payload in decoder.feed(octets):
                return decode_message(payload)


class Daemon:
    """A statistics process and its albatrossd."""

    def __init__(self, directory: FilePath, *options: str) -> None:
        (directory / "util").mkdir()
        self.path = str(directory / "util" / "stat.sock")
        self.albatrossd = Albatrossd(str(directory / "util" / "vmmd.sock"))
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, "--tmpdir", str(directory), "--interval", "0.05", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            self.albatrossd.accept()
        except TimeoutError:
            raise AssertionError(f"the statistics daemon did not come: {self.stop()}") from None
        deadline = time.monotonic() + DEADLINE
        while not os.path.exists(self.path):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def connect(self) -> Connection:
        return Connection(self.path, timeout=DEADLINE)

    @contextlib.contextmanager
    def subscribed(self, name: str) -> Iterator[Connection]:
        with self.connect() as connection:
            connection.send(Message(Header(Name.parse(name), 3), StatsSubscribe()))
            assert connection.receive() == Message(Header(Name.parse(name), 3), Text("subscribed"))
            yield connection

    def stop(self) -> str:
        if self.process.poll() is None:
            self.process.terminate()
        output, _ = self.process.communicate(timeout=DEADLINE)
        self.albatrossd.close()
        return str(output.decode())


@pytest.fixture
def daemon(tmp_path: FilePath) -> Iterator[Daemon]:
    one = Daemon(tmp_path)
    yield one
    one.stop()


@pytest.fixture
def guest() -> Iterator[int]:
    process = subprocess.Popen(["/bin/sleep", "600"])
    yield process.pid
    process.kill()
    process.wait()


def sample(connection: Connection) -> tuple[str, Statistics]:
    message = connection.receive()
    assert message is not None
    assert isinstance(message.payload, Statistics)
    assert message.header.sequence == 0
    return str(message.header.name), message.payload


def test_subscribers_get_samples_of_what_albatrossd_told(daemon: Daemon, guest: int) -> None:
    assert daemon.albatrossd.tell("dev:hello", StatsAdd("", guest, (("service", "no-such-tap"),))) == Text("added")
    with daemon.subscribed("dev:") as below, daemon.subscribed(":") as everything:
        name, statistics = sample(below)
        assert name == ":hello"
        assert statistics.memory is not None
        assert statistics.memory.vsize > 0
        assert statistics.interfaces == ()
        assert sample(everything)[0] == "dev:hello"


def test_a_removed_unikernel_is_no_longer_sampled(daemon: Daemon, guest: int) -> None:
    for name in ("dev:a", "dev:b"):
        daemon.albatrossd.tell(name, StatsAdd("", guest))
    with daemon.subscribed("dev:") as connection:
        assert {sample(connection)[0] for _ in range(2)} == {":a", ":b"}
        assert daemon.albatrossd.tell("dev:a", StatsRemove()) == Text("removed")
        assert daemon.albatrossd.tell("dev:a", StatsRemove()) == Text("removed")
        seen = [sample(connection)[0] for _ in range(6)]
        assert seen[-4:] == [":b"] * 4


def test_a_second_add_of_a_name_replaces_the_first(daemon: Daemon, guest: int) -> None:
    daemon.albatrossd.tell("a", StatsAdd("", os.getpid()))
    daemon.albatrossd.tell("a", StatsAdd("", guest))
    with daemon.subscribed("a") as connection:
        memory = sample(connection)[1].memory
    with open(f"/proc/{guest}/stat", encoding="ascii") as stat:
        assert memory is not None
        assert memory.vsize == int(stat.read().rpartition(")")[2].split()[20])


def test_p26_a_process_that_ended_is_forgotten_and_its_pid_never_taken_for_another(daemon: Daemon) -> None:
    process = subprocess.Popen(["/bin/sleep", "600"])
    daemon.albatrossd.tell("a", StatsAdd("", process.pid))
    daemon.albatrossd.tell("b", StatsAdd("", os.getpid()))
    with daemon.subscribed(":") as connection:
        assert {sample(connection)[0] for _ in range(2)} == {":a", ":b"}
        process.kill()
        process.wait()
        seen = [sample(connection)[0] for _ in range(6)]
        assert seen[-4:] == [":b"] * 4
    assert "a is no longer watched" in daemon.stop()


def test_p01_a_process_that_cannot_be_is_a_failure_and_the_daemon_lives(daemon: Daemon, guest: int) -> None:
    for pid in (2**22 + 1, 2**31 - 1):
        answer = daemon.albatrossd.tell("a", StatsAdd("", pid))
        assert isinstance(answer, Failure)
    assert daemon.albatrossd.tell("a", StatsAdd("", guest)) == Text("added")


def test_p06_subscribers_stay_when_albatrossd_is_gone_and_the_connection_comes_back(daemon: Daemon, guest: int) -> None:
    daemon.albatrossd.tell("a", StatsAdd("", guest))
    with daemon.subscribed(":") as connection:
        sample(connection)
        daemon.albatrossd.accept()
        daemon.albatrossd.tell("b", StatsAdd("", guest))
        while sample(connection)[0] != ":b":
            pass
        assert sample(connection)[0] == ":b"


def test_p06_a_stopped_subscriber_delays_nobody(daemon: Daemon, guest: int) -> None:
    for number in range(200):
        daemon.albatrossd.tell(f"u{number}", StatsAdd("", guest))
    with daemon.subscribed(":"), daemon.subscribed("u1") as reading:
        for _ in range(20):
            assert sample(reading)[0] == ":u1"
        assert daemon.albatrossd.tell("u0", StatsRemove()) == Text("removed")


def test_several_may_look_at_the_same_name_and_beyond_the_limit_the_oldest_is_closed(
    daemon: Daemon, guest: int
) -> None:
    daemon.albatrossd.tell("dev:web", StatsAdd("", guest))
    with contextlib.ExitStack() as stack:
        several = [stack.enter_context(daemon.subscribed("dev:")) for _ in range(MAX_SUBSCRIBERS)]
        assert {sample(connection)[0] for connection in several} == {":web"}
        stack.enter_context(daemon.subscribed("dev:"))
        with contextlib.suppress(ConnectionCut):
            while several[0].receive() is not None:
                pass
        assert [sample(connection)[0] for connection in several[1:]] == [":web"] * (MAX_SUBSCRIBERS - 1)


@pytest.mark.parametrize(
    ("command", "text"), [(StatsInitial(), "unexpected message initial"), (PolicyInfo(), "unexpected command")]
)
def test_p29_what_is_refused_says_why_and_closes(daemon: Daemon, command: Command, text: str) -> None:
    with daemon.connect() as connection:
        connection.send(Message(Header(), command))
        answer = connection.receive()
        assert answer is not None
        assert answer.payload == Failure(text)
        assert connection.receive() is None


def test_our_own_user_may_add_and_goes_on(daemon: Daemon, guest: int) -> None:
    with daemon.connect() as connection:
        for command, text in ((StatsAdd("", guest), "added"), (StatsRemove(), "removed")):
            connection.send(Message(Header(Name.parse("mine"), 1), command))
            answer = connection.receive()
            assert answer is not None
            assert answer.payload == Text(text)


def test_a_signal_ends_it_cleanly(tmp_path: FilePath) -> None:
    daemon = Daemon(tmp_path)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(DEADLINE) == 0
    assert daemon.stop() == ""
    assert not os.path.exists(daemon.path)


def test_prometheus_can_scrape_what_is_watched(tmp_path: FilePath, guest: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    daemon = Daemon(tmp_path, "--prometheus", address)
    daemon.albatrossd.tell("dev:hello", StatsAdd("", guest))
    text = ""
    deadline = time.monotonic() + DEADLINE
    while "albatross_unikernels 1" not in text:
        assert time.monotonic() < deadline
        with (
            contextlib.suppress(ConnectionRefusedError, urllib.error.URLError),
            urllib.request.urlopen(f"http://{address}/metrics", timeout=DEADLINE) as answer,
        ):
            text = answer.read().decode()
    daemon.stop()
    assert 'albatross_unikernel_resident_memory_bytes{name="dev:hello"}' in text


def test_an_address_that_is_taken_is_an_error(tmp_path: FilePath) -> None:
    (tmp_path / "util").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-c", START, "--tmpdir", str(tmp_path), "--prometheus", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert "address already in use" in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_wrong_intervals_are_errors() -> None:
    for value in ("0", "-1", "nan", "x"):
        done = subprocess.run([sys.executable, "-c", START, "--interval", value], capture_output=True, check=False)
        assert done.returncode == 124, value
        assert done.stderr.startswith(b"error: ")
