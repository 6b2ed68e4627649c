"""What is listed in the audit log and what is only counted, and whose share of the disk is used up."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from albatross_pki.endpoint.audit import AuditLog
from albatross_pki.endpoint.bounds import AuthoriserBounds
from albatross_pki.endpoint.recording import Recording, Source
from albatross_pki.errors import Refused
from albatross_pki.journal.log import read_entries, verify

TIME = datetime(2026, 11, 28, tzinfo=UTC)
DEV, OTHER, OPERATOR = Source("aa", "dev", False), Source("bb", "other", False), Source("cc", "leaf", True)
ENTRY = {"kind": "refused", "text": "x" * 80}
OCTETS = len(json.dumps(ENTRY, separators=(",", ":")))
SMALL = replace(
    AuthoriserBounds(),
    audit_octets_per_path=1000,
    audit_octets_per_path_per_minute=600,
    audit_refused_octets=1500,
    audit_refused_octets_per_minute=600,
    audit_reserve=10_000,
    audit_reserve_per_path=300,
)


class Disk:
    free = 1 << 40

    def __call__(self) -> int:
        return self.free


@pytest.fixture
def disk() -> Disk:
    return Disk()


def recorded(path: Path, disk: Disk, work: Callable[[Recording], Awaitable[None]]) -> list[dict[str, Any]]:
    """What is in the log after ``work``."""

    async def run() -> None:
        log = AuditLog(str(path / "audit.log"))
        recording = Recording(log, SMALL, disk)
        await work(recording)
        recording.tell_counts(TIME)
        log.close()

    asyncio.run(run())
    assert verify(str(path / "audit.log")).good
    return [entry for entry in read_entries(str(path / "audit.log")) if entry["kind"] != "started"]


def test_p40_what_is_over_a_share_is_counted_and_others_are_listed(tmp_path: Path, disk: Disk) -> None:
    async def work(recording: Recording) -> None:
        listed = [recording.read(DEV, lambda: ENTRY, TIME, 0) for _ in range(100)]
        assert listed == [True] * 10 + [False] * 90
        assert recording.read(OTHER, lambda: ENTRY, TIME, 0)
        assert recording.read(DEV, lambda: ENTRY, TIME, 60), "a minute later there is room again"

    *listed, counted = recorded(tmp_path, disk, work)
    assert len(listed) == 12
    assert counted["kind"] == "counted"
    assert counted["requests"] == [{"certificate": "aa", "subject": "dev", "read": 90}]


def test_p40_refusals_have_a_bound_for_all_together(tmp_path: Path, disk: Disk) -> None:
    """Whoever took over the endpoint makes up as many topmost certificates as they like."""

    async def work(recording: Recording) -> None:
        for number in range(2000):
            recording.refused(Source(f"{number}", "made up", False), lambda: ENTRY, TIME, 0)
        assert recording.read(DEV, lambda: ENTRY, TIME, 0)

    *listed, _, counted = recorded(tmp_path, disk, work)
    assert len(listed) == 1500 // OCTETS + 1
    assert len(counted["requests"]) <= 257
    assert sum(each["refused"] for each in counted["requests"]) == 2000 - len(listed)


def test_nothing_that_was_only_counted_is_built(tmp_path: Path, disk: Disk) -> None:
    built = []

    def entry() -> dict[str, str]:
        built.append(1)
        return ENTRY

    async def work(recording: Recording) -> None:
        for _ in range(1000):
            recording.read(DEV, entry, TIME, 0)

    recorded(tmp_path, disk, work)
    assert len(built) == 10


def test_p40_the_last_of_the_disk_is_shared_out_among_those_who_change_something(tmp_path: Path, disk: Disk) -> None:
    change = {"kind": "intent", "text": "y" * 60}

    async def work(recording: Recording) -> None:
        for _ in range(20):
            await recording.change(DEV, change, 0)
        disk.free = 9_999
        assert not recording.read(OTHER, lambda: ENTRY, TIME, 2)
        for _ in range(3):
            await recording.change(DEV, change, 2)
        with pytest.raises(Refused, match=r"nearly full.*below dev is used up \(300 octets, --audit-reserve-per-path"):
            await recording.change(DEV, change, 2)
        await recording.change(OTHER, change, 2)
        for _ in range(20):
            await recording.change(OPERATOR, change, 2)
        disk.free = 1 << 40
        await recording.change(DEV, change, 4)

    entries = recorded(tmp_path, disk, work)
    assert [entry["kind"] for entry in entries] == ["intent"] * (20 + 3 + 1 + 20 + 1) + ["counted"]


def test_a_minute_in_which_nothing_was_counted_says_nothing(tmp_path: Path, disk: Disk) -> None:
    async def work(recording: Recording) -> None:
        recording.tell_counts(TIME)

    assert recorded(tmp_path, disk, work) == []
