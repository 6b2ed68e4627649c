"""What a starting daemon finds: its state, processes that outlived its predecessor, and things that belong to nobody.

In this order:

1. policies, images, block devices and wanted unikernels are taken over from the state;
2. each recorded process is looked for: by pid and start time, or by token where the pid was never written down;
3. one that is the process of what is wanted is adopted; every other one is ended;
4. fifos, taps and records that belong to nobody are removed;
5. ``start_wanted`` starts what is wanted and does not run, in the order of the startup numbers. What does not start
   stays wanted and is tried again.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from albatross_pki import __version__
from albatross_pki.errors import AlbatrossError
from albatross_pki.host import cgroups, fifos
from albatross_pki.host import events_kinds as events
from albatross_pki.host.attachment import Fifo as AnnouncedFifo
from albatross_pki.host.lifecycle import Phase, Wanted
from albatross_pki.host.limits import STARTED_AT_ONCE
from albatross_pki.host.preparation import block_name
from albatross_pki.host.processes import Process, Sought, end
from albatross_pki.host.records import ChainPolicies, ProcessRecord, Snapshot, UnikernelRecord
from albatross_pki.host.restarts import Exit
from albatross_pki.host.supervisor import Running, Supervisor, Unikernel
from albatross_pki.names import Name
from albatross_pki.unikernels import DEFAULT_STARTUP

log = logging.getLogger(__name__)

_OUR_TAPS = "vmmtap"


async def take_over(supervisor: Supervisor, snapshot: Snapshot) -> None:
    """Steps 1 to 4; afterwards commands can be answered."""
    host = supervisor.host
    supervisor.events.happened(Name(), events.DaemonStarted(__version__))
    supervisor.numbered_from(snapshot.next_number)
    supervisor.book.load(snapshot.operator, snapshot.remembered, datetime.now(UTC))
    expired = set(snapshot.remembered) - set(supervisor.book.remembered.all())
    if expired:
        supervisor.state.remember(ChainPolicies(stale=tuple(expired)))
    for digest in host.images.settle(snapshot.images):
        log.error("the image %s is missing: what needs it cannot start", digest.hex())
    for warning in host.blocks.scan():
        log.warning("%s", warning)
    for name, size_mb in host.blocks.devices.items():
        supervisor.tree.add_block(name, size_mb)
    for wanted in snapshot.unikernels:
        _take_in(supervisor, wanted)
    found = _find_processes(supervisor, snapshot.processes)
    unwanted = [(record, process) for record, process in found if not _adopt(supervisor, record, process)]
    await _end_all(supervisor, unwanted)
    alive = {record.token for record, _ in found}
    for record in snapshot.processes:
        if record.token not in alive:
            _record_end(supervisor, record, Exit())
    supervisor.events.flush()
    host.cgroups.reclaim([each.running.record.token for each in supervisor.table.values() if each.running is not None])
    _reclaim_fifos(supervisor)
    await _reclaim_taps(supervisor)


async def start_wanted(supervisor: Supervisor) -> None:
    """Step 5."""
    waiting = [each for each in supervisor.table.values() if each.phase is Phase.WAITING]
    waiting.sort(key=_start_order)
    for first in range(0, len(waiting), STARTED_AT_ONCE):
        await supervisor.start_waiting(waiting[first : first + STARTED_AT_ONCE])
        await asyncio.sleep(0)  # who asks for something meanwhile is answered


def _start_order(unikernel: Unikernel) -> tuple[int, object]:
    startup = unikernel.deployment.settings.startup
    return (DEFAULT_STARTUP if startup is None else startup, unikernel.name)


def _take_in(supervisor: Supervisor, record: UnikernelRecord) -> None:
    stopped = record.wanted is Wanted.STOPPED
    current, *older = record.deployments
    phase = Phase.STOPPED if stopped else Phase.WAITING
    supervisor.table[record.name] = Unikernel(current, tuple(older[: supervisor.keep]), phase)
    supervisor.tree.add(record.name, current.settings, stopped=stopped)
    supervisor.charge_images(record.name)


def _find_processes(supervisor: Supervisor, records: Iterable[ProcessRecord]) -> list[tuple[ProcessRecord, Process]]:
    host = supervisor.host
    found: list[tuple[ProcessRecord, Process]] = []
    lost: dict[str, ProcessRecord] = {}
    for record in records:
        if record.boot != host.boot:
            continue
        if record.pid is None or record.start_ticks is None:
            lost[record.token] = record
        elif (process := host.platform.find_again(record.pid, record.start_ticks)) is not None:
            found.append((record, process))
    sought = [
        Sought(each.token, each.uid, fifos.identity_of(os.path.join(host.fifo_directory, str(each.name))))
        for each in lost.values()
    ]
    found += [(lost[token], process) for token, process in host.platform.strays(sought).items()]
    return found


def _adopt(supervisor: Supervisor, record: ProcessRecord, process: Process) -> bool:
    """Take the process into the table if it is what is wanted; whether it was."""
    unikernel = supervisor.table.get(record.name)
    if unikernel is None or unikernel.phase is not Phase.WAITING or unikernel.deployment.number != record.deployment:
        return False
    host = supervisor.host
    held = contextlib.ExitStack()
    host.users.adopt(record.uid)
    held.callback(host.users.give_back, record.uid)
    blocks = frozenset(block_name(record.name, each) for each in unikernel.deployment.settings.blocks)
    for name in blocks:
        try:
            host.claims.take(name, f"run {record.name}")
            held.callback(host.claims.drop, name)
        except AlbatrossError as error:
            log.error("%s runs with a block device that is not there: %s", record.name, error)
    path = os.path.join(host.fifo_directory, str(record.name))
    fifo = fifos.reopen(path)
    if fifo is not None:
        descriptor, identity = fifo
        held.callback(fifos.remove, path, identity)
        held.callback(os.close, descriptor)
        supervisor.background(_announce(supervisor, record, descriptor))
    held.callback(_remove_taps, supervisor, record)
    held.callback(host.platform.ended, record)
    if (cgroup := host.cgroups.directory(record.name, record.token)) is not None:
        held.callback(cgroups.remove, cgroup)
    running = Running(unikernel.deployment, record, process, held.close, blocks, time.monotonic() - _seconds_up(record))
    unikernel.phase = Phase.RUNNING  # it never was anything else
    supervisor.follow(unikernel, running)
    _record_adoption(supervisor, record, process.pid)
    log.info("adopted %s (PID %d)", record.name, process.pid)
    return True


def _record_adoption(supervisor: Supervisor, record: ProcessRecord, pid: int) -> None:
    """One whose pid was never written down is told of as started: nobody was told before."""
    if record.pid is not None:
        supervisor.events.happened(record.name, events.Adopted(record.deployment))
        return
    supervisor.events.happened(record.name, events.Started(record.deployment, record.tender))
    found = replace(record, pid=pid, start_ticks=supervisor.host.platform.start_time(pid), started=datetime.now(UTC))
    supervisor.state.record_processes([found])


async def _announce(supervisor: Supervisor, record: ProcessRecord, descriptor: int) -> None:
    await supervisor.console.announce(record.name, AnnouncedFifo(descriptor, supervisor.rings(record.name)))


def _seconds_up(record: ProcessRecord) -> float:
    return 0.0 if record.started is None else max(0.0, (datetime.now(UTC) - record.started).total_seconds())


async def _end_all(supervisor: Supervisor, unwanted: list[tuple[ProcessRecord, Process]]) -> None:
    patience = supervisor.patience

    async def end_one(record: ProcessRecord, process: Process) -> None:
        log.warning("ending a process of %s that nobody wants (PID %d)", record.name, process.pid)
        ended = await end(process, grace=patience.stop, kill_grace=patience.kill)
        if ended is None:
            log.error("the process %d of %s does not end", process.pid, record.name)
        else:
            _record_end(supervisor, record, ended)

    await asyncio.gather(*(end_one(record, process) for record, process in unwanted))


def _record_end(supervisor: Supervisor, record: ProcessRecord, ended: Exit) -> None:
    """A process of the predecessor is gone. What has no pid on record was never told of as started."""
    if record.pid is not None:
        supervisor.events.happened(record.name, events.Exited.of(ended))
    supervisor.host.platform.ended(record)
    supervisor.state.process_gone(record.token)


def _reclaim_fifos(supervisor: Supervisor) -> None:
    kept = frozenset(str(each.name) for each in supervisor.table.values() if each.running is not None)
    try:
        for name in fifos.reclaim(supervisor.host.fifo_directory, kept):
            log.info("removed the fifo %s, which belonged to nobody", name)
    except OSError as error:
        raise AlbatrossError(
            f"{supervisor.host.fifo_directory}: {os.strerror(error.errno or 0).lower()}",
            hint=f"mkdir {supervisor.host.fifo_directory}",
        ) from error


async def _reclaim_taps(supervisor: Supervisor) -> None:
    """Taps of ours that no adopted process has. netlink is loaded only if there are any."""
    with contextlib.suppress(OSError):
        if not any(each.startswith(_OUR_TAPS) for each in os.listdir("/sys/class/net")):
            return
    kept = {
        tap.interface
        for each in supervisor.table.values()
        if each.running is not None
        for tap in each.running.record.taps
    }
    try:
        network = await supervisor.host.network()
        for tap in await asyncio.to_thread(network.taps):
            if tap.name not in kept:
                await asyncio.to_thread(network.remove_tap, tap.name)
                log.info("removed the tap %s of %s, which belonged to nobody", tap.name, tap.unikernel)
    except AlbatrossError as error:
        log.warning("taps could not be looked at: %s", error)


def _remove_taps(supervisor: Supervisor, record: ProcessRecord) -> None:
    network = supervisor.host.opened_network
    for tap in record.taps:
        if network is not None:
            with contextlib.suppress(AlbatrossError):
                network.remove_tap(tap.interface)
