"""Events per second on disk, and what they add to a change that is written anyway.

The yardstick for events of their own is SQLite itself: the same number of transactions with one row of the same size
and the same durability. Events that ride on a change are measured by that change with and without one.
"""

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator

from albatross_pki.host.events_kinds import PolicySet, Started
from albatross_pki.host.state import State
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from bench.measure import Row, compare, seconds

DURABLE = 50  # one fsync each
QUICK = 2000  # they survive the daemon at once and a power failure a second later
NAME = Name.parse("dev:web")
PATH = Path(("dev",))
POLICY = Policy(frozenset({0}), 2, 64)
STARTED = Started(1, "embedded spt")
DOCUMENT = "x" * 150  # octets of a short one


def rows() -> Iterator[Row]:
    """Events per second, durable and not; a change of state with an event against one without; a subscriber.

    In /var/tmp, which is a disk where /tmp may be memory. There is no bound for the change with an event: it takes a
    tenth of a millisecond of processor time more, beside a disk that takes between a tenth and ten for either.
    """
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        state = State(directory)
        plain = Plain(os.path.join(directory, "plain.sqlite"))
        try:
            for title, count, durable in (("durable", DURABLE, True), ("riding along", QUICK, False)):
                yield compare(
                    f"events/s, {title}",
                    per_second(count, lambda count=count, durable=durable: record(state, count, durable)),  # type: ignore[misc]
                    "SQLite alone",
                    per_second(count, lambda count=count, durable=durable: plain.insert(count, durable)),  # type: ignore[misc]
                    at_least=0.5 if durable else None,
                    unit="events/s",
                )
            yield compare(
                "20 policies set with events",
                seconds(lambda: set_policy(state, told=True)),
                "without",
                seconds(lambda: set_policy(state, told=False)),
                rounds=21,
            )
            yield Row("events/s read by a subscriber", f"{reading(state):,.0f} events/s")
        finally:
            plain.close()
            state.close()


def per_second(count: int, action: Callable[[], None]) -> Callable[[], float]:
    taken = seconds(action)
    return lambda: count / taken()


def record(state: State, count: int, durable: bool) -> None:
    for _ in range(count):
        state.events.stage(NAME, STARTED)
        state.record_events(durable=durable)


def set_policy(state: State, *, told: bool) -> None:
    for _ in range(20):
        if told:
            state.events.stage(Name.of_path(PATH), PolicySet.of(POLICY), 0)
        state.set_policy(PATH, POLICY)


def reading(state: State) -> float:
    """How fast one who listens is given what is on record."""
    found = 0
    listener = state.events.listen(Name(), None, lambda: None)
    listener.place = 0

    def read() -> None:
        nonlocal found
        while page := state.events.take(listener):
            found += len(page)

    taken = seconds(read)()
    state.events.leave(listener)
    return found / taken


class Plain:
    """A table with nothing around it."""

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("CREATE TABLE events (number INTEGER PRIMARY KEY, document TEXT)")

    def insert(self, count: int, durable: bool) -> None:
        self._database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        for _ in range(count):
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("INSERT INTO events (document) VALUES (?)", (DOCUMENT,))
            self._database.execute("COMMIT")

    def close(self) -> None:
        self._database.close()
