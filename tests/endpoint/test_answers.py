"""Answers of every shape on their way from a daemon to a client, and what ends them."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from albatross_pki.authorised import Effect, Outcome
from albatross_pki.commands import (
    BlockDump,
    BlockSet,
    BlockSetOld,
    ConsoleSubscribe,
    StatsSubscribe,
    UnikernelDestroy,
    UnikernelGet,
)
from albatross_pki.extensions import CrlUpdate
from albatross_pki.messages import Message
from albatross_pki.names import Name
from albatross_pki.replies import BlockChunk, BlockImage, ConsoleLine, Failure, Text, UnikernelImage
from albatross_pki.transport.tls import TlsConnection
from albatross_pki.wire.message import decode_message
from tests.endpoint.deployment import Asked, Av5Daemon, Host, answer, eventually, receive_stream, say, whole_host

NOW = datetime.now(UTC).replace(microsecond=0)
LINE = ConsoleLine(NOW, b"hello from the unikernel")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with whole_host(tmp_path) as made:
        yield made


class Console:
    """A console that answers, sends one line, and notices when its subscriber goes."""

    def __init__(self, host: Host, socket_name: str = "console.sock") -> None:
        self.gone = threading.Event()
        self.daemon = Av5Daemon(host.deployment.socket_path(socket_name), self._answer)

    def _answer(self, message: Message, connection: socket.socket) -> bool:
        say(connection, message.header.name, Text("subscribed"), message.header.sequence)
        say(connection, message.header.name, LINE)
        assert connection.recv(1) == b""
        self.gone.set()
        return False

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.close()


def messages_of(connection: TlsConnection) -> Iterator[object]:
    while (payload := connection.receive_frame(seconds=20)) is not None:
        yield decode_message(payload).payload


@pytest.mark.parametrize(
    ("command", "socket_name"), [(ConsoleSubscribe(count=5), "console.sock"), (StatsSubscribe(), "stat.sock")]
)
def test_a_stream_is_relayed_until_the_client_goes(host: Host, command: object, socket_name: str) -> None:
    leaf = host.deployment.root.delegate("dev").leaf("hello", command)  # type: ignore[arg-type]
    with Console(host, socket_name) as console:
        with host.connect(leaf) as connection:
            assert answer(connection) == Text("subscribed")
            assert answer(connection) == LINE
            assert not console.gone.is_set()
        assert console.gone.wait(20)
        (message,) = console.daemon.messages
        assert message.header.name == Name.parse("dev:hello")
        assert message.payload == command
    assert host.daemon.asked == []


@pytest.mark.parametrize("asked_meanwhile", [False, True])
def test_p14_a_new_revocation_list_ends_the_streams_of_what_it_revokes(host: Host, asked_meanwhile: bool) -> None:
    root = host.deployment.root
    dev, other = root.delegate("dev"), root.delegate("other")
    with Console(host) as console:
        with (
            host.connect(dev.leaf("hello", ConsoleSubscribe(count=1))) as revoked,
            host.connect(other.leaf("hello", ConsoleSubscribe(count=1))) as kept,
        ):
            for connection in (revoked, kept):
                assert (answer(connection), answer(connection)) == (Text("subscribed"), LINE)
            (host.deployment.crls / "root.crl").write_bytes(root.crl([dev]))
            if asked_meanwhile:  # so that it is a request that finds the new list
                assert host.ask(other.leaf("hello")) == Text("done")
            last = answer(revoked)
            assert isinstance(last, Failure)
            assert "revoked" in last.text
            assert revoked.receive_frame(seconds=20) is None
            assert not kept._frames
        assert console.gone.wait(20)
    refused = host.ask(dev.leaf("again", ConsoleSubscribe(count=1)))
    assert isinstance(refused, Failure)
    assert "revoked" in refused.text


def test_a_stream_ends_with_the_validity_of_its_chain(host: Host) -> None:
    short = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    leaf = host.deployment.root.delegate("dev").leaf("hello", ConsoleSubscribe(count=1), not_after=short)
    with Console(host), host.connect(leaf) as connection:
        assert answer(connection) == Text("subscribed")
        assert answer(connection) == LINE
        last = answer(connection)
        assert isinstance(last, Failure)
        assert "expired" in last.text


def dump(asked: Asked) -> Outcome:
    say(asked.answers, asked.request.name, BlockImage(False))
    say(asked.answers, asked.request.name, BlockChunk(b"x" * 60_000))
    say(asked.answers, asked.request.name, BlockChunk(None))
    return Outcome(True, Effect.NONE, "")


def broken_dump(asked: Asked) -> Outcome:
    say(asked.answers, asked.request.name, BlockImage(False))
    say(asked.answers, asked.request.name, BlockChunk(b"x" * 60_000))
    return Outcome(False, Effect.NONE, "")


def cut_dump(asked: Asked) -> Outcome:
    say(asked.answers, asked.request.name, BlockImage(False))
    asked.answers.sendall(b"\0\0\1\0cut")
    return Outcome(False, Effect.NONE, "")


def test_a_dump_ends_with_its_mark(host: Host) -> None:
    host.daemon.doing = dump
    with host.connect(host.deployment.root.delegate("dev").leaf("disk", BlockDump(0))) as connection:
        assert list(messages_of(connection)) == [BlockImage(False), BlockChunk(b"x" * 60_000), BlockChunk(None)]


@pytest.mark.parametrize("doing", [broken_dump, cut_dump])
def test_p29_a_dump_that_breaks_off_says_so(host: Host, doing: object) -> None:
    host.daemon.doing = doing  # type: ignore[assignment]
    with host.connect(host.deployment.root.delegate("dev").leaf("disk", BlockDump(0))) as connection:
        *_, last = messages_of(connection)
    assert isinstance(last, Failure)
    assert "in the middle" in last.text


def test_p29_a_daemon_that_goes_without_an_answer_is_reported(host: Host) -> None:
    host.daemon.doing = lambda asked: Outcome(False, Effect.UNKNOWN, "")
    refused = host.ask(host.deployment.root.delegate("dev").leaf("hello", UnikernelDestroy()))
    assert isinstance(refused, Failure)
    assert "without an answer" in refused.text


CONTENT = os.urandom(300_000)


def test_a_block_device_is_uploaded_while_it_comes(host: Host) -> None:
    uploaded: list[bytes | None] = []

    def upload(asked: Asked) -> Outcome:
        uploaded.append(receive_stream(asked.answers))
        say(asked.answers, asked.request.name, Text("set block device"))
        return Outcome(True, Effect.CHANGED, "")

    host.daemon.doing = upload
    leaf = host.deployment.root.delegate("dev").leaf("disk", BlockSet(False))
    assert host.ask(leaf, CONTENT) == Text("set block device")
    assert uploaded == [CONTENT]
    assert host.deployment.spooled == []


def test_an_upload_that_breaks_off_has_no_end_mark(host: Host) -> None:
    uploaded: list[bytes | None] = []
    arrived = threading.Event()

    def upload(asked: Asked) -> Outcome:
        uploaded.append(receive_stream(asked.answers))
        arrived.set()
        return Outcome(False, Effect.NONE, "")

    host.daemon.doing = upload
    leaf = host.deployment.root.delegate("dev").leaf("disk", BlockSet(False))
    connection = host.connect(leaf)
    connection.send_frame(CONTENT)
    connection.abandon()
    assert arrived.wait(20)
    assert uploaded == [None]


def test_a_daemon_that_refuses_an_upload_is_heard(host: Host) -> None:
    def refuse(asked: Asked) -> Outcome:
        say(asked.answers, asked.request.name, Failure("set block: is in use"))
        return Outcome(False, Effect.NONE, "")

    host.daemon.doing = refuse
    leaf = host.deployment.root.delegate("dev").leaf("disk", BlockSet(False))
    assert host.ask(leaf, bytes(40_000_000)) == Failure("set block: is in use")


def test_an_old_upload_with_empty_content_is_filled_in(host: Host) -> None:
    leaf = host.deployment.root.delegate("dev").leaf("disk", BlockSetOld(False, b""))
    assert host.ask(leaf, CONTENT) == Text("done")
    (asked,) = host.daemon.asked
    assert asked.request.command == BlockSetOld(False, CONTENT)


def test_p14_a_delegation_pushes_its_own_list_and_no_other(host: Host) -> None:
    root = host.deployment.root
    dev, other = root.delegate("dev"), root.delegate("other")
    victim = dev.leaf("victim")
    assert host.ask(victim) == Text("done")
    push = dev.leaf(None, CrlUpdate())
    foreign = host.ask(push, other.crl([victim]))
    assert isinstance(foreign, Failure)
    assert "of no CA of this chain" in foreign.text
    taken = host.ask(push, dev.crl([victim], number=7))
    assert isinstance(taken, Text)
    assert "number 7" in taken.text
    assert isinstance(host.ask(victim), Failure)
    older = host.ask(push, dev.crl([], number=6))
    assert isinstance(older, Failure)
    assert "number 7 was seen before" in older.text
    # and it is remembered
    host.authoriser.stop()
    host.authoriser = host.deployment.authoriser()
    refused = host.ask(victim)
    assert isinstance(refused, Failure)
    assert "revoked" in refused.text
    # until the operator says that it was a mistake, while the authoriser runs
    assert crl_reset(host) == (
        0,
        "the numbers of revocation lists are forgotten, and those that were pushed are gone\n",
    )
    assert host.ask(victim) == Text("done")
    assert isinstance(host.ask(push, dev.crl([victim], number=6)), Text)
    assert isinstance(host.ask(victim), Failure)
    # or while it does not
    host.authoriser.stop()
    assert crl_reset(host) == (0, "the numbers of revocation lists are forgotten when albatross-authorise starts\n")
    host.authoriser = host.deployment.authoriser()
    assert host.ask(victim) == Text("done")
    assert isinstance(host.ask(push, dev.crl([], number=5)), Text)
    assert (host.deployment.statedir / "audit.log").read_text().count('"crl-reset"') == 2


def crl_reset(host: Host) -> tuple[int, str]:
    """Exit status and words of ``albatross-host crl reset``."""
    code = "from albatross_pki.host.host_cli import main; main()"
    places = ["--statedir", str(host.deployment.statedir), "--tmpdir", str(host.deployment.tmpdir)]
    ran = subprocess.run(
        [sys.executable, "-c", code, "crl", "reset", *places], capture_output=True, text=True, timeout=60
    )
    return ran.returncode, ran.stdout or ran.stderr


def test_lists_of_nobody_are_not_reset(tmp_path: Path) -> None:
    code = "from albatross_pki.host.host_cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, "crl", "reset", str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 124
    assert ran.stderr.startswith(f"error: {tmp_path}/authorise is no directory of an authoriser\nhint: ")
    assert list(tmp_path.iterdir()) == []


def test_a_restarted_authoriser_is_found_again(host: Host) -> None:
    leaf = host.deployment.root.delegate("dev").leaf("hello")
    assert host.ask(leaf) == Text("done")
    host.authoriser.stop()
    refused = host.ask(leaf)
    assert isinstance(refused, Failure)
    assert "albatross-authorise is not running" in refused.text
    host.authoriser = host.deployment.authoriser()
    assert host.ask(leaf) == Text("done")


def test_the_outcome_is_recorded_after_the_client_has_gone(host: Host) -> None:
    going = threading.Event()

    def slowly(asked: Asked) -> Outcome:
        assert going.wait(20)
        with contextlib.suppress(OSError):
            say(asked.answers, asked.request.name, Text("done"))
        return Outcome(True, Effect.CHANGED, "done although nobody listened")

    host.daemon.doing = slowly
    connection = host.connect(host.deployment.root.delegate("dev").leaf("hello", UnikernelDestroy()))
    eventually(lambda: host.daemon.asked)
    connection.abandon()
    going.set()
    eventually(lambda: any("nobody listened" in entry.get("text", "") for entry in host.deployment.audit))


@pytest.mark.parametrize("size", [1000, (1 << 20) - 40, 1 << 20, (1 << 20) + 1, 20 << 20])
def test_an_image_of_any_size_arrives_under_the_header_of_the_request(host: Host, size: int) -> None:
    image = os.urandom(size)

    def get(asked: Asked) -> Outcome:
        say(asked.answers, Name.parse("another:name:altogether"), UnikernelImage(False, image), sequence=2**40)
        return Outcome(True, Effect.NONE, "")

    host.daemon.doing = get
    leaf = host.deployment.root.delegate("dev").leaf("hello", UnikernelGet(0))
    with host.connect(leaf) as connection:
        payload = connection.receive_frame()
        assert payload is not None
        message = decode_message(payload)
        assert (message.header.name, message.header.sequence) == (Name.parse("dev:hello"), 0)
        assert message.payload == UnikernelImage(False, image)
        assert connection.receive_frame() is None
    assert host.deployment.spooled == []


def test_p04_a_large_answer_takes_no_memory_and_waits_for_no_reader(host: Host) -> None:
    """The daemon is done as soon as all of its answer is spooled, whatever the client does."""
    size, done = 60 << 20, threading.Event()

    def get(asked: Asked) -> Outcome:
        say(asked.answers, asked.request.name, UnikernelImage(False, bytes(size)))
        done.set()
        return Outcome(True, Effect.NONE, "")

    host.daemon.doing = get
    before = host.endpoint.resident()
    with host.connect(host.deployment.root.delegate("dev").leaf("hello", UnikernelGet(0))) as connection:
        assert done.wait(30)
        assert host.endpoint.resident() < before + (10 << 20)
        got = answer(connection)
    assert isinstance(got, UnikernelImage)
    assert len(got.image) == size


@pytest.mark.parametrize("octets", [b"\0\x7f\xff\xff" + bytes(3 << 20), b"\0\x10\0\1" + b"\x30" + bytes(1 << 20)])
def test_p03_a_large_answer_that_breaks_off_or_is_none_is_reported(host: Host, octets: bytes) -> None:
    def nonsense(asked: Asked) -> Outcome:
        asked.answers.sendall(octets)
        return Outcome(False, Effect.NONE, "")

    host.daemon.doing = nonsense
    refused = host.ask(host.deployment.root.delegate("dev").leaf("hello", UnikernelGet(0)))
    assert isinstance(refused, Failure)
    assert "went away" in refused.text
    assert host.deployment.spooled == []
