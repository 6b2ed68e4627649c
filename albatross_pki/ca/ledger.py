"""The ledger of a CA: what was issued, what was revoked, which CRLs were made.

Beside the database file ``DB`` that Albatross' users know (one line ``SERIAL NAME`` per certificate, never read) stands
``DB.ledger``, a journal (``albatross_pki.journal``) whose schema is in ``docs/ca.md``. Everything that is decided by
what happened before is decided from it. The order of every act is: ledger, database, then the file that is handed out;
whoever is killed in between has recorded something that nobody got, never the other way round.

A ``Ledger`` holds the journal's lock from reading to writing, so that two signings at once see each other. Its first
line, ``opened``, is written with the first act: an act that was refused leaves no ledger where none was.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from types import TracebackType
from typing import Any, NamedTuple, Self

from albatross_pki.ca.database import append, check_database, line_for
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.files import DISK, Disk
from albatross_pki.journal.log import BadJournal, Journal, parse_entries, read_journal, verify
from albatross_pki.policy.roles import Dialect, Role
from albatross_pki.text import printable

FORMAT = 1
OPENED, ISSUED = "opened", "issued"
_FIRST_LINE = 4096  # octets
_RECENT = 256  # certificates whose lines are looked for in the database before the next one is added
LEDGER_MODE = 0o600
REASONS = (
    "unspecified",
    "key-compromise",
    "ca-compromise",
    "affiliation-changed",
    "superseded",
    "cessation-of-operation",
    "privilege-withdrawn",
)


def ledger_path(database: str) -> str:
    """Where the ledger of a database file stands."""
    return f"{database}.ledger"


def write_time(moment: datetime) -> str:
    """A time as it stands in the ledger: UTC, whole seconds, ``2026-11-21T02:31:10Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_time(text: str) -> datetime:
    return datetime.fromisoformat(text)


class Issued(NamedTuple):
    """One certificate. Digests are lower-case hexadecimal SHA-256; serials lower-case hexadecimal numbers.

    ``issuer`` and ``key`` are digests of SubjectPublicKeyInfo, ``digest`` that of the DER. ``path`` is the text of the
    path that the certificate stands for or in; ``label`` its common name. ``rights`` is a digest over policy,
    constraints and path length, the same for two certificates that allow the same. ``word`` is the command of a leaf.
    """

    serial: str
    issuer: str
    key: str
    role: str
    path: str
    label: str
    rights: str
    not_before: str
    not_after: str
    digest: str
    word: str = ""
    time: str = ""

    def entry(self) -> dict[str, str]:
        return {"kind": ISSUED, **self._asdict()}


@dataclass(frozen=True, slots=True)
class Revoked:
    """One revocation: which certificate of which issuer key, why and when."""

    serial: str
    issuer: str
    reason: str
    time: str

    def entry(self) -> dict[str, str]:
        return {"kind": "revoked", **{name: getattr(self, name) for name in self.__slots__}}


# An "issued" line as ``Issued.entry`` and the journal write it. Nearly all lines of a ledger are of this form, and
# reading them so is several times faster than JSON; a line that does not match exactly is read as JSON, and a ledger
# with escapes in its text altogether, so that a value here is what stands between its quotes.
_LINE = re.compile(
    r'^\{"n":[0-9]+,"previous":"[0-9a-f]{64}","kind":"issued"'
    + "".join(rf',"{name}":"([^"]*)"' for name in Issued._fields)
    + r"\}\n",
    re.MULTILINE,
)
_STRIDE = len(Issued._fields) + 1


class LedgerView:
    """The ledger as it was read: ``issued`` in order, and what was done to them."""

    def __init__(self, issued: Iterable[Issued], entries: Iterable[Mapping[str, Any]]) -> None:
        self.issued = list(issued)
        self.revocations: dict[tuple[str, str], Revoked] = {}
        self.crl_numbers: dict[str, int] = {}
        for entry in entries:
            self._take(entry)

    @classmethod
    def read(cls, path: str) -> Self:
        """Read a ledger file; raises ``BadJournal`` for what is not one, and ``FileNotFoundError``."""
        try:
            text = read_journal(path).decode("ascii")
        except UnicodeDecodeError as error:
            raise BadJournal(path, "is not made of JSON lines in ASCII") from error
        pieces = _LINE.split(text) if "\\" not in text else [text]
        columns = (pieces[start::_STRIDE] for start in range(1, _STRIDE))
        others = "".join(pieces[::_STRIDE])
        if text.count("\n") != len(pieces) // _STRIDE + others.count("\n"):
            raise BadJournal(path, "holds text that goes on in another line")
        return cls(map(Issued._make, zip(*columns, strict=True)), parse_entries(others.encode("ascii"), path))

    def _take(self, entry: Mapping[str, Any]) -> None:
        kind = entry.get("kind")
        try:
            if kind == ISSUED:
                self.issued.append(Issued(*[entry[name] for name in Issued._fields]))
            elif kind == "revoked":
                revoked = Revoked(entry["serial"], entry["issuer"], entry["reason"], entry["time"])
                self.revocations.setdefault((revoked.issuer, revoked.serial), revoked)
            elif kind == "crl":
                issuer = entry["issuer"]
                self.crl_numbers[issuer] = max(self.crl_numbers.get(issuer, 0), int(entry["number"]))
        except (KeyError, ValueError, TypeError) as error:
            raise AlbatrossError(f"line {entry.get('n')} of the ledger cannot be read: {error}") from error

    @property
    def recent(self) -> list[tuple[str, str]]:
        """Serial and label of the last certificates that belong in the database; the root does not."""
        last = self.issued[-_RECENT:]
        return [(item.serial, item.label) for item in last if item.role != Role.ROOT.value]

    @property
    def last_time(self) -> str:
        """When the last certificate was issued, as it stands there; empty if none was."""
        return self.issued[-1].time if self.issued else ""

    def issued_where(self, member: str, value: str) -> list[Issued]:
        """The certificates whose ``member`` is ``value``."""
        position = Issued._fields.index(member)
        return [item for item in self.issued if item[position] == value]

    def knows(self, issuer_key: str) -> bool:
        """Whether anything in the ledger was done with the key of this digest; a root's own certificate was."""
        if issuer_key in self.crl_numbers or any(key == issuer_key for key, _ in self.revocations):
            return True
        position = Issued._fields.index("issuer")
        return any(item[position] == issuer_key for item in self.issued)

    def is_revoked(self, certificate: Issued) -> bool:
        return (certificate.issuer, certificate.serial) in self.revocations

    def is_current(self, certificate: Issued, now: datetime) -> bool:
        """Neither revoked nor expired."""
        return certificate.not_after > write_time(now) and not self.is_revoked(certificate)


def read_ledger(database: str) -> LedgerView:
    """What the ledger of ``database`` holds, read without waiting for a writer; raises if there is none."""
    path = ledger_path(database)
    try:
        return LedgerView.read(path)
    except FileNotFoundError as error:
        raise AlbatrossError(
            f"there is no ledger {path}", hint="it is made when the first certificate is signed with this database"
        ) from error


def stored_dialect(database: str) -> Dialect:
    """The dialect that stands in the first line of the ledger; native if there is no ledger yet."""
    opening = _opening(ledger_path(database))
    known = {dialect.value: dialect for dialect in Dialect}
    return Dialect.NATIVE if opening is None else known.get(str(opening.get("dialect")), Dialect.NATIVE)


def _opening(path: str) -> Mapping[str, Any] | None:
    """The line that opened a ledger, if there is one: the first, or the one after what a crash left of the first."""
    try:
        with open(path, "rb") as ledger:
            lines = [ledger.readline(_FIRST_LINE) for _ in range(2)]
    except FileNotFoundError:
        return None
    whole = b"".join(line for line in lines if line.endswith(b"\n"))
    return next((entry for entry in parse_entries(whole, path) if entry.get("kind") == OPENED), None)


class StrangeLedger(AlbatrossError):
    """A ledger, there or not, in which the CA at hand has done nothing."""

    def __init__(self, database: str, title: str) -> None:
        super().__init__(
            f"{ledger_path(database)} has nothing that {title} issued",
            hint="name the database that it signs with: albatross-provision-ca list DB shows what one has",
        )


class Ledger:
    """An open ledger and its database; a context manager that holds the ledger's lock."""

    def __init__(self, database: str, journal: Journal, disk: Disk, opening: Mapping[str, Any] | None) -> None:
        self.database = database
        self._journal = journal
        self._disk = disk
        self._opening = opening  # what is still to be written before anything else

    @classmethod
    def open(cls, database: str, *, now: datetime, dialect: Dialect = Dialect.NATIVE, disk: Disk = DISK) -> Self:
        """Open the ledger of ``database``, or begin one in which ``dialect`` is the default.

        Raises ``AlbatrossError`` if ``database`` is a file of another kind, and ``BadJournal`` or ``OSError``.
        """
        check_database(database)
        journal = Journal.open(ledger_path(database), LEDGER_MODE, disk=disk)
        opening = {"kind": OPENED, "time": write_time(now), "format": FORMAT, "dialect": dialect.value}
        try:
            is_new = journal.entries < 2 and _opening(journal.path) is None
        except BaseException:
            journal.close()
            raise
        return cls(database, journal, disk, opening if is_new else None)

    @classmethod
    def of(cls, issuer_key: str, title: str, database: str, *, now: datetime) -> Self:
        """Open the ledger of ``database``, which must be that of the CA with this key; raises ``StrangeLedger``.

        What is made of a ledger that knows nothing of its CA, a list for instance, would take back what was decided.
        """
        if not os.path.lexists(ledger_path(database)):
            raise StrangeLedger(database, title)
        ledger = cls.open(database, now=now)
        if not ledger.view.knows(issuer_key):
            ledger.close()
            raise StrangeLedger(database, title)
        return ledger

    def check(self) -> str:
        """The head, if every line follows from the one before it; raises ``Refused``."""
        found = verify(self._journal.path)
        if not found.good:
            raise Refused(
                [f"the ledger does not verify: {problem}" for problem in found.problems],
                hint=f"albatross-provision-ca ledger verify {self.database}",
            )
        return found.head

    @cached_property
    def view(self) -> LedgerView:
        """What the ledger held when it was first asked for, with nothing of what this process adds."""
        return LedgerView.read(self._journal.path)

    @property
    def head(self) -> str:
        return self._journal.head

    def record_issued(self, issued: list[Issued], revoked: Iterable[Revoked] = ()) -> None:
        """Record certificates, and what is revoked in the same act, in ledger and database; a root in the ledger."""
        expected = [line_for(serial, label) for serial, label in self.view.recent]
        self._append([*(item.entry() for item in revoked), *(item.entry() for item in issued)])
        lines = [line_for(item.serial, item.label) for item in issued if item.role != Role.ROOT.value]
        append(self.database, expected, lines, self._disk)

    def record_revoked(self, revoked: Iterable[Revoked]) -> None:
        self._append([item.entry() for item in revoked])

    def record(self, entry: Mapping[str, Any]) -> None:
        """Record something of another kind; ``docs/ca.md`` lists them."""
        self._append([entry])

    def _append(self, entries: list[Mapping[str, Any]]) -> None:
        if self._opening is not None:
            entries = [self._opening, *entries]
        self._journal.append_all(entries)
        self._opening = None

    def close(self) -> None:
        self._journal.discard_if_empty()
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def serial_text(serial: int) -> str:
    """A serial as the ledger has it: hexadecimal without leading zeros."""
    return f"{serial:x}"


def role_of(text: str) -> Role:
    """The role that a ledger entry names."""
    try:
        return Role(text)
    except ValueError as error:
        raise AlbatrossError(f"the ledger names a role that is not known: {printable(text)}") from error
