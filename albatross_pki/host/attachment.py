"""The connection to albatross-console: announcing unikernels, coming back by itself, draining while nobody reads.

* ``announce`` tells the console about a fifo and waits for its answer, for a bounded time. Whether it answered or
  not, the unikernel can start: the fifo always has a reader, because albatrossd holds it open for reading and
  writing, and while there is no console albatrossd sees to it that it does not fill up (``draining``): the newest
  output stays in it, for the console when it comes, or for ``withdraw``.
* A console that does not answer in time counts as gone: the connection is closed, everything is drained, and a new
  connection announces everything again. Nobody waits for that.

Sequence numbers count from 1 on each connection; an answer must carry the one of its announcement (Albatross AV5).
"""

import asyncio
import itertools
import logging
from dataclasses import dataclass

from albatross_pki.commands import ConsoleAdd
from albatross_pki.errors import AlbatrossError
from albatross_pki.host.draining import Draining
from albatross_pki.host.limits import CONSOLE_TIMEOUT, RECONNECT_FIRST, RECONNECT_LONGEST
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import Failure
from albatross_pki.text import printable
from albatross_pki.transport.channel import Channel, connect
from albatross_pki.transport.errors import ConnectionCut, TransportError
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.message import decode_message, encode_message

log = logging.getLogger(__name__)

_FRAME_LIMIT = 64 * 1024  # an answer is empty or one sentence


@dataclass(frozen=True, slots=True)
class Fifo:
    """An announced console: ``descriptor`` is our own end, open for reading and writing and non-blocking."""

    descriptor: int
    rings: int


class ConsoleAttachment:
    """albatrossd's side of ``console.sock`` at ``path``; ``run`` keeps the connection for ever."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fifos: dict[Name, Fifo] = {}
        self._draining = Draining()
        self._channel: Channel | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[bool]] = {}
        self._sequence = itertools.count(1)
        self._sending = asyncio.Lock()
        self.connected = asyncio.Event()

    async def run(self) -> None:
        """Connect, announce everything, listen; again whenever that ends."""
        wait = RECONNECT_FIRST
        try:
            while True:
                try:
                    await self._session()
                    wait = RECONNECT_FIRST
                except (AlbatrossError, TimeoutError) as error:
                    log.info("console: %s", printable(str(error)))
                await asyncio.sleep(wait)
                wait = min(2 * wait, RECONNECT_LONGEST)
        finally:
            self._hang_up()
            for name in list(self._fifos):
                self._stop_draining(name)

    async def announce(self, name: Name, fifo: Fifo) -> bool:
        """Tell the console about ``name``; whether it reads from now on. Never raises, never waits for long."""
        self.withdraw(name)
        self._fifos[name] = fifo
        if self._channel is not None and self.connected.is_set():
            try:
                async with asyncio.timeout(CONSOLE_TIMEOUT):
                    if await self._add(self._channel, name, fifo.rings):
                        return True
            except (TransportError, TimeoutError) as error:
                log.warning(
                    "console: does not answer (%s); older output is dropped until it does", type(error).__name__
                )
                self._hang_up()
        if self._fifos.get(name) is fifo:
            self._drain(name)
        return False

    def withdraw(self, name: Name) -> bytes:
        """The fifo of ``name`` is about to be closed; what is in it, if no console has read it."""
        fifo = self._fifos.pop(name, None)
        drained = self._draining.end(fifo.descriptor) if fifo is not None else None
        return drained.unread() if drained is not None else b""

    async def _session(self) -> None:
        channel = await connect(self.path, limit=_FRAME_LIMIT)
        self._channel = channel
        self._sequence = itertools.count(1)
        reading = self._reading = asyncio.create_task(self._read(channel))
        try:
            async with asyncio.timeout(CONSOLE_TIMEOUT + len(self._fifos) / 500):
                await self._announce_all(channel)
            self.connected.set()
            log.info("console: connected")
            await asyncio.wait([reading])
            if not reading.cancelled():
                reading.result()
        finally:
            reading.cancel()
            if self._channel is channel:
                self._hang_up()
            channel.close()

    async def _announce_all(self, channel: Channel) -> None:
        """Announce what is there, and what comes while that is done."""
        announced: dict[Name, Fifo] = {}
        while missing := [(name, fifo) for name, fifo in self._fifos.items() if announced.get(name) is not fifo]:
            for name, fifo in missing:
                announced[name] = fifo
                if await self._add(channel, name, fifo.rings) and self._fifos.get(name) is fifo:
                    self._stop_draining(name)

    async def _add(self, channel: Channel, name: Name, rings: int) -> bool:
        sequence = next(self._sequence)
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[sequence] = answered
        try:
            async with self._sending:  # frames must not mix; sending is bounded by the channel's own deadline
                await channel.send(encode_message(Message(Header(name, sequence), ConsoleAdd(rings))))
            return await answered
        finally:
            self._waiting.pop(sequence, None)

    async def _read(self, channel: Channel) -> None:
        while payload := await channel.receive():
            try:
                message = decode_message(payload)
            except MalformedMessage as error:
                raise ConnectionCut(f"an answer cannot be understood: {error}") from error
            answered = self._waiting.get(message.header.sequence)
            if isinstance(message.payload, Failure):
                log.warning("console: %s: %s", message.header.name, printable(message.payload.text))
            if answered is not None and not answered.done():
                answered.set_result(not isinstance(message.payload, Failure))
        raise ConnectionCut("the console closed the connection")

    def _hang_up(self) -> None:
        self.connected.clear()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        for answered in self._waiting.values():
            if not answered.done():
                answered.set_exception(ConnectionCut("the console went away"))
                answered.exception()  # nobody may be waiting any more
        for name in self._fifos:
            self._drain(name)

    def _drain(self, name: Name) -> None:
        fifo = self._fifos.get(name)
        if fifo is not None:
            self._draining.begin(fifo.descriptor)

    def _stop_draining(self, name: Name) -> None:
        """A console reads it from now on."""
        drained = self._draining.end(self._fifos[name].descriptor)
        if drained is not None and drained.dropped:
            log.warning("console: %d lines of %s were dropped while nobody read them", drained.dropped, name)
