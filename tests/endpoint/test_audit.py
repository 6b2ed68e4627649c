"""The audit log's writer: nothing that waits is told before it is on disk, and nothing is lost in order."""

import asyncio
import os
import resource
from pathlib import Path

import pytest

from albatross_pki.endpoint.audit import AuditLog, NotRecorded
from albatross_pki.journal.log import Journal, read_entries, verify, verify_series


def numbers(path: Path) -> list[int]:
    return [entry["number"] for entry in read_entries(str(path))]


def test_entries_are_in_the_order_of_the_calls(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def write() -> list[int]:
        log = AuditLog(str(path))
        for number in range(10):
            log.note({"number": number})
        await log.record({"number": 10})
        on_disk = numbers(path)
        log.note({"number": 11})
        log.close()
        return on_disk

    assert asyncio.run(write()) == list(range(11))
    assert numbers(path) == list(range(12))
    assert verify(str(path)).good


def test_what_is_noted_is_written_without_another_word(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def write() -> None:
        log = AuditLog(str(path))
        log.note({"number": 1})
        while not path.stat().st_size:
            await asyncio.sleep(0.01)
        log.close()

    asyncio.run(asyncio.wait_for(write(), 20))
    assert numbers(path) == [1]


def test_after_it_was_moved_away_a_new_one_begins(tmp_path: Path) -> None:
    path, old = tmp_path / "audit.log", tmp_path / "audit.log.1"

    async def write() -> None:
        log = AuditLog(str(path))
        await log.record({"number": 1})
        os.rename(path, old)
        log.reopen()
        await log.record({"number": 2})
        log.close()

    asyncio.run(write())
    continues, second = read_entries(str(path))
    assert numbers(old) == [1]
    assert second["number"] == 2
    assert (continues["kind"], continues["head"], continues["entries"]) == ("continues", verify(str(old)).head, 1)
    assert verify_series([str(old), str(path)]).good
    assert not verify_series([str(path), str(old)]).good


def test_a_log_that_was_moved_away_while_nobody_wrote_is_continued_too(tmp_path: Path) -> None:
    path, older, oldest = tmp_path / "audit.log", tmp_path / "audit.log.1", tmp_path / "audit.log.2"
    for moved in (oldest, older, None):
        log = AuditLog(str(path))
        log.close()
        with Journal.open(str(path)) as journal:
            journal.append({"number": 1})
        if moved is not None:
            os.rename(path, moved)
            os.utime(moved, ns=(moved.stat().st_atime_ns, moved.stat().st_mtime_ns + (moved == older)))
    (tmp_path / "audit.log.3.gz").write_bytes(b"not a journal")
    assert verify_series([str(oldest), str(older), str(path)]).good
    broken = verify_series([str(oldest), str(path)])
    assert broken.problems == (f"{path}: does not continue {oldest}",)


def test_a_signal_without_a_move_continues_nothing(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"

    async def write() -> None:
        log = AuditLog(str(path))
        await log.record({"number": 1})
        log.reopen()
        await log.record({"number": 2})
        log.close()

    asyncio.run(write())
    assert numbers(path) == [1, 2]


def test_p21_what_cannot_be_written_is_an_error_and_the_log_goes_on_afterwards(tmp_path: Path) -> None:
    """The file may not grow (RLIMIT_FSIZE), as on a full disk."""
    path = tmp_path / "audit.log"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def write() -> None:
        log = AuditLog(str(path))
        await log.record({"number": 1})
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
        try:
            with pytest.raises(NotRecorded, match="cannot write the audit log"):
                await log.record({"number": 2})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await log.record({"number": 3})
        log.close()

    asyncio.run(write())
    written = [entry.get("number") for entry in read_entries(str(path)) if "number" in entry]
    assert written == [1, 3]
    assert verify(str(path)).good
