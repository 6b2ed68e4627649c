"""The connection from albatross-stats: it connected to us, and from then on we tell it who starts and who ends.

Nobody waits for it: what it is to be told stands in a queue, one task asks and waits for each answer. If an answer
does not come in time, or is a failure, or the queue is full, the connection is closed; albatross-stats connects again
and is told everything anew. Sequence numbers continue from the one of its ``statistics initial`` (Albatross AV5).
"""

import asyncio
import logging
from collections.abc import Iterable

from albatross_pki.commands import StatsAdd, StatsCommand, StatsRemove
from albatross_pki.errors import AlbatrossError
from albatross_pki.host.limits import MAX_UNIKERNELS, STATS_TIMEOUT
from albatross_pki.host.records import AttachedTap
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import Failure
from albatross_pki.text import printable
from albatross_pki.transport.channel import Channel
from albatross_pki.wire.message import decode_message, encode_message

log = logging.getLogger(__name__)

Told = tuple[Name, StatsCommand]


def told_of(pid: int, taps: Iterable[AttachedTap]) -> StatsAdd:
    """What albatross-stats is told about a process."""
    return StatsAdd("", pid, tuple((tap.device, tap.interface) for tap in taps))


class StatisticsLink:
    """At most one albatross-stats; a new one replaces the old one."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Told] | None = None
        self._task: asyncio.Task[None] | None = None

    def added(self, name: Name, pid: int, taps: Iterable[AttachedTap]) -> None:
        """A process was made."""
        self._tell(name, told_of(pid, taps))

    def removed(self, name: Name) -> None:
        """A process is gone."""
        self._tell(name, StatsRemove())

    async def serve(self, channel: Channel, sequence: int, present: Iterable[Told]) -> None:
        """Talk to the albatross-stats on ``channel`` until it goes away or another one comes."""
        if self._task is not None:
            self._task.cancel()
        queue: asyncio.Queue[Told] = asyncio.Queue(2 * MAX_UNIKERNELS)
        for told in present:
            queue.put_nowait(told)
        self._queue, self._task = queue, asyncio.current_task()
        try:
            await self._talk(channel, queue, sequence)
        except (AlbatrossError, TimeoutError) as error:
            log.warning("statistics: %s", printable(str(error)) or "no answer in time")
        finally:
            if self._queue is queue:
                self._queue = self._task = None

    async def _talk(self, channel: Channel, queue: "asyncio.Queue[Told]", sequence: int) -> None:
        while True:
            name, command = await queue.get()
            sequence += 1
            await channel.send(encode_message(Message(Header(name, sequence), command)))
            async with asyncio.timeout(STATS_TIMEOUT):
                payload = await channel.receive()
            if not payload:
                return
            answer = decode_message(payload)
            if answer.header.sequence != sequence or isinstance(answer.payload, Failure):
                log.warning("statistics: an answer that does not fit; the connection is closed")
                return

    def _tell(self, name: Name, command: StatsCommand) -> None:
        if self._queue is not None:
            try:
                self._queue.put_nowait((name, command))
            except asyncio.QueueFull:
                log.warning("statistics: too far behind; the connection is closed")
                if self._task is not None:
                    self._task.cancel()
