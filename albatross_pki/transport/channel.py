"""Frames and descriptors over a unix socket, for asyncio.

A ``Channel`` reads exactly one frame at a time (4 octets of length, big endian, then the payload; Albatross AV5), in
this order: 1. the first octet within ``idle_timeout``; 2. the length against ``limit``, before anything is allocated;
3. the rest within ``frame_timeout``. Because it never reads beyond a frame, descriptors stay with the frame that they
came with (unix(7): with its first octet). What payloads mean is left to the caller, and so is closing.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Self

from albatross_pki.errors import Refused
from albatross_pki.transport.errors import ConnectionCut, FrameOverLimit, TimedOut, Unreachable
from albatross_pki.transport.memory import SharedOctets
from albatross_pki.transport.places import Places
from albatross_pki.transport.readiness import Reading
from albatross_pki.transport.sockets import (
    PeerCredentials,
    activated_sockets,
    close_all,
    listen,
    peer_credentials,
)

__all__ = [
    "FRAME_LIMIT",
    "Channel",
    "PeerCredentials",
    "Served",
    "activated_sockets",
    "connect",
    "listen",
    "peer_credentials",
    "serve_unix",
]

FRAME_LIMIT = 64 * 1024 * 1024  # a command with an image or block content inside it travels as one frame
FRAME_TIMEOUT = 30.0  # seconds for the rest of a frame that has begun; both ends are on this host
CONNECT_TIMEOUT = 5.0
MAX_DESCRIPTORS = 8
MAX_CONNECTIONS = 256
_PIECE = 1 << 20
_LENGTH = struct.Struct("!I")
_ANCILLARY = socket.CMSG_SPACE(MAX_DESCRIPTORS * array("i").itemsize)
_RETRY_ACCEPT_SECONDS = 0.2
Ancillary = tuple[int, int, "array[int]"]

log = logging.getLogger(__name__)


class Channel:
    """One connected unix socket. At most one task reads and one writes at a time.

    ``idle_timeout`` bounds the wait for a frame to begin (``None``: for ever), ``frame_timeout`` the rest of a frame
    and the sending of one, both in seconds; ``limit`` is the largest payload in octets. Payloads are ``taken`` from
    ``memory``, if there is one, before they are received, and stay so until ``keep`` or the end.
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        limit: int = FRAME_LIMIT,
        idle_timeout: float | None = None,
        frame_timeout: float | None = FRAME_TIMEOUT,
        memory: SharedOctets | None = None,
    ) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.limit = limit
        self.idle_timeout = idle_timeout
        self.frame_timeout = frame_timeout
        self._loop = asyncio.get_running_loop()
        self._reading = Reading(connection)
        self._writing = False
        self._memory = memory
        self._taken = 0

    @property
    def peer(self) -> PeerCredentials:
        return peer_credentials(self.socket)

    async def receive(self) -> bytes | None:
        """The next payload (``b""`` for an end-of-stream mark), ``None`` at an orderly end between frames.

        Raises ``ConnectionCut``, ``TimedOut`` or ``FrameOverLimit``. Descriptors that come along are closed.
        """
        received = await self.receive_with_descriptors()
        if received is None:
            return None
        payload, descriptors = received
        close_all(descriptors)
        return payload

    async def receive_with_descriptors(self) -> tuple[bytes, list[int]] | None:
        """Like ``receive``, with the descriptors (close-on-exec) that came with the frame; they are the caller's."""
        descriptors: list[int] = []
        try:
            header = await self._begin(descriptors)
            if header is None:
                return None
            taken = False
            if len(header) == _LENGTH.size:  # nearly always, and the rest is there already
                length = self._length(header)
                taken = 0 < length <= _PIECE and self._take_now(length)
                payload = self._now(length, descriptors) if taken else b""
                if payload is not None and len(payload) == length:
                    return payload, descriptors
                header += payload or b""
            async with self._deadline("receiving a frame"):
                if len(header) < _LENGTH.size:
                    header += await self._exactly(_LENGTH.size - len(header), descriptors)
                length, begun = self._length(header[: _LENGTH.size]), header[_LENGTH.size :]
                if not taken:
                    await self._take(length)
                return begun + await self._exactly(length - len(begun), descriptors), descriptors
        except BaseException:
            close_all(descriptors)
            raise

    async def begin(self) -> int | None:
        """The length of the next payload, which is then received by ``piece``; ``None`` at an orderly end.

        Raises as ``receive`` does. Descriptors that come along are closed.
        """
        descriptors: list[int] = []
        try:
            header = await self._begin(descriptors)
            if header is None:
                return None
            if len(header) < _LENGTH.size:
                async with self._deadline("receiving a frame"):
                    header += await self._exactly(_LENGTH.size - len(header), descriptors)
            return self._length(header)
        finally:
            close_all(descriptors)

    async def piece(self, most: int) -> bytes:
        """Between 1 and ``most`` octets of a payload that was begun, each within ``frame_timeout``."""
        descriptors: list[int] = []
        try:
            octets = self._now(most, descriptors)
            if octets is None:
                async with self._deadline("receiving a frame"):
                    octets = await self._some(most, descriptors)
            if not octets:
                raise ConnectionCut("the connection was cut in the middle of a frame")
            return octets
        finally:
            close_all(descriptors)

    async def send(self, payload: bytes | memoryview, descriptors: Sequence[int] = ()) -> None:
        """Send one frame, the descriptors with its first octet; raises ``ConnectionCut`` or ``TimedOut``."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        rest = [memoryview(_LENGTH.pack(len(payload))), memoryview(payload)]
        if sent := self._send_some(rest, ancillary):  # nearly always all of it
            ancillary, rest = [], without_first(rest, sent)
        if rest:
            async with self._deadline("sending a frame"):
                await self._send_rest(rest, ancillary)

    def keep(self, octets: int) -> None:
        """Only so many octets of what was received are still in memory; the others may be somebody else's."""
        if self._memory is not None and octets < self._taken:
            self._memory.give_back(self._taken - octets)
            self._taken = octets

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the connection; a second time is fine."""
        self._reading.close()
        if self._writing and self.socket.fileno() >= 0:  # somebody closes under a task that waits
            self._loop.remove_writer(self.socket.fileno())
        self.socket.close()
        self.keep(0)

    def detach(self) -> socket.socket:
        """Give the socket away, for instance to be passed to another process."""
        taken = self.socket.dup()
        self.close()
        return taken

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @contextlib.asynccontextmanager
    async def _deadline(self, what: str, seconds: float | None = None) -> AsyncIterator[None]:
        bound = self.frame_timeout if seconds is None else seconds
        try:
            async with asyncio.timeout(bound):
                yield
        except TimeoutError as error:
            raise TimedOut(what, bound or 0) from error

    def _length(self, header: bytes) -> int:
        (length,) = _LENGTH.unpack(header)
        if length > self.limit:
            raise FrameOverLimit(length, self.limit)
        return int(length)

    def _take_now(self, octets: int) -> bool:
        if self._memory is not None:
            if not self._memory.try_take(octets):
                return False
            self._taken += octets
        return True

    async def _take(self, octets: int) -> None:
        if self._memory is not None:
            await self._memory.take(octets)
            self._taken += octets

    async def _begin(self, descriptors: list[int]) -> bytes | None:
        octets = self._now(_LENGTH.size, descriptors)
        if octets is not None:
            return octets or None
        if self.idle_timeout is None:
            return await self._later(_LENGTH.size, descriptors)
        async with self._deadline("waiting for a frame", self.idle_timeout):
            return await self._later(_LENGTH.size, descriptors)

    async def _exactly(self, count: int, descriptors: list[int]) -> bytes:
        pieces = []
        while count:
            piece = await self._some(min(count, _PIECE), descriptors)
            if piece is None:
                raise ConnectionCut("the connection was cut in the middle of a frame")
            pieces.append(piece)
            count -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _some(self, count: int, descriptors: list[int]) -> bytes | None:
        """Between 1 and ``count`` octets, ``None`` at the end of the stream."""
        octets = self._now(count, descriptors)
        return await self._later(count, descriptors) if octets is None else octets or None

    async def _later(self, count: int, descriptors: list[int]) -> bytes | None:
        """Like ``_some``, where nothing is there yet."""
        return await self._reading.until(lambda: self._now(count, descriptors)) or None

    def _now(self, count: int, descriptors: list[int]) -> bytes | None:
        """Up to ``count`` octets that are there, ``b""`` at the end of the stream, ``None`` if nothing is there yet."""
        try:
            octets, ancillary, flags, _ = self.socket.recvmsg(count, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError as error:
            raise ConnectionCut(f"the connection was cut: {os.strerror(error.errno or 0).lower()}") from error
        if ancillary:
            descriptors += _descriptors(ancillary)
        if flags & socket.MSG_CTRUNC or len(descriptors) > MAX_DESCRIPTORS:
            raise ConnectionCut(f"more than {MAX_DESCRIPTORS} descriptors came with one frame")
        return octets

    async def _send_rest(self, rest: list[memoryview], ancillary: list[Ancillary]) -> None:
        while rest:
            if sent := self._send_some(rest, ancillary):
                ancillary, rest = [], without_first(rest, sent)
            else:
                await self._writable()

    def _send_some(self, buffers: list[memoryview], ancillary: list[Ancillary]) -> int:
        """How many octets went out now; 0 if the other side has to read first."""
        try:
            return self.socket.sendmsg(buffers, ancillary, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise ConnectionCut(f"the other side is gone: {os.strerror(error.errno or 0).lower()}") from error

    async def _writable(self) -> None:
        descriptor = self.socket.fileno()
        if descriptor < 0:
            raise ConnectionCut("the connection is closed")
        ready = self._loop.create_future()
        self._loop.add_writer(descriptor, _wake, ready)
        self._writing = True
        try:
            await ready
        finally:
            self._writing = False
            if self.socket.fileno() == descriptor:
                self._loop.remove_writer(descriptor)


def _wake(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array("i")
    for level, kind, octets in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(octets[: len(octets) - len(octets) % found.itemsize])
    return list(found)


def without_first(buffers: list[memoryview], sent: int) -> list[memoryview]:
    """What is left of ``buffers`` when so many octets of them, from the first on, are sent or written."""
    rest = []
    for buffer in buffers:
        taken = min(sent, len(buffer))
        sent -= taken
        if taken < len(buffer):
            rest.append(buffer[taken:])
    return rest


async def connect(
    path: str,
    *,
    timeout: float = CONNECT_TIMEOUT,
    limit: int = FRAME_LIMIT,
    idle_timeout: float | None = None,
) -> Channel:
    """Connect to the unix socket at ``path``; raises ``Unreachable``."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        async with asyncio.timeout(timeout):
            while (error := connection.connect_ex(path)) == errno.EAGAIN:  # its backlog is full: unix(7)
                await asyncio.sleep(_RETRY_ACCEPT_SECONDS)
    except TimeoutError:
        error = errno.ETIMEDOUT
    except BaseException:
        connection.close()
        raise
    if error:
        connection.close()
        raise Unreachable(path, os.strerror(error).lower())
    return Channel(connection, limit=limit, idle_timeout=idle_timeout)


@dataclass(slots=True)
class Served:
    """How many connections there are, and have been."""

    active: int = 0
    total: int = 0


async def serve_unix(
    listener: socket.socket,
    handler: Callable[[Channel], Awaitable[None]],
    *,
    max_connections: int = MAX_CONNECTIONS,
    limit: int = FRAME_LIMIT,
    idle_timeout: float | None = None,
    memory: SharedOctets | None = None,
    trusted: frozenset[int] | None = None,
    per_user: int | None = None,
    served: Served | None = None,
) -> None:
    """Accept for ever and run ``handler`` on each connection, at most ``max_connections`` at once.

    Further ones wait; users who are not ``trusted`` (root and our own, if not given) have a part of the places each
    (``places``). ``served`` counts connections. A connection is closed when its handler returns; an exception in one is
    logged and ends that connection alone. Cancelling this ends every handler.
    """
    loop = asyncio.get_running_loop()
    places = Places(max_connections, trusted=trusted, per_user=per_user)
    tasks: set[asyncio.Task[None]] = set()
    served = Served() if served is None else served

    async def run(connection: socket.socket, uid: int) -> None:
        try:
            async with (
                places.place(uid),
                Channel(connection, limit=limit, idle_timeout=idle_timeout, memory=memory) as channel,
            ):
                await handler(channel)
        except Exception:
            log.exception("a connection ended with an error that nobody expected")
        finally:
            served.active -= 1
            connection.close()
            places.leave(uid)

    try:
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:  # out of descriptors, or a peer that went away
                log.warning("cannot accept: %s", error)
                await asyncio.sleep(_RETRY_ACCEPT_SECONDS)
                continue
            uid = peer_credentials(connection).uid
            try:
                places.enter(uid)
            except Refused as error:
                _refuse(connection, error.message)
                continue
            served.active += 1
            served.total += 1
            task = asyncio.create_task(run(connection, uid))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _refuse(connection: socket.socket, why: str) -> None:
    """One failure as Albatross' clients read it, as far as it goes without waiting."""
    from albatross_pki.messages import Header, Message
    from albatross_pki.replies import Failure
    from albatross_pki.wire.framing import frame
    from albatross_pki.wire.message import encode_message

    log.info("a connection was refused: %s", why)
    with connection, contextlib.suppress(OSError):
        connection.setblocking(False)
        connection.send(frame(encode_message(Message(Header(), Failure(why)))))
