"""Which consoles there are, what each may keep, and who listens: pure, no file, socket or clock.

A console is a name with a ring (once its unikernel was announced) and subscribers. It is *active* while its unikernel
writes. In this order, ``add`` decides:

1. a known name keeps its ring and its subscribers and is active again;
2. a new ring beyond what its path may have drops rings of that path's dead, longest dead first;
3. a new ring beyond what the memory allows drops the longest dead of the path that has most dead rings, so that no
   tenant's dead push out another's; if nobody is dead, it is refused;
4. every ring gets the same share of the memory.

``subscribe`` closes the oldest subscriber when there is no place, as Albatross does, and a name that nobody announced
is known only while somebody waits for it. Reading fifos and writing to sockets is left to ``console_server``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from albatross_pki.errors import AlbatrossError
from albatross_pki.host.console_frames import LineFramer
from albatross_pki.host.console_limits import (
    BATCH_LINES,
    LARGEST_BACKLOG,
    LARGEST_RING,
    MAX_MEMORY,
    MAX_SUBSCRIBERS,
    RINGS_PER_PATH,
    SMALLEST_BACKLOG,
    SMALLEST_RING,
)
from albatross_pki.host.ring import Ring
from albatross_pki.names import Name, Path


class TooManyConsoles(AlbatrossError):
    """Every ring that fits into the memory belongs to a running unikernel."""

    def __init__(self, rings: int) -> None:
        super().__init__(
            f"all {rings} console buffers belong to running unikernels",
            hint="start albatross-console with a larger --max-memory",
        )
        self.rings = rings


class Listener(Protocol):
    """A subscriber, as far as this module cares."""

    def offer(self, frames: bytes, lines: int) -> None: ...
    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class Console:
    """One unikernel's console; ``ended`` orders the dead by the time of their death."""

    name: Name
    ring: Ring | None = None
    active: bool = False
    ended: int = 0
    subscribers: list[Listener] = field(default_factory=list)
    _framer: LineFramer | None = None

    @property
    def framer(self) -> LineFramer:
        """Encodes this console's lines; kept while there are subscribers."""
        if self._framer is None:
            self._framer = LineFramer(self.name)
        return self._framer

    def write(self, moment: int, lines: list[bytes]) -> None:
        """Keep new lines and give them to everybody who listens, encoded once."""
        if self.ring is not None:
            self.ring.append(moment, lines)
        if self.subscribers and lines:
            for begin in range(0, len(lines), BATCH_LINES):
                batch = lines[begin : begin + BATCH_LINES]
                frames = self.framer.frames(moment, batch)
                for subscriber in self.subscribers:
                    subscriber.offer(frames, len(batch))

    def unsubscribe(self, subscriber: Listener) -> None:
        if subscriber in self.subscribers:
            self.subscribers.remove(subscriber)
        if not self.subscribers:
            self._framer = None


class Consoles:
    """All consoles of a host, within ``max_memory`` octets and ``max_subscribers`` of each."""

    def __init__(self, max_memory: int = MAX_MEMORY, max_subscribers: int = MAX_SUBSCRIBERS) -> None:
        self._room = max_memory // 2
        self._max_rings = max(1, self._room // SMALLEST_RING)
        self._max_subscribers = max_subscribers
        self._paths: dict[Path, dict[str, Console]] = {}
        self._beside: list[Listener] = []  # few, and for a moment
        self._rings = 0
        self._deaths = 0

    def __iter__(self) -> Iterator[Console]:
        for path in list(self._paths.values()):
            yield from list(path.values())

    def find(self, name: Name) -> Console | None:
        return self._paths.get(name.path, {}).get(name.label or "")

    @property
    def octets(self) -> int:
        """What all rings take."""
        return sum(console.ring.octets for console in self if console.ring is not None)

    def backlog_limit(self, subscribers: int) -> int:
        """The room for each of so many subscribers, in octets."""
        return max(SMALLEST_BACKLOG, min(LARGEST_BACKLOG, self._room // max(1, subscribers)))

    def max_connections(self) -> int:
        """So many subscribers have their smallest room within the memory."""
        return max(8, self._room // SMALLEST_BACKLOG)

    def add(self, name: Name, rings: int) -> Console:
        """Announce a unikernel; ``rings`` is how many its path may have. Raises ``TooManyConsoles``."""
        console = self.find(name)
        if console is None or console.ring is None:
            self._make_room(name.path, max(rings, RINGS_PER_PATH))
            console = console or self._remember(name)
            console.ring = Ring(0)
            self._rings += 1
            self._share()
        console.active = True
        return console

    def ended(self, console: Console) -> None:
        """The unikernel is gone; what it wrote stays."""
        console.active = False
        self._deaths += 1
        console.ended = self._deaths

    def subscribe(self, name: Name, subscriber: Listener, *, beside: bool = False) -> Console:
        """Add a subscriber to a console, known or not; the oldest one is closed if there is no place.

        One that is ``beside`` the others closes nobody: albatrossd, which looks at the last lines for a moment.
        """
        console = self.find(name) or self._remember(name)
        if beside:
            self._beside.append(subscriber)
        else:
            present = [each for each in console.subscribers if each not in self._beside]
            for oldest in present[: max(0, len(present) + 1 - self._max_subscribers)]:
                console.subscribers.remove(oldest)
                oldest.close()
        console.subscribers.append(subscriber)
        return console

    def unsubscribe(self, console: Console, subscriber: Listener) -> None:
        console.unsubscribe(subscriber)
        if subscriber in self._beside:
            self._beside.remove(subscriber)
        if console.ring is None and not console.subscribers and self.find(console.name) is console:
            self._forget(console)

    def inactive(self, path: Path) -> tuple[Name, ...]:
        """The dead at and below ``path`` whose output is kept, relative to it, siblings in descending order."""
        dead = [
            console.name
            for console in self
            if console.ring is not None and not console.active and path.contains(console.name.path)
        ]
        return tuple(name.relative_to(path) for name in sorted(dead, reverse=True))

    def _remember(self, name: Name) -> Console:
        console = Console(name)
        self._paths.setdefault(name.path, {})[name.label or ""] = console
        return console

    def _forget(self, console: Console) -> None:
        siblings = self._paths[console.name.path]
        del siblings[console.name.label or ""]
        if not siblings:
            del self._paths[console.name.path]

    def _drop(self, console: Console) -> None:
        for subscriber in list(console.subscribers):
            subscriber.close()
        console.subscribers.clear()
        self._rings -= 1
        self._forget(console)

    def _make_room(self, path: Path, allowed: int) -> None:
        dead = _dead(self._paths.get(path, {}))
        having = sum(console.ring is not None for console in self._paths.get(path, {}).values())
        for console in dead[: max(0, having + 1 - allowed)]:
            self._drop(console)
        if self._rings >= self._max_rings:
            most = max((_dead(consoles) for consoles in self._paths.values()), key=len, default=[])
            if not most:
                raise TooManyConsoles(self._max_rings)
            self._drop(most[0])

    def _share(self) -> None:
        share = min(LARGEST_RING, self._room // self._rings)
        for console in self:
            if console.ring is not None:
                console.ring.set_limit(share)


def newest_within(
    history: list[tuple[int, list[bytes]]], room: int, framer: LineFramer
) -> tuple[int, list[tuple[int, list[bytes]]]]:
    """The newest lines of ``history`` whose frames take at most half of ``room``, and how many are left out before.

    The other half stays for lines that come while the subscriber reads its history.
    """
    room //= 2
    kept: list[tuple[int, list[bytes]]] = []
    missed = 0
    for moment, lines in reversed(history):
        first = len(lines)
        while first and not missed:
            head, tail = framer.template(len(lines[first - 1]), fraction=True)
            room -= len(head) + _LONGEST_TIME + len(tail) + len(lines[first - 1])
            if room < 0:
                break
            first -= 1
        missed += first
        if first < len(lines):
            kept.append((moment, lines[first:]))
    return missed, kept[::-1]


_LONGEST_TIME = len("20010203040506.789Z")


def _dead(consoles: dict[str, Console]) -> list[Console]:
    """The dead with a ring, longest dead first."""
    dead = [console for console in consoles.values() if console.ring is not None and not console.active]
    return sorted(dead, key=lambda console: console.ended)
