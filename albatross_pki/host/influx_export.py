"""From the statistics daemon to a time series database: a bounded queue with a reader and a writer.

The reader subscribes at ``util/stat.sock`` and puts each sample, as lines, into the queue; the writer takes batches out
and delivers them. Either may be without its other end for as long as it takes; both try again. When the queue is full,
the oldest samples give way, and the next delivery says how many in a line of its own, ``albatross_influx
dropped_samples``. A batch that could not be delivered is delivered again: a database that got it already has the same
points twice, which are one (time and tags are the same).
"""

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from albatross_pki.commands import StatsSubscribe
from albatross_pki.errors import AlbatrossError
from albatross_pki.host.influx_lines import lines
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import Failure, Statistics
from albatross_pki.text import printable
from albatross_pki.transport.channel import connect
from albatross_pki.wire.message import decode_message, encode_message

MAX_QUEUE = 8 * 1024 * 1024  # octets: an hour of fifty unikernels at Albatross' interval
MAX_BATCH = 256 * 1024  # octets of one delivery
RETRY = 5.0  # seconds, as Albatross waits
DELIVERY_TIMEOUT = 10.0
FRAME_LIMIT = 1 << 20

log = logging.getLogger(__name__)


class Undelivered(AlbatrossError):
    """The database did not take a batch; it may take it later unless ``hopeless``."""

    def __init__(self, reason: str, *, hopeless: bool = False) -> None:
        super().__init__(reason)
        self.hopeless = hopeless


class SampleQueue:
    """Samples that wait, at most ``limit`` octets."""

    def __init__(self, limit: int = MAX_QUEUE) -> None:
        self._samples: deque[bytes] = deque()
        self._limit = limit
        self._octets = 0
        self._dropped = 0
        self._filled = asyncio.Event()

    def put(self, sample: bytes) -> None:
        """Add a sample; the oldest ones give way if there is no room."""
        self._samples.append(sample)
        self._octets += len(sample)
        while self._octets > self._limit:
            self._octets -= len(self._samples.popleft())
            self._dropped += 1
        self._filled.set()

    def count_dropped(self, samples: int) -> None:
        """Samples that were lost elsewhere."""
        self._dropped += samples

    async def batch(self) -> tuple[bytes, int]:
        """Wait for samples and take some out: their lines and their number, dropped ones told first."""
        while not self._samples:
            self._filled.clear()
            await self._filled.wait()
        dropped, self._dropped = self._dropped, 0
        taken = [_dropped_line(dropped)] if dropped else []
        count = octets = 0
        while self._samples and (not count or octets + len(self._samples[0]) <= MAX_BATCH):
            taken.append(self._samples.popleft())
            octets += len(taken[-1])
            count += 1
        self._octets -= octets
        return b"".join(taken), count


def _dropped_line(samples: int) -> bytes:
    return b"albatross_influx,vm=albatross_influx dropped_samples=%di %d\n" % (samples, time.time_ns())


class Target(Protocol):
    """Where lines go."""

    async def deliver(self, batch: bytes) -> None:
        """Hand over whole lines; raises ``Undelivered``."""


class LineTarget:
    """A TCP listener for lines, such as Telegraf's ``socket_listener``; one connection, kept."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._writer: asyncio.StreamWriter | None = None
        self._reader: asyncio.StreamReader | None = None

    async def deliver(self, batch: bytes) -> None:
        try:
            async with asyncio.timeout(DELIVERY_TIMEOUT):
                await self._write(batch)
        except (OSError, TimeoutError) as error:
            await self._disconnect()
            reason = getattr(error, "strerror", None) or "no answer in time"
            raise Undelivered(f"{self._host} port {self._port}: {reason.lower()}") from error

    async def _write(self, batch: bytes) -> None:
        if self._reader is not None and self._reader.at_eof():  # closed by the other side, perhaps long ago
            await self._disconnect()
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        self._writer.write(batch)
        await self._writer.drain()

    async def close(self) -> None:
        """End the connection, if there is one."""
        await self._disconnect()
        await asyncio.sleep(0)  # its transport is closed in the loop's next turn

    async def _disconnect(self) -> None:
        writer, self._writer, self._reader = self._writer, None, None
        if writer is not None:
            writer.transport.abort()


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """An InfluxDB's write address: ``…/write?db=D`` (1.x) or ``…/api/v2/write?org=O&bucket=B`` (2.x) with a token."""

    url: str
    token: str | None = None

    async def deliver(self, batch: bytes) -> None:
        await asyncio.to_thread(self._post, batch)

    def _post(self, batch: bytes) -> None:
        import http.client

        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=DELIVERY_TIMEOUT)
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        if self.token is not None:
            headers["Authorization"] = f"Token {self.token}"
        try:
            connection.request("POST", f"{parts.path or '/'}?{parts.query}", batch, headers)
            response = connection.getresponse()
            reason = response.read(500)
        except (OSError, http.client.HTTPException) as error:
            raise Undelivered(f"{parts.netloc}: {error}") from error
        finally:
            connection.close()
        if not 200 <= response.status < 300:
            hopeless = response.status in (400, 413, 422)  # these very lines are refused; later ones may not be
            raise Undelivered(f"{parts.netloc}: status {response.status} {printable(reason, 200)}", hopeless=hopeless)


@dataclass(frozen=True, slots=True)
class Export:
    """What is exported, and how it is written."""

    stats_path: str
    name: Name
    drop_path: bool = True
    timestamps: bool = True


async def run(export: Export, target: Target, queue: SampleQueue) -> None:
    """Read and deliver until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_read_for_ever(export, queue))
        tasks.create_task(_deliver_for_ever(target, queue))


async def _read_for_ever(export: Export, queue: SampleQueue) -> None:
    sequence = 0
    while True:
        sequence += 1
        try:
            await _read(export, queue, sequence)
            log.warning("the statistics daemon closed the connection")
        except AlbatrossError as error:
            log.warning("no statistics: %s", printable(str(error)))
        await asyncio.sleep(RETRY)


async def _read(export: Export, queue: SampleQueue, sequence: int) -> None:
    async with await connect(export.stats_path, limit=FRAME_LIMIT) as channel:
        await channel.send(encode_message(Message(Header(export.name, sequence), StatsSubscribe())))
        while payload := await channel.receive():
            message = decode_message(payload)
            if isinstance(message.payload, Failure):
                raise AlbatrossError(message.payload.text)
            if isinstance(message.payload, Statistics):
                name = message.header.name.below(export.name.path)
                flags = {"drop_path": export.drop_path, "timestamps": export.timestamps}
                queue.put(lines(name, message.payload, time.time_ns(), **flags))


async def _deliver_for_ever(target: Target, queue: SampleQueue) -> None:
    while True:
        batch, samples = await queue.batch()
        while not await _delivered(target, batch, samples, queue):
            await asyncio.sleep(RETRY)


async def _delivered(target: Target, batch: bytes, samples: int, queue: SampleQueue) -> bool:
    """Try once; returns whether the batch is done with."""
    try:
        await target.deliver(batch)
    except Undelivered as error:
        log.warning("not delivered: %s", error)
        if error.hopeless:
            queue.count_dropped(samples)
        return error.hopeless
    return True
