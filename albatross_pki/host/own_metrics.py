"""What a daemon uses itself, as lines for a Telegraf (``--influx``), with Albatross' measurements and fields.

Every ``INTERVAL`` seconds one batch, each line with the tag ``vm=PROGRAM`` and without a time: ``resource_usage`` and
``kinfo_mem`` of the process, ``logs``, ``connections`` by kind, and what the daemon adds (``own_lines`` of albatrossd:
``albatross-policies`` and ``albatross-unikernels`` by domain). A batch that cannot be delivered is lost and said in the
log; the next one is tried on a new connection. Nothing waits for it.

Sources: Albatross 2.7.2's metrics of its daemons; getrusage(2); proc_pid_stat(5). ``gc``, which tells about OCaml's
heap, has no counterpart. Of the process' memory the fields mean what they are called, which they do not there on Linux.
"""

import asyncio
import contextlib
import logging
import os
import resource
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from albatross_pki.host.influx_export import LineTarget, Undelivered
from albatross_pki.host.influx_lines import escaped, memory_fields, usage_fields
from albatross_pki.host.stats_sampling import NoProcess, read_process, statistics
from albatross_pki.replies import ResourceUsage, Timeval
from albatross_pki.transport.channel import Served

INTERVAL = 10.0  # seconds, Albatross' own
MAX_DOMAINS = 1000  # told about in one batch, the outermost first; more than that is no dashboard

log = logging.getLogger(__name__)

Figures = Mapping[str, int]  # field to value
Serve = Callable[[socket.socket], Coroutine[Any, Any, None]]


class LogCounter(logging.Handler):
    """Counts what is logged as a warning or as an error."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings = self.errors = 0

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            self.errors += 1
        else:
            self.warnings += 1


@dataclass(slots=True)
class Domains:
    """Figures by domain, of one measurement; a domain that is gone is told once more, with zeros."""

    measurement: str
    _told: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def lines(self, program: str, figures: Iterable[tuple[str, Figures]]) -> Iterator[str]:
        told: dict[str, tuple[str, ...]] = {}
        for domain, values in figures:
            told[domain] = tuple(values)
            yield line(self.measurement, program, values, domain=domain)
        for domain, fields in self._told.items():
            if domain not in told:
                yield line(self.measurement, program, dict.fromkeys(fields, 0), domain=domain)
        self._told = told


@dataclass(slots=True)
class OwnMetrics:
    """Of one daemon: ``connections`` by kind, and ``extra`` lines."""

    program: str
    address: tuple[str, int]
    connections: Mapping[str, Served]
    extra: Callable[[], Iterable[str]] = tuple
    logged: LogCounter = field(default_factory=LogCounter)

    def batch(self) -> bytes:
        """All lines as they are now."""
        return "".join(f"{each}\n" for each in self._lines()).encode("utf-8", "replace")

    def _lines(self) -> Iterator[str]:
        yield f"resource_usage,vm={self.program} {usage_fields(_own_usage())}"
        with contextlib.suppress(NoProcess):  # no /proc
            sample = statistics(read_process(os.getpid()), ())
            if sample.memory is not None:
                yield f"kinfo_mem,vm={self.program} {memory_fields(sample.memory, time.time_ns())}"
        yield line("logs", self.program, {"warnings": self.logged.warnings, "errors": self.logged.errors})
        for kind, served in self.connections.items():
            yield line("connections", self.program, {"active": served.active, "total": served.total}, kind=kind)
        yield from self.extra()

    async def push(self, interval: float = INTERVAL) -> None:
        """Deliver for ever."""
        target = LineTarget(*self.address)
        root = logging.getLogger()
        root.addHandler(self.logged)
        try:
            while True:
                try:
                    await target.deliver(self.batch())
                except Undelivered as error:
                    log.warning("own metrics are not delivered: %s", error)
                await asyncio.sleep(interval)
        finally:
            root.removeHandler(self.logged)
            await target.close()

    def beside(self, serve: Serve) -> Serve:
        """``serve`` with metrics pushed as long as it serves."""

        async def both(listener: socket.socket) -> None:
            pushing = asyncio.create_task(self.push())
            try:
                await serve(listener)
            finally:
                pushing.cancel()
                await asyncio.gather(pushing, return_exceptions=True)

        return both


def line(measurement: str, program: str, figures: Figures, **tags: str) -> str:
    """One line of integers."""
    named = "".join(f",{key}={escaped(value)}" for key, value in tags.items())
    values = ",".join(f"{escaped(key)}={value}i" for key, value in figures.items())
    return f"{measurement},vm={program}{named} {values}"


def _own_usage() -> ResourceUsage:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return ResourceUsage(
        utime=_timeval(own.ru_utime),
        stime=_timeval(own.ru_stime),
        maxrss=own.ru_maxrss,
        ixrss=own.ru_ixrss,
        idrss=own.ru_idrss,
        isrss=own.ru_isrss,
        minflt=own.ru_minflt,
        majflt=own.ru_majflt,
        nswap=own.ru_nswap,
        inblock=own.ru_inblock,
        outblock=own.ru_oublock,
        msgsnd=own.ru_msgsnd,
        msgrcv=own.ru_msgrcv,
        nsignals=own.ru_nsignals,
        nvcsw=own.ru_nvcsw,
        nivcsw=own.ru_nivcsw,
    )


def _timeval(seconds: float) -> Timeval:
    return Timeval(*divmod(round(seconds * 1_000_000), 1_000_000))
