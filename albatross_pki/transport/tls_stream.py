"""The server's end of a TLS connection on asyncio: handshake, octets both ways, and an end that loses no answer.

1. ``handshake``: within a deadline. A client whose certificate does not fit one record (an image is inside) is fed to
   OpenSSL only once it has a place among ``large``, because OpenSSL allocates what it claims; all others are held to
   OpenSSL's own limit of 100 KiB and wait for nobody.
2. ``read_into`` and ``send``: each within ``idle_timeout``.
3. ``finish``: the closing alert, a half-close, and then what the client still sends is read and thrown away within
   bounds. Without that the kernel answers with a reset, and the client loses the answer that says why it was refused.
"""

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass, field

from albatross_pki.transport.errors import ConnectionCut, TimedOut
from albatross_pki.transport.openssl import raise_certificate_list_limit
from albatross_pki.transport.readiness import Reading
from albatross_pki.transport.session import FirstProtectedRecord, TlsSession

RECEIVE = 128 * 1024
_SEND = 64 * 1024
_LARGE_FIRST_RECORD = 8 * 1024  # octets; nine certificates with RSA keys and policies are about this long


@dataclass(frozen=True)
class StreamBounds:
    """Octets and seconds that one connection may take; ``large`` are the places for certificates with images.

    ``large_of_address`` are those of them that the connection's address may have.
    """

    handshake_seconds: float = 10.0
    large_handshake_seconds: float = 60.0
    idle_seconds: float = 60.0
    drain_seconds: float = 5.0
    drain_octets: int = 128 * 1024 * 1024
    handshake_octets: int = 256 * 1024
    certificate_octets: int = 4 * 1024 * 1024
    large: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(4))
    large_of_address: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))


class HandshakeFailed(ConnectionCut):
    """The handshake came to no end; the alert, if there is one, was sent. ``reason`` is a short word for counting."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"handshake failed: {reason}")
        self.reason = reason


class TlsStream:
    """One accepted connection. One task may read and one may send at a time."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, bounds: StreamBounds) -> None:
        self.socket = connection
        self.bounds = bounds
        self.received = 0
        self.sent = 0
        self.established = False
        self._context = context
        self._session: TlsSession | None = None
        self._loop = asyncio.get_running_loop()
        self._reading = Reading(connection)

    @property
    def session(self) -> TlsSession:
        if self._session is None:
            raise RuntimeError("no handshake yet")
        return self._session

    async def handshake(self) -> None:
        """Raises ``HandshakeFailed`` after the alert was sent, and ``TimedOut``."""
        try:
            async with asyncio.timeout(self.bounds.handshake_seconds) as deadline:
                await self._handshake(deadline)
                self.established = True
        except TimeoutError as error:
            raise TimedOut("the TLS handshake", self.bounds.handshake_seconds) from error
        except OSError as error:
            raise HandshakeFailed("connection reset") from error

    async def _handshake(self, deadline: asyncio.Timeout) -> None:
        first = FirstProtectedRecord()
        allowed = self.bounds.handshake_octets
        async with contextlib.AsyncExitStack() as place:
            while True:
                octets = await self._received()
                if self._session is None:  # nothing is allocated for those who say nothing
                    self._session = TlsSession(self._context)
                if (first.feed(octets) or 0) >= _LARGE_FIRST_RECORD:
                    deadline.reschedule(self._loop.time() + self.bounds.large_handshake_seconds)
                    await place.enter_async_context(self.bounds.large_of_address)
                    await place.enter_async_context(self.bounds.large)
                    raise_certificate_list_limit(self._session.object, self.bounds.certificate_octets)
                    allowed += self.bounds.certificate_octets
                if self.received > allowed:
                    raise HandshakeFailed("too many octets")
                self._session.feed(octets)
                if await self._step():
                    return
                if not octets:
                    raise HandshakeFailed("connection closed")

    async def _step(self) -> bool:
        session = self.session
        try:
            return session.handshake()
        except ssl.SSLEOFError as error:
            raise HandshakeFailed("connection closed") from error
        except ssl.SSLError as error:
            raise HandshakeFailed(_reason(error)) from error
        finally:
            await self._flush()

    async def read_into(self, buffer: memoryview) -> int:
        """At least one octet of content within the idle timeout, 0 at the client's closing alert.

        Raises ``TimedOut``, ``ConnectionCut`` (also for a client that goes without a closing alert).
        """
        until = None
        while True:
            try:
                count = self.session.read_into(buffer)
            except ssl.SSLError as error:
                raise ConnectionCut(f"the client broke TLS: {_reason(error)}") from error
            if count is not None:
                return count
            until = until or self._loop.time() + self.bounds.idle_seconds  # for all that is no content, together
            self.session.feed(await self._received_in_time(until))

    def _received_now(self) -> bytes | None:
        """What is there already, ``b""`` at the end of the transport's stream, ``None`` if that is nothing."""
        try:
            octets = self.socket.recv(RECEIVE)
        except (BlockingIOError, InterruptedError):
            return None
        self.received += len(octets)
        return octets

    async def _received(self) -> bytes:
        """What comes next, ``b""`` at the end of the transport's stream; raises ``OSError``."""
        octets = self._received_now()
        return await self._reading.until(self._received_now) if octets is None else octets

    async def _received_in_time(self, until: float) -> bytes:
        """The same until that time of the loop; raises ``TimedOut`` or ``ConnectionCut``."""
        try:
            octets = self._received_now()  # what is there already needs no timer
            if octets is None:
                async with asyncio.timeout_at(until):
                    octets = await self._reading.until(self._received_now)
        except TimeoutError as error:
            raise TimedOut("waiting for the client", self.bounds.idle_seconds) from error
        except OSError as error:
            raise ConnectionCut("the client is gone") from error
        return octets

    async def send(self, octets: bytes | memoryview, *, last: bool = False) -> None:
        """Send all of ``octets``; raises ``TimedOut`` for a client that does not read, ``ConnectionCut``.

        With the ``last`` ones goes the closing alert, so that the client waits for nothing that is left to do here.
        """
        view = memoryview(octets)
        for start in range(0, len(view), _SEND):
            self.add(view[start : start + _SEND])
            if last and start + _SEND >= len(view):
                self.session.close()
            await self._flush()

    def add(self, octets: bytes | memoryview) -> None:
        """Octets that go with the next ones, or with the closing alert of ``finish``; raises ``ConnectionCut``."""
        try:
            self.session.write(octets)
        except ssl.SSLError as error:
            raise ConnectionCut(f"the client broke TLS: {_reason(error)}") from error

    async def gone(self) -> None:
        """Return once the client has closed or is gone; what it sends meanwhile is thrown away within the bounds."""
        buffer = memoryview(bytearray(4096))
        discarded = 0
        with contextlib.suppress(ConnectionCut):
            while count := await self._unbounded_read(buffer):
                discarded += count
                if discarded > self.bounds.handshake_octets:
                    return

    async def _unbounded_read(self, buffer: memoryview) -> int:
        while True:
            try:
                count = self.session.read_into(buffer)
                if count is not None:
                    return count
                self.session.feed(await self._received())
            except (ssl.SSLError, OSError) as error:
                raise ConnectionCut("the client is gone") from error

    def abandon(self) -> None:
        """Closing alert and close, as far as they go without waiting: the program ends."""
        with contextlib.suppress(OSError):
            if self._session is not None:
                self._session.close()
                self.socket.send(self._session.outgoing())
        self._close()

    async def finish(self) -> None:
        """Closing alert, half-close, drain, close. Never raises for what the client does."""
        try:
            with contextlib.suppress(TimedOut, ConnectionCut, OSError):
                if self._session is not None:
                    self._session.close()
                    await self._flush()
                self.socket.shutdown(socket.SHUT_WR)
                await self._drain()
        finally:
            self._close()

    def _close(self) -> None:
        self._reading.close()
        self.socket.close()

    async def _drain(self) -> None:
        left = self.bounds.drain_octets
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.bounds.drain_seconds):
                while left > 0 and (octets := await self._received()):
                    left -= len(octets)

    async def _flush(self) -> None:
        octets = self.session.outgoing()
        if not octets:
            return
        self.sent += len(octets)
        try:
            octets = octets[self.socket.send(octets) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            raise ConnectionCut("the client is gone") from error
        if not octets:
            return
        try:
            async with asyncio.timeout(self.bounds.idle_seconds):
                await self._loop.sock_sendall(self.socket, octets)
        except TimeoutError as error:
            raise TimedOut("the client did not read and", self.bounds.idle_seconds) from error
        except OSError as error:
            raise ConnectionCut("the client is gone") from error


def _reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (error.verify_message or "certificate verify failed").lower()
    return (error.reason or "unknown reason").replace("_", " ").lower()
