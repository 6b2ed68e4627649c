"""The console as a process of its own: real fifos, real sockets, writers and readers that misbehave."""

import contextlib
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath

import pytest

from albatross_pki.commands import Command, ConsoleAdd, ConsoleInactive, ConsoleSubscribe, PolicyInfo, StatsSubscribe
from albatross_pki.host.console_limits import MAX_SUBSCRIBERS, MEBIBYTE, RESERVED_CONNECTIONS
from albatross_pki.host.ring import LINE_LIMIT, TRUNCATED
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import ConsoleLine, Consoles, Empty, Failure, Text
from albatross_pki.transport.blocking import Connection
from albatross_pki.wire.framing import frame
from albatross_pki.wire.message import encode_message

UNLIMITED = 2**62 - 1
DEADLINE = 20.0
START = "import sys; from albatross_pki.host.console_cli import main; main()"


class Daemon:
    """A console process in a directory of its own."""

    def __init__(self, directory: FilePath, *options: str) -> None:
        self.directory = directory
        for name in ("util", "fifo"):
            (directory / name).mkdir(exist_ok=True)
        self.path = str(directory / "util" / "console.sock")
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, "--tmpdir", str(directory), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(self.path)
                return
            time.sleep(0.01)
        raise AssertionError(f"the console did not start: {self.stop()}")

    def connect(self) -> Connection:
        return Connection(self.path, timeout=DEADLINE)

    def ask(self, name: str, command: Command) -> object:
        """One command on a connection of its own; the payload of the answer."""
        with self.connect() as connection:
            return ask(connection, name, command)

    def make_fifo(self, name: str) -> FilePath:
        path = self.directory / "fifo" / str(Name.parse(name))
        os.mkfifo(path, 0o640)
        return path

    def unikernel(self, name: str) -> "Unikernel":
        """Announce a unikernel and open its output."""
        path = self.make_fifo(name)
        assert self.ask(name, ConsoleAdd(UNLIMITED)) == Empty()
        return Unikernel(path)

    def subscribe(self, name: str, count: int = 0) -> Connection:
        connection = self.connect()
        assert ask(connection, name, ConsoleSubscribe(count=count)) in (Text("subscribed"), Text("waiting for VM"))
        return connection

    def resident(self) -> int:
        """Octets of memory."""
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def stop(self) -> str:
        if self.process.poll() is None:
            self.process.terminate()
        output, _ = self.process.communicate(timeout=DEADLINE)
        return str(output.decode())


class Unikernel:
    """The writing end of a fifo, opened as albatrossd opens it for a tender."""

    def __init__(self, path: FilePath) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)

    def write(self, octets: bytes) -> None:
        view = memoryview(octets)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def die(self) -> None:
        os.close(self._descriptor)
        self.path.unlink()


def ask(connection: Connection, name: str, command: Command) -> object:
    header = Header(Name.parse(name), sequence=7)
    connection.send(Message(header, command))
    answer = connection.receive()
    assert answer is not None
    assert answer.header == header
    return answer.payload


def next_line(connection: Connection) -> bytes:
    message = connection.receive()
    assert message is not None
    assert isinstance(message.payload, ConsoleLine)
    return message.payload.line


def lines_until(connection: Connection, last: bytes) -> list[bytes]:
    lines = [next_line(connection)]
    while lines[-1] != last:
        lines.append(next_line(connection))
    return lines


def wait_for(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    one = Daemon(tmp_path_factory.mktemp("console"))
    yield one
    one.stop()


@pytest.fixture
def fresh(tmp_path: FilePath) -> Iterator[Daemon]:
    one = Daemon(tmp_path)
    yield one
    one.stop()


def test_history_comes_first_and_then_lines_as_they_are_written(daemon: Daemon) -> None:
    unikernel = daemon.unikernel("dev:story")
    unikernel.write(b"one\ntwo\n\nthree\r\n")
    with daemon.subscribe("dev:story", 2) as early:
        unikernel.write(b"mark\n")
        lines_until(early, b"mark")
    with daemon.subscribe("dev:story", 3) as connection:
        assert [next_line(connection) for _ in range(3)] == [b"two", b"three\r", b"mark"]
        unikernel.write(b"live\n")
        message = connection.receive()
        assert message is not None
        assert message.header == Header(Name.parse("dev:story"), sequence=0)
        assert isinstance(message.payload, ConsoleLine)
        assert message.payload.line == b"live"
        assert abs(message.payload.timestamp - datetime.now(UTC)) < timedelta(seconds=DEADLINE)
    unikernel.die()


def test_since_shows_what_is_not_older(daemon: Daemon) -> None:
    unikernel = daemon.unikernel("since")
    unikernel.write(b"a\n")
    with daemon.subscribe("since", 1) as connection:
        first = connection.receive()
        assert first is not None
        assert isinstance(first.payload, ConsoleLine)
        since = first.payload.timestamp
    with daemon.connect() as connection:
        assert ask(connection, "since", ConsoleSubscribe(since=since)) == Text("subscribed")
        assert next_line(connection) == b"a"
    far_away = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    with daemon.connect() as connection:
        assert ask(connection, "since", ConsoleSubscribe(since=far_away)) == Text("subscribed")
        unikernel.write(b"b\n")
        assert next_line(connection) == b"b"
    unikernel.die()


def test_who_subscribes_before_the_unikernel_exists_waits_for_it(daemon: Daemon) -> None:
    with daemon.connect() as connection:
        assert ask(connection, "awaited", ConsoleSubscribe(count=5)) == Text("waiting for VM")
        unikernel = daemon.unikernel("awaited")
        unikernel.write(b"here I am\n")
        assert next_line(connection) == b"here I am"
    unikernel.die()


def test_p28_output_of_the_dead_and_their_unterminated_last_line_are_kept(daemon: Daemon) -> None:
    unikernel = daemon.unikernel("dying")
    unikernel.write(b"I am\nabout to")
    unikernel.die()
    wait_for(lambda: Name.parse("dying") in _inactive(daemon))
    with daemon.subscribe("dying", 10) as connection:
        assert [next_line(connection) for _ in range(2)] == [b"I am", b"about to"]
        successor = daemon.unikernel("dying")
        successor.write(b"again\n")
        assert next_line(connection) == b"again"
    assert Name.parse("dying") not in _inactive(daemon)
    successor.die()


def _inactive(daemon: Daemon) -> tuple[Name, ...]:
    answer = daemon.ask(":", ConsoleInactive())
    assert isinstance(answer, Consoles)
    return answer.names


def test_a_fifo_that_was_announced_twice_loses_and_splits_nothing(daemon: Daemon) -> None:
    unikernel = daemon.unikernel("twice")
    with daemon.subscribe("twice") as connection:
        unikernel.write(b"half a li")
        assert daemon.ask("twice", ConsoleAdd(UNLIMITED)) == Empty()
        unikernel.write(b"ne\n")
        assert next_line(connection) == b"half a line"
    unikernel.die()


def test_a_new_fifo_takes_over_after_the_old_one_is_read_to_its_end(daemon: Daemon) -> None:
    old = daemon.unikernel("moved")
    with daemon.subscribe("moved") as connection:
        old.write(b"old\nold end")
        old.path.unlink()
        new = daemon.unikernel("moved")
        new.write(b"new\n")
        assert lines_until(connection, b"new") == [b"old", b"old end", b"new"]
    os.close(old._descriptor)
    new.die()


def test_hostile_output_is_harmless(daemon: Daemon) -> None:
    unikernel = daemon.unikernel("hostile")
    with daemon.subscribe("hostile") as connection:
        unikernel.write(b"\x1b[2J\x00\xff\xfe\n" + b"m" * (10 * MEBIBYTE) + b"\nend\n")
        expected = [b"\x1b[2J\x00\xff\xfe", b"m" * LINE_LIMIT + TRUNCATED, b"end"]
        assert lines_until(connection, b"end") == expected
    unikernel.die()


def tlv(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return bytes([tag, len(content)]) + content


def integer(value: int) -> bytes:
    return tlv(2, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def send_raw(connection: Connection, name: str, *console_command: bytes) -> object:
    """A console command that our own encoder would refuse to write."""
    header = tlv(0x30, integer(5), tlv(4, bytes(8)), tlv(0x0C, str(Name.parse(name)).encode()))
    connection.send_payload(tlv(0x30, header, tlv(0xA0, tlv(0xA0, *console_command))))
    answer = connection.receive()
    assert answer is not None
    return answer.payload


@pytest.mark.parametrize("count", [-1, -(2**62), 2**31, 2**60, 2**62 - 1, 2**64])
def test_p01_a_count_out_of_range_is_an_error_and_the_daemon_lives(daemon: Daemon, count: int) -> None:
    with daemon.connect() as connection:
        answer = send_raw(connection, "anybody", tlv(0xA2, tlv(0xA1, integer(count))))
    assert isinstance(answer, Failure)
    assert "count" in answer.text
    assert "must be between 0 and 2147483647" in answer.text
    assert isinstance(daemon.ask(":", ConsoleInactive()), Consoles)


def test_p01_a_negative_number_of_rings_is_an_error(daemon: Daemon) -> None:
    daemon.make_fifo("rings")
    with daemon.connect() as connection:
        answer = send_raw(connection, "rings", tlv(0xA0, integer(-1)))
    assert isinstance(answer, Failure)
    assert "must be between 0 and" in answer.text


@pytest.mark.parametrize(
    ("name", "command", "text"),
    [
        ("foo:", ConsoleSubscribe(count=1), "path used instead of name"),
        ("foo:", ConsoleAdd(1), "path used instead of name"),
        ("foo", ConsoleInactive(), "name used"),
        ("foo", StatsSubscribe(), "unexpected command"),
        (":", PolicyInfo(), "unexpected command"),
    ],
)
def test_p29_what_is_refused_says_why_and_closes(daemon: Daemon, name: str, command: Command, text: str) -> None:
    with daemon.connect() as connection:
        assert ask(connection, name, command) == Failure(text)
        assert connection.receive() is None


@pytest.mark.parametrize(
    "octets",
    [
        frame(b"garbage"),
        frame(b"\x30\x80"),
        frame(b"0" * 65536),
        struct.pack("!I", 0),
        struct.pack("!I", 2**31 - 1) + b"x",
        struct.pack("!I", 2**32 - 1),
        b"\x00",
    ],
)
def test_p04_octets_that_are_no_command_end_only_their_own_connection(daemon: Daemon, octets: bytes) -> None:
    with daemon.connect() as connection:
        connection.socket.sendall(octets)
        connection.socket.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while connection.socket.recv(4096):
                pass
    assert isinstance(daemon.ask(":", ConsoleInactive()), Consoles)


def test_p20_a_file_in_place_of_a_fifo_is_not_read(daemon: Daemon, tmp_path: FilePath) -> None:
    fifo = daemon.directory / "fifo"
    (fifo / ":plain").write_bytes(b"secret\n")
    (fifo / ":linked").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "elsewhere")
    for name, reason in (("plain", "not a fifo"), ("linked", "symbolic link"), ("absent", "no such file")):
        answer = daemon.ask(name, ConsoleAdd(1))
        assert isinstance(answer, Failure)
        assert answer.text.startswith("opening ")
        assert reason in answer.text
    assert daemon.ask("plain", ConsoleSubscribe(count=1)) == Text("waiting for VM")


def test_whatever_a_subscriber_sends_ends_its_subscription(daemon: Daemon) -> None:
    with daemon.subscribe("talker") as connection:
        connection.send(Message(Header(Name.parse("talker")), ConsoleSubscribe(count=1)))
        assert connection.receive() is None


def test_the_limit_of_subscribers_is_exact_and_the_oldest_is_closed(daemon: Daemon) -> None:
    unikernel = daemon.unikernel("popular")
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(daemon.subscribe("popular")) for _ in range(MAX_SUBSCRIBERS)]
        unikernel.write(b"to all\n")
        assert {next_line(connection) for connection in connections} == {b"to all"}
        newest = stack.enter_context(daemon.subscribe("popular"))
        assert connections[0].receive() is None
        unikernel.write(b"again\n")
        assert {next_line(connection) for connection in [*connections[1:], newest]} == {b"again"}
    unikernel.die()


def test_p06_a_stopped_subscriber_delays_neither_the_unikernel_nor_the_others(fresh: Daemon) -> None:
    count = 150_000
    unikernel = fresh.unikernel("loud")
    stopped, reading = Tally(fresh.subscribe("loud")), Tally(fresh.subscribe("loud"))
    thread = threading.Thread(target=reading.read, args=(count,))
    thread.start()
    before = fresh.resident()
    for begin in range(0, count, 500):
        unikernel.write(b"".join(NUMBERED % number for number in range(begin, begin + 500)))
    thread.join()
    assert reading.wrong == []
    assert fresh.resident() - before < 48 * MEBIBYTE
    stopped.read(count)
    assert stopped.wrong == []
    assert 0 < stopped.missed < count
    unikernel.die()


NUMBERED = b"%09d " + b"x" * 60 + b"\n"


class Tally:
    """Reads numbered lines and notes whatever is not the next one or a marker for so many."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.seen = 0
        self.missed = 0
        self.wrong: list[bytes] = []

    def read(self, count: int) -> None:
        """Until ``count`` lines were seen or are known to be missed; frames are not decoded, to be fast."""
        with self._connection as connection, connection.socket.makefile("rb") as stream:
            while self.seen + self.missed < count:
                (length,) = struct.unpack("!I", stream.read(4))
                line = stream.read(length).rpartition(b"Z\x0c")[2][1:]
                if line.startswith(b"[albatross-console: "):
                    self.missed += int(line.split()[1])
                elif line + b"\n" == NUMBERED % (self.seen + self.missed):
                    self.seen += 1
                else:
                    self.wrong.append(line)
                    return


def test_p05_a_connection_that_says_nothing_hinders_nobody(fresh: Daemon) -> None:
    silent = [fresh.connect() for _ in range(50)]
    halves = [fresh.connect() for _ in range(50)]
    for connection in halves:
        connection.socket.sendall(b"\x00\x00\x00\x40half")
    unikernel = fresh.unikernel("busy")
    with fresh.subscribe("busy") as connection:
        unikernel.write(b"still here\n")
        assert next_line(connection) == b"still here"
    for one in (*silent, *halves):
        one.close()
    unikernel.die()


def test_p04_memory_is_bounded_by_configuration(tmp_path: FilePath) -> None:
    daemon = Daemon(tmp_path, "--max-memory", "2")
    unikernels = [daemon.unikernel(f"loud{number}") for number in range(4)]
    stopped = [daemon.subscribe(f"loud{number}") for number in range(4) for _ in range(2)]
    before = daemon.resident()
    for _ in range(8):
        for unikernel in unikernels:
            unikernel.write((b"y" * 500 + b"\n") * 2000)
    for unikernel in unikernels:
        unikernel.die()
    wait_for(lambda: len(_inactive(daemon)) == 4)
    assert daemon.resident() - before < 10 * MEBIBYTE  # 2 MB, and what the allocator and the templates take
    for connection in stopped:
        connection.close()
    daemon.stop()


def test_p04_subscribers_of_the_whole_host_are_limited_and_albatrossd_still_gets_through(tmp_path: FilePath) -> None:
    daemon = Daemon(tmp_path, "--max-memory", "1")
    limit = 16 - RESERVED_CONNECTIONS
    with contextlib.ExitStack() as stack:
        for number in range(limit):
            stack.enter_context(daemon.subscribe(f"u{number}"))
        refusal = daemon.ask("one-more", ConsoleSubscribe(count=1))
        assert isinstance(refusal, Failure)
        assert f"there are {limit} subscribers already" in refusal.text
        daemon.unikernel("u0").die()
    daemon.stop()


def test_a_signal_ends_it_cleanly_and_takes_its_socket_away(tmp_path: FilePath) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        daemon = Daemon(tmp_path)
        subscriber = daemon.subscribe("any")
        daemon.process.send_signal(number)
        assert daemon.process.wait(DEADLINE) == 0
        assert subscriber.receive() is None
        subscriber.close()
        assert daemon.stop() == ""
        assert not os.path.exists(daemon.path)


def test_after_a_kill_it_starts_again_on_the_same_socket(tmp_path: FilePath) -> None:
    daemon = Daemon(tmp_path)
    daemon.process.kill()
    daemon.process.wait(DEADLINE)
    daemon.stop()
    again = Daemon(tmp_path)
    assert _inactive(again) == ()
    again.stop()


def test_its_socket_is_for_its_user_and_group(daemon: Daemon) -> None:
    assert stat.S_IMODE(os.stat(daemon.path).st_mode) == 0o660


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to speak as several users")
def test_only_trusted_users_announce_unikernels(tmp_path: FilePath) -> None:
    daemon = Daemon(tmp_path, "--daemon-uid", "4712")
    os.chmod(daemon.path, 0o666)
    for directory in (daemon.directory, daemon.directory / "util"):
        directory.chmod(0o755)
    daemon.make_fifo("theirs")
    message = Message(Header(Name.parse("theirs")), ConsoleAdd(1))
    answers = {user: _ask_as(user, daemon.directory, message) for user in (0, 4712, 4713)}
    output = daemon.stop()
    assert answers[0] == answers[4712] == encode_message(Message(message.header, Empty()))
    refusal = Failure("user 4713 may not announce unikernels to the console")
    assert answers[4713] == encode_message(Message(message.header, refusal))
    assert "user 4713 (process " in output


def _ask_as(user: int, directory: FilePath, message: Message) -> bytes:
    """The payload that a process of ``user`` is answered with; it enters the directory before it becomes that user."""
    payload = encode_message(message)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.chdir(directory)
            os.setresuid(user, user, user)
            with Connection("util/console.sock", timeout=DEADLINE) as connection:
                connection.send_payload(payload)
                os.write(write, connection.receive_payload() or b"")
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    return answer


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--max-subscribers", "0"], "max subscribers must be greater than or equal to 1"),
        (["--max-memory", "0"], "0 is not in the range"),
        (["--tmpdir", "/nonexistent"], "no '/nonexistent' directory"),
        (["--daemon-uid", "-1"], "-1 is not in the range"),
    ],
)
def test_wrong_options_are_errors_in_one_line(options: list[str], text: str) -> None:
    done = subprocess.run([sys.executable, "-c", START, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 124
    assert done.stderr.startswith("error: ")
    assert text in done.stderr


def test_without_its_directory_it_says_what_is_missing(tmp_path: FilePath) -> None:
    done = subprocess.run(
        [sys.executable, "-c", START, "--tmpdir", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 125
    assert "console.sock: no such file or directory" in done.stderr
    assert "hint: the directory must exist" in done.stderr


def test_systemd_passes_its_socket(tmp_path: FilePath) -> None:
    (tmp_path / "fifo").mkdir()
    path = str(tmp_path / "activated.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        launcher = f"import os,sys; os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); {START}"
        script = f"import os; os.dup2({listener.fileno()}, 3); " + launcher
        process = subprocess.Popen(
            [sys.executable, "-c", script, "--tmpdir", str(tmp_path), "--systemd-socket-activation"],
            pass_fds=(listener.fileno(),),
        )
        with Connection(path, timeout=DEADLINE) as connection:
            assert ask(connection, ":", ConsoleInactive()) == Consoles(())
        process.terminate()
        assert process.wait(DEADLINE) == 0
    assert os.path.exists(path), "the socket file is systemd's"


def test_a_reply_is_what_the_wire_says(daemon: Daemon) -> None:
    with daemon.connect() as connection:
        header = Header(Name.parse("bytes"), sequence=2**63 - 1)
        connection.send(Message(header, ConsoleSubscribe(count=0)))
        assert connection.receive_payload() == encode_message(Message(header, Text("waiting for VM")))
