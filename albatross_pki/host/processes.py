"""Processes that the daemon made, or found again: held by a pidfd, so that nobody else is ever signalled.

``Process`` reports its end once, to the function that it was given. A child's status comes from waitid(2); a process
that was adopted after a crash of the daemon has somebody else for a parent, and its status cannot be known.

``find_again`` tells whether a recorded process still is the one that was recorded: same boot, same pid, same start
time (proc(5), stat field 22). ``strays`` finds processes by the token in their title, or by the console that they
hold open, for those whose pid was never written down.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from albatross_pki.host.restarts import Exit

_START_TICKS = 22 - 3  # proc(5) counts from 1; the two fields before the state end with the last parenthesis


class Process:
    """One process. ``pid`` must be an unreaped child, or have been verified after ``pidfd`` was opened."""

    def __init__(self, pid: int, pidfd: int, *, child: bool) -> None:
        self.pid = pid
        self.child = child
        self._pidfd = pidfd
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pidfd, self._collect)

    @classmethod
    def of_child(cls, pid: int) -> "Process":
        """A child that was just made and that nobody else waits for."""
        return cls(pid, os.pidfd_open(pid), child=True)

    @property
    def alive(self) -> bool:
        return not self._ended.done()

    def when_ended(self, report: Callable[[Exit], None]) -> None:
        """Call ``report`` once, from the event loop, when the process has ended."""
        self._ended.add_done_callback(lambda ended: None if ended.cancelled() else report(ended.result()))

    async def ended(self) -> Exit:
        """Wait for the end; cancelling this wait does not disturb others."""
        return await asyncio.shield(self._ended)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process is still there."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def release(self) -> None:
        """Stop watching; the process goes on."""
        if self.alive:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._ended.cancel()

    def _collect(self) -> None:
        ended = self._status()
        if ended is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._ended.set_result(ended)

    def _status(self) -> Exit | None:
        if not self.child:
            return Exit()
        try:
            status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            return Exit()
        if status is None:
            return None
        if status.si_code == os.CLD_EXITED:
            return Exit(code=status.si_status)
        return Exit(signal=status.si_status)


async def end(process: Process, *, grace: float, kill_grace: float) -> Exit | None:
    """SIGTERM, ``grace`` seconds, SIGKILL, ``kill_grace`` seconds; ``None`` if the process outlived even that."""
    for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, kill_grace)):
        process.signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await process.ended()
    return None


def boot_id() -> str:
    """What tells this boot of the machine from every other: random(4)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as source:
        return source.read().strip()


def start_ticks(pid: int) -> int | None:
    """When ``pid`` was started, in clock ticks since boot; ``None`` if there is no such process."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fields = os.read(descriptor, 4096).rpartition(b")")[2].split()
        finally:
            os.close(descriptor)
        return int(fields[_START_TICKS])
    except (OSError, IndexError, ValueError):
        return None


def find_again(pid: int, ticks: int) -> Process | None:
    """The process that had ``pid`` and was started at ``ticks`` of this boot, if it still runs."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    # the start time is read after the pidfd was opened: if it fits, the pidfd is of that very process
    child = _is_child(pid)
    if start_ticks(pid) != ticks or (_is_zombie(pid) and not child):  # a dead child of ours has a status to tell
        os.close(pidfd)
        return None
    return Process(pid, pidfd, child=child)


@dataclass(frozen=True, slots=True)
class Sought:
    """A process that may exist: its title holds ``token``, or descriptor 1 is ``fifo`` (device, inode)."""

    token: str
    uid: int
    fifo: tuple[int, int] | None


def strays(sought: Iterable[Sought]) -> dict[str, Process]:
    """The processes that were made but not recorded, by token; one pass over /proc."""
    wanted = list(sought)
    found: dict[str, Process] = {}
    if not wanted:
        return found
    own = os.getpid()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == own:
            continue
        pid = int(entry)
        for each in wanted:
            if each.token not in found and _fits(pid, each):
                process = _hold(pid, each)
                if process is not None:
                    found[each.token] = process
    return found


def _hold(pid: int, sought: Sought) -> Process | None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    if not _fits(pid, sought) or _is_zombie(pid):
        os.close(pidfd)
        return None
    return Process(pid, pidfd, child=_is_child(pid))


def _fits(pid: int, sought: Sought) -> bool:
    try:
        with open(f"/proc/{pid}/comm", "rb") as source:
            title = source.read().rstrip(b"\n")
        if title.endswith(b"." + sought.token.encode("ascii")) and _uid(pid) == sought.uid:
            return True
        if sought.fifo is None:
            return False
        output = os.stat(f"/proc/{pid}/fd/1")
        return (output.st_dev, output.st_ino) == sought.fifo
    except OSError:
        return False


def _status_field(pid: int, field: str) -> str:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as source:
        for line in source:
            if line.startswith(field):
                return line.split()[1]
    return ""


def _uid(pid: int) -> int:
    return int(_status_field(pid, "Uid:") or -1)


def _is_zombie(pid: int) -> bool:
    try:
        return _status_field(pid, "State:") == "Z"
    except OSError:
        return True


def _is_child(pid: int) -> bool:
    try:
        return _status_field(pid, "PPid:") == str(os.getpid())
    except OSError:
        return False
