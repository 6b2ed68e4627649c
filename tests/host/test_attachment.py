"""The connection to the console, against consoles that behave and some that do not."""

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path as FilePath

import pytest

from albatross_pki.commands import ConsoleAdd
from albatross_pki.host import attachment
from albatross_pki.host.attachment import ConsoleAttachment, Fifo
from albatross_pki.messages import Message
from albatross_pki.names import Name
from albatross_pki.replies import Empty
from albatross_pki.replies import Failure as FailureAnswer
from albatross_pki.transport.channel import Channel, serve_unix
from albatross_pki.transport.sockets import listen
from albatross_pki.wire.message import decode_message, encode_message

NAME, OTHER = Name.parse("dev:web"), Name.parse("dev:more")
Behaviour = Callable[[Channel, Message], Awaitable[None]]


@contextlib.asynccontextmanager
async def console(path: str, behave: Behaviour) -> AsyncIterator[list[tuple[Name, int]]]:
    """A console whose answers are the test's; what was announced to it."""
    announced: list[tuple[Name, int]] = []

    async def handle(channel: Channel) -> None:
        while payload := await channel.receive():
            message = decode_message(payload)
            assert isinstance(message.payload, ConsoleAdd)
            announced.append((message.header.name, message.payload.rings))
            await behave(channel, message)

    listener = listen(path)
    task = asyncio.create_task(serve_unix(listener, handle))
    try:
        yield announced
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        listener.close()
        os.unlink(path)


async def agree(channel: Channel, message: Message) -> None:
    await channel.send(encode_message(Message(message.header, Empty())))


async def refuse(channel: Channel, message: Message) -> None:
    await channel.send(encode_message(Message(message.header, FailureAnswer("opening"))))


async def say_nothing(channel: Channel, message: Message) -> None:
    del channel, message


async def talk_nonsense(channel: Channel, message: Message) -> None:
    del message
    await channel.send(b"nonsense")


@contextlib.asynccontextmanager
async def attached(tmp_path: FilePath) -> AsyncIterator[ConsoleAttachment]:
    it = ConsoleAttachment(str(tmp_path / "console.sock"))
    task = asyncio.create_task(it.run())
    try:
        yield it
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.contextmanager
def fifo(tmp_path: FilePath, name: str = "fifo"):  # type: ignore[no-untyped-def]
    os.mkfifo(tmp_path / name)
    descriptor = os.open(tmp_path / name, os.O_RDWR | os.O_NONBLOCK)
    try:
        yield Fifo(descriptor, 5)
    finally:
        os.close(descriptor)


async def drained(each: Fifo) -> bool:
    """Whether somebody of ours sees to it that it does not fill up."""
    left = 4 * fcntl.fcntl(each.descriptor, fcntl.F_GETPIPE_SZ)
    try:
        while left > 0:
            left -= os.write(each.descriptor, b"x" * 70 + b"\n")
            await asyncio.sleep(0)
    except BlockingIOError:
        return False
    finally:
        with contextlib.suppress(BlockingIOError):
            while os.read(each.descriptor, 1 << 16):
                pass
    return True


async def test_p06_what_is_announced_is_announced_again_to_every_new_console(tmp_path: FilePath) -> None:
    async with attached(tmp_path) as it:
        with fifo(tmp_path) as one, fifo(tmp_path, "two") as two:
            assert not await it.announce(NAME, one)  # nobody is there yet
            assert await drained(one)
            for _ in range(2):
                async with console(it.path, agree) as announced:
                    await asyncio.wait_for(it.connected.wait(), 10)
                    assert (NAME, 5) in announced
                    assert not await drained(one)
                    assert await it.announce(OTHER, two)
                    assert announced[-1] == (OTHER, 5)
                    it.withdraw(OTHER)
                async with asyncio.timeout(10):
                    while it.connected.is_set():
                        await asyncio.sleep(0.01)
                assert await drained(one)
            it.withdraw(NAME)


@pytest.mark.parametrize("behaviour", [say_nothing, talk_nonsense, refuse])
async def test_p06_a_console_that_misbehaves_costs_a_bounded_time_and_output_is_drained(
    tmp_path: FilePath, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachment, "CONSOLE_TIMEOUT", 0.2)
    async with attached(tmp_path) as it, console(it.path, behaviour):
        await asyncio.wait_for(it.connected.wait(), 10)
        with fifo(tmp_path) as one:
            async with asyncio.timeout(5):
                assert not await it.announce(NAME, one)
            assert await drained(one)
            it.withdraw(NAME)


async def test_what_is_announced_during_a_reconnection_is_not_forgotten(tmp_path: FilePath) -> None:
    async with attached(tmp_path) as it:
        with fifo(tmp_path) as one, fifo(tmp_path, "two") as two:
            await it.announce(NAME, one)
            gate = asyncio.Event()

            async def slowly(channel: Channel, message: Message) -> None:
                gate.set()
                await asyncio.sleep(0.1)
                await agree(channel, message)

            async with console(it.path, slowly) as announced:
                await asyncio.wait_for(gate.wait(), 10)
                await it.announce(OTHER, two)
                await asyncio.wait_for(it.connected.wait(), 10)
                assert {name for name, _ in announced} == {NAME, OTHER}
                assert not await drained(two)
            it.withdraw(NAME)
            it.withdraw(OTHER)


async def test_p06_a_console_that_nobody_accepts_for_is_tried_again(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd holds the socket of a console that is being started again: connections are made, answers do not come."""
    monkeypatch.setattr(attachment, "CONSOLE_TIMEOUT", 0.01)
    monkeypatch.setattr(attachment, "RECONNECT_FIRST", 0.01)
    path = str(tmp_path / "console.sock")
    there = ConsoleAttachment(path)
    read, write = os.pipe2(os.O_NONBLOCK)
    listener = listen(path)
    try:
        await there.announce(NAME, Fifo(read, 1))
        running = asyncio.create_task(there.run())
        connections: list[socket.socket] = []
        async with asyncio.timeout(20):
            while len(connections) < 3:
                connections.append((await asyncio.get_running_loop().sock_accept(listener))[0])
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        for each in connections:
            each.close()
    finally:
        there.withdraw(NAME)
        listener.close()
        os.close(read)
        os.close(write)
