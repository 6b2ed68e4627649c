"""albatrossd's record of what is wanted and of what it started, in one SQLite database.

* The write-ahead log with ``synchronous=FULL``: a change that was answered survives the power going off. Process
  records are written with ``NORMAL`` instead: they must survive the daemon, but no process survives the machine.
* ``user_version`` is the version of the schema. A newer one is refused, an older one is brought up to date; a file
  that is not ours or is damaged is refused and left as it is.
* The log keeps some room on the disk, and what adds something is refused while the disk is nearly full: what makes room
  can be written on a disk that somebody else has filled (``disk_reserve``).
* The directory is locked while a daemon has it open: two supervisors of one state would start everything twice.

Every public method is one transaction and raises ``StateError`` if it could not be written; then nothing changed.
What is wanted, and what follows from it, is decided elsewhere.
"""

import contextlib
import fcntl
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta

from albatross_pki.authorised import CertificateId, ChainPolicy
from albatross_pki.errors import AlbatrossError, ExitCode
from albatross_pki.host import events_log, faults
from albatross_pki.host.disk_reserve import check_room, hold
from albatross_pki.host.events_log import EventLog
from albatross_pki.host.lifecycle import Wanted
from albatross_pki.host.limits import BALLAST
from albatross_pki.host.records import AttachedTap, ChainPolicies, Deployment, ProcessRecord, Snapshot, UnikernelRecord
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.wire.configuration import decode_config, encode_config

log = logging.getLogger(__name__)

FILE_NAME = "albatross.sqlite"
LOCK_NAME = "albatross.lock"
BALLAST_NAME = "albatross.reserve"  # as long as nobody has the state open
SCHEMA_VERSION = 1
APPLICATION_ID = 0x416C6261  # "Alba"
NO_CHANGE = ChainPolicies()

_SCHEMA = """
CREATE TABLE deployments (
    number  INTEGER PRIMARY KEY,
    name    TEXT NOT NULL,
    config  BLOB NOT NULL,     -- DER, without its image
    image   BLOB NOT NULL,     -- SHA-256
    size    INTEGER NOT NULL,  -- octets
    created INTEGER NOT NULL   -- milliseconds since 1970
);
CREATE INDEX deployments_by_name ON deployments (name, number);
CREATE INDEX deployments_by_image ON deployments (image);
CREATE TABLE unikernels (
    name       TEXT PRIMARY KEY,
    deployment INTEGER NOT NULL REFERENCES deployments (number),
    wanted     TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE processes (
    token       TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    deployment  INTEGER NOT NULL,  -- may be one that was never accepted
    boot        TEXT NOT NULL,
    tender      TEXT NOT NULL,
    uid         INTEGER NOT NULL,
    taps        TEXT NOT NULL,     -- JSON: [[device, interface, bridge], …]
    pid         INTEGER,
    start_ticks INTEGER,
    started     INTEGER
) WITHOUT ROWID;
CREATE TABLE policies (
    path   TEXT PRIMARY KEY,
    policy TEXT NOT NULL       -- JSON
) WITHOUT ROWID;
CREATE TABLE chain_policies (
    path       TEXT NOT NULL,
    issuer_key BLOB NOT NULL,
    serial     TEXT NOT NULL,  -- up to 20 octets, as hexadecimal digits
    policy     TEXT NOT NULL,
    not_before INTEGER NOT NULL,
    not_after  INTEGER NOT NULL,
    PRIMARY KEY (path, issuer_key, serial)
) WITHOUT ROWID;
"""


class StateError(AlbatrossError):
    """The state cannot be read or written."""

    exit_code = ExitCode.INTERNAL


class State:
    """The open state of one daemon, in ``directory``."""

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, FILE_NAME)
        self._directory = directory
        self._lock = _lock(os.path.join(directory, LOCK_NAME))
        with contextlib.suppress(OSError):  # its room is for the files that SQLite makes now
            os.unlink(os.path.join(directory, BALLAST_NAME))
        try:
            self._database = _open(self.path)
        except BaseException:
            os.close(self._lock)
            raise
        self.events = EventLog(self._database.execute)
        self._staged_processes: list[tuple[object, ...]] = []

    def close(self) -> None:
        """Close the database and let others have the directory; a second time does nothing."""
        self._database.close()
        if self._lock >= 0:
            hold(_log_of(self.path))  # SQLite has removed it: the next start may be on a full disk
            hold(os.path.join(self._directory, BALLAST_NAME), BALLAST)
            os.close(self._lock)
            self._lock = -1

    def load(self) -> Snapshot:
        """Everything; raises ``StateError`` if a record cannot be understood."""
        try:
            return self._load()
        except (sqlite3.Error, AlbatrossError, ValueError, KeyError, TypeError) as error:
            raise StateError(f"{self.path} cannot be read: {error}", hint=_HINT_DAMAGED) from error

    # what is wanted

    def deploy(
        self, deployment: Deployment, wanted: Wanted, *, keep: int, remember: ChainPolicies = NO_CHANGE
    ) -> list[bytes]:
        """Make ``deployment`` the current one of its name; at most ``keep`` older ones stay for rollback.

        Returns the digests of images that nothing refers to any more.
        """
        name = str(deployment.name)
        check_room(self._directory)
        with self._transaction() as execute:
            _insert(execute, deployment, wanted)
            _remember(execute, remember)
            return self._prune(
                execute,
                "name = ? AND number NOT IN"
                " (SELECT number FROM deployments WHERE name = ? ORDER BY number DESC LIMIT ?)",
                (name, name, keep + 1),
            )

    def fill(self, deployments: Iterable[Deployment], policies: Iterable[tuple[Path, Policy]]) -> None:
        """Put all of that, wanted, into an empty state, or none of it."""
        check_room(self._directory)
        with self._transaction() as execute:
            for deployment in deployments:
                _insert(execute, deployment, Wanted.RUNNING)
            for path, policy in policies:
                execute("INSERT INTO policies VALUES (?, ?)", (str(path), _policy_text(policy)))

    def revert(self, deployment: Deployment, *, remember: ChainPolicies = NO_CHANGE) -> list[bytes]:
        """Make ``deployment``, an older one, the current one of its name, and forget those after it."""
        name = str(deployment.name)
        with self._transaction() as execute:
            _amend(execute, deployment)
            execute("UPDATE unikernels SET deployment = ?, wanted = ? WHERE name = ?",
                    (deployment.number, Wanted.RUNNING.value, name))  # fmt: skip
            _remember(execute, remember)
            return self._prune(execute, "name = ? AND number > ?", (name, deployment.number))

    def amend(self, deployment: Deployment) -> None:
        """Write the changed settings of a deployment that is recorded."""
        with self._transaction() as execute:
            _amend(execute, deployment)

    def run(self, deployment: Deployment, *, remember: ChainPolicies = NO_CHANGE) -> None:
        """Record that the current ``deployment`` of its name is to run, with the settings that it has now."""
        with self._transaction() as execute:
            _amend(execute, deployment)
            execute("UPDATE unikernels SET wanted = ? WHERE name = ?", (Wanted.RUNNING.value, str(deployment.name)))
            _remember(execute, remember)

    def want(self, name: Name, wanted: Wanted, *, remember: ChainPolicies = NO_CHANGE) -> None:
        """Record that ``name`` is to run or to be stopped."""
        with self._transaction() as execute:
            execute("UPDATE unikernels SET wanted = ? WHERE name = ?", (wanted.value, str(name)))
            _remember(execute, remember)

    def forget(self, name: Name, *, remember: ChainPolicies = NO_CHANGE) -> list[bytes]:
        """Remove ``name`` with all its deployments; returns the digests of images that nothing refers to any more."""
        with self._transaction() as execute:
            execute("DELETE FROM unikernels WHERE name = ?", (str(name),))
            _remember(execute, remember)
            return self._prune(execute, "name = ?", (str(name),))

    # policies

    def set_policy(self, path: Path, policy: Policy) -> None:
        check_room(self._directory)
        with self._transaction() as execute:
            execute("INSERT OR REPLACE INTO policies VALUES (?, ?)", (str(path), _policy_text(policy)))

    def remove_policy(self, path: Path) -> None:
        with self._transaction() as execute:
            execute("DELETE FROM policies WHERE path = ?", (str(path),))

    def remember(self, policies: ChainPolicies) -> None:
        """Remember policies of chains, for commands that change something else than a unikernel."""
        if policies.fresh:
            check_room(self._directory)
        with self._transaction() as execute:
            _remember(execute, policies)

    # what is

    def record_processes(self, records: Iterable[ProcessRecord]) -> None:
        """Write process records, replacing those with the same token; they survive the daemon, not the machine."""
        with self._transaction(durable=False):
            self._write_processes(map(_process_row, records))

    def stage_processes(self, records: Iterable[ProcessRecord]) -> None:
        """Have these written first by the next transaction, which must follow at once; if that fails, they are not."""
        self._staged_processes += map(_process_row, records)

    def _write_processes(self, rows: "Iterable[tuple[object, ...]]") -> None:
        self._database.executemany("INSERT OR REPLACE INTO processes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def process_gone(self, token: str) -> None:
        with self._transaction(durable=False) as execute:
            execute("DELETE FROM processes WHERE token = ?", (token,))

    def record_events(self, *, durable: bool) -> None:
        """Write the events that are staged, with no other change; ``durable`` puts earlier ones on the disk too."""
        with self._transaction(durable=durable) as execute:
            execute("UPDATE events_on_disk SET number = number + 1")  # without a change there is no fsync

    # how

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool = True) -> "Iterator[_Execute]":
        execute = self._database.execute
        try:
            if not durable:
                execute("PRAGMA synchronous = NORMAL")
            execute("BEGIN IMMEDIATE")
            staged, self._staged_processes = self._staged_processes, []
            if staged:
                self._write_processes(staged)
            yield execute
            self.events.write(execute)
            if durable:
                faults.reach("state.before-commit")
            execute("COMMIT")
            if durable:
                faults.reach("state.after-commit")
            self.events.written(durable=durable)
        except sqlite3.Error as error:
            self._roll_back()
            raise StateError(f"the state could not be written: {error}", hint=_hint(error)) from error
        except BaseException:
            self._roll_back()
            raise
        finally:
            if not durable:
                with contextlib.suppress(sqlite3.Error):
                    execute("PRAGMA synchronous = FULL")

    def _roll_back(self) -> None:
        self.events.rolled_back()
        if self._database.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")

    @staticmethod
    def _prune(execute: "_Execute", condition: str, parameters: tuple[object, ...]) -> list[bytes]:
        """Delete deployments that nothing refers to; return the images that went out of use with them."""
        unused = "number NOT IN (SELECT deployment FROM unikernels WHERE name = deployments.name)"
        where = f"{condition} AND {unused}"
        images = {row[0] for row in execute(f"SELECT image FROM deployments WHERE {where}", parameters)}  # noqa: S608
        execute(f"DELETE FROM deployments WHERE {where}", parameters)  # noqa: S608  the conditions stand in this file
        return [
            image
            for image in sorted(images)
            if not execute("SELECT 1 FROM deployments WHERE image = ? LIMIT 1", (image,)).fetchone()
        ]

    def _load(self) -> Snapshot:
        execute = self._database.execute
        deployments: dict[Name, list[Deployment]] = {}
        for row in execute("SELECT number, name, config, image, size, created FROM deployments ORDER BY number DESC"):
            deployment = _deployment(row)
            deployments.setdefault(deployment.name, []).append(deployment)
        unikernels = []
        for text, number, wanted in execute("SELECT name, deployment, wanted FROM unikernels ORDER BY name"):
            own = deployments[Name.parse(text)]
            (current,) = (each for each in own if each.number == number)
            older = tuple(each for each in own if each.number < number)
            unikernels.append(UnikernelRecord(Wanted(wanted), (current, *older)))
        (highest,) = execute(
            "SELECT max((SELECT ifnull(max(number), 0) FROM deployments),"
            " (SELECT ifnull(max(deployment), 0) FROM processes))"
        ).fetchone()
        return Snapshot(
            unikernels=tuple(unikernels),
            processes=tuple(_process(row) for row in execute("SELECT * FROM processes ORDER BY token")),
            operator=tuple(
                (Path.parse(path), _policy(text)) for path, text in execute("SELECT * FROM policies ORDER BY path")
            ),
            remembered=tuple(_chain_policy(row) for row in execute("SELECT * FROM chain_policies")),
            images=frozenset(row[0] for row in execute("SELECT DISTINCT image FROM deployments")),
            next_number=highest + 1,
        )


_HINT_DAMAGED = "the file was left as it is; restore a copy, or move it away to start with nothing"


_Execute = Callable[..., sqlite3.Cursor]


def _lock(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StateError(f"{path}: {os.strerror(error.errno or 0).lower()}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StateError(
            f"another albatrossd uses {os.path.dirname(path)}", hint="stop that one first, or give another --dbdir"
        ) from error
    return descriptor


def _open(path: str) -> sqlite3.Connection:
    """Open or make the database; raises ``StateError``."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        database = sqlite3.connect(path, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        reason = os.strerror(error.errno or 0).lower() if isinstance(error, OSError) else str(error)
        raise StateError(f"{path} cannot be opened: {reason}") from error
    try:
        _check(path, database)
    except sqlite3.Error as error:
        database.close()
        if error.sqlite_errorname.startswith(("SQLITE_IOERR", "SQLITE_FULL", "SQLITE_CANTOPEN")):
            raise StateError(f"{path} cannot be opened: {error}", hint=_HINT_ROOM) from error
        raise StateError(f"{path} is damaged or not a state of albatrossd: {error}", hint=_HINT_DAMAGED) from error
    except BaseException:
        database.close()
        raise
    if not hold(_log_of(path)):
        log.warning("no room for a reserve beside %s: on a full disk unikernels cannot be destroyed", path)
    return database


def _log_of(path: str) -> str:
    """The write-ahead log of a database, where SQLite looks for it."""
    return f"{path}-wal"


def _check(path: str, database: sqlite3.Connection) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    identity = database.execute("PRAGMA application_id").fetchone()[0]
    empty = not database.execute("SELECT 1 FROM sqlite_master").fetchone()
    if not empty and identity != APPLICATION_ID:
        raise StateError(f"{path} is not a state of albatrossd", hint=_HINT_DAMAGED)
    if version > SCHEMA_VERSION:
        raise StateError(
            f"{path} was written by a newer albatrossd (version {version}, this one knows {SCHEMA_VERSION})",
            hint="run the newer release, or give another --dbdir",
        )
    if not empty and (problem := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise StateError(f"{path} is damaged: {problem}", hint=_HINT_DAMAGED)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA foreign_keys = ON")
    if empty:
        database.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
    database.executescript(events_log.SCHEMA)  # a table that older releases do not miss and do not mind


_HINT_ROOM = "make room on the file system of --dbdir"


def _hint(error: sqlite3.Error) -> str | None:
    return _HINT_ROOM if "full" in str(error) else None


def _insert(execute: _Execute, deployment: Deployment, wanted: Wanted) -> None:
    """Make a deployment the current one of its name."""
    name = str(deployment.name)
    execute(
        "INSERT INTO deployments VALUES (?, ?, ?, ?, ?, ?)",
        (
            deployment.number,
            name,
            encode_config(deployment.config()),
            deployment.image,
            deployment.size,
            _milliseconds(deployment.created),
        ),
    )
    execute("INSERT OR REPLACE INTO unikernels VALUES (?, ?, ?)", (name, deployment.number, wanted.value))


def _amend(execute: _Execute, deployment: Deployment) -> None:
    execute(
        "UPDATE deployments SET config = ? WHERE number = ?", (encode_config(deployment.config()), deployment.number)
    )


def _remember(execute: _Execute, policies: ChainPolicies) -> None:
    for each in policies.stale:
        execute(
            "DELETE FROM chain_policies WHERE path = ? AND issuer_key = ? AND serial = ?",
            (str(each.path), each.certificate.issuer_key, f"{each.certificate.serial:x}"),
        )
    for each in policies.fresh:
        execute(
            "INSERT OR REPLACE INTO chain_policies VALUES (?, ?, ?, ?, ?, ?)",
            (
                str(each.path),
                each.certificate.issuer_key,
                f"{each.certificate.serial:x}",
                _policy_text(each.policy),
                _milliseconds(each.not_before),
                _milliseconds(each.not_after),
            ),
        )


def _policy_text(policy: Policy) -> str:
    return json.dumps(
        {
            "cpuids": sorted(policy.cpuids),
            "unikernels": policy.unikernels,
            "memory_mb": policy.memory_mb,
            "block_mb": policy.block_mb,
            "bridges": sorted(policy.bridges),
        }
    )


def _policy(text: str) -> Policy:
    fields = json.loads(text)
    return Policy(
        cpuids=frozenset(fields["cpuids"]),
        unikernels=fields["unikernels"],
        memory_mb=fields["memory_mb"],
        block_mb=fields["block_mb"],
        bridges=frozenset(fields["bridges"]),
    )


def _chain_policy(row: tuple[str, bytes, str, str, int, int]) -> ChainPolicy:
    path, issuer_key, serial, policy, not_before, not_after = row
    return ChainPolicy(
        Path.parse(path),
        _policy(policy),
        CertificateId(issuer_key, int(serial, 16)),
        _time(not_before),
        _time(not_after),
    )


def _deployment(row: tuple[int, str, bytes, bytes, int, int]) -> Deployment:
    number, name, config, image, size, created = row
    decoded = decode_config(config)
    return Deployment(number, Name.parse(name), decoded.settings, image, size, _time(created), decoded.typ)


def _process_row(record: ProcessRecord) -> tuple[object, ...]:
    taps = json.dumps([[tap.device, tap.interface, tap.bridge] for tap in record.taps]) if record.taps else "[]"
    started = None if record.started is None else _milliseconds(record.started)
    return (
        record.token,
        str(record.name),
        record.deployment,
        record.boot,
        record.tender,
        record.uid,
        taps,
        record.pid,
        record.start_ticks,
        started,
    )


def _process(
    row: tuple[str, str, int, str, str, int, str, int | None, int | None, int | None],
) -> ProcessRecord:
    token, name, deployment, boot, tender, uid, taps, pid, start_ticks, started = row
    return ProcessRecord(
        token=token,
        name=Name.parse(name),
        deployment=deployment,
        boot=boot,
        tender=tender,
        uid=uid,
        taps=tuple(AttachedTap(*each) for each in json.loads(taps)),
        pid=pid,
        start_ticks=start_ticks,
        started=None if started is None else _time(started),
    )


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _milliseconds(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(milliseconds=1)


def _time(milliseconds: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=milliseconds)
