"""What happened to the unikernels of a host lately, and what happens now, for whoever may listen.

The last events of each top-level path are kept, so that a noisy tenant does not push out another's. A listener
hears of its path alone; one that does not take its events loses its place rather than holding up anybody.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from albatross_pki.errors import AlbatrossError
from albatross_pki.host.limits import EVENT_LISTENERS, EVENT_QUEUE, EVENTS_KEPT
from albatross_pki.names import Name
from albatross_pki.text import printable


@dataclass(frozen=True, slots=True)
class Happened:
    """``what`` is a word of the documentation, ``detail`` a sentence or nothing."""

    at: datetime
    name: Name
    what: str
    detail: str = ""

    def line(self, asked: Name) -> bytes:
        """One JSON document, the name as the one who ``asked`` sees it."""
        shown = self.name.relative_to(asked.path) if asked.is_path else self.name
        document = {"name": str(shown), "event": self.what}
        if self.detail:
            document["detail"] = printable(self.detail)
        return json.dumps(document, separators=(",", ":")).encode()


class Lagging(AlbatrossError):
    """A listener did not take its events in time, or there is no place for one."""


class EventLog:
    """The events of one daemon since it started."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, ...], deque[Happened]] = {}
        self._listeners: dict[asyncio.Queue[Happened | None], Name] = {}

    def note(self, name: Name, what: str, detail: str = "") -> None:
        """Something happened to ``name`` just now."""
        happened = Happened(datetime.now(UTC), name, what, detail)
        top = name.path.labels[:1]
        self._kept.setdefault(top, deque(maxlen=EVENTS_KEPT)).append(happened)
        for queue, asked in list(self._listeners.items()):
            if _means(asked, name):
                try:
                    queue.put_nowait(happened)
                except asyncio.QueueFull:
                    del self._listeners[queue]

    def forget(self, name: Name) -> None:
        """Nothing is left below the top of ``name``: its events may go when there are too many tops."""
        top = name.path.labels[:1]
        if len(self._kept) > EVENTS_KEPT:
            self._kept.pop(top, None)

    def since(self, asked: Name, moment: datetime) -> Iterator[Happened]:
        """What is kept and not older than ``moment``, in order."""
        tops = [asked.path.labels[:1]] if asked.path.labels else list(self._kept)
        found = [each for top in tops for each in self._kept.get(top, ())]
        yield from sorted(
            (each for each in found if each.at >= moment and _means(asked, each.name)), key=lambda each: each.at
        )

    @contextlib.contextmanager
    def listening(self, asked: Name) -> Iterator[AsyncIterator[Happened]]:
        """What happens from now on; raises ``Lagging`` for one who is too slow, or if there are too many listeners."""
        if len(self._listeners) >= EVENT_LISTENERS:
            raise Lagging(f"there are {EVENT_LISTENERS} listeners already")
        queue: asyncio.Queue[Happened | None] = asyncio.Queue(EVENT_QUEUE)
        self._listeners[queue] = asked
        try:
            yield self._follow(queue)
        finally:
            self._listeners.pop(queue, None)

    async def _follow(self, queue: "asyncio.Queue[Happened | None]") -> AsyncIterator[Happened]:
        while True:
            if queue not in self._listeners and queue.empty():
                raise Lagging("the events came faster than they were taken")
            happened = await queue.get()
            if happened is not None:
                yield happened


def _means(asked: Name, name: Name) -> bool:
    return asked.path.contains(name.path) if asked.is_path else asked == name
