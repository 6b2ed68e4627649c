"""How the parts of albatrossd say what happened, in one line each.

* ``stage``: an event that belongs to the change of state which is written next; both are on disk, or neither;
* ``happened``: the same for what happened whether the state can be written or not (a process was made, or ended);
* ``tell``: an event of its own. Never raises: that the record cannot be written ends no request and no unikernel.

What rides on a process record survives the daemon at once and a power failure after ``SYNC_SECONDS``; everything that
somebody asked for is on the disk before the answer. ``last_lines`` fetches what the console has of a unikernel that
ended, without anybody waiting for it; ``unread_lines`` takes them from the pipe where there was no console.
"""

import asyncio
import logging
from collections import deque
from datetime import datetime, timedelta

from albatross_pki.commands import ConsoleSubscribe
from albatross_pki.errors import AlbatrossError
from albatross_pki.host.events_kinds import LAST_LINES, LINE_CHARACTERS, By, LastLines, What
from albatross_pki.host.events_log import EventLog
from albatross_pki.host.ring import LineSplitter
from albatross_pki.host.state import State, StateError
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import ConsoleLine
from albatross_pki.text import from_octets, printable
from albatross_pki.transport.channel import connect
from albatross_pki.wire.message import decode_message, encode_message

log = logging.getLogger(__name__)

SYNC_SECONDS = 1.0
CONSOLE_SECONDS = 0.5  # what the console has read by then of the last moments is what is kept
BEFORE_START = timedelta(milliseconds=100)  # the moment of a start is noted after it: a guest may have written by then
LINE_OCTETS = 4 * LINE_CHARACTERS + 4  # as many as one line that is shown can have in UTF-8, and what shows the cut
MOST_AT_ONCE = 16  # consoles that are asked at once; further ends have no last lines


class EventRecorder:
    """The events of the daemon that owns ``state``; ``console_path`` is the socket of its console daemon."""

    def __init__(self, state: State, console_path: str) -> None:
        self.log: EventLog = state.events
        self._state = state
        self._console_path = console_path
        self._asking = 0
        self._sync: asyncio.TimerHandle | None = None
        self.log.when_unsynced = self._sync_soon

    def stage(self, name: Name, what: What, by: By = None) -> None:
        """Record this with the change of state that is written next, at once."""
        self.log.stage(name, what, by)

    def happened(self, name: Name, what: What) -> None:
        """Record this with what is written next, whatever becomes of that."""
        self.log.stage(name, what, certain=True)

    def tell(self, name: Name, what: What, by: By = None, *, durable: bool = True) -> None:
        """Record this now, on its own."""
        self.log.stage(name, what, by, certain=True)
        self._record(durable=durable)

    def flush(self) -> None:
        """Record now what is staged."""
        if self.log.staged:
            self._record(durable=True)

    def close(self) -> None:
        """Nothing comes after this."""
        if self._sync is not None:
            self._sync.cancel()
            self._sync = None
        self.log.when_unsynced = None

    async def last_lines(self, name: Name, since: datetime | None) -> None:
        """Record what the console got from ``name`` since its process was made, if it got anything."""
        if self._asking >= MOST_AT_ONCE:
            return
        self._asking += 1
        try:
            lines = await self._console_lines(name, since)
        finally:
            self._asking -= 1
        if lines:
            self.tell(name, LastLines(lines), durable=False)

    def unread_lines(self, name: Name, octets: bytes) -> None:
        """Record the last lines of what no console has read."""
        splitter = LineSplitter()
        lines = [*splitter.feed(octets), *splitter.finish()][-LAST_LINES:]
        if lines:
            self.tell(name, LastLines(tuple(from_octets(line[:LINE_OCTETS]) for line in lines)), durable=False)

    async def _console_lines(self, name: Name, since: datetime | None) -> tuple[str, ...]:
        found: deque[str] = deque(maxlen=LAST_LINES)
        try:
            async with (
                asyncio.timeout(CONSOLE_SECONDS),
                await connect(self._console_path, timeout=CONSOLE_SECONDS) as channel,
            ):
                await channel.send(encode_message(Message(Header(name), ConsoleSubscribe(count=LAST_LINES))))
                while payload := await channel.receive():
                    line = decode_message(payload).payload
                    if isinstance(line, ConsoleLine) and (since is None or line.timestamp >= since - BEFORE_START):
                        found.append(from_octets(line.line[:LINE_OCTETS]))
        except TimeoutError:
            pass  # the subscription goes on for ever; this is its end
        except AlbatrossError as error:
            log.info("the last lines of %s cannot be had: %s", name, printable(str(error)))
        return tuple(found)

    def _record(self, *, durable: bool) -> None:
        try:
            self._state.record_events(durable=durable)
        except StateError as error:
            log.error("events wait to be recorded: %s", error)

    def _sync_soon(self) -> None:
        if self._sync is None:
            self._sync = asyncio.get_running_loop().call_later(SYNC_SECONDS, self._sync_now)

    def _sync_now(self) -> None:
        self._sync = None
        if self.log.unsynced or self.log.staged:
            self._record(durable=True)
