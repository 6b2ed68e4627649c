"""A journal: JSON lines, each with the hash of the line before it, on disk before ``append`` returns.

A line is one JSON object in ASCII without blanks, ended by a newline. Its first two members are the journal's own,

* ``n``, the number of the line, counting from 1, and
* ``previous``, the lower-case hexadecimal SHA-256 of the line before it without its newline (64 zeros in line 1);

all others are its writer's; ``docs/ca.md`` and ``docs/operations.md`` have their schemas. The digest of the last line
is the *head*: whoever kept a head can tell later that nothing before it was changed.

Opening decides, in this order:

1. the file is a regular one and not a link; it is made with the mode asked for if it is not there;
2. nobody else has it open for writing (one chain has one writer at a time), and the file that was waited for is still
   the one of that name;
3. an unterminated last line is what a crash left of an append that never returned: it is cut off, and a line of kind
   ``recovered`` with its length and hash says so;
4. the last line is an object with a number, else the journal is refused: nothing is added to what cannot be continued.

The whole chain is checked by ``verify``, not at every opening: opening costs the same however long the journal is.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from albatross_pki.errors import AlbatrossError
from albatross_pki.files import DISK, Disk, sync_directory

GENESIS = "0" * 64
OWN_MEMBERS = frozenset({"n", "previous"})
RECOVERED = "recovered"
CONTINUES = "continues"
_TAIL = 64 * 1024  # octets read at first to find the last line
_LINE_LIMIT = 16 * 1024 * 1024  # octets; no writer of ours comes near


class BadJournal(AlbatrossError):
    """A journal that cannot be continued or does not verify; ``path`` is its name."""

    def __init__(self, path: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"{path}: {reason}", hint=hint)
        self.path = path


@dataclass(frozen=True, slots=True)
class Verification:
    """What ``verify`` found: no ``problems`` in a good journal; ``torn`` counts the octets of a cut last line."""

    entries: int
    head: str
    torn: int
    problems: tuple[str, ...]

    @property
    def good(self) -> bool:
        return not self.problems


class Journal:
    """An open journal; hold it only as long as needed, a second writer waits or is refused. A context manager."""

    def __init__(self, path: str, descriptor: int, disk: Disk, *, made: bool = False) -> None:
        self.path = path
        self._descriptor = descriptor
        self._disk = disk
        self._made = made
        self._failed = False
        self.entries, self.head = 0, GENESIS

    @classmethod
    def open(cls, path: str, mode: int = 0o600, *, wait: bool = True, disk: Disk = DISK) -> Self:
        """Open or make the journal ``path``; raises ``BadJournal``, or ``OSError`` as the system says.

        ``wait`` waits for another writer to finish, else it is an error that there is one.
        """
        made = not os.path.lexists(path)
        descriptor = _open_locked(path, mode, wait)
        try:
            journal = cls(path, descriptor, disk, made=made)
            if made:
                sync_directory(os.path.dirname(path) or ".", disk)
            journal._find_end()
        except BaseException:
            os.close(descriptor)
            raise
        return journal

    def append(self, entry: Mapping[str, Any]) -> str:
        """Add one line and return its digest, the new head. Nothing may be changed if this raises.

        After a failed write the journal takes no more entries until it is opened again, which cuts off what the write
        may have left.
        """
        return self.append_all([entry])

    def append_all(self, entries: list[Mapping[str, Any]]) -> str:
        """Add several lines with one write to the disk; returns the new head."""
        if self._failed:
            raise BadJournal(self.path, "an earlier write failed, nothing more is recorded")
        lines: list[bytes] = []
        number, head = self.entries, self.head
        for entry in entries:
            if clash := OWN_MEMBERS & entry.keys():
                raise TypeError(f"members of the journal itself: {sorted(clash)}")
            number += 1
            line = _dump({"n": number, "previous": head, **entry})
            if len(line) > _LINE_LIMIT:
                raise BadJournal(self.path, f"an entry of {len(line)} bytes is too long")
            head = _digest(line)
            lines.append(line)
        if not lines:
            return self.head
        self._failed = True
        try:
            self._disk.write(self._descriptor, b"\n".join(lines) + b"\n")
            self._disk.fsync(self._descriptor)
        except OSError as error:  # the system names no file where a descriptor was written
            raise OSError(error.errno, error.strerror, self.path) from error
        self._failed = False
        self.entries, self.head = number, head
        return head

    def discard_if_empty(self) -> None:
        """Remove a file that this process made and wrote nothing into; whoever waits for it makes another."""
        if self._made and self._descriptor >= 0 and os.fstat(self._descriptor).st_size == 0:
            with contextlib.suppress(OSError):  # an empty journal is a good one
                self._disk.unlink(self.path)

    def follow(self, head: str, entries: int) -> None:
        """Begin an empty journal as the continuation of one that ended with ``head`` after so many ``entries``."""
        self.append({"kind": CONTINUES, "head": head, "entries": entries})

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._failed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    def _find_end(self) -> None:
        size = os.fstat(self._descriptor).st_size
        tail = _tail(self._descriptor, size)
        complete, _, torn = tail.rpartition(b"\n")
        if complete:
            line = complete.rpartition(b"\n")[2]
            self.entries, self.head = self._number(line), _digest(line)
        elif size > len(torn):
            raise BadJournal(self.path, "its last line is too long")
        if torn:
            self._disk.truncate(self._descriptor, size - len(torn))
            self.append({"kind": RECOVERED, "octets": len(torn), "sha256": _digest(torn)})

    def _number(self, line: bytes) -> int:
        try:
            number = json.loads(line)["n"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadJournal(self.path, "its last line is not an entry") from error
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise BadJournal(self.path, "its last line has no number")
        return number


def read_entries(path: str) -> Iterator[dict[str, Any]]:
    """Every entry of the journal ``path`` in order, not verified; raises ``BadJournal`` at what is not an entry.

    A torn last line is left out. ``FileNotFoundError`` as the system says.
    """
    return parse_entries(read_journal(path), path)


def read_journal(path: str) -> bytes:
    """The whole lines of a journal; what a crash left of a last one is left out."""
    octets = _octets(path)
    return octets[: octets.rfind(b"\n") + 1]


def parse_entries(lines: bytes, path: str) -> Iterator[dict[str, Any]]:
    """The entries in some whole lines of the journal ``path``; raises ``BadJournal``."""
    if not lines:
        return
    try:
        # one call for all of them: several times faster than one per line
        entries = json.loads(b"[" + lines[:-1].replace(b"\n", b",") + b"]")
    except (ValueError, RecursionError) as error:
        raise BadJournal(path, "is not made of JSON lines", hint="albatross-provision-ca ledger verify") from error
    for entry in entries:
        if not isinstance(entry, dict):
            raise BadJournal(path, "holds a line that is not an object")
        yield entry


def verify(path: str, *, known_head: str | None = None) -> Verification:
    """Check every line of the journal ``path``: form, number, and hash of the line before it.

    ``known_head`` is a head that was seen earlier: its absence is a problem.
    """
    found, seen = _verify(_octets(path), known_head)
    if seen:
        return found
    missing = f"the head {known_head} is not in it: lines were taken away or changed"
    return replace(found, problems=(*found.problems, missing))


def verify_octets(octets: bytes) -> Verification:
    """As ``verify``, for a journal that is not in a file of its own (yet)."""
    return _verify(octets, None)[0]


def _verify(octets: bytes, known_head: str | None) -> tuple[Verification, bool]:
    """What is wrong with the lines themselves, and whether ``known_head`` is among their digests."""
    complete, _, torn = octets.rpartition(b"\n")
    problems: list[str] = []
    head, count = GENESIS, 0
    seen = known_head is None or known_head == GENESIS
    for count, line in enumerate(complete.split(b"\n") if complete else (), 1):
        problems.extend(f"line {count}: {problem}" for problem in _line_problems(line, count, head))
        head = _digest(line)
        seen = seen or head == known_head
        if len(problems) > 100:
            problems.append("and more")
            break
    return Verification(count, head, len(torn), tuple(problems)), seen


def verify_series(paths: Sequence[str], *, known_head: str | None = None) -> Verification:
    """Check journals that continue each other, oldest first: each by itself, and that nothing is missing in between.

    ``entries`` counts those of all, ``head`` is that of the last one.
    """
    problems: list[str] = []
    entries, head, torn = 0, GENESIS, 0
    head_seen = False
    for position, path in enumerate(paths):
        found, seen = _verify(_octets(path), known_head)
        problems += [f"{path}: {problem}" for problem in found.problems]
        if position and continued_head(path) != head:
            problems.append(f"{path}: does not continue {paths[position - 1]}")
        head_seen = head_seen or seen
        entries, head, torn = entries + found.entries, found.head, found.torn
    if not head_seen:
        problems.append(f"the head {known_head} is not in it: lines were taken away or changed")
    return Verification(entries, head, torn, tuple(problems))


def continued_head(path: str) -> str | None:
    """The head of the journal that the one at ``path`` says to continue; ``None`` if it says nothing of the kind."""
    first = next(read_entries(path), {})
    head = first.get("head") if first.get("kind") == CONTINUES else None
    return head if isinstance(head, str) else None


def end_of(path: str) -> tuple[int, str]:
    """How many entries a journal has that nobody writes to any more, and its head; raises ``BadJournal``."""
    lines = read_journal(path).splitlines()
    try:
        json.loads(lines[-1] if lines else b"null")
    except ValueError as error:
        raise BadJournal(path, "its last line is not an entry") from error
    return len(lines), _digest(lines[-1]) if lines else GENESIS


def _line_problems(line: bytes, number: int, previous: str) -> Iterator[str]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        yield "is not JSON"
        return
    if not isinstance(entry, dict):
        yield "is not an object"
        return
    if entry.get("n") != number:
        yield f"has the number {json.dumps(entry.get('n'))[:32]}"
    if entry.get("previous") != previous:
        yield "does not follow from the line before it"


def _octets(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with open(descriptor, "rb") as source:
        return source.read()


def _tail(descriptor: int, size: int) -> bytes:
    """The end of the file, from some newline (or its beginning) on, with at least one whole line if there is one."""
    length = min(size, _TAIL)
    while True:
        octets = os.pread(descriptor, length, size - length)
        if length == size or octets.count(b"\n") >= 2 or length >= _LINE_LIMIT:
            return octets
        length = min(size, 4 * length)


def _open_locked(path: str, mode: int, wait: bool) -> int:
    """A descriptor of the journal ``path`` that holds its lock; made if it is not there."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        descriptor = os.open(path, flags, mode)
        try:
            opened = os.fstat(descriptor)
            if not stat.S_ISREG(opened.st_mode):
                raise BadJournal(path, "is not a regular file")
            _lock(path, descriptor, wait)
            if _is_at(path, opened):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # another writer took the file away while this one waited for it


def _is_at(path: str, opened: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), opened)
    except FileNotFoundError:
        return False


def _lock(path: str, descriptor: int, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise BadJournal(path, "another process is writing to it") from error


def _dump(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
