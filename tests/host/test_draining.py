"""Pipes that nobody reads: writers never wait, and the newest lines stay."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path as FilePath

import pytest

from albatross_pki.host import draining
from albatross_pki.host.draining import Drained, Draining

LINE = b"%069d\n"


@contextlib.contextmanager
def pipe(tmp_path: FilePath, capacity: int | None = None) -> Iterator[int]:
    """A fifo as albatrossd holds it."""
    os.mkfifo(tmp_path / "fifo")
    descriptor = os.open(tmp_path / "fifo", os.O_RDWR | os.O_NONBLOCK)
    if capacity is not None:
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, capacity)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def write(descriptor: int, octets: bytes) -> None:
    """As a unikernel would: wait when the pipe is full, for a bounded time."""
    async with asyncio.timeout(20):
        while octets:
            try:
                octets = octets[os.write(descriptor, octets) :]
            except BlockingIOError:
                await asyncio.sleep(0.001)


async def test_p06_nobody_waits_and_p28_the_newest_whole_lines_stay(tmp_path: FilePath) -> None:
    with pipe(tmp_path) as descriptor:
        drain = Draining()
        drain.begin(descriptor)
        count = 20_000
        for begin in range(0, count, 100):
            await write(descriptor, b"".join(LINE % number for number in range(begin, begin + 100)))
        await asyncio.sleep(0)
        drained = drain.end(descriptor)
        assert drained is not None
        lines = drained.unread().split(b"\n")
        assert lines.pop() == b""
        numbers = [int(line) for line in lines]
        assert all(len(line) == 69 for line in lines)
        assert numbers[-1] == count - 1
        assert all(later == earlier + 1 for earlier, later in pairwise(numbers))
        assert drained.dropped + len(numbers) == count
        assert len(numbers) * 70 > 8192


async def test_what_fits_is_left_as_it_is(tmp_path: FilePath) -> None:
    with pipe(tmp_path) as descriptor:
        drain = Draining()
        os.write(descriptor, b"written before\n")
        drain.begin(descriptor)
        await write(descriptor, b"no newline yet")
        await asyncio.sleep(0.01)
        assert os.read(descriptor, 100) == b"written before\nno newline yet"
        drain.end(descriptor)


@pytest.mark.parametrize("size", [1, 70, 2049, 4096, 4097, 10_000])
async def test_p06_whatever_the_size_of_writes_nobody_waits(
    tmp_path: FilePath, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also without the look once a second: edges are enough."""
    monkeypatch.setattr(draining, "LOOK_SECONDS", 1000.0)
    with pipe(tmp_path) as descriptor:
        drain = Draining()
        drain.begin(descriptor)
        for _ in range(400_000 // max(size, 70)):
            await write(descriptor, b"y" * size)
            await asyncio.sleep(0)
        drain.end(descriptor)


async def test_p04_a_small_pipe_is_emptied(tmp_path: FilePath) -> None:
    with pipe(tmp_path, 4096) as descriptor:
        drain = Draining()
        drain.begin(descriptor)
        for _ in range(100):
            await write(descriptor, b"z" * 1500)
        await write(descriptor, b"last\n")
        async with asyncio.timeout(20):
            while True:
                drained = Drained.of(descriptor)
                await asyncio.sleep(0)
                if not drained.waiting():
                    break
        drain.end(descriptor)


async def test_it_is_looked_at_also_where_an_edge_was_lost(tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(Draining, "_on_edges", lambda self: self._poll.poll(0))
    with pipe(tmp_path) as descriptor:
        drain = Draining()
        drain.begin(descriptor)
        await write(descriptor, b"x" * 200_000)
        drain.end(descriptor)


async def test_begin_and_end_may_come_twice_and_leave_nothing(tmp_path: FilePath) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pipe(tmp_path) as descriptor:
        drain = Draining()
        for _ in range(2):
            drain.begin(descriptor)
            drain.begin(descriptor)
            assert drain.end(descriptor) is not None
            assert drain.end(descriptor) is None
    assert len(os.listdir("/proc/self/fd")) == before
