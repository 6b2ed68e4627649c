"""albatrossd, albatross-console and albatross-stats together, as processes, with real unikernels writing."""

import contextlib
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path as FilePath

import pytest

from albatross_pki.authorised import LocalRequest
from albatross_pki.commands import ConsoleSubscribe, StatsSubscribe, UnikernelCreate, UnikernelDestroy
from albatross_pki.extensions import HostInfo
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import ConsoleLine, Statistics, Text
from albatross_pki.transport.blocking import Connection
from albatross_pki.transport.errors import Unreachable
from albatross_pki.wire.side import encode_side
from tests.host.running import TICKER, Daemon, create, daemon, hello, text_of

DEADLINE = 30.0
MISSED = b"[albatross-console: "


@contextlib.contextmanager
def companion(host: Daemon, program: str, socket: str, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The console or statistics daemon of ``host``, until the block ends."""
    code = f"from albatross_pki.host.{program} import main; main()"
    process = subprocess.Popen([sys.executable, "-W", "error", "-c", code, "--tmpdir", host.tmpdir, *options])
    try:
        until_connected(host.socket(socket)).close()
        yield process
    finally:
        process.kill()
        process.wait()


def until_connected(path: str) -> Connection:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return Connection(path, timeout=DEADLINE)
        except Unreachable:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def until_attached(host: Daemon) -> None:
    """Until albatrossd has found the console: before, it may drop the oldest of what unikernels write."""
    deadline = time.monotonic() + DEADLINE
    while "console: connected" not in host.log():
        assert time.monotonic() < deadline, host.log()
        time.sleep(0.01)


def ticker(*arguments: str) -> UnikernelCreate:
    return UnikernelCreate(hello(*arguments, image=TICKER))


def subscribed(host: Daemon, label: str, count: int = 0) -> Connection:
    connection = Connection(host.socket("console.sock"), timeout=DEADLINE)
    connection.send(Message(Header(Name.parse(label)), ConsoleSubscribe(count=count)))
    answer = connection.receive()
    assert answer is not None
    assert isinstance(answer.payload, Text)
    return connection


def next_line(connection: Connection) -> bytes:
    message = connection.receive()
    assert message is not None
    assert isinstance(message.payload, ConsoleLine)
    return message.payload.line


class Ticks:
    """Reads a ticker's lines and notes whatever is neither the next one nor a marker for so many."""

    def __init__(self) -> None:
        self.seen = self.missed = 0
        self.wrong: list[bytes] = []

    def read(self, connection: Connection, last: int) -> None:
        """Up to tick ``last``; frames are not decoded, to be fast."""
        with connection.socket.makefile("rb") as stream:
            while self.seen + self.missed < last and not self.wrong:
                (length,) = struct.unpack("!I", stream.read(4))
                line = stream.read(length).rpartition(b"Z\x0c")[2][1:]
                if line.startswith(MISSED):
                    self.missed += int(line.split()[1])
                elif line == b"tick %d" % (self.seen + self.missed + 1):
                    self.seen += 1
                else:
                    self.wrong.append(b"%s instead of %d" % (line, self.seen + self.missed + 1))


def test_p06_a_unikernel_at_full_speed_is_delayed_by_no_subscriber(tmp_path: FilePath) -> None:
    count = 200_000
    with daemon(tmp_path) as host, companion(host, "console_cli", "console.sock"):
        until_attached(host)
        label = host.label()
        stopped, reading = subscribed(host, label), subscribed(host, label)
        ticks, late = Ticks(), Ticks()
        with stopped, reading:
            thread = threading.Thread(target=ticks.read, args=(reading, count))
            thread.start()
            assert text_of(host.ask(label, ticker("--fast", f"--lines={count}"))) == "created unikernel"
            thread.join()
            assert ticks.wrong == []
            late.read(stopped, count)
            assert late.wrong == []
            assert late.missed > 0
        with subscribed(host, label, 3) as history:
            assert [next_line(history) for _ in range(3)] == [b"tick %d" % tick for tick in range(count - 2, count + 1)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_p06_of_a_million_lines_each_subscriber_has_every_one_or_is_told_how_many_it_missed(tmp_path: FilePath) -> None:
    count = 1_000_000
    with daemon(tmp_path) as host, companion(host, "console_cli", "console.sock", "--max-memory", "16") as console:
        until_attached(host)
        label = host.label()
        with contextlib.ExitStack() as stack:
            stopped, *reading = [stack.enter_context(subscribed(host, label)) for _ in range(5)]
            tallies = [Ticks() for _ in reading]
            threads = [
                threading.Thread(target=ticks.read, args=(connection, count))
                for ticks, connection in zip(tallies, reading, strict=True)
            ]
            for thread in threads:
                thread.start()
            before = resident(console.pid)
            assert text_of(host.ask(label, ticker("--fast", f"--lines={count}"))) == "created unikernel"
            most = 0
            while any(thread.is_alive() for thread in threads):
                most = max(most, resident(console.pid))
                time.sleep(0.05)
            for thread in threads:
                thread.join()
            late = Ticks()
            late.read(stopped, count)
            for ticks in (*tallies, late):
                assert ticks.wrong == []
                assert ticks.seen + ticks.missed == count
            assert late.missed > count // 2
            assert most - before < 40 << 20  # 16 MB, and what the allocator and the templates take


def resident(pid: int) -> int:
    """Octets of a process that are in memory."""
    return int(FilePath(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_p06_a_console_that_was_killed_comes_back_and_output_with_it(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        label = host.label()
        with companion(host, "console_cli", "console.sock") as console:
            assert text_of(host.ask(label, ticker("--fast"))) == "created unikernel"
            with subscribed(host, label) as connection:
                assert next_line(connection).startswith(b"tick ")
            console.kill()
            console.wait()
            (pid,) = host.unikernels()
            time_used = processor_time(pid)
            deadline = time.monotonic() + DEADLINE
            while processor_time(pid) < time_used + 5:  # it goes on writing, to nobody
                assert time.monotonic() < deadline
                time.sleep(0.01)
        with companion(host, "console_cli", "console.sock"), subscribed(host, label) as connection:
            next_line(connection)  # perhaps the rest of one whose beginning the killed console had read
            assert next_line(connection).startswith(b"tick ")
        assert text_of(host.ask(label, UnikernelDestroy())) == "destroyed unikernel"


def console_is_there(host: Daemon) -> bool:
    """What host-info says about the console."""
    with Connection(host.socket("extended.sock"), timeout=DEADLINE) as connection:
        connection.send_payload(encode_side(LocalRequest(Name(), HostInfo())))
        answer = connection.receive()
    assert answer is not None
    there: bool = json.loads(text_of(answer.payload))["console"]
    return there


def test_p28_a_console_that_comes_late_has_the_output_from_before(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        label = host.label()
        assert text_of(host.ask(label, ticker())) == "created unikernel"
        (pid,) = host.unikernels()
        assert not console_is_there(host)
        with companion(host, "console_cli", "console.sock"):
            until_attached(host)
            assert console_is_there(host)
            ticks = Ticks()
            with subscribed(host, label, 1024) as connection:
                ticks.read(connection, 2)
            assert (ticks.wrong, ticks.seen) == ([], 2)
            assert host.unikernels() == {pid}


def test_p06_host_info_says_that_the_console_was_killed_and_is_there_again(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        label = host.label()
        assert text_of(host.ask(label, ticker("--fast"))) == "created unikernel"
        (pid,) = host.unikernels()
        for _ in range(2):
            with companion(host, "console_cli", "console.sock") as console:
                eventually(lambda: console_is_there(host))
                with subscribed(host, label) as connection:
                    assert next_line(connection).startswith(b"tick ")
                console.kill()
                console.wait()
                eventually(lambda: not console_is_there(host))
                before = processor_time(pid)
                eventually(lambda before=before: processor_time(pid) > before + 5)  # type: ignore[misc]
        assert host.unikernels() == {pid}


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def processor_time(pid: int) -> int:
    """Ticks of the clock that a process has run."""
    fields = FilePath(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize("first", ["stats", "unikernel"])
def test_statistics_come_from_whatever_runs_whoever_was_there_first(tmp_path: FilePath, first: str) -> None:
    with daemon(tmp_path) as host, contextlib.ExitStack() as stack:
        label = host.label()
        starts: list[Callable[[], object]] = [
            lambda: stack.enter_context(companion(host, "stats_cli", "stat.sock", "--interval", "0.05")),
            lambda: host.ask(f"dev:{label}", create()),
        ]
        for start in starts if first == "stats" else reversed(starts):
            start()
        with Connection(host.socket("stat.sock"), timeout=DEADLINE) as connection:
            connection.send(Message(Header(Name.parse("dev:")), StatsSubscribe()))
            assert connection.receive() == Message(Header(Name.parse("dev:")), Text("subscribed"))
            sample = connection.receive()
            assert sample is not None
            assert sample.header.name == Name.parse(label)
            assert isinstance(sample.payload, Statistics)
            assert sample.payload.memory is not None
            (pid,) = host.unikernels()
            fields = FilePath(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            assert sample.payload.memory.vsize == int(fields[20])
            host.ask(f"dev:{label}", UnikernelDestroy())
