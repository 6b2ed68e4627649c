"""Answers on their way from a daemon to a client, shaped as Albatross' endpoint shapes them.

* ``single``: one message, its header replaced by sequence 0 and the name of the request; more is not read;
* ``read``: every message as it is, until the daemon ends;
* ``dump``: every message as it is; the end is orderly only behind the message that says that the content is over.

An end before the first answer, or in the middle of one, is reported to the caller, who tells the client: it must never
take silence for success. Messages are not decoded, except short ones of a dump.
"""

from collections.abc import Awaitable, Callable, Sequence

from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import BlockChunk, Failure
from albatross_pki.transport.channel import Channel
from albatross_pki.transport.errors import TransportError
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.framing import frame
from albatross_pki.wire.header import with_header
from albatross_pki.wire.message import decode_message, encode_message

_SHORT = 8192  # an end mark is short: a header with a name of at most 4 KiB, and no content

Send = Callable[[bytes], Awaitable[None]]


def failure(name: Name, text: str) -> bytes:
    """A failure about ``name`` as a frame."""
    return frame(encode_message(Message(Header(name), Failure(text))))


async def relay(daemon: "Answers", send: Send, name: Name, answers: str) -> str | None:
    """Everything that ``daemon`` answers, to ``send``; what ``send`` raises goes through.

    Returns why the answer is not complete, ``None`` if it is.
    """
    ended: str | None = "the daemon went away without an answer"
    try:
        while (payload := await daemon.receive()) is not None:
            if answers == "single":
                await send(frame(with_header(payload, Header(name))))
                return None
            await send(frame(payload))
            complete = ended is None or answers == "read" or _ends_dump(payload)
            ended = None if complete else "the daemon went away in the middle of its answer"
    except (MalformedMessage, DaemonFailed) as error:
        return f"{ended or 'the daemon went away'}: {error}"
    return ended


class DaemonFailed(TransportError):
    """The daemon's side of a relay failed, not the client's."""


class Answers(Channel):
    """The connection to a daemon; its failures are told from the client's."""

    async def receive(self) -> bytes | None:
        try:
            return await super().receive()
        except TransportError as error:
            raise DaemonFailed(error.message) from error

    async def send(self, payload: bytes | memoryview, descriptors: Sequence[int] = ()) -> None:
        try:
            await super().send(payload, descriptors)
        except TransportError as error:
            raise DaemonFailed(error.message) from error


def _ends_dump(payload: bytes) -> bool:
    if len(payload) > _SHORT:
        return False
    match decode_message(payload).payload:
        case BlockChunk(content=None) | Failure():
            return True
    return False
