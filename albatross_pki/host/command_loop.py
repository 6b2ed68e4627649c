"""What the console and the statistics daemon do alike with a connection: one command after the other, until its end.

1. a frame that is no AV5 command is answered with a failure, and ends it;
2. so does a command that is refused;
3. after a command that does not end it, the next one may take its time.
"""

import logging
from collections.abc import Awaitable, Callable

from albatross_pki.errors import AlbatrossError
from albatross_pki.messages import Header, Message
from albatross_pki.replies import Failure, Success
from albatross_pki.text import printable
from albatross_pki.transport.channel import Channel
from albatross_pki.transport.errors import TransportError
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.message import decode_message, encode_message

Execute = Callable[[Channel, Message], Awaitable[bool]]
"""Executes and answers one command; whether another may follow. Raises ``AlbatrossError`` for what it refuses."""

log = logging.getLogger(__name__)


async def serve_commands(channel: Channel, execute: Execute) -> None:
    """Everything of one connection; returns when it is done or broken."""
    try:
        while (payload := await channel.receive()) and await _serve_command(channel, payload, execute):
            channel.idle_timeout = None
    except TransportError as error:
        log.info("a connection ended: %s", error)


async def _serve_command(channel: Channel, payload: bytes, execute: Execute) -> bool:
    try:
        message = decode_message(payload)
    except MalformedMessage as error:
        log.warning("a frame that is no command: %s", printable(str(error)))
        await answer(channel, Header(), Failure(str(error)))
        return False
    try:
        return await execute(channel, message)
    except TransportError:
        raise
    except AlbatrossError as error:
        await refuse(channel, message.header, error)
        return False


async def answer(channel: Channel, header: Header, payload: Success | Failure) -> None:
    """Send one answer to the command with this header."""
    await channel.send(encode_message(Message(header, payload)))


async def refuse(channel: Channel, header: Header, error: AlbatrossError) -> None:
    """Log why a command is refused, and say it to who sent it."""
    log.warning("%s: %s", header.name, printable(str(error)))
    await answer(channel, header, Failure(str(error)))
