"""The console daemon's shell: fifos in, AV5 on a unix socket out, one event loop, nothing on disk.

Decisions are in ``console`` (what is kept, who listens), ``ring`` (what a line is) and ``console_backlog`` (what a slow
subscriber misses). Here, for each connection:

1. ``console add`` is taken from albatrossd's user, root and our own user only; its fifo is opened, its earlier one read
   to its end; the connection stays;
2. ``console subscribe`` is answered with the reply, the history, then lines as they come, until the subscriber sends
   anything, closes, or is pushed out by a newer one;
3. ``console inactive`` is answered and ends the connection, and so does everything else (``command_loop``).

A fifo is read as fast as it fills whoever listens; one read of each in turn, so that a loud unikernel takes no more
than its turn. The end of a fifo is the end of its unikernel.
"""

import asyncio
import logging
import os
import socket
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from albatross_pki.commands import ConsoleAdd, ConsoleInactive, ConsoleSubscribe
from albatross_pki.errors import AlbatrossError, check_range
from albatross_pki.host.command_loop import answer, serve_commands
from albatross_pki.host.console import Console, Consoles, newest_within
from albatross_pki.host.console_limits import (
    FIRST_COMMAND_TIMEOUT,
    FRAME_LIMIT,
    MAX_COUNT,
    PIPE_PIECES,
    READ_PIECE,
    RESERVED_CONNECTIONS,
    SWEEP_SECONDS,
)
from albatross_pki.host.console_subscriber import Subscriber
from albatross_pki.host.ring import LineSplitter, Ring
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import Consoles as ConsolesReply
from albatross_pki.replies import Empty, Success, Text
from albatross_pki.transport.channel import Channel, Served, serve_unix
from albatross_pki.wire.framing import frame
from albatross_pki.wire.message import encode_message

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

log = logging.getLogger(__name__)


def now() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


class Reader:
    """One fifo being read into its console until its last writer is gone."""

    def __init__(self, descriptor: int, console: Console, ended: Callable[[Console], None]) -> None:
        self._descriptor = descriptor
        self._console = console
        self._ended = ended
        self._splitter = LineSplitter()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(descriptor, self.read)

    def read(self) -> bool:
        """Take one piece; returns whether there may be more."""
        try:
            octets = os.read(self._descriptor, READ_PIECE)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            log.warning("reading the console of %s: %s", self._console.name, error.strerror)
            octets = b""
        if octets:
            self._console.write(now(), self._splitter.feed(octets))
            return True
        self.close()
        self._ended(self._console)
        return False

    def drain(self) -> None:
        """Take what is there at this moment, then close: another fifo takes over. At most one pipe's worth."""
        for _ in range(PIPE_PIECES):
            if self._descriptor < 0 or not self.read():
                break
        self.close()

    def sweep(self) -> None:
        """End the console if its fifo was removed before anybody wrote to it."""
        if os.fstat(self._descriptor).st_nlink == 0:
            self.read()

    def reads(self, descriptor: int) -> bool:
        """Whether ``descriptor`` is the very fifo that is being read here."""
        return os.path.sameopenfile(self._descriptor, descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            self._console.write(now(), self._splitter.finish())


def open_fifo(directory: int, name: Name) -> int:
    """The fifo of a unikernel in an open directory, non-blocking; raises ``OSError`` or ``AlbatrossError``.

    A name's text always has a colon and never a slash, so it is a file name and not ``.`` or ``..``.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
    descriptor = os.open(str(name), flags, dir_fd=directory)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise AlbatrossError("it is not a fifo")
    return descriptor


class ConsoleServer:
    """Everything of one console daemon; ``trusted`` are the users who may announce unikernels."""

    def __init__(self, consoles: Consoles, fifo_directory: str, trusted: frozenset[int]) -> None:
        self._consoles = consoles
        self._fifo_directory = fifo_directory
        self._trusted = trusted
        self._max_subscribers = consoles.max_connections() - RESERVED_CONNECTIONS
        self._readers: dict[Name, Reader] = {}
        self._subscribers: set[Subscriber] = set()
        self._announcers: set[Channel] = set()
        self.connections, self.fifos = Served(), Served()

    async def serve(self, listener: socket.socket) -> None:
        """Serve until cancelled."""
        sweeping = asyncio.create_task(self._sweep())
        try:
            await serve_unix(
                listener,
                self._connection,
                max_connections=self._consoles.max_connections(),
                limit=FRAME_LIMIT,
                idle_timeout=FIRST_COMMAND_TIMEOUT,
                trusted=self._trusted,
                per_user=max(1, self._consoles.max_connections() // 2),  # the authoriser's, for all of its clients
                served=self.connections,
            )
        finally:
            sweeping.cancel()
            for reader in list(self._readers.values()):
                reader.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            for reader in list(self._readers.values()):
                reader.sweep()

    async def _connection(self, channel: Channel) -> None:
        try:
            await serve_commands(channel, self._execute)
        finally:
            self._announcers.discard(channel)

    async def _execute(self, channel: Channel, message: Message) -> bool:
        match message.payload:
            case ConsoleAdd(rings):
                self._check_peer(channel)
                await answer(channel, message.header, self._add(_labelled(message.header.name), rings))
                self._announcers.add(channel)
                return True  # only an announcement may be followed by something
            case ConsoleSubscribe() as command:
                await self._subscribe(channel, message.header, command)
            case ConsoleInactive():
                if not message.header.name.is_path:
                    raise AlbatrossError("name used")
                names = self._consoles.inactive(message.header.name.path)
                await answer(channel, message.header, ConsolesReply(names))
            case _:
                raise AlbatrossError("unexpected command")
        return False

    def _check_peer(self, channel: Channel) -> None:
        peer = channel.peer
        if peer.uid not in self._trusted:
            log.warning("user %d (process %d) tried to announce a unikernel", peer.uid, peer.pid)
            raise AlbatrossError(f"user {peer.uid} may not announce unikernels to the console")

    def _add(self, name: Name, rings: int) -> Success:
        check_range("rings", rings, 0, 2**62 - 1)
        try:
            directory = os.open(self._fifo_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                descriptor = open_fifo(directory, name)
            finally:
                os.close(directory)
        except (OSError, AlbatrossError) as error:
            reason = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
            raise AlbatrossError(f"opening {os.path.join(self._fifo_directory, str(name))}: {reason}") from error
        earlier = self._readers.get(name)
        if earlier is not None and earlier.reads(descriptor):
            os.close(descriptor)  # announced once more, as after a lost connection: nothing is cut
            return Empty()
        if earlier is not None:
            earlier.drain()
        try:
            console = self._consoles.add(name, rings)
        except BaseException:
            os.close(descriptor)
            raise
        self._readers[name] = Reader(descriptor, console, self._ended)
        self.fifos.active = len(self._readers)
        self.fifos.total += 1
        log.info("reading the console of %s", name)
        return Empty()

    def _ended(self, console: Console) -> None:
        log.info("the console of %s has ended", console.name)
        self._readers.pop(console.name, None)
        self.fifos.active = len(self._readers)
        self._consoles.ended(console)

    async def _subscribe(self, channel: Channel, header: Header, command: ConsoleSubscribe) -> None:
        name = _labelled(header.name)
        if len(self._subscribers) >= self._max_subscribers:
            raise AlbatrossError(
                f"there are {self._max_subscribers} subscribers already, which is the limit of the host"
            )
        if command.count is not None:
            check_range("count", command.count, 0, MAX_COUNT)
        known = self._consoles.find(name)
        ring = known.ring if known is not None else None
        history = [] if ring is None else _history(ring, command)
        limit = self._consoles.backlog_limit(len(self._subscribers) + 1)
        subscriber = Subscriber(channel.socket, limit, lambda missed: _marker(console, missed))
        # albatrossd keeps the last lines of one that ended
        beside = any(announcer.peer.pid == channel.peer.pid for announcer in self._announcers)
        console = self._consoles.subscribe(name, subscriber, beside=beside)
        self._subscribers.add(subscriber)
        try:
            self._share()
            text = Text("subscribed" if ring is not None else "waiting for VM")
            subscriber.answer(frame(encode_message(Message(header, text))))
            missed, history = newest_within(history, limit, console.framer)
            subscriber.miss(missed)
            for moment, lines in history:
                subscriber.offer(console.framer.frames(moment, lines), len(lines))
            channel.idle_timeout = None
            await channel.receive()
        finally:
            subscriber.close()
            self._subscribers.discard(subscriber)
            self._consoles.unsubscribe(console, subscriber)
            self._share()

    def _share(self) -> None:
        limit = self._consoles.backlog_limit(len(self._subscribers))
        for subscriber in self._subscribers:
            subscriber.backlog.set_limit(limit)


def _labelled(name: Name) -> Name:
    if name.is_path:
        raise AlbatrossError("path used instead of name")
    return name


def _history(ring: Ring, command: ConsoleSubscribe) -> list[tuple[int, list[bytes]]]:
    if command.since is not None:
        return ring.since((command.since - _EPOCH) // _MILLISECOND)
    return ring.last(command.count or 0)


def _marker(console: Console, missed: int) -> bytes:
    """What a subscriber reads in place of lines that it was too slow for."""
    return console.framer.frames(now(), [b"[albatross-console: %d lines missed]" % missed])
