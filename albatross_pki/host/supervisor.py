"""The unikernels of a host: making their processes, following their ends, starting again what is wanted.

This module does what ``lifecycle`` allows and ``restarts`` decides; what an operator or a certificate asks for is in
``deployments``, which uses the steps that are here. One event loop runs everything. Between two awaits nothing else
happens, so these come in one piece:

* in ``launch``: processes recorded, made, recorded with their pids, taken into the table;
* in a decision: state written, table changed.

A name that is being changed is *busy*: everybody else is refused at once, nobody waits for a lock. The exception is
destroying: who comes second waits for the same end.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from albatross_pki.commands import UNLIMITED
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.host import events_kinds as events
from albatross_pki.host import faults
from albatross_pki.host.attachment import ConsoleAttachment
from albatross_pki.host.attachment import Fifo as AnnouncedFifo
from albatross_pki.host.events_recorder import EventRecorder
from albatross_pki.host.lifecycle import TOLD_TO_END, Event, Phase, Wanted, advance
from albatross_pki.host.limits import (
    COME_UP_GRACE,
    ENDED_KEPT,
    FIRST_DELAY,
    HISTORY_DEPTH,
    KILL_GRACE,
    MEBIBYTE,
    STOP_GRACE,
)
from albatross_pki.host.policy_book import PolicyBook
from albatross_pki.host.preparation import Prepared, prepare
from albatross_pki.host.processes import Process, end
from albatross_pki.host.records import Deployment, ProcessRecord
from albatross_pki.host.restarts import Decision, Exit, delay, failures_after, judge_exit
from albatross_pki.host.state import State, StateError
from albatross_pki.host.statistics_link import StatisticsLink
from albatross_pki.host.surroundings import Surroundings
from albatross_pki.names import Name, Path
from albatross_pki.policy.stored import Limits, StoredImages
from albatross_pki.policy.tree import EffectivePolicy, ResourceTree
from albatross_pki.text import printable

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds: for an end by SIGTERM, by SIGKILL, and for a successor to fail."""

    stop: float = STOP_GRACE
    kill: float = KILL_GRACE
    come_up: float = COME_UP_GRACE


@dataclass(slots=True, eq=False)
class Running:
    """A process and what it holds. ``on_trial``: whoever started it decides what follows its end."""

    deployment: Deployment
    record: ProcessRecord
    process: Process
    release: Callable[[], None]
    blocks: frozenset[Name]
    since: float  # monotonic
    on_trial: bool = False


@dataclass(slots=True, eq=False)
class Unikernel:
    """One name: what is wanted (``deployment``, ``older`` for rollback) and what is."""

    deployment: Deployment
    older: tuple[Deployment, ...] = ()
    phase: Phase = Phase.ABSENT
    running: Running | None = None
    failures: int = 0
    restarts: int = 0
    due: float | None = None  # monotonic, while waiting
    last_exit: Exit | None = None
    trouble: str | None = None  # why the last start failed
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)
    leaving: "asyncio.Future[None] | None" = field(default=None, repr=False)

    @property
    def name(self) -> Name:
        return self.deployment.name

    @property
    def wanted(self) -> Wanted:
        return Wanted.STOPPED if self.phase in (Phase.STOPPED, Phase.HALTING) else Wanted.RUNNING


@dataclass(frozen=True, slots=True)
class Ready:
    """A unikernel in phase STARTING for which only the process is missing."""

    unikernel: Unikernel
    prepared: Prepared
    on_trial: bool = False


@dataclass(frozen=True, slots=True)
class _Made:
    """A process that was just made."""

    pid: int
    at: datetime
    since: float  # monotonic


@dataclass(frozen=True, slots=True)
class Ended:
    """A unikernel that is over, for ``status``."""

    name: Name
    exit: Exit
    at: datetime


class DoesNotEnd(Refused):
    """A process that was told to end, and killed, and is still there: what was asked for is half done."""


class Supervisor:
    """All unikernels of one host."""

    def __init__(
        self,
        host: Surroundings,
        state: State,
        book: PolicyBook,
        console: ConsoleAttachment,
        statistics: StatisticsLink,
        *,
        patience: Patience | None = None,
        keep: int = HISTORY_DEPTH,
        image_quota: int | None = None,
    ) -> None:
        self.host, self.state, self.book = host, state, book
        self.console, self.statistics = console, statistics
        self.patience = patience or Patience()
        self.keep = keep
        self.image_quota = 1 + keep if image_quota is None else image_quota
        self.table: dict[Name, Unikernel] = {}
        self.tree = ResourceTree()
        self.stored = StoredImages()
        self.ended: list[Ended] = []
        self.events = EventRecorder(state, console.path)
        self.shutting_down = False
        self._busy: dict[Name, str] = {}
        self._quiet = asyncio.Event()  # nothing is being changed
        self._quiet.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_number = 1

    # names and numbers

    @contextlib.contextmanager
    def changing(self, name: Name, verb: str) -> Iterator[None]:
        """Hold ``name`` while it is changed; raises ``Refused`` if somebody else does, or if the daemon is ending."""
        if self.shutting_down:
            raise Refused(["albatrossd is shutting down"])
        if name in self._busy:
            raise Refused([f"unikernel {name} is being changed ({self._busy[name]})"], hint="try again in a moment")
        self._busy[name] = verb
        self._quiet.clear()
        try:
            yield
        finally:
            del self._busy[name]
            if not self._busy:
                self._quiet.set()
            self._resume(name)

    def names(self) -> frozenset[Name]:
        """Every name that there is or that is about to be there."""
        return frozenset(self.table) | frozenset(self._busy)

    def is_busy(self, name: Name) -> bool:
        return name in self._busy

    def _resume(self, name: Name) -> None:
        """What came due while the name was busy is not forgotten."""
        unikernel = self.table.get(name)
        if unikernel is not None and unikernel.phase is Phase.WAITING and unikernel.timer is None:
            self.start_after(unikernel, delay(unikernel.failures))

    def number(self) -> int:
        """The number of a new deployment."""
        self._next_number += 1
        return self._next_number - 1

    def numbered_from(self, number: int) -> None:
        self._next_number = number

    def take(self, unikernel: Unikernel, event: Event) -> None:
        """Let ``event`` happen to ``unikernel``."""
        unikernel.phase = advance(unikernel.phase, event)

    # images

    def charge_images(self, name: Name) -> None:
        """Charge exactly the images that are kept for ``name`` now."""
        unikernel = self.table.get(name)
        kept = () if unikernel is None else (unikernel.deployment, *unikernel.older)
        self.stored.settle(name, {each.image: each.size for each in kept})

    def image_limits(self, effective: EffectivePolicy) -> Limits:
        """How many octets of images each path may store: a multiple of the memory that its policy allows."""

        def limit(path: Path) -> int | None:
            policy = effective(path)
            return None if policy is None else max(0, policy.memory_mb) * self.image_quota * MEBIBYTE

        return limit

    # starting

    async def bring_up(
        self, unikernel: Unikernel, prepared: Prepared, *, on_trial: bool = False, commits: bool = False
    ) -> Running:
        """Start what was prepared, in phase STARTING; afterwards it is RUNNING.

        If it does not start, what was prepared is undone and the phase stays as it is. ``commits``: the caller writes
        to the state next, before anything is awaited, and the process is recorded with that; until then the token in
        its title finds it.
        """
        ready = await self._ready(unikernel, prepared, on_trial=on_trial)
        for _, error in self._launch([ready], commits=commits):
            raise error
        assert unikernel.running is not None  # nothing else has happened since it was made
        return unikernel.running

    async def _ready(self, unikernel: Unikernel, prepared: Prepared, *, on_trial: bool = False) -> Ready:
        ready = Ready(unikernel, prepared, on_trial)
        try:
            prepared.fifo.take_place()
            announced = AnnouncedFifo(prepared.fifo.descriptor, self.rings(unikernel.name))
            await self.console.announce(unikernel.name, announced)
            if prepared.record.taps:
                await asyncio.to_thread(prepared.attach)
        except BaseException:
            self._undo(ready)
            raise
        return ready

    def _undo(self, ready: Ready) -> None:
        self.console.withdraw(ready.unikernel.name)
        ready.prepared.discard()

    def _launch(self, several: Sequence[Ready], *, commits: bool = False) -> list[tuple[Ready, Exception]]:
        """Make the processes of ``several``; those that did not start, which are undone, each with the reason."""
        faults.reach("process.before-record")
        try:
            self.state.record_processes([each.prepared.record for each in several])
        except Exception as error:  # noqa: BLE001  whoever asked decides what follows
            for each in several:
                self._undo(each)
            return [(each, error) for each in several]
        failed: list[tuple[Ready, Exception]] = []
        made: list[tuple[Ready, _Made]] = []
        for each in several:
            try:
                made.append((each, _make(each.prepared)))
            except Exception as error:  # noqa: BLE001  the same
                self._process_gone(each.prepared.record)
                self._undo(each)
                failed.append((each, error))
        self._take_up(made, self.state.stage_processes if commits else self.state.record_processes)
        return failed

    def _take_up(
        self, several: "Sequence[tuple[Ready, _Made]]", record_all: Callable[[Iterable[ProcessRecord]], None]
    ) -> None:
        """Write down processes that were made and take them into the table."""
        records = [
            replace(
                each.prepared.record, pid=made.pid, start_ticks=self.host.platform.start_time(made.pid), started=made.at
            )
            for each, made in several
        ]
        for each, _ in several:
            record = each.prepared.record
            self.events.happened(record.name, events.Started(record.deployment, record.tender))
        try:
            record_all(records)
        except StateError as error:  # the tokens in their titles still find them
            for record in records:
                log.error("%s: its process could not be recorded: %s", record.name, error)
        faults.reach("process.after-record")
        for (each, made), record in zip(several, records, strict=True):
            unikernel, prepared = each.unikernel, each.prepared
            child = self.host.platform.child(made.pid)
            running = Running(
                prepared.deployment, record, child, prepared.release, prepared.blocks, made.since, each.on_trial
            )
            self.follow(unikernel, running)
            self.take(unikernel, Event.UP)
            unikernel.trouble = None
            log.info("started %s (%s)", unikernel.name, record.tender)

    def follow(self, unikernel: Unikernel, running: Running) -> None:
        """Take a running process into the table and listen for its end."""
        unikernel.running = running
        running.process.when_ended(lambda ended: self._on_exit(unikernel, running, ended))
        self.statistics.added(unikernel.name, running.process.pid, running.record.taps)

    def rings(self, name: Name) -> int:
        if name.path.is_root:
            return UNLIMITED
        policy = self.book.effective_at(datetime.now(UTC))(name.path)
        return 0 if policy is None else policy.unikernels

    # ending

    async def end_process(self, unikernel: Unikernel) -> None:
        """End the process of a unikernel that is told to end; raises ``DoesNotEnd``."""
        running = unikernel.running
        if running is None:
            return
        faults.reach("end.before-signal")
        if await end(running.process, grace=self.patience.stop, kill_grace=self.patience.kill) is None:
            raise DoesNotEnd(
                [f"the process {running.process.pid} of {unikernel.name} does not end"],
                hint="it is stuck in the kernel: look at dmesg",
            )
        faults.reach("end.after-exit")

    def _on_exit(self, unikernel: Unikernel, running: Running, ended: Exit) -> None:
        """Called once for every process, before anybody who waits for its end goes on."""
        log.info("unikernel %s (PID %d) stopped with %s", unikernel.name, running.process.pid, ended)
        self.events.happened(unikernel.name, events.Exited.of(ended))
        self._process_gone(running.record)
        unread = b""
        if unikernel.running is running:
            unread = self.console.withdraw(unikernel.name)
            unikernel.running = None
        running.release()
        unikernel.last_exit = ended
        self.statistics.removed(unikernel.name)
        if unikernel.phase not in TOLD_TO_END and not self.shutting_down:
            self._record_last_lines(unikernel.name, running, unread)
        if running.on_trial or self.shutting_down:
            return
        if unikernel.phase not in TOLD_TO_END:
            self.after_exit(unikernel, running.since, ended)
        elif not self.is_busy(unikernel.name):  # whoever told it to end gave up waiting
            self.take(unikernel, Event.GONE)
            if unikernel.phase is Phase.ABSENT:
                self.remove(unikernel)
            else:
                self.tree.settle(unikernel.name, unikernel.deployment.settings, stopped=True)

    def _record_last_lines(self, name: Name, running: Running, unread: bytes) -> None:
        if unread:  # there was no console
            self.events.unread_lines(name, unread)
        elif self.console.connected.is_set():
            self.background(self.events.last_lines(name, running.record.started))

    def after_exit(self, unikernel: Unikernel, since: float, ended: Exit) -> None:
        """Nobody asked for this end: restart the unikernel or let it go. ``since`` is when its process was made."""
        decision = judge_exit(unikernel.deployment.settings, ended, unikernel.deployment.typ)
        if decision is Decision.OVER:
            self.take(unikernel, Event.FINISHED)
            self._let_go(unikernel, ended)
            return
        self.take(unikernel, Event.FAILED)
        unikernel.restarts += 1
        if decision is Decision.WITHOUT_NAME:
            unikernel.deployment = without_name(unikernel.deployment)
            self._try_to_write(unikernel, lambda: self.state.amend(unikernel.deployment))
            self.start_after(unikernel, 0.0)
            return
        unikernel.failures = failures_after(unikernel.failures, time.monotonic() - since)
        self.start_after(unikernel, delay(unikernel.failures))

    def _let_go(self, unikernel: Unikernel, ended: Exit) -> None:
        self.remove(unikernel)
        self.ended = [*self.ended[1 - ENDED_KEPT :], Ended(unikernel.name, ended, datetime.now(UTC))]
        self.events.happened(unikernel.name, events.Over(str(ended)))
        self._try_to_write(unikernel, lambda: self.host.images.dropped(self.state.forget(unikernel.name)))

    def remove(self, unikernel: Unikernel) -> None:
        """Take a unikernel that is over out of the table."""
        self.cancel_timer(unikernel)
        if self.table.get(unikernel.name) is unikernel:
            del self.table[unikernel.name]
            self.tree.settle(unikernel.name, None)
            self.charge_images(unikernel.name)

    def _process_gone(self, record: ProcessRecord) -> None:
        try:
            self.state.process_gone(record.token)
        except StateError as error:  # the next start of the daemon finds that it is gone
            log.error("%s: %s", record.name, error)

    def _try_to_write(self, unikernel: Unikernel, write: Callable[[], None]) -> None:
        try:
            write()
        except StateError as error:
            log.error("%s: %s; after a restart of albatrossd it will be as before", unikernel.name, error)

    # again

    def start_after(self, unikernel: Unikernel, seconds: float) -> None:
        """A unikernel that is WAITING is started after so many seconds."""
        self.cancel_timer(unikernel)
        unikernel.due = time.monotonic() + seconds
        if seconds:
            log.warning("%s starts again in %g seconds", unikernel.name, seconds)
        self.events.tell(unikernel.name, events.Waiting(seconds, unikernel.failures), durable=False)
        loop = asyncio.get_running_loop()

        def due() -> None:
            unikernel.timer = unikernel.due = None
            self.background(self.start_waiting([unikernel]))

        unikernel.timer = loop.call_later(seconds, due)

    def cancel_timer(self, unikernel: Unikernel) -> None:
        if unikernel.timer is not None:
            unikernel.timer.cancel()
        unikernel.timer = unikernel.due = None

    async def start_waiting(self, several: Iterable[Unikernel]) -> None:
        """Start those of ``several`` that are WAITING and that nobody else takes care of, writing once for all."""
        ready: list[Ready] = []
        with contextlib.ExitStack() as busy:
            try:
                for unikernel in several:
                    if self.shutting_down or unikernel.phase is not Phase.WAITING or self.is_busy(unikernel.name):
                        continue
                    self.cancel_timer(unikernel)
                    busy.enter_context(self.changing(unikernel.name, "start"))
                    self.take(unikernel, Event.DUE)
                    try:
                        ready.append(await self._ready(unikernel, await prepare(self.host, unikernel.deployment)))
                    except Exception as error:  # noqa: BLE001  whatever it was: it is wanted, and tried again
                        self.defer(unikernel, error)
            except BaseException:
                for each in ready:
                    self._undo(each)
                raise
            for each, reason in self._launch(ready) if ready else ():
                self.defer(each.unikernel, reason)

    def defer(self, unikernel: Unikernel, error: Exception) -> None:
        """A wanted unikernel did not start: wait and try again."""
        if not isinstance(error, AlbatrossError | OSError | MemoryError):
            log.exception("a defect while starting %s", unikernel.name)
        log.error("failed to create %s: %s", unikernel.name, printable(str(error)))
        unikernel.trouble = str(error) or type(error).__name__
        self.events.happened(unikernel.name, events.FailedToStart(unikernel.trouble))
        unikernel.failures += 1
        self.take(unikernel, Event.DEFERRED)
        self.start_after(unikernel, max(FIRST_DELAY, delay(unikernel.failures)))

    def background(self, work: Coroutine[None, None, None]) -> None:
        """Run ``work`` beside everything else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # the end of the daemon

    async def shut_down(self, *, keep_running: bool) -> None:
        """End every process (the state stays as it is), or leave them to the next daemon."""
        self.shutting_down = True
        for unikernel in self.table.values():
            self.cancel_timer(unikernel)
        with contextlib.suppress(TimeoutError):  # what is in progress ends first, within bounds
            async with asyncio.timeout(self.patience.stop + self.patience.kill):
                await self._quiet.wait()
        running = [unikernel.running for unikernel in self.table.values() if unikernel.running is not None]
        if keep_running:
            for each in running:
                each.process.release()
            self._say_farewell(len(running))
            return
        endings = (end(each.process, grace=self.patience.stop, kill_grace=self.patience.kill) for each in running)
        for each, ended in zip(running, await asyncio.gather(*endings), strict=True):
            if ended is None:
                log.error("the process %d of %s does not end", each.process.pid, each.deployment.name)
        self._say_farewell(0)

    def _say_farewell(self, left_running: int) -> None:
        self.events.tell(Name(), events.DaemonStopped(left_running))
        self.events.close()


def _make(prepared: Prepared) -> _Made:
    faults.reach("process.before-spawn")
    pid = prepared.start()
    faults.reach("process.after-spawn")
    return _Made(pid, datetime.now(UTC), time.monotonic())


def without_name(deployment: Deployment) -> Deployment:
    """The same deployment without the injected ``--name``."""
    return replace(deployment, settings=replace(deployment.settings, add_name=False))
