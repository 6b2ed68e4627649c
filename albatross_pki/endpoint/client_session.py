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
import itertools
import logging
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from time import monotonic

from albatross_pki.authorised import Stream, Verdict
from albatross_pki.endpoint.asking import AuthoriserLinks
from albatross_pki.endpoint.bounds import EndpointBounds
from albatross_pki.endpoint.metrics import Counters
from albatross_pki.endpoint.relay import Answers, DaemonFailed, ToClient, failure, relay
from albatross_pki.endpoint.spool import Spool, SpoolFile
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.messages import ROOT
from albatross_pki.names import Name
from albatross_pki.transport.errors import ConnectionCut, TimedOut, TransportError
from albatross_pki.transport.streams import ChunkDecoder
from albatross_pki.transport.tls_stream import HandshakeFailed, TlsStream
from albatross_pki.wire.errors import MalformedMessage

_BUFFER = 128 * 1024
_SPOOL_BUFFER = 4 * _BUFFER  # handing less than this to a thread costs more than it gains

log = logging.getLogger(__name__)


@dataclass
class Surroundings:
    """What all sessions of a worker share. ``anchors`` gives the DER of the roots that are trusted now."""

    links: AuthoriserLinks
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
        self._decoder = ChunkDecoder()
        self._pace: _Pace | None = None

    async def serve(self) -> None:
        counters = self._around.counters
        counters.open += 1
        began = monotonic()
        try:
            await self._stream.handshake()
            await self._guarded()
        except HandshakeFailed as error:
            counters.refuse_handshake(error.reason)
            log.info("%s: %s", self._peer, error)
        except TransportError as error:
            log.info("%s: %s", self._peer, error)
        except asyncio.CancelledError:
            self._stream.abandon()
            raise
        finally:
            await self._stream.finish()
            counters.received += self._stream.received
            counters.sent += self._stream.sent
            counters.seconds += monotonic() - began
            counters.open -= 1

    async def _guarded(self) -> None:
        """The session behind the handshake, with a last word for whatever goes wrong in it."""
        try:
            await self._request()
        except Refused as error:
            self._around.counters.refused_requests += 1
            log.info("%s: refused: %s", self._peer, error)
            self._say(error.reasons)
        except (TimedOut, MalformedMessage) as error:
            log.warning("%s: %s", self._peer, error)
            self._say([error.message])
        except TransportError:
            raise
        except AlbatrossError as error:
            self._say([error.message])
        except asyncio.CancelledError:
            with contextlib.suppress(TransportError):
                self._say(["the endpoint is shutting down"])
            raise
        except Exception:
            log.exception("%s: a session ended with an error that nobody expected", self._peer)
            self._say(["the endpoint failed while it served this request"])

    def _say(self, reasons: "tuple[str, ...] | list[str]") -> None:
        self._stream.add(failure(self._name, "; ".join(reasons)))

    async def _request(self) -> None:
        async with self._around.links.judged(self._peer, self._verified_path()) as (link, verdict):
            self._name = verdict.name
            if not verdict.accepted:
                link.over = True
                raise Refused(verdict.reasons)
            if verdict.stream in (Stream.IMAGE, Stream.CRL):
                with await self._spooled(verdict.stream_limit) as spooled:
                    await link.execute(spooled)
            idle = self._bounds.answer_seconds if verdict.answers == "single" else None
            daemon = Answers(await link.executing(), limit=self._bounds.frame_octets, idle_timeout=idle)
            async with daemon:
                self._around.counters.requests += 1
                incomplete = await self._exchange(daemon, verdict)
            link.over = verdict.answers == "single"
            ended = None if link.over else await link.last_word()
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

    # step 4

    @property
    def _owner(self) -> str:
        """The top-level delegation that is served, as the authoriser said."""
        return self._name.path.labels[0] if self._name.path.labels else ""

    async def _spooled(self, allowed: int) -> SpoolFile:
        file = self._around.spool.file(min(allowed, self._bounds.stream_octets), self._owner)
        try:
            await self._fill(file)
        except BaseException:
            file.close()
            raise
        return file

    async def _fill(self, file: SpoolFile) -> None:
        """Two buffers in turn: one is hashed and written in a thread while the other one is filled.

        So a slow disk stops nobody else; what fits the last buffer is not worth a thread.
        """
        loop = asyncio.get_running_loop()
        writing: asyncio.Future[None] | None = None
        try:
            async for batch, last in self._batches(file):
                file.admit(sum(map(len, batch)))
                if writing is not None:
                    await asyncio.shield(writing)
                if last:
                    file.store(batch)
                else:
                    writing = loop.run_in_executor(None, file.store, batch)
        finally:
            if writing is not None and not writing.done():
                await asyncio.wait((writing,))  # the thread has the descriptor

    async def _batches(self, file: SpoolFile) -> AsyncIterator[tuple[list[memoryview], bool]]:
        """The client's stream in parts that fill a buffer, and whether it is the last; valid until the next but one."""
        buffers = itertools.cycle([memoryview(bytearray(_SPOOL_BUFFER)) for _ in range(2)])
        buffer, filled, spans = next(buffers), 0, list[tuple[int, int]]()
        while not self._decoder.ended:
            octets = await self._more(buffer[filled : filled + _BUFFER])
            for start, stop in self._decoder.spans(octets):
                goes_on = bool(spans) and spans[-1][1] == filled + start  # each piece costs a turn of both threads
                spans.append((spans.pop()[0] if goes_on else filled + start, filled + stop))
            file.expect(self._decoder.promised)  # a chunk that announces too much is not waited for
            filled += len(octets)
            if filled > _SPOOL_BUFFER - _BUFFER and not self._decoder.ended:
                yield [buffer[start:stop] for start, stop in spans], False
                buffer, filled, spans = next(buffers), 0, []
        yield [buffer[start:stop] for start, stop in spans], True

    async def _more(self, room: memoryview) -> memoryview:
        """What the client sends of its stream, in ``room``; raises for an end without a mark or a slow one."""
        if self._pace is None:
            self._pace = _Pace(self._bounds)
        count = await self._stream.read_into(room)
        if not count:
            raise ConnectionCut("the client ended its stream without an end mark")
        self._pace.moved(count)
        return room[:count]

    # step 5

    async def _exchange(self, daemon: Answers, verdict: Verdict) -> str | None:
        """Relay answers while the client's stream is forwarded or its going away is watched for.

        Returns why the answer is not complete, ``None`` if it is or nobody is there to be told.
        """
        client = ToClient(self._stream.send, self._last, self._spool_answer)
        if verdict.answers != "read" and verdict.stream is not Stream.BLOCK:  # nothing is expected of the client
            return await relay(daemon, client, verdict.name, verdict.answers)
        answering = asyncio.ensure_future(relay(daemon, client, verdict.name, verdict.answers))
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

    def _spool_answer(self, octets: int) -> SpoolFile:
        return self._around.spool.file(octets, self._owner, hashed=False)

    async def _last(self, octets: bytes) -> None:
        """An answer that nothing follows goes out together with the closing alert, before anything is cleaned up."""
        await self._stream.send(octets, last=True)

    async def _client_went(self, daemon: Answers, verdict: Verdict) -> bool:
        """What the client does while it is answered; whether it went away and nobody is left to answer."""
        if verdict.stream is Stream.BLOCK:
            with contextlib.suppress(DaemonFailed):  # it takes no more, and its answer says why
                buffer = memoryview(bytearray(_BUFFER))
                while not self._decoder.ended:
                    for piece in self._decoder.feed(await self._more(buffer)):
                        await daemon.send(piece)
                    if self._decoder.announced > self._bounds.stream_octets:
                        most = self._bounds.stream_octets
                        raise Refused([f"a chunk of the stream is longer than {most} octets"])
                await daemon.send(b"")
            return False
        await self._stream.gone()
        return True


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
