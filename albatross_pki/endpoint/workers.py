"""Several worker processes on the same listening sockets.

The first process holds the sockets, serves nobody, and starts a worker again that ended, at most once a second each.
SIGTERM and SIGINT end all of them, SIGHUP is passed on.
"""

import logging
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

_AGAIN_SECONDS = 1.0
_STOP_SECONDS = 10.0

log = logging.getLogger(__name__)


def run_workers(count: int, work: Callable[[int], None]) -> None:
    """Run ``work(number)`` in ``count`` processes until told to stop; returns when all have ended."""
    Workers(count, work).run()


class Workers:
    def __init__(self, count: int, work: Callable[[int], None]) -> None:
        self._numbers = range(count)
        self._work = work
        self._pids: dict[int, int] = {}  # number of the worker by pid
        self._stopping = False

    def run(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._pass_on)
        while not self._stopping:
            for missing in set(self._numbers) - set(self._pids.values()):
                if not self._stopping:
                    self._start(missing)
            self._reap()
        deadline = time.monotonic() + _STOP_SECONDS
        while self._pids and time.monotonic() < deadline:
            self._reap(os.WNOHANG)
            time.sleep(0.02)
        self._signal(signal.SIGKILL)
        while self._pids:
            self._reap()

    def _start(self, number: int) -> None:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for caught in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                    signal.signal(caught, signal.SIG_DFL)
                self._work(number)
                status = 0
            except BaseException:
                log.exception("a worker failed")
            finally:
                os._exit(status)
        self._pids[pid] = number
        log.debug("worker %d started", pid)

    def _reap(self, options: int = 0) -> None:
        try:
            pid, status = os.waitpid(-1, options)
        except InterruptedError:
            return
        except ChildProcessError:
            self._pids.clear()
            return
        if pid in self._pids:
            del self._pids[pid]
            if not self._stopping:
                log.error("worker %d ended with status %d and is started again", pid, os.waitstatus_to_exitcode(status))
                time.sleep(_AGAIN_SECONDS)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self._signal(signal.SIGTERM)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._signal(number)

    def _signal(self, number: int) -> None:
        for pid in tuple(self._pids):
            os.kill(pid, number)
