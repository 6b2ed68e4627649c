"""albatrossd as a process: its sockets, its end, and what survives it."""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path as FilePath

import pytest

from albatross_pki.authorised import AuthorisedRequest, CertificateId, Effect, LocalRequest, Outcome
from albatross_pki.commands import (
    ConsoleInactive,
    ConsoleSubscribe,
    PolicyAdd,
    PolicyInfo,
    StatsInitial,
    UnikernelCreate,
    UnikernelDestroy,
    UnikernelInfoRequest,
)
from albatross_pki.extensions import ImageBinding, Status, Stop
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.policies import Policy
from albatross_pki.replies import ConsoleLine, Empty, Failure, Text
from albatross_pki.transport.blocking import Connection
from albatross_pki.unikernels import Settings, UnikernelConfig
from albatross_pki.wire.framing import frame
from albatross_pki.wire.message import decode_message, encode_message
from albatross_pki.wire.side import decode_side, encode_side
from tests.host.running import HELLO, RESTART, Daemon, chain_policy, create, daemon, reachable, text_of

CREATED = Text("created unikernel")


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Look until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def test_sigterm_ends_every_unikernel_and_the_next_start_brings_them_back(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        name = f"dev:{host.label()}"
        assert host.ask(name, create()) == CREATED
        assert host.stop() == 0
        assert host.unikernels() == set()
        assert os.listdir(os.path.join(host.tmpdir, "fifo")) == []
        assert os.listdir(os.path.join(host.tmpdir, "util")) == []
        host.start()
        until(lambda: name in host.running())
        assert len(host.unikernels()) == 1
        assert host.ask(name, UnikernelDestroy()) == Text("destroyed unikernel")
        assert host.unikernels() == set()


def test_p27_the_daemon_can_be_replaced_while_unikernels_run(tmp_path: FilePath) -> None:
    with daemon(tmp_path, "--keep-running") as host:
        name = f"dev:{host.label()}"
        host.ask(name, create())
        (pid,) = host.unikernels()
        assert host.stop() == 0
        assert host.unikernels() == {pid}
        host.start()
        assert name in host.running()
        assert host.unikernels() == {pid}
        assert host.ask(name, UnikernelDestroy()) == Text("destroyed unikernel")
        assert host.unikernels() == set()
        assert os.listdir(os.path.join(host.tmpdir, "fifo")) == []


def test_p21_after_a_crash_what_runs_is_adopted_and_supervised(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        name = f"dev:{host.label()}"
        host.ask(name, create(fail_behaviour=RESTART))
        (pid,) = host.unikernels()
        host.kill()
        assert host.unikernels() == {pid}
        host.start()
        assert name in host.running()
        assert host.unikernels() == {pid}
        os.kill(pid, signal.SIGKILL)  # its end cannot be known to us: it counts as a failure
        until(lambda: host.unikernels() not in (set(), {pid}))


def test_what_is_wanted_starts_in_the_order_of_the_startup_numbers(tmp_path: FilePath) -> None:
    """Of equal numbers in the order of their names; without one it is 50."""
    with daemon(tmp_path) as host:
        order = [("c", 1), ("a", 20), ("b", 20), ("d", None), ("e", 90)]
        for letter, startup in sorted(order):
            command = create(startup=startup) if startup is not None else create()
            assert host.ask(f"dev:{host.label(letter)}", command) == Text("created unikernel")
        host.stop()
        begin = len(host.log())
        host.start()
        deadline = time.monotonic() + 20
        while len(host.running()) < len(order):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        begun = re.findall(r"started dev:(\S+) ", host.log()[begin:])
        assert begun == [host.label(letter) for letter, _ in order]


def test_p22_what_is_wanted_and_could_not_start_is_tried_again(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        name = f"dev:{host.label()}"
        host.ask(name, create())
        host.stop()
        fifo = os.path.join(host.tmpdir, "fifo", name)
        FilePath(fifo).write_text("in the way")
        host.start()
        until(lambda: "exists and is not a fifo" in host.log())
        assert host.running() == {}
        os.unlink(fifo)
        until(lambda: name in host.running())


def test_p26_processes_are_held_by_more_than_a_number(tmp_path: FilePath) -> None:
    """A pid that belongs to somebody else by now is neither adopted nor signalled."""
    import sqlite3

    with daemon(tmp_path) as host:
        name = f"dev:{host.label()}"
        host.ask(name, create())
        (pid,) = host.unikernels()
        host.kill()
        os.kill(pid, signal.SIGKILL)
        until(lambda: host.unikernels() == set())
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
            database = sqlite3.connect(os.path.join(host.dbdir, "albatross.sqlite"))
            database.execute("UPDATE processes SET pid = ?", (bystander.pid,))
            database.commit()
            database.close()
            host.start()
            until(lambda: name in host.running())
            host.ask(name, UnikernelDestroy())
            host.stop()
            assert bystander.poll() is None
            bystander.kill()


def test_a_corrupt_state_keeps_the_daemon_from_starting(tmp_path: FilePath) -> None:
    host = Daemon(tmp_path)
    state = FilePath(host.dbdir, "albatross.sqlite")
    state.write_bytes(b"garbage" * 1000)
    host.start(wait=False)
    assert host.process is not None
    assert host.process.wait(timeout=20) == 125
    assert "error: " in host.log()
    assert "hint: " in host.log()
    assert "Traceback" not in host.log()
    assert state.read_bytes() == b"garbage" * 1000


def test_p06_without_a_console_unikernels_start_and_never_block(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        name = f"dev:{host.label()}"
        from tests.host.running import TICKER, hello

        lines = 20_000  # several times what a pipe holds
        config = hello(f"--lines={lines}", "--fast", "--exit=3", image=TICKER, add_name=False)
        assert host.ask(name, UnikernelCreate(config)) == CREATED
        until(lambda: host.running() == {} and "stopped with exit" in host.log())


def test_p06_with_daemon_and_console_gone_a_unikernel_blocks_and_does_not_die(tmp_path: FilePath) -> None:
    from tests.host.running import TICKER, hello

    with daemon(tmp_path) as host:
        name = f"dev:{host.label()}"
        config = hello("--lines=100000", "--fast", "--exit=3", image=TICKER, add_name=False, fail_behaviour=RESTART)
        host.ask(name, UnikernelCreate(config))
        (pid,) = host.unikernels()
        host.kill()
        until(lambda: "pipe" in FilePath(f"/proc/{pid}/wchan").read_text() or cpu_time(pid) == cpu_time(pid, 0.2))
        assert host.unikernels() == {pid}
        host.start()
        until(lambda: host.unikernels() not in (set(), {pid}))  # read again, it ended as it should and was restarted


def cpu_time(pid: int, after: float = 0.0) -> str:
    """User and system time of a process, in ticks."""
    time.sleep(after)
    return " ".join(FilePath(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])


def test_p27_sighup_replaces_the_daemon_in_place(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        name = f"dev:{host.label()}"
        host.ask(name, create("--exit=3", "x", add_name=False, fail_behaviour=RESTART))
        host.ask(name, create("stays", force=True, fail_behaviour=RESTART))
        (pid,) = host.unikernels()
        assert host.process is not None
        for times in (1, 2):
            host.process.send_signal(signal.SIGHUP)
            until(lambda: host.log().count("replaced in place") == times)  # noqa: B023  looked at right here
            assert name in host.running()  # whoever connects meanwhile just waits
            assert host.unikernels() == {pid}
        assert os.getppid() != host.process.pid
        with open(f"/proc/{pid}/stat", encoding="ascii") as source:
            assert int(source.read().rpartition(")")[2].split()[1]) == host.process.pid  # still its child
        assert host.ask(name, UnikernelDestroy()) == Text("destroyed unikernel")
        assert "signal SIGTERM" in host.log()  # so its status was known
        assert host.stop() == 0
        assert os.listdir(os.path.join(host.tmpdir, "util")) == []


def test_too_many_open_files_is_an_answer_and_passes(tmp_path: FilePath) -> None:
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))"
    with daemon(tmp_path, before=few) as host:
        name = f"dev:{host.label()}"
        answers = [text_of(host.ask(f"{name}{number}", create())) for number in range(20)]
        assert answers[0] == "created unikernel"
        refused = [answer for answer in answers if answer != "created unikernel"]
        assert refused
        assert all("too many open files" in answer.lower() for answer in refused), refused
        alive = host.running()
        assert len(alive) == answers.count("created unikernel") == len(host.unikernels())
        for each in alive:
            assert host.ask(each, UnikernelDestroy()) == Text("destroyed unikernel")
        assert host.ask(name, create()) == CREATED


def test_p06_a_stopped_console_delays_nobody_for_long_and_comes_back(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host, console(host) as process:
        first, second = f"dev:{host.label('a')}", f"dev:{host.label('b')}"
        until(lambda: host.ask(first, create("one", force=True)) == CREATED and consoles_know(host, first))
        process.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        assert host.ask(second, create("two")) == CREATED
        assert time.monotonic() - begin < 10
        begin = time.monotonic()
        host.ask(second, UnikernelDestroy())
        assert host.ask(second, create("two")) == CREATED
        assert time.monotonic() - begin < 3  # nobody waits for it twice
        process.send_signal(signal.SIGCONT)
        until(lambda: consoles_know(host, second))


class console:  # noqa: N801  a context manager
    """albatross-console as a process for a host."""

    def __init__(self, host: Daemon) -> None:
        self._host = host

    def __enter__(self) -> "subprocess.Popen[bytes]":
        code = "from albatross_pki.host.console_cli import main; main()"
        arguments = [sys.executable, "-c", code, "--tmpdir", self._host.tmpdir]
        self.process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
        until(lambda: os.path.exists(self._host.socket("console.sock")))
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def consoles_know(host: Daemon, name: str) -> bool:
    with Connection(host.socket("console.sock"), timeout=10) as connection:
        connection.send(Message(Header(Name.parse(name)), ConsoleSubscribe(count=1)))
        answer = connection.receive()
    return answer is not None and answer.payload == Text("subscribed")


def test_console_output_from_the_first_line_on(tmp_path: FilePath) -> None:
    host = Daemon(tmp_path)
    try:
        with console(host):
            host.start()
            name = f"dev:{host.label()}"
            host.ask(name, create("first", "line"))
            with Connection(host.socket("console.sock"), timeout=10) as connection:
                connection.send(Message(Header(Name.parse(name)), ConsoleSubscribe(count=10)))
                connection.receive()
                line = connection.receive()
            assert line is not None
            assert isinstance(line.payload, ConsoleLine)
            assert b"first line" in line.payload.line
    finally:
        host.close()


def test_what_is_for_other_daemons_or_no_message_is_refused(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        assert host.ask(":", ConsoleInactive()) == Failure("unknown command")
        with Connection(host.socket("vmmd.sock"), timeout=10) as connection:
            connection.send_payload(b"\x30\x03junk")
            answer = connection.receive()
            assert answer is not None
            assert text_of(answer.payload).count("malformed message") == 1, "said once"
        with Connection(host.socket("vmmd.sock"), timeout=10) as connection:
            connection.socket.sendall(struct.pack("!I", 2**31))  # announces more than is taken
            assert connection.socket.recv(1) == b""
        assert host.ask(":", UnikernelInfoRequest()) is not None


def test_several_policies_and_a_command_share_a_connection(tmp_path: FilePath) -> None:
    policy = Policy(frozenset({0}), 3, 64)
    with daemon(tmp_path) as host, Connection(host.socket("vmmd.sock"), timeout=10) as connection:
        for path in ("a:", "a:b:"):
            connection.send(Message(Header(Name.parse(path), 7), PolicyAdd(policy)))
            answer = connection.receive()
            assert answer == Message(Header(Name.parse(path), 7), Text("added policy"))
        connection.send(Message(Header(Name.parse("a:")), PolicyInfo()))
        assert connection.receive() is not None
        assert connection.receive() is None  # closed after anything else


def test_statistics_are_told_who_runs(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        first, second = f"dev:{host.label('a')}", f"dev:{host.label('b')}"
        host.ask(first, create())
        with Connection(host.socket("vmmd.sock"), timeout=10) as stats:
            stats.send(Message(Header(sequence=40), StatsInitial()))
            assert stats.receive() == Message(Header(sequence=40), Empty())
            told = []
            for step in range(3):
                message = stats.receive()
                assert message is not None
                assert message.header.sequence == 41 + step
                told.append((type(message.payload).__name__, str(message.header.name)))
                if step == 0:
                    host.ask(second, create())
                if step == 1:
                    host.ask(first, UnikernelDestroy())
                stats.send(Message(message.header, Text("ok")))
            assert told == [("StatsAdd", first), ("StatsAdd", second), ("StatsRemove", first)]


def authorised(name: str, command: object, **fields: object) -> AuthorisedRequest:
    policy = chain_policy("dev", Policy(frozenset({0}), 5, 64))
    leaf = CertificateId(b"l" * 32, 99)
    return AuthorisedRequest(Name.parse(name), command, (policy,), leaf, policy.not_after, **fields)  # type: ignore[arg-type]


def send_authorised(
    host: Daemon, request: AuthorisedRequest, image: int | None = None, *, read: int | None = None
) -> tuple[list[object], Outcome]:
    """The answers on the passed socket (all, or ``read`` of them before it is closed), and the outcome."""
    ours, theirs = socket.socketpair()
    with Connection(host.socket("extended.sock"), timeout=20) as connection:
        with theirs:
            descriptors = [theirs.fileno()] if image is None else [theirs.fileno(), image]
            payload = encode_side(request)
            socket.send_fds(connection.socket, [struct.pack("!I", len(payload)) + payload], descriptors)
        answers: list[object] = []
        with ours, ours.makefile("rb") as frames:
            ours.settimeout(20)
            while (read is None or len(answers) < read) and (head := frames.read(4)):
                answers.append(decode_message(frames.read(struct.unpack("!I", head)[0])).payload)
        octets = connection.receive_payload()
        assert octets is not None
        outcome = decode_side(octets)
        assert isinstance(outcome, Outcome)
        return answers, outcome


def test_an_authorised_request_runs_the_image_that_comes_beside_it(tmp_path: FilePath) -> None:
    import hashlib

    with daemon(tmp_path) as host:
        name = f"dev:{host.label()}"
        spool = tmp_path / "spool"
        spool.write_bytes(HELLO)
        binding = ImageBinding(hashlib.sha256(HELLO).digest(), len(HELLO))
        command = UnikernelCreate(UnikernelConfig(b"", Settings(memory_mb=2, arguments=("secret",))))
        descriptor = os.open(spool, os.O_RDONLY)
        request = authorised(name, command, binding=binding)
        answers, outcome = send_authorised(host, request, descriptor)
        assert answers == [CREATED]
        assert outcome == Outcome(True, Effect.CHANGED, "created unikernel")
        answers, outcome = send_authorised(host, request, descriptor)
        assert "already running" in text_of(answers[0])  # type: ignore[arg-type]
        assert (outcome.succeeded, outcome.effect) == (False, Effect.NONE)
        os.close(descriptor)
        answers, _ = send_authorised(host, authorised("dev:", Status()))
        assert "secret" not in text_of(answers[0])  # type: ignore[arg-type]
        answers, outcome = send_authorised(host, authorised(name, Stop()))
        assert answers == [Text("stopped unikernel")]
        assert outcome.effect is Effect.CHANGED
        assert "secret" not in host.log()


def test_p18_a_tampered_spool_is_refused(tmp_path: FilePath) -> None:
    import hashlib

    with daemon(tmp_path) as host:
        name = f"dev:{host.label()}"
        (tmp_path / "spool").write_bytes(HELLO[:-1] + b"x")
        binding = ImageBinding(hashlib.sha256(HELLO).digest(), len(HELLO))
        command = UnikernelCreate(UnikernelConfig(b"", Settings(memory_mb=2)))
        descriptor = os.open(tmp_path / "spool", os.O_RDONLY)
        answers, outcome = send_authorised(host, authorised(name, command, binding=binding), descriptor)
        os.close(descriptor)
        assert "was signed" in text_of(answers[0])  # type: ignore[arg-type]
        assert outcome.effect is Effect.NONE
        assert os.listdir(os.path.join(host.dbdir, "images")) == []


def test_requests_with_odd_descriptors_are_refused(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        with Connection(host.socket("extended.sock"), timeout=10) as connection:
            connection.send_payload(encode_side(authorised("dev:x", Stop())))
            octets = connection.receive_payload()
            assert octets is not None
            outcome = decode_side(octets)
        assert isinstance(outcome, Outcome)
        assert not outcome.succeeded
        with Connection(host.socket("extended.sock"), timeout=10) as connection:
            connection.send_payload(b"junk")
            octets = connection.receive_payload()
            assert octets is not None
        assert host.ask(":", UnikernelInfoRequest()) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="another user cannot be impersonated without root")
def test_p37_only_the_authoriser_may_send_authorised_requests(shared_path: FilePath) -> None:
    with daemon(shared_path) as host:
        os.chmod(host.socket("extended.sock"), 0o666)
        code = (
            "import os, socket, sys\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(1))"
        )
        arguments = [sys.executable, "-c", code, host.socket("extended.sock")]
        with reachable(FilePath(host.socket("extended.sock")).parent):
            ran = subprocess.run(arguments, capture_output=True, text=True, timeout=20)
        assert ran.stdout == "b''\n", ran.stderr
        assert "user 65534 may not authorise requests" in host.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="another user cannot be impersonated without root")
@pytest.mark.parametrize("named", [True, False])
def test_p37_who_is_there_for_statistics_is_no_operator(shared_path: FilePath, named: bool) -> None:
    """albatross-stats may open vmmd.sock, because AV5 has it ask there; that is all that it may ask."""
    options = ("--statistics-uid", "65534") if named else ()
    with daemon(shared_path, *options) as host:
        for name in ("vmmd.sock", "extended.sock"):
            os.chmod(host.socket(name), 0o666)
        asked = {
            "vmmd.sock": frame(encode_message(Message(Header(Name.parse("dev:web")), UnikernelDestroy()))),
            "extended.sock": frame(encode_side(LocalRequest(Name.parse("dev:web"), Stop()))),
        }
        code = (
            "import os, socket, sys\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(bytes.fromhex(sys.argv[2]))\n"
            "print(s.recv(4096)[4:].hex())"
        )
        answers = {}
        with reachable(FilePath(host.socket("vmmd.sock")).parent):
            for name, octets in asked.items():
                arguments = [sys.executable, "-c", code, host.socket(name), octets.hex()]
                ran = subprocess.run(arguments, capture_output=True, text=True, timeout=20)
                answers[name] = bytes.fromhex(ran.stdout)
            statistics = frame(encode_message(Message(Header(), StatsInitial())))
            arguments = [sys.executable, "-c", code, host.socket("vmmd.sock"), statistics.hex()]
            accepted = subprocess.run(arguments, capture_output=True, text=True, timeout=20)
        assert decode_message(bytes.fromhex(accepted.stdout)).payload == Empty(), accepted.stderr
        told = decode_message(answers["vmmd.sock"]).payload
        assert told == Failure("only statistics are for this user" if named else "destroy: not found")
        assert (answers["extended.sock"] == b"") is named


def test_a_user_is_given_by_number_or_name(tmp_path: FilePath) -> None:
    for option in ("--authoriser-uid", "--statistics-uid"):
        for value, why in (
            ("nobody-at-all", "there is no user"),
            (str(2**32 - 1), "is not in the range"),
            ("-1", "is not in the range"),
        ):
            ended = subprocess.run(
                [sys.executable, "-c", "from albatross_pki.host.cli import main; main()", option, value],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert (ended.returncode, why in ended.stderr) == (124, True), ended.stderr
    with daemon(tmp_path, "--authoriser-uid", "nobody", "--statistics-uid", "65533") as host:
        assert host.ask(":", UnikernelInfoRequest()) is not None


def test_p27_a_defect_of_the_daemon_ends_no_unikernel(tmp_path: FilePath) -> None:
    """A part of albatrossd that fails ends albatrossd; what runs is adopted by the next one."""
    broken = str(tmp_path / "broken")
    before = (
        "import asyncio, os\nfrom albatross_pki.host.attachment import ConsoleAttachment\n"
        "async def run(self):\n"
        f"    while not os.path.exists({broken!r}): await asyncio.sleep(0.01)\n"
        "    raise RuntimeError('a defect')\n"
        "ConsoleAttachment.run = run\n"
    )
    with daemon(tmp_path, before=before) as host:
        name = f"dev:{host.label()}"
        assert host.ask(name, create()) == CREATED
        living = host.unikernels()
        FilePath(broken).touch()
        assert host.process is not None
        assert host.process.wait(20) == 125
        assert "internal error: RuntimeError: a defect" in host.log()
        assert host.unikernels() == living
        FilePath(broken).unlink()
        host.start()
        until(lambda: name in host.running())
        assert host.unikernels() == living
