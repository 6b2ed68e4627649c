"""One client of the endpoint, from its handshake to its last octet.

1. The TLS handshake; OpenSSL refuses what does not verify, with an alert.
2. A certificate that is not on the verified path is refused: nothing may be slipped in beside it.
3. The authoriser judges the path. A refusal goes to the client as one failure with every reason.
4. What the certificate lets the client stream is spooled (an image, a revocation list), or handed to the daemon while
   it comes (a block device). A client that goes away before the end mark gets nothing done.
5. The daemon's answers are relayed; the client is watched meanwhile, so that its going away is noticed.
6. However it ended, the client is told, and its connection closed so that it can read what it was told.

Nothing here decides about rights. Failures of our own become a failure message that does not show our insides.
"""

import asyncio
import contextlib
import logging
import select
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from albatross_pki.authorised import ExecuteRequest, Executing, JudgeRequest, Stream, Verdict
from albatross_pki.endpoint.bounds import EndpointBounds
from albatross_pki.endpoint.relay import Answers, DaemonFailed, failure, relay
from albatross_pki.endpoint.spool import Spool, SpoolFile
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.messages import ROOT
from albatross_pki.names import Name
from albatross_pki.transport.channel import Channel, connect
from albatross_pki.transport.errors import ConnectionCut, TimedOut, TransportError, Unreachable
from albatross_pki.transport.sockets import close_all
from albatross_pki.transport.streams import ChunkDecoder
from albatross_pki.transport.tls_stream import HandshakeFailed, TlsStream
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.side import decode_side, encode_side

_BUFFER = 128 * 1024
_VERDICT_OCTETS = 4 * 1024 * 1024

log = logging.getLogger(__name__)


@dataclass
class Counters:
    """What the endpoint counts, for its log and its metrics."""

    connections: int = 0
    refused_handshakes: dict[str, int] = field(default_factory=dict)
    refused_requests: int = 0
    requests: int = 0
    received: int = 0
    sent: int = 0

    def refused(self, reason: str) -> None:
        known = reason if reason in self.refused_handshakes or len(self.refused_handshakes) < 64 else "other"
        self.refused_handshakes[known] = self.refused_handshakes.get(known, 0) + 1


@dataclass
class Surroundings:
    """What all sessions of a worker share. ``anchors`` gives the DER of the roots that are trusted now."""

    authoriser_path: str
    spool: Spool
    bounds: EndpointBounds
    anchors: Callable[[], frozenset[bytes]]
    counters: Counters = field(default_factory=Counters)


class ClientSession:
    """The session on one accepted connection; ``serve`` never raises for what the client or a daemon does."""

    def __init__(self, stream: TlsStream, peer: str, surroundings: Surroundings) -> None:
        self._stream = stream
        self._peer = peer
        self._around = surroundings
        self._name: Name = ROOT

    async def serve(self) -> None:
        counters = self._around.counters
        try:
            await self._stream.handshake()
            await self._guarded()
        except HandshakeFailed as error:
            counters.refused(error.reason)
            log.info("%s: %s", self._peer, error)
        except TransportError as error:
            log.info("%s: %s", self._peer, error)
        finally:
            await self._stream.finish()
            counters.received += self._stream.received
            counters.sent += self._stream.sent

    async def _guarded(self) -> None:
        """The session behind the handshake, with a last word for whatever goes wrong in it."""
        try:
            await self._request()
        except Refused as error:
            self._around.counters.refused_requests += 1
            log.info("%s: refused: %s", self._peer, error)
            await self._say(error.reasons)
        except (TimedOut, MalformedMessage) as error:
            log.warning("%s: %s", self._peer, error)
            await self._say([error.message])
        except (ConnectionCut, TransportError):
            raise
        except AlbatrossError as error:
            await self._say([error.message])
        except Exception:
            log.exception("%s: a session ended with an error that nobody expected", self._peer)
            await self._say(["the endpoint failed while it served this request"])

    async def _say(self, reasons: "tuple[str, ...] | list[str]") -> None:
        await self._stream.send(failure(self._name, "; ".join(reasons)))

    async def _request(self) -> None:
        path = self._verified_path()
        async with await self._authoriser() as authoriser:
            await authoriser.send(encode_side(JudgeRequest(self._peer, tuple(path))))
            verdict = await self._verdict(authoriser)
            self._name = verdict.name
            if verdict.stream in (Stream.IMAGE, Stream.CRL):
                with await self._spooled(verdict.stream_limit) as spooled:
                    request = encode_side(ExecuteRequest(spooled.size, spooled.digest))
                    await authoriser.send(request, [spooled.descriptor])
            async with await self._daemon(authoriser, verdict) as daemon:
                self._around.counters.requests += 1
                incomplete = await self._exchange(daemon, verdict)
            ended = await self._last_word(authoriser)
        if incomplete is not None or ended is not None:
            raise Refused([ended or incomplete or ""])

    @property
    def _bounds(self) -> EndpointBounds:
        return self._around.bounds

    def _verified_path(self) -> list[bytes]:
        """Step 2: the path without its anchor; raises ``Refused`` for certificates beside it."""
        verified = self._stream.session.verified()
        if len(verified) < 2:
            raise Refused(["the client's certificate is itself a trusted root, and nothing stands below it"])
        beside = set(self._stream.session.presented()) - set(verified) - self._around.anchors()
        if beside:
            raise Refused([f"the chain holds {len(beside)} certificates that are not on the path to the root"])
        return verified[:-1]

    async def _authoriser(self) -> Channel:
        try:
            return await connect(
                self._around.authoriser_path, limit=_VERDICT_OCTETS, idle_timeout=self._bounds.judge_seconds
            )
        except Unreachable as error:
            log.error("%s", error)
            raise Refused(["couldn't reach service: albatross-authorise is not running"]) from error

    async def _verdict(self, authoriser: Channel) -> Verdict:
        payload = await authoriser.receive()
        message = decode_side(payload) if payload else None
        if not isinstance(message, Verdict):
            raise Refused(["albatross-authorise went away before it judged"])
        if not message.accepted:
            self._name = message.name
            raise Refused(message.reasons)
        return message

    async def _daemon(self, authoriser: Channel, verdict: Verdict) -> Answers:
        """The connection that answers come from; raises ``Refused`` if there is none."""
        idle = self._bounds.answer_seconds if verdict.answers == "single" else None
        connection = socket.socket(fileno=await self._executing(authoriser))
        return Answers(connection, limit=self._bounds.frame_octets, idle_timeout=idle)

    async def _executing(self, authoriser: Channel) -> int:
        received = await authoriser.receive_with_descriptors()
        if received is None:
            raise Refused(["albatross-authorise went away before it asked the daemon"])
        payload, descriptors = received
        message = decode_side(payload)
        if isinstance(message, Executing) and len(descriptors) == 1:
            return descriptors[0]
        close_all(descriptors)
        if isinstance(message, Verdict) and not message.accepted:
            raise Refused(message.reasons)
        raise Refused(["albatross-authorise gave no connection to the daemon"])

    # step 4

    async def _spooled(self, allowed: int) -> SpoolFile:
        file = self._around.spool.file(min(allowed, self._bounds.stream_octets))
        try:
            async for piece in self._pieces():
                file.write(piece)
        except BaseException:
            file.close()
            raise
        return file

    async def _pieces(self) -> AsyncIterator[memoryview]:
        """Every piece of the client's stream, up to its end mark; each is valid until the next one is asked for."""
        decoder = ChunkDecoder()
        buffer = memoryview(bytearray(_BUFFER))
        pace = _Pace(self._bounds)
        while not decoder.ended:
            count = await self._stream.read_into(buffer)
            if not count:
                raise ConnectionCut("the client ended its stream without an end mark")
            pace.moved(count)
            for piece in decoder.feed(buffer[:count]):
                yield piece

    # step 5

    async def _exchange(self, daemon: Answers, verdict: Verdict) -> str | None:
        """Relay answers while the client's stream is forwarded or its going away is watched for.

        Returns why the answer is not complete, ``None`` if it is or nobody is there to be told.
        """
        answering = asyncio.ensure_future(relay(daemon, self._stream.send, verdict.name, verdict.answers))
        beside = asyncio.ensure_future(self._client_went(daemon, verdict))
        try:
            await asyncio.wait((answering, beside), return_when=asyncio.FIRST_COMPLETED)
            if answering.done() or not beside.result():
                return await answering
            return None
        finally:
            with contextlib.suppress(OSError):
                daemon.socket.shutdown(socket.SHUT_RDWR)
            for task in (answering, beside):
                task.cancel()
            await asyncio.gather(answering, beside, return_exceptions=True)

    async def _client_went(self, daemon: Answers, verdict: Verdict) -> bool:
        """What the client does while it is answered; whether it went away and nobody is left to answer."""
        if verdict.stream is Stream.BLOCK:
            with contextlib.suppress(DaemonFailed):  # it takes no more, and its answer says why
                async for piece in self._pieces():
                    await daemon.send(piece)
                await daemon.send(b"")
        elif verdict.answers == "read":
            await self._stream.gone()
            return True
        return False

    async def _last_word(self, authoriser: Channel) -> str | None:
        """Why the authoriser ended the stream, if it was the authoriser."""
        if not select.select([authoriser.socket], [], [], 0)[0]:
            return None
        with contextlib.suppress(AlbatrossError):
            payload = await authoriser.receive()
            message = decode_side(payload) if payload else None
            if isinstance(message, Verdict) and message.reasons:
                return "; ".join(message.reasons)
        return None


class _Pace:
    """Cuts off whoever sends too slowly to ever finish: less than so many octets a second, measured from the start."""

    def __init__(self, bounds: EndpointBounds) -> None:
        self._bounds = bounds
        self._start = asyncio.get_running_loop().time()
        self._moved = 0

    def moved(self, octets: int) -> None:
        self._moved += octets
        spent = asyncio.get_running_loop().time() - self._start
        if spent > self._bounds.idle_seconds + self._moved / self._bounds.stream_octets_per_second:
            rate = self._bounds.stream_octets_per_second
            raise Refused([f"the stream came with less than {rate} octets a second"])
