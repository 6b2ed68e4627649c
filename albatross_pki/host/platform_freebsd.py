"""FreeBSD: ifconfig for networks, cpuset for CPUs, bhyve for machines, ps to find processes again.

Not tried on FreeBSD: what is here follows its manual pages and what Albatross does there; tests record the commands.

There is no pidfd. A child stays ours until it is waited for, so its pid is nobody else's. One that was adopted after a
crash of the daemon is looked at again right before a signal: it must have been started when the recorded one was.
"""

import asyncio
import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime

from albatross_pki.errors import AlbatrossError
from albatross_pki.host import bhyve
from albatross_pki.host.network import Network
from albatross_pki.host.network_freebsd import FreeBSDNetwork
from albatross_pki.host.processes import Process, Sought
from albatross_pki.host.records import ProcessRecord
from albatross_pki.host.restarts import Exit
from albatross_pki.host.runner import CommandFailed, Runner, SystemRunner
from albatross_pki.host.tenders import Starter
from albatross_pki.unikernels import Settings, UnikernelType

log = logging.getLogger(__name__)

BHYVE = "bhyve"  # the word of the tender in records of its processes
LOOK_AGAIN = 1.0  # seconds between two looks at a process that is not our child
_LSTART = "%a %b %d %H:%M:%S %Y"  # ps(1) with LC_ALL=C
_LSTART_WORDS = 5


class FreeBSDPlatform:
    """``platforms.Platform`` of FreeBSD."""

    name = "FreeBSD"
    types = frozenset({UnikernelType.BHYVE})
    embedded_tender = False

    def __init__(self, runner: Runner | None = None) -> None:
        self._runner = runner or SystemRunner()
        self.machines = BhyveMachines(self._runner)

    def boot_id(self) -> str:
        return self._runner.run("sysctl", "-n", "kern.boot_id").strip()

    def open_network(self) -> Network:
        return FreeBSDNetwork(self._runner)

    def bridges(self) -> Collection[str]:
        try:
            return FreeBSDNetwork(self._runner).bridges()
        except AlbatrossError as error:
            log.warning("bridges cannot be listed: %s", error)
            return frozenset()

    def child(self, pid: int) -> Process:
        return PolledProcess(pid, child=True)

    def start_time(self, pid: int) -> int | None:
        """Seconds since 1970, in the system's own time zone."""
        return self._parent_and_start(pid)[1]

    def find_again(self, pid: int, started: int) -> Process | None:
        parent, found = self._parent_and_start(pid)
        if found != started:
            return None
        child = parent == os.getpid()  # albatrossd was replaced in place
        return PolledProcess(pid, child=child, still=lambda: self.start_time(pid) == started)

    def _parent_and_start(self, pid: int) -> tuple[int | None, int | None]:
        try:
            parent, *began = self._runner.run("ps", "-o", "ppid=,lstart=", "-p", str(pid)).split()
            return int(parent), _started(began)
        except (CommandFailed, ValueError):  # no such process
            return None, None

    def strays(self, sought: Iterable[Sought]) -> dict[str, Process]:
        wanted = {bhyve.machine_name(each.token): each for each in sought}
        found: dict[str, Process] = {}
        if not wanted:
            return found
        for line in self._runner.run("ps", "-axww", "-o", "pid=,lstart=,command=").splitlines():
            words = line.split()
            started = _started(words[1 : 1 + _LSTART_WORDS])
            each = wanted.get(words[-1]) if words else None
            if each is None or started is None or not _is_bhyve(words[1 + _LSTART_WORDS :]):
                continue
            process = self.find_again(int(words[0]), started)
            if process is not None:
                found[each.token] = process
        return found

    def ended(self, record: ProcessRecord) -> None:
        if record.tender == BHYVE:
            self.machines.unload(record.token)


def _started(words: list[str]) -> int | None:
    try:
        return int(datetime.strptime(" ".join(words), _LSTART).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def _is_bhyve(command: list[str]) -> bool:
    """bhyve calls itself ``bhyve: MACHINE``, or is called as it was started."""
    return bool(command) and os.path.basename(command[0].rstrip(":")) == BHYVE


class PolledProcess(Process):
    """A process that is looked at again and again, for systems without pidfds; its pid is a child's, or is verified."""

    def __init__(self, pid: int, *, child: bool, still: "Callable[[], bool] | None" = None) -> None:
        self.pid = pid
        self.child = child
        self._still = still
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._wait = 0.01
        self._timer = self._loop.call_later(self._wait, self._look)

    def signal(self, number: signal.Signals) -> None:
        if self.alive and (self.child or self._is_still_it()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def release(self) -> None:
        if self.alive:
            self._timer.cancel()
            self._ended.cancel()

    def _is_still_it(self) -> bool:
        return self._still is None or self._still()

    def _look(self) -> None:
        ended = self._status()
        if ended is not None:
            self._ended.set_result(ended)
            return
        self._wait = min(2 * self._wait, LOOK_AGAIN)
        self._timer = self._loop.call_later(self._wait, self._look)

    def _status(self) -> Exit | None:
        if not self.child:
            return None if _exists(self.pid) else Exit()
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return Exit()
        if pid == 0:
            return None
        code = os.waitstatus_to_exitcode(status)
        return Exit(signal=-code) if code < 0 else Exit(code=code)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class BhyveMachines:
    """``platforms.Machines`` of bhyve."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def name(self, token: str) -> str:
        return bhyve.machine_name(token)

    def violations(self, settings: Settings) -> list[str]:
        return bhyve.violations(settings)

    def load(self, settings: Settings, token: str, disk: str) -> None:
        with tempfile.NamedTemporaryFile("w", prefix="albatross-grub.") as table:
            table.write(bhyve.device_map(disk))
            table.flush()
            self._runner.run(*bhyve.load_command(settings, self.name(token), disk, table.name))

    def starter(self, settings: Settings, token: str, taps: list[tuple[str, bytes]], disks: list[str]) -> Starter:
        return _Bhyve(self._runner, bhyve.run_command(settings, self.name(token), taps, disks))

    def unload(self, token: str) -> None:
        with contextlib.suppress(CommandFailed):  # it goes by itself when it powers off
            self._runner.run(*bhyve.destroy_command(self.name(token)))


class _Bhyve:
    def __init__(self, runner: Runner, command: list[str]) -> None:
        self._runner = runner
        self._command = command

    def start(self, console: int) -> int:
        try:
            return self._runner.spawn(self._command, console)
        except CommandFailed as error:
            raise AlbatrossError(f"cannot start bhyve: {error}") from error

    def close(self) -> None:
        """Nothing is held for the start."""
