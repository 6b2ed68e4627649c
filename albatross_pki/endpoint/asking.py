"""The endpoint's side of the conversation with the authoriser: judge, execute, and the last word about a stream.

Where nothing has to be streamed the verdict brings the connection that answers come from. Connections to the authoriser
are used again after clients whose answer was a single message, unless its end was seen meanwhile.
"""

import contextlib
import logging
import socket
from collections.abc import AsyncIterator

from albatross_pki.authorised import ExecuteRequest, Executing, JudgeRequest, Verdict
from albatross_pki.endpoint.bounds import EndpointBounds
from albatross_pki.endpoint.spool import SpoolFile
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.transport.channel import Channel, connect
from albatross_pki.transport.errors import ConnectionCut, Unreachable
from albatross_pki.transport.sockets import close_all, readable
from albatross_pki.wire.side import decode_side, encode_side

_VERDICT_OCTETS = 4 * 1024 * 1024
_KEPT = 16

log = logging.getLogger(__name__)


class AuthoriserLink:
    """One session with the authoriser; ``over`` is set when the connection may serve the next one."""

    def __init__(self, channel: Channel, bounds: EndpointBounds) -> None:
        self.channel = channel
        self.over = False
        self._bounds = bounds
        self._descriptors: list[int] = []

    async def judge(self, request: bytes) -> Verdict | None:
        """The verdict about an encoded ``JudgeRequest``; ``None`` if the authoriser is gone."""
        self.channel.idle_timeout = self._bounds.judge_seconds
        try:
            await self.channel.send(request)
            received = await self.channel.receive_with_descriptors()
        except ConnectionCut:
            return None
        if received is None:
            return None
        payload, self._descriptors = received
        message = decode_side(payload)
        return message if isinstance(message, Verdict) else None

    async def execute(self, spooled: SpoolFile) -> None:
        """The client's stream is complete in ``spooled``."""
        request = encode_side(ExecuteRequest(spooled.size, spooled.digest))
        await self.channel.send(request, [spooled.descriptor])

    async def executing(self) -> socket.socket:
        """The connection that answers come from; raises ``Refused`` if there is none, with the reasons."""
        if self._descriptors:
            return socket.socket(fileno=self._descriptors.pop())
        self.channel.idle_timeout = self._bounds.answer_seconds
        received = await self.channel.receive_with_descriptors()
        if received is None:
            raise Refused(["albatross-authorise went away before it asked the daemon"])
        payload, descriptors = received
        message = decode_side(payload)
        if isinstance(message, Executing) and len(descriptors) == 1:
            return socket.socket(fileno=descriptors[0])
        close_all(descriptors)
        if isinstance(message, Verdict) and not message.accepted:
            raise Refused(message.reasons)
        raise Refused(["albatross-authorise gave no connection to the daemon"])

    async def last_word(self) -> str | None:
        """Why the authoriser ended the stream, if it was the authoriser."""
        if not readable(self.channel.socket):
            return None
        with contextlib.suppress(AlbatrossError):
            payload = await self.channel.receive()
            message = decode_side(payload) if payload else None
            if isinstance(message, Verdict) and message.reasons:
                return "; ".join(message.reasons)
        return None

    def drop_descriptors(self) -> None:
        close_all(self._descriptors)
        self._descriptors = []


class AuthoriserLinks:
    """Where the authoriser is, and connections to it that are kept for the next client."""

    def __init__(self, path: str, bounds: EndpointBounds) -> None:
        self._path = path
        self._bounds = bounds
        self._kept: list[Channel] = []

    @contextlib.asynccontextmanager
    async def judged(self, peer: str, path: list[bytes]) -> AsyncIterator[tuple[AuthoriserLink, Verdict]]:
        """A session about this verified path with its verdict; raises ``Refused`` if there is no authoriser."""
        request = encode_side(JudgeRequest(peer, tuple(path)))
        link, verdict = await self._ask(request)
        try:
            yield link, verdict
        finally:
            link.drop_descriptors()
            if link.over and len(self._kept) < _KEPT:
                self._kept.append(link.channel)
            else:
                link.channel.close()

    async def _ask(self, request: bytes) -> tuple[AuthoriserLink, Verdict]:
        link = AuthoriserLink(await self._channel(), self._bounds)
        verdict = None
        try:
            verdict = await link.judge(request)
        finally:
            if verdict is None:
                link.drop_descriptors()
                link.channel.close()
        if verdict is None:
            raise Refused(["albatross-authorise went away before it judged"])
        return link, verdict

    async def _channel(self) -> Channel:
        while self._kept:
            kept = self._kept.pop()
            if not readable(kept.socket):
                return kept
            kept.close()
        try:
            return await connect(self._path, limit=_VERDICT_OCTETS)
        except Unreachable as error:
            log.error("%s", error)
            raise Refused(["couldn't reach service: albatross-authorise is not running"]) from error

    def close(self) -> None:
        while self._kept:
            self._kept.pop().close()
