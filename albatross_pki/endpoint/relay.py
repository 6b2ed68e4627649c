"""Answers on their way from a daemon to a client, shaped as Albatross' endpoint shapes them.

* ``single``: one message, its header replaced by sequence 0 and the name of the request; more is not read;
* ``read``: every message as it is, until the daemon ends;
* ``dump``: every message as it is; the end is orderly only behind the message that says that the content is over.

An end before the first answer, or in the middle of one, is reported to the caller, who tells the client: it must never
take silence for success. Messages are not decoded, except short ones of a dump. Long ones, whole images and disks, go
through the spool: the daemon is not held up by a client that reads slowly, and memory does not grow with them.
"""

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from albatross_pki.endpoint.spool import SpoolFile
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import BlockChunk, Failure
from albatross_pki.transport.channel import Channel
from albatross_pki.transport.errors import TransportError
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.framing import frame, frame_header
from albatross_pki.wire.header import exchanged, with_header
from albatross_pki.wire.message import decode_message, encode_message

_SHORT = 8192  # an end mark is short: a header with a name of at most 4 KiB, and no content

_IN_MEMORY = 1 << 20  # octets; longer answers are spooled
_PIECE = 128 * 1024
_BEGINNING = 8192  # octets of a message in which its header ends

Send = Callable[[bytes], Awaitable[None]]
Spooling = Callable[[int], SpoolFile]


def failure(name: Name, text: str) -> bytes:
    """A failure about ``name`` as a frame."""
    return frame(encode_message(Message(Header(name), Failure(text))))


@dataclass(frozen=True, slots=True)
class ToClient:
    """How a client is reached: ``send`` octets, ``last`` ones that nothing follows, and a ``spool`` for so many."""

    send: Send
    last: Send
    spool: Spooling


async def relay(daemon: "Answers", client: ToClient, name: Name, answers: str) -> str | None:
    """Everything that ``daemon`` answers, to ``client``; what sending and spooling raise goes through.

    Returns why the answer is not complete, ``None`` if it is.
    """
    ended: str | None = "the daemon went away without an answer"
    header = Header(name) if answers == "single" else None
    try:
        while (length := await daemon.begin()) is not None:
            payload = b""
            if length > _IN_MEMORY:
                await _relay_long(daemon, length, client, header)
            else:
                payload = await daemon.whole(length)
                if header is None:
                    await client.send(frame(payload))
                else:
                    await client.last(frame(with_header(payload, header)))
            if header is not None:
                return None
            complete = ended is None or answers == "read" or (length <= _SHORT and _ends_dump(payload))
            ended = None if complete else "the daemon went away in the middle of its answer"
    except (MalformedMessage, DaemonFailed) as error:
        return f"{ended or 'the daemon went away'}: {error}"
    return ended


async def _relay_long(daemon: "Answers", length: int, client: ToClient, header: Header | None) -> None:
    """One message of ``length`` octets through the spool, with ``header`` in place of its own if there is one."""
    with client.spool(length) as spooled:
        while spooled.size < length:
            spooled.write(memoryview(await daemon.piece(min(_PIECE, length - spooled.size))))
        beginning, position = b"", 0
        if header is not None:
            beginning, position = exchanged(os.pread(spooled.descriptor, _BEGINNING, 0), length, header)
        await client.send(frame_header(length - position + len(beginning)) + beginning)
        while octets := os.pread(spooled.descriptor, _PIECE, position):
            await client.send(octets)
            position += len(octets)


class DaemonFailed(TransportError):
    """The daemon's side of a relay failed, not the client's."""


class Answers(Channel):
    """The connection to a daemon; its failures are told from the client's."""

    async def begin(self) -> int | None:
        try:
            return await super().begin()
        except TransportError as error:
            raise DaemonFailed(error.message) from error

    async def piece(self, most: int) -> bytes:
        try:
            return await super().piece(most)
        except TransportError as error:
            raise DaemonFailed(error.message) from error

    async def whole(self, length: int) -> bytes:
        """All ``length`` octets of a payload that was begun."""
        octets = await self.piece(length) if length else b""
        while len(octets) < length:
            octets += await self.piece(length - len(octets))
        return octets

    async def send(self, payload: bytes | memoryview, descriptors: Sequence[int] = ()) -> None:
        try:
            await super().send(payload, descriptors)
        except TransportError as error:
            raise DaemonFailed(error.message) from error


def _ends_dump(payload: bytes) -> bool:
    match decode_message(payload).payload:
        case BlockChunk(content=None) | Failure():
            return True
    return False
