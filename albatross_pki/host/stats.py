"""Whose statistics go to whom: pure, no process, socket or clock.

A subscription names a path, and gets every unikernel at and below it, or one name, and gets that one alone. For each
name there are at most ``MAX_SUBSCRIBERS``; a further one takes the place of the oldest. (Albatross has one, so that who
looks at ``:`` there ends the export of everything.) Samples carry the unikernel's name relative to the path of the
subscription. Nothing is sampled that nobody listens to.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from albatross_pki.errors import AlbatrossError, check_range
from albatross_pki.names import Name

MAX_UNIKERNELS = 100_000  # as many as albatrossd takes
MAX_INTERFACES = 63  # Solo5's manifest has 64 entries, the first is reserved
MAX_SUBSCRIBERS = 8  # of one name: an export or two, and people who look
MAX_PID = 2**22  # proc_sys_kernel(5): the largest pid_max


class Closable(Protocol):
    """A subscriber, as far as this module cares."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Watched:
    """A unikernel's process; ``started`` tells it from a later one of the same pid. ``network``: device, tap."""

    pid: int
    started: int
    network: tuple[tuple[str, str], ...]


def checked(pid: int, network: tuple[tuple[str, str], ...]) -> None:
    """Refuse what cannot be a process or a unikernel's interfaces."""
    check_range("pid", pid, 1, MAX_PID)
    check_range("interfaces", len(network), 0, MAX_INTERFACES)


Subscriber = TypeVar("Subscriber", bound=Closable)


class Audience(Generic[Subscriber]):
    """Unikernels and subscribers, and which belong together."""

    def __init__(self) -> None:
        self._watched: dict[Name, Watched] = {}
        self._subscribers: dict[Name, list[Subscriber]] = {}

    def __len__(self) -> int:
        """The number of unikernels."""
        return len(self._watched)

    def watch(self, name: Name, watched: Watched) -> None:
        """Add a unikernel, or put it in the place of an earlier one of that name."""
        if name not in self._watched and len(self._watched) >= MAX_UNIKERNELS:
            raise AlbatrossError(f"statistics are kept of at most {MAX_UNIKERNELS} unikernels")
        self._watched[name] = watched

    def forget(self, name: Name) -> bool:
        """Remove a unikernel; returns whether it was known."""
        return self._watched.pop(name, None) is not None

    def forget_all(self) -> None:
        """Remove every unikernel; subscribers stay."""
        self._watched.clear()

    def subscribe(self, name: Name, subscriber: Subscriber) -> Subscriber | None:
        """Add a subscriber; returns the one that it replaces, which the caller closes."""
        subscribers = self._subscribers.setdefault(name, [])
        former = subscribers.pop(0) if len(subscribers) >= MAX_SUBSCRIBERS else None
        subscribers.append(subscriber)
        return former

    def unsubscribe(self, name: Name, subscriber: Subscriber) -> None:
        """Remove a subscriber, unless it was replaced already."""
        subscribers = self._subscribers.get(name, [])
        if subscriber in subscribers:
            subscribers.remove(subscriber)
            if not subscribers:
                del self._subscribers[name]

    def everybody(self) -> list[Name]:
        """Every unikernel, whether anybody listens or not."""
        return list(self._watched)

    def wanted(self) -> list[Name]:
        """The unikernels that somebody listens to."""
        if not self._subscribers:
            return []
        return [name for name in self._watched if next(self.listeners(name), None) is not None]

    def find(self, name: Name) -> Watched | None:
        return self._watched.get(name)

    def listeners(self, name: Name) -> Iterator[tuple[Name, Subscriber]]:
        """Who gets samples of ``name``, each with the name that it reads; the cost is the depth of the name."""
        for subscriber in self._subscribers.get(name, ()):
            yield name.relative_to(name.path), subscriber
        for path in name.path.ancestors():
            for subscriber in self._subscribers.get(Name.of_path(path), ()):
                yield name.relative_to(path), subscriber
