"""One request and its answers on one connection, whoever asked and however it came."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from albatross_pki.errors import AlbatrossError
from albatross_pki.host.limits import MAX_CHUNK, STREAM_IDLE_TIMEOUT
from albatross_pki.messages import Header, Message, Payload
from albatross_pki.transport.channel import Channel
from albatross_pki.transport.errors import ConnectionCut, TransportError
from albatross_pki.wire.message import encode_message


@dataclass(slots=True)
class Conversation:
    """Answers go out with the header of the request (Albatross AV5); chunks of a stream come in as they are."""

    channel: Channel
    header: Header
    answered: bool = False

    async def answer(self, payload: Payload) -> None:
        """Send one answer; raises ``TransportError`` if nobody takes it."""
        self.answered = True
        await self.channel.send(encode_message(Message(self.header, payload)))

    async def follow(self, payloads: AsyncIterator[Payload]) -> None:
        """Answer with each of ``payloads`` as it comes, until they end or the other side says anything or goes."""

        async def send() -> None:
            async for payload in payloads:
                await self.answer(payload)

        self.channel.idle_timeout = None
        tasks: set[asyncio.Task[Any]] = {asyncio.create_task(send()), asyncio.create_task(self.channel.receive())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        except TransportError:
            return  # it went away
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def chunk(self) -> bytes:
        """The next chunk of an upload, empty at its end; a connection that ends without the mark is no end."""
        self.channel.limit, self.channel.idle_timeout = MAX_CHUNK, STREAM_IDLE_TIMEOUT
        payload = await self.channel.receive()
        if payload is None:
            raise ConnectionCut("the connection ended before the end of the stream")
        return payload


def failure_text(error: AlbatrossError) -> str:
    """What an answer says about a refusal: every reason, and the way out if there is one."""
    return f"{error.message} ({error.hint})" if error.hint else error.message
