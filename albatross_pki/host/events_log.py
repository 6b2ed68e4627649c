"""The durable record of what happened: a table in the database of the state, written with the change that it tells of.

1. ``stage`` puts an event into the outbox, right before the change of state that it belongs to;
2. every transaction of the state calls ``write`` before it commits: outbox and change are on disk together or not at
   all, so after a crash each event is there once, in order, and tells of what the state says;
3. ``written`` after the commit wakes those who listen; ``rolled_back`` keeps what happened all the same (a process
   ended, whether the disk is full or not) for the next transaction, and drops what was asked for and refused.

The table is also the queue of those who listen: each has a place in it and reads page by page, so nobody holds memory
for a slow one, and nobody waits. The record is bounded: each top-level path has a share, a noisy one pushes out only
its own; beyond the total the largest shares give way. Who had not read what is pushed out is told how many it missed.
"""

import logging
import secrets
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from albatross_pki.errors import Refused
from albatross_pki.host.events_kinds import By, What, document, means, named, seen, subscribed, top_of
from albatross_pki.host.events_kinds import missed as missed_document
from albatross_pki.names import Name

log = logging.getLogger(__name__)

SHARE = 2048  # events kept for each top-level path
TOTAL = 65_536  # events kept; a document has 150 to 600 octets, so some 20 MB
SLACK = 64  # removed at a time: removing one for each that comes would double the work
PAGE = 64  # events that one who listens holds in memory
MAX_STAGED = 1024  # while the state cannot be written
MAX_LISTENERS = 64  # of all top-level paths together; those of the root have places of their own
MAX_LISTENERS_BELOW = 8  # of one top-level path: a tenant cannot take every place

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    number   INTEGER PRIMARY KEY,
    top      TEXT NOT NULL,     -- top-level label, empty for the root
    name     TEXT NOT NULL,
    time     INTEGER NOT NULL,  -- milliseconds since 1970
    document TEXT NOT NULL      -- JSON, without the name
);
CREATE INDEX IF NOT EXISTS events_by_top ON events (top, number);
CREATE TABLE IF NOT EXISTS events_on_disk (number INTEGER NOT NULL);
INSERT INTO events_on_disk SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM events_on_disk);
"""

Execute = Callable[..., sqlite3.Cursor]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Staged:
    name: Name
    at: datetime
    document: str
    certain: bool  # it happened, whether the state can be written or not


@dataclass(slots=True, eq=False)
class Listener:
    """One who listens: what it asked about, and where in the record it is."""

    asked: Name
    wake: Callable[[], None]
    place: int  # the number of the last event that it was given
    missed: int = 0

    def condition(self) -> tuple[str, list[object]]:
        """What is behind its place and means it, in SQL: every word of it stands here."""
        if not self.asked.is_path:
            return "number > ? AND top = ? AND name = ?", [self.place, top_of(self.asked.path), str(self.asked)]
        if self.asked.path.is_root:
            return "number > ?", [self.place]
        # what is at and below a path begins with its labels and a colon; a semicolon is the character behind that
        low = str(self.asked)
        return (
            "number > ? AND top = ? AND name >= ? AND name < ?",
            [self.place, top_of(self.asked.path), low, low[:-1] + ";"],
        )


class EventLog:
    """The events of one host. ``create`` it in an open database; whoever owns that calls the four steps above."""

    def __init__(self, execute: Execute, *, share: int = SHARE, total: int = TOTAL) -> None:
        self._execute = execute
        self._share, self._total = share, total
        self._staged: list[_Staged] = []
        self._fresh: list[Name] = []
        self._pushed_out: list[tuple[int, Name]] = []
        self._listeners: list[Listener] = []
        self._kept: Counter[str] | None = None
        self.unsynced = False  # something was written that only the next durable transaction puts on the disk
        self.when_unsynced: Callable[[], None] | None = None

    # recording

    def stage(self, name: Name, what: What, by: By = None, *, certain: bool = False) -> None:
        """Have this recorded by the next transaction; ``certain`` if it happened whether that succeeds or not."""
        now = datetime.now(UTC)
        self._staged.append(_Staged(name, now, document(what, now, by, secrets.token_hex(8)), certain))

    @property
    def staged(self) -> int:
        return len(self._staged)

    def write(self, execute: Execute) -> None:
        """Step 2, inside a transaction."""
        if not self._staged:
            return
        kept = self._counts()
        for each in self._staged:
            top = top_of(each.name.path)
            milliseconds = (each.at - _EPOCH) // timedelta(milliseconds=1)
            execute(
                "INSERT INTO events (top, name, time, document) VALUES (?, ?, ?, ?)",
                (top, str(each.name), milliseconds, each.document),
            )
            kept[top] += 1
            self._fresh.append(each.name)
            if kept[top] > self._share + SLACK:
                self._push_out(execute, top, kept[top] - self._share)
        if kept.total() > self._total + SLACK:
            (largest, count), *_ = kept.most_common(1)
            self._push_out(execute, largest, min(count - 1, kept.total() - self._total))

    def written(self, *, durable: bool) -> None:
        """Step 3, after the commit; ``durable`` if that put everything so far on the disk."""
        if durable:
            self.unsynced = False
        elif self._staged:
            self.unsynced = True
            if self.when_unsynced is not None:
                self.when_unsynced()
        self._staged.clear()
        fresh, pushed_out = self._fresh, self._pushed_out
        self._fresh, self._pushed_out = [], []
        for listener in self._listeners:
            for number, name in pushed_out:
                if number > listener.place and means(listener.asked, name):
                    listener.missed += 1
            if any(means(listener.asked, name) for name in fresh):
                listener.wake()

    def rolled_back(self) -> None:
        """Step 3, if there was no commit."""
        self._staged = [each for each in self._staged if each.certain]
        if len(self._staged) > MAX_STAGED:
            log.error("%d events could not be recorded and are lost", len(self._staged) - MAX_STAGED)
            del self._staged[:-MAX_STAGED]
        self._fresh.clear()
        self._pushed_out.clear()
        self._kept = None

    def _push_out(self, execute: Execute, top: str, count: int) -> None:
        removed = execute(
            "DELETE FROM events WHERE number IN"
            " (SELECT number FROM events WHERE top = ? ORDER BY number LIMIT ?) RETURNING number, name",
            (top, count),
        ).fetchall()
        self._counts()[top] -= len(removed)
        if self._listeners:
            self._pushed_out += [(number, Name.parse(name)) for number, name in removed]

    def _counts(self) -> "Counter[str]":
        if self._kept is None:
            self._kept = Counter(dict(self._execute("SELECT top, count(*) FROM events GROUP BY top")))
        return self._kept

    # listening

    def listen(self, asked: Name, since: datetime | None, wake: Callable[[], None]) -> Listener:
        """A place in the record: at the first event not older than ``since``, else at its end.

        ``wake`` is called when there is more to take. Raises ``Refused`` if there are too many.
        """
        top = top_of(asked.path)
        tops = Counter(top_of(each.asked.path) for each in self._listeners)
        if tops[top] >= MAX_LISTENERS_BELOW:
            of = top or "the root"
            raise Refused([f"{MAX_LISTENERS_BELOW} listen to events of {of} already"], hint="end another one first")
        if top and tops.total() - tops[""] >= MAX_LISTENERS:  # tenants together do not keep the operator out
            raise Refused([f"{MAX_LISTENERS} listen to events already"], hint="try again later")
        listener = Listener(asked, wake, self._place(since))
        self._listeners.append(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """Give a place up; a second time does nothing."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def first_document(self, asked: Name) -> str:
        """What one who listens gets first: since when events are kept for it, null if there are none yet."""
        listener = Listener(asked, _nobody, 0)
        condition, parameters = listener.condition()
        oldest = self._execute(
            f"SELECT time FROM events WHERE {condition} ORDER BY number LIMIT 1",  # noqa: S608
            parameters,
        ).fetchone()
        kept_since = None if oldest is None else _EPOCH + timedelta(milliseconds=oldest[0])
        return subscribed(seen(asked, asked), kept_since)

    def take(self, listener: Listener) -> list[str]:
        """The next documents for ``listener``, at most ``PAGE`` and a line about missed ones; empty at the end."""
        condition, parameters = listener.condition()
        rows = self._execute(
            f"SELECT number, name, document FROM events WHERE {condition} ORDER BY number LIMIT {PAGE}",  # noqa: S608
            parameters,
        ).fetchall()
        documents = []
        if listener.missed:
            documents.append(missed_document(seen(listener.asked, listener.asked), listener.missed))
            listener.missed = 0
        for number, text, recorded in rows:
            listener.place = number
            documents.append(named(recorded, seen(listener.asked, Name.parse(text))))
        return documents

    def _place(self, since: datetime | None) -> int:
        (last,) = self._execute("SELECT ifnull(max(number), 0) FROM events").fetchone()
        if since is None:
            return int(last)
        milliseconds = (since - _EPOCH) // timedelta(milliseconds=1)
        first = self._execute(
            "SELECT number FROM events WHERE time >= ? ORDER BY number LIMIT 1", (milliseconds,)
        ).fetchone()
        return int(last) if first is None else int(first[0]) - 1


def _nobody() -> None:
    """Wakes nobody."""
