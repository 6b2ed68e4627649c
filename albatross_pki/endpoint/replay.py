"""What the authoriser must never forget: one-time leaves that were used, the latest time seen, the numbers of
revocation lists.

One SQLite file, every change on disk before the call returns (``synchronous=FULL``). A leaf is known by its issuer's
key and its serial. ``consume`` comes before the leaf has effect and ``release`` only after it provably had none, so
that a crash in between leaves it used. An entry goes when the leaf has expired by the latest time ever seen: the clock
going back does not bring it back.
"""

import logging
import sqlite3
from collections import Counter
from datetime import UTC, datetime, timedelta

from albatross_pki.authorised import CertificateId
from albatross_pki.errors import AlbatrossError

log = logging.getLogger(__name__)

SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE used (issuer_key BLOB NOT NULL, serial BLOB NOT NULL, not_after INTEGER NOT NULL, holder TEXT,
                   PRIMARY KEY (issuer_key, serial)) WITHOUT ROWID;
CREATE INDEX used_not_after ON used (not_after);
CREATE TABLE clock (latest INTEGER NOT NULL);
INSERT INTO clock VALUES (0);
CREATE TABLE crl_numbers (issuer_key BLOB NOT NULL, issuer BLOB NOT NULL, number BLOB NOT NULL,
                          PRIMARY KEY (issuer_key, issuer)) WITHOUT ROWID;
"""
_FROM_1_TO_2 = "ALTER TABLE used ADD COLUMN holder TEXT"  # of older entries nobody knows whose they are
_KEEP = timedelta(days=1)  # behind a leaf's end, for clocks that disagree
_CLOCK_STEP = 60  # seconds; the latest time is written at most this often


class AlreadyUsed(AlbatrossError):
    """A one-time leaf whose effect was begun before."""


class TooManyUsed(AlbatrossError):
    """More one-time leaves below one top-level delegation are in use than are kept for it."""


class StoreUnusable(AlbatrossError):
    """The file is not ours or of a newer version, or cannot be written."""


class ReplayStore:
    """The open store; for one thread at a time. ``most_per_holder`` bounds what one top-level delegation can fill."""

    def __init__(self, path: str, *, most_per_holder: int) -> None:
        self._most = most_per_holder
        try:
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._prepare(path)
            (self._latest,) = self._database.execute("SELECT latest FROM clock").fetchone()
            self._count()
        except sqlite3.Error as error:
            raise StoreUnusable(f"{path}: {error}") from error

    def _prepare(self, path: str) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreUnusable(f"{path} was written by a newer version of this program ({version})")
        steps = {0: _SCHEMA, 1: f"{_FROM_1_TO_2};", SCHEMA_VERSION: ""}[version]
        if steps:
            self._database.executescript(f"BEGIN; {steps} PRAGMA user_version={SCHEMA_VERSION}; COMMIT")

    def _count(self) -> None:
        self._used_by = Counter[str](
            dict(self._database.execute("SELECT holder, count(*) FROM used WHERE holder NOT NULL GROUP BY holder"))
        )

    def close(self) -> None:
        self._database.close()

    @property
    def latest(self) -> datetime:
        """The latest time ever seen."""
        return datetime.fromtimestamp(self._latest, UTC)

    def see(self, now: datetime) -> None:
        """Note the time; it is on disk when it is a minute ahead of what is."""
        second = int(now.timestamp())
        if second >= self._latest + _CLOCK_STEP:
            try:
                self._database.execute("UPDATE clock SET latest = max(latest, ?)", (second,))
                self._latest = second
                self._database.execute("DELETE FROM used WHERE not_after < ?", (second - int(_KEEP.total_seconds()),))
                self._count()
            except sqlite3.Error as error:  # tried again with the next request; what changes something is refused
                log.error("cannot record the time: %s", error)

    def used(self, leaf: CertificateId) -> bool:
        query = "SELECT 1 FROM used WHERE issuer_key = ? AND serial = ?"
        return self._database.execute(query, _key(leaf)).fetchone() is not None

    def consume(self, leaf: CertificateId, not_after: datetime, holder: str) -> None:
        """Use ``leaf`` up, for the top-level delegation ``holder`` (empty: the root itself).

        Raises ``AlreadyUsed``, ``TooManyUsed`` or ``StoreUnusable``, and then it is not.
        """
        if self._used_by[holder] >= self._most:
            raise TooManyUsed(
                f"{self._most} one-time certificates of {holder or 'the root'} are kept until they expire, and no more "
                "(--replay-entries-per-path)",
                hint="sign them with a shorter validity",
            )
        row = (*_key(leaf), int(not_after.timestamp()), holder)
        try:
            self._database.execute("INSERT INTO used VALUES (?, ?, ?, ?)", row)
            self._used_by[holder] += 1
        except sqlite3.IntegrityError as error:
            raise AlreadyUsed("this certificate was used before, and has effect only once") from error
        except sqlite3.Error as error:
            raise StoreUnusable(f"cannot record that the certificate is used: {error}") from error

    def release(self, leaf: CertificateId) -> None:
        """``leaf`` had no effect and may be used again; raises ``StoreUnusable``, and then it may not."""
        try:
            deleted = self._database.execute(
                "DELETE FROM used WHERE issuer_key = ? AND serial = ? RETURNING holder", _key(leaf)
            ).fetchall()
            self._used_by.subtract(holder for (holder,) in deleted if holder is not None)
        except sqlite3.Error as error:
            raise StoreUnusable(f"cannot release a certificate that had no effect: {error}") from error

    def crl_number(self, issuer_key: bytes, issuer: bytes) -> int | None:
        """The highest number of a list seen from an issuer, by its key's digest and its name in DER."""
        query = "SELECT number FROM crl_numbers WHERE issuer_key = ? AND issuer = ?"
        row = self._database.execute(query, (issuer_key, issuer)).fetchone()
        return None if row is None else int.from_bytes(row[0], "big")

    def see_crl(self, issuer_key: bytes, issuer: bytes, number: int) -> None:
        """Note a list's number; the highest one stays. Raises ``StoreUnusable``."""
        if (self.crl_number(issuer_key, issuer) or -1) >= number:
            return
        insert = "INSERT OR REPLACE INTO crl_numbers VALUES (?, ?, ?)"
        try:
            self._database.execute(insert, (issuer_key, issuer, number.to_bytes(21, "big")))
        except sqlite3.Error as error:
            raise StoreUnusable(f"cannot record the number of a revocation list: {error}") from error

    def forget_crls(self) -> None:
        """The operator's way out of a list whose number was a mistake."""
        self._database.execute("DELETE FROM crl_numbers")


def _key(leaf: CertificateId) -> tuple[bytes, bytes]:
    return leaf.issuer_key, leaf.serial.to_bytes(21, "big")
