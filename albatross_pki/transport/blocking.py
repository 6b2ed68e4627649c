"""Messages over a unix socket for command lines, one thing after the other and without asyncio.

``Connection`` sends a message and reads answers; while it uploads a stream it looks for an answer between the pieces
and stops at the first one, because a daemon that refuses stops reading (Albatross AV5). Deadlines are per call.
"""

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

from albatross_pki.messages import Message
from albatross_pki.transport.errors import ConnectionCut, FrameOverLimit, TimedOut, Unreachable
from albatross_pki.transport.sockets import readable

FRAME_LIMIT = 64 * 1024 * 1024
CONNECT_TIMEOUT = 5.0
CHUNK = 64 * 1024
_PROGRESS = 256 * 1024  # octets of one payload between two reports
_LENGTH = struct.Struct("!I")


class Connection:
    """A connection to the unix socket at ``path``; raises ``Unreachable``.

    ``timeout`` bounds, in seconds, each wait for the other side (``None``: for ever); ``limit`` is the largest payload
    that is taken, in octets.
    """

    def __init__(self, path: str, *, timeout: float | None = None, limit: int = FRAME_LIMIT) -> None:
        self.path = path
        self.limit = limit
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(CONNECT_TIMEOUT)
        try:
            self.socket.connect(path)
        except OSError as error:
            self.socket.close()
            raise Unreachable(path, _reason(error), hint=_hint(error)) from error
        self.socket.settimeout(timeout)

    def send(self, message: Message, progress: Callable[[int], None] | None = None) -> None:
        """Send one message as a frame; raises ``ConnectionCut`` or ``TimedOut``. ``progress`` is told sent octets."""
        from albatross_pki.wire.message import encode_message

        self.send_payload(encode_message(message), progress)

    def receive(self) -> Message | None:
        """The next message, ``None`` if the other side ended the conversation in an orderly way.

        Raises ``MalformedMessage``, ``ConnectionCut``, ``TimedOut`` or ``FrameOverLimit``.
        """
        from albatross_pki.wire.message import decode_message

        payload = self.receive_payload()
        return decode_message(payload) if payload else None  # an empty frame ends the conversation too

    def send_payload(self, payload: bytes | memoryview, progress: Callable[[int], None] | None = None) -> None:
        """Send any payload as a frame: a message, or a chunk of a stream."""
        with self._waiting("sending"):
            if len(payload) <= CHUNK:
                self.socket.sendall(_LENGTH.pack(len(payload)) + payload)
                return
            self.socket.sendall(_LENGTH.pack(len(payload)))
            rest = memoryview(payload)
            while rest:
                sent = rest[:_PROGRESS] if progress is not None else rest
                self.socket.sendall(sent)
                rest = rest[len(sent) :]
                if progress is not None:
                    progress(len(sent))

    def receive_payload(self) -> bytes | None:
        """The payload of the next frame, ``None`` at an orderly end between frames."""
        header = self._exactly(_LENGTH.size, may_end=True)
        if header is None:
            return None
        (length,) = _LENGTH.unpack(header)
        if length > self.limit:
            raise FrameOverLimit(length, self.limit)
        return self._exactly(length)

    def send_stream(self, source: BinaryIO) -> bool:
        """Send the rest of ``source`` as chunks and the end-of-stream mark.

        Returns whether all of it was sent; if not, an answer is waiting, or the other side is gone.
        """
        while chunk := source.read(CHUNK):
            if self.answered() or not self._sent(chunk):
                return False
        return self._sent(b"")

    def answered(self) -> bool:
        """Whether something can be read now, an end included."""
        return readable(self.socket)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _sent(self, chunk: bytes) -> bool:
        with contextlib.suppress(ConnectionCut):
            self.send_payload(chunk)
            return True
        return False

    def _exactly(self, count: int, *, may_end: bool = False) -> bytes | None:
        octets = b""
        pieces = []
        with self._waiting("waiting for an answer"):
            while count:
                octets = self.socket.recv(min(count, 1 << 20))
                if not octets:
                    break
                pieces.append(octets)
                count -= len(octets)
        if count and not (may_end and not pieces):
            raise ConnectionCut(f"{self.path} closed the connection in the middle of an answer")
        return None if count else b"".join(pieces)

    @contextlib.contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise TimedOut(f"{what} ({self.path})", self.socket.gettimeout() or 0) from error
        except OSError as error:
            raise ConnectionCut(f"{self.path} went away: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def _hint(error: OSError) -> str | None:
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return "is the daemon running, and is --tmpdir the directory that it was started with?"
    if isinstance(error, PermissionError):
        return "only root and the socket's group may connect"
    return None
