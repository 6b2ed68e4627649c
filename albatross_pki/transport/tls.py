"""The client's end of a TLS 1.3 connection, for command lines: one thing after the other, without asyncio.

``connect``, in this order: 1. every address of the host is tried; 2. the handshake goes on until OpenSSL has verified
the server's chain and made our last flight, which holds our certificate; 3. that flight is held back while ``judge``
looks at the server's chain; 4. only a server that nothing speaks against gets it. RFC 8446 lets a client send it late,
and an impostor then has seen nothing but a hello.

A ``TlsConnection`` reads while it writes and stops writing at the first answer: whoever refuses an upload does not
wait for its end. What a server says with an alert, and an end without any answer, are errors (``alerts``).
"""

import contextlib
import io
import os
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from albatross_pki.transport.alerts import CertificateRefused, ServerRefused, meaning
from albatross_pki.transport.contexts import client_context
from albatross_pki.transport.errors import ConnectionCut, TimedOut, TransportError, Unreachable
from albatross_pki.transport.openssl import raise_certificate_list_limit, verified_chain
from albatross_pki.transport.session import RECORD, TlsSession
from albatross_pki.wire.framing import END_OF_STREAM, HEADER_OCTETS, FrameDecoder, frame

__all__ = [
    "CertificateRefused",
    "ServerRefused",
    "TlsConnection",
    "connect",
    "raise_certificate_list_limit",
    "verified_chain",
]

CONNECT_SECONDS = 10.0
HANDSHAKE_SECONDS = 30.0
WAIT_SECONDS = 300.0  # a create is answered when the unikernel runs
FRAME_LIMIT = 128 * 1024 * 1024
CHUNK = 32 * RECORD - HEADER_OCTETS  # octets; with its header a chunk fills its records
_RAW = 64 * 1024  # octets of ``send_raw`` at a time
_RECEIVE = 128 * 1024

Judge = Callable[[list[bytes]], Sequence[str]]
"""Takes the server's verified chain (DER, leaf first, anchor last) and gives what speaks against it."""


def connect(
    host: str,
    port: int,
    chain: bytes,
    key: bytes,
    server_anchors: bytes | str,
    judge: Judge,
    *,
    connect_seconds: float = CONNECT_SECONDS,
    handshake_seconds: float = HANDSHAKE_SECONDS,
    frame_limit: int = FRAME_LIMIT,
) -> "TlsConnection":
    """A connection to a server that ``judge`` found nothing against.

    ``chain`` (leaf first), ``key`` and ``server_anchors`` are PEM. Raises ``Unreachable``, ``ServerRefused``,
    ``CertificateRefused`` or another ``TransportError``, and ``AlbatrossError`` for PEM that is of no use.
    """
    context = client_context(chain, key, server_anchors)
    connection = TlsConnection(_reach(host, port, connect_seconds), context, _server_name(host), frame_limit)
    try:
        connection.handshake(judge, handshake_seconds)
    except BaseException:
        connection.abandon()
        raise
    return connection


class TlsConnection:
    """A connection whose server was judged. ``answered`` tells whether any frame came."""

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, server_name: str, frame_limit: int) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.answered = False
        self._session = TlsSession(context, server_name=_encoded(server_name))
        self._decoder = FrameDecoder(frame_limit)
        self._frames: deque[bytes] = deque()
        self._buffer = memoryview(bytearray(_RECEIVE))
        self._end: TransportError | None = None  # why nothing more can be read
        self._closed = False  # by the server, in an orderly way
        self._deaf = False  # the server's end takes nothing more

    def handshake(self, judge: Judge, seconds: float = HANDSHAKE_SECONDS) -> None:
        """Steps 2 to 4 of the module; ``connect`` does this."""
        deadline = _Deadline("the TLS handshake", seconds)
        while not self._step():
            self._push(deadline)
            self._session.feed(self._receive(deadline))
        reasons = tuple(judge(self._session.verified()))
        if reasons:
            raise ServerRefused(reasons)
        self._push(deadline)

    def send_frame(self, payload: bytes | memoryview, *, seconds: float = WAIT_SECONDS) -> bool:
        """Send one frame; whether it was sent. If not, an answer or an error is waiting in ``receive_frame``."""
        return self._send(frame(bytes(payload)), seconds)

    def send_stream(
        self, source: BinaryIO | bytes, *, seconds: float = WAIT_SECONDS, progress: Callable[[int], None] | None = None
    ) -> bool:
        """Send the rest of ``source`` as chunks and the end-of-stream mark; whether all of it was sent.

        ``seconds`` bounds each wait for the server to take something; ``progress`` is told the octets as they go.
        """
        for chunk in _chunks(io.BytesIO(source) if isinstance(source, bytes) else source):
            if not self._send(chunk, seconds, progress):
                return False
        return self._send(END_OF_STREAM, seconds)

    def send_raw(self, octets: bytes, *, seconds: float = WAIT_SECONDS) -> bool:
        """Send octets that are no frame; for measuring against servers that know none."""
        view = memoryview(octets)
        return all(self._send(view[start : start + _RAW], seconds) for start in range(0, len(view), _RAW))

    def receive_frame(self, *, seconds: float | None = WAIT_SECONDS) -> bytes | None:
        """The next frame's payload; ``None`` at an orderly end, if there was an answer before it.

        Raises ``CertificateRefused`` and other ``TransportError`` for alerts, ``ConnectionCut`` for an end without any
        answer and for a connection that was cut, ``TimedOut``. ``seconds`` of ``None`` waits for ever.
        """
        deadline = _Deadline("waiting for the server's answer", seconds)
        while not self._frames:
            if self._end is not None:
                raise self._end
            if self._closed:
                if not self.answered:
                    raise ConnectionCut("the server closed the connection without an answer")
                return None
            self._read(self._receive(deadline))
        self.answered = True
        return self._frames.popleft()

    def close(self) -> None:
        """Say goodbye and close; never raises."""
        with contextlib.suppress(TransportError, ssl.SSLError, OSError):
            self._session.close()
            self.socket.send(self._session.outgoing())
        self.socket.close()

    def abandon(self) -> None:
        """Close without a word."""
        self.socket.close()

    def __enter__(self) -> "TlsConnection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _step(self) -> bool:
        try:
            return self._session.handshake()
        except ssl.SSLEOFError as error:
            raise ConnectionCut("the server closed the connection during the TLS handshake") from error
        except ssl.SSLError as error:
            with contextlib.suppress(OSError):
                self.socket.send(self._session.outgoing())  # our alert
            raise meaning(error, self._session.presented()) from error

    def _send(self, octets: bytes | memoryview, seconds: float, progress: Callable[[int], None] | None = None) -> bool:
        """``progress`` is told how much of the frame's payload has gone, in proportion to its records."""
        self._session.write(octets)
        pending = memoryview(self._session.outgoing())
        records, payload, told = len(pending), len(octets) - HEADER_OCTETS, 0
        deadline = _Deadline("sending to the server", seconds)
        while pending and self._heard_nothing and not self._deaf:
            readable, writable = self._wait(deadline, write=True)
            if readable:
                self._read(self._take())
            elif writable:
                pending = self._put(pending)
                deadline = _Deadline("sending to the server", seconds)
                if progress is not None:
                    gone = payload * (records - len(pending)) // records
                    progress(gone - told)
                    told = gone
        return not pending and self._heard_nothing

    @property
    def _heard_nothing(self) -> bool:
        return not self._frames and self._end is None and not self._closed

    def _put(self, pending: memoryview) -> memoryview:
        try:
            return pending[self.socket.send(pending) :]
        except BlockingIOError:
            return pending
        except OSError:
            self._deaf = True
            return pending

    def _push(self, deadline: "_Deadline") -> None:
        pending = memoryview(self._session.outgoing())
        while pending and not self._deaf:
            if self._wait(deadline, write=True, read=False)[1]:
                pending = self._put(pending)

    def _receive(self, deadline: "_Deadline") -> bytes:
        self._wait(deadline)
        return self._take()

    def _take(self) -> bytes:
        try:
            return self.socket.recv(_RECEIVE)
        except OSError as error:
            text = "the connection to the server was cut" + ("" if self.answered else " before any answer came")
            raise ConnectionCut(f"{text}: {_reason(error)}") from error

    def _read(self, octets: bytes) -> None:
        self._session.feed(octets)
        try:
            while (count := self._session.read_into(self._buffer)) is not None:
                if count == 0:
                    self._closed = True
                    return
                self._frames += self._decoder.feed(bytes(self._buffer[:count]))
        except ssl.SSLError as error:
            self._end = meaning(error)
        except ConnectionCut as error:
            self._end = error if self.answered or self._frames else _unanswered()

    def _wait(self, deadline: "_Deadline", *, write: bool = False, read: bool = True) -> tuple[bool, bool]:
        poll = select.poll()
        poll.register(self.socket, (select.POLLIN if read else 0) | (select.POLLOUT if write else 0))
        events = poll.poll(deadline.milliseconds())
        if not events:
            raise TimedOut(deadline.what, deadline.seconds or 0)
        ended = bool(events[0][1] & (select.POLLHUP | select.POLLERR))
        return bool(events[0][1] & select.POLLIN) or (read and ended), bool(events[0][1] & select.POLLOUT) or ended


class _Deadline:
    def __init__(self, what: str, seconds: float | None) -> None:
        self.what, self.seconds = what, seconds
        self._until = None if seconds is None else time.monotonic() + seconds

    def milliseconds(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - time.monotonic()) * 1000


def _chunks(file: BinaryIO) -> Iterator[bytes | memoryview]:
    """The rest of ``file`` as frames, each valid until the next one is asked for."""
    if not isinstance(file, io.BufferedIOBase):
        while chunk := file.read(CHUNK):
            yield frame(chunk)
        return
    room = memoryview(bytearray(HEADER_OCTETS + CHUNK))  # read to behind its header, so that nothing is put together
    while count := file.readinto(room[HEADER_OCTETS:]):
        room[:HEADER_OCTETS] = count.to_bytes(HEADER_OCTETS, "big")
        yield room[: HEADER_OCTETS + count]


def _unanswered() -> ConnectionCut:
    return ConnectionCut("the server cut the connection without an answer")


def _reach(host: str, port: int, seconds: float) -> socket.socket:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        candidates = socket.getaddrinfo(_encoded(host), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unreachable(address, "the name cannot be resolved") from error
    reason = "no address"
    for family, kind, protocol, _, target in candidates:
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(seconds)
        try:
            connection.connect(target)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            connection.close()
            reason = _reason(error)
        else:
            return connection
    raise Unreachable(address, reason)


def _encoded(name: str) -> str | bytes:
    """Octets where they are enough: of text, Python makes IDNA, and loads its tables for that."""
    return name.encode("ascii") if name.isascii() else name


def _server_name(host: str) -> str:
    """The name for SNI: none for addresses (RFC 6066 3)."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host.partition("%")[0])
            return ""
    return host


def _reason(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno else str(error)).lower()
