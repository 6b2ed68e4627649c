"""Processes by pidfd: how they end, how they are found again, and that nobody else is ever meant."""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatross_pki.host.processes import Process, Sought, boot_id, end, find_again, start_ticks, strays
from albatross_pki.host.restarts import Exit

SLEEP = ["/bin/sleep", "1000"]


@pytest.fixture
def pid() -> Iterator[int]:
    """A child that nobody waits for but the test."""
    pid = os.posix_spawn(SLEEP[0], SLEEP, {})
    yield pid
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return


async def test_p26_an_end_is_told_once_to_everybody(pid: int) -> None:
    process = Process.of_child(pid)
    told: list[Exit] = []
    process.when_ended(told.append)
    process.signal(signal.SIGTERM)
    assert list(await asyncio.gather(process.ended(), process.ended())) == [Exit(signal=15)] * 2
    assert told == [Exit(signal=15)]
    assert not process.alive
    process.signal(signal.SIGKILL)  # means nobody any more


async def test_exit_statuses_are_known_of_children() -> None:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], {})
    assert await Process.of_child(pid).ended() == Exit(code=7)


async def test_p07_sigterm_then_sigkill(pid: int) -> None:
    process = Process.of_child(pid)
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
    async with asyncio.timeout(10):
        assert await end(process, grace=0.05, kill_grace=5) == Exit(signal=9)


async def test_p07_what_does_not_end_at_all_is_told(pid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process.of_child(pid)
    monkeypatch.setattr(Process, "signal", lambda *_: None)
    assert await end(process, grace=0.01, kill_grace=0.01) is None
    process.release()


async def test_a_wait_that_is_cancelled_disturbs_nobody(pid: int) -> None:
    process = Process.of_child(pid)
    waiting = asyncio.create_task(process.ended())
    await asyncio.sleep(0)
    waiting.cancel()
    process.signal(signal.SIGKILL)
    assert await process.ended() == Exit(signal=9)


async def test_p26_a_process_is_found_again_by_pid_and_start_time_alone(pid: int) -> None:
    ticks = start_ticks(pid)
    assert ticks is not None
    assert find_again(pid, ticks + 1) is None
    found = find_again(pid, ticks)
    assert found is not None
    found.release()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert find_again(pid, ticks) is None
    assert start_ticks(pid) is None


async def test_p27_a_child_that_ended_while_nobody_looked_still_tells_its_status(pid: int) -> None:
    ticks = start_ticks(pid)
    assert ticks is not None
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    found = find_again(pid, ticks)
    assert found is not None
    assert await found.ended() == Exit(signal=9)


async def test_the_status_of_somebody_elses_child_is_unknown() -> None:
    code = "import os, time; pid = os.posix_spawn('/bin/sleep', ['sleep', '1000'], {}); print(pid, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        grandchild = int(parent.stdout.readline())
        ticks = start_ticks(grandchild)
        assert ticks is not None
        found = find_again(grandchild, ticks)
        assert found is not None
        found.signal(signal.SIGKILL)
        assert await found.ended() == Exit()
        assert find_again(grandchild, ticks) is None  # a zombie of somebody else
        parent.kill()


async def test_strays_are_found_by_their_title_and_user(pid: int, tmp_path: Path) -> None:
    token = secrets.token_hex(4)
    code = f"open('/proc/self/comm', 'w').write('label.{token}'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as titled:
        assert titled.stdout is not None
        titled.stdout.readline()
        uid = os.getuid()
        found = strays([Sought(token, uid, None)])
        assert {each: process.pid for each, process in found.items()} == {token: titled.pid}
        for process in found.values():
            process.release()
        assert strays([Sought(token, uid + 1, None)]) == {}  # the title alone is no proof
        assert strays([]) == {}
        titled.kill()
        titled.communicate()


async def test_strays_are_found_by_their_console(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "console")
    descriptor = os.open(tmp_path / "console", os.O_RDWR)
    with subprocess.Popen(SLEEP, stdout=descriptor) as process:
        status = os.fstat(descriptor)
        found = strays([Sought("ffffffff", os.getuid(), (status.st_dev, status.st_ino))])
        assert [each.pid for each in found.values()] == [process.pid]
        for each in found.values():
            each.release()
        process.kill()
    os.close(descriptor)


def test_a_boot_has_an_identity() -> None:
    assert len(boot_id()) == 36
    assert boot_id() == boot_id()
