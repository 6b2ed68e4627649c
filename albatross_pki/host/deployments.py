"""What one can ask for about a unikernel: create, replace, restart, destroy, stop, start, roll back, get.

Every change goes through the same order: 1. the name is free for a change; 2. configuration and policies, all
violations at once, and the place is reserved; 3. image and rights; 4. everything is prepared; 5. only then is
anything that runs told to end; 6. the new process is made, and for a successor given a short time to fail; 7. the
state is written; 8. the answer. A failure before 5 changes nothing; one after it puts the old unikernel back, and
the answer says so and is a failure.
"""

import asyncio
import contextlib
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.host import events_kinds as events
from albatross_pki.host.configurations import configuration_violations, missing_on_host
from albatross_pki.host.events_kinds import By, What
from albatross_pki.host.image_intake import taken_image
from albatross_pki.host.images import Source, StoredImage
from albatross_pki.host.lifecycle import Event, Phase, Wanted, possible
from albatross_pki.host.limits import MAX_UNIKERNELS
from albatross_pki.host.machine import online_cpus
from albatross_pki.host.preparation import Prepared, mapped, prepare
from albatross_pki.host.processes import Process
from albatross_pki.host.records import ChainPolicies, Deployment
from albatross_pki.host.restarts import Decision, Exit, judge_exit
from albatross_pki.host.rights import OPERATOR, Rights, check_deployment
from albatross_pki.host.supervisor import Supervisor, Unikernel, without_name
from albatross_pki.names import Name
from albatross_pki.unikernels import Settings, UnikernelConfig, UnikernelType

Commit = Callable[[Deployment], None]
CREATED = "created unikernel"
DESTROYED = "destroyed unikernel"


class DidNotComeUp(AlbatrossError):
    """A successor ended or failed too early."""


@dataclass(frozen=True, slots=True)
class Remembering:
    """What changes in the remembered policies of chains, what to call once that is on disk, and who asked."""

    policies: ChainPolicies
    confirm: Callable[[], None]
    by: By = None


class Deployments:
    """The operations on the unikernels of ``supervisor``."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._state = supervisor.state
        self._images = supervisor.host.images

    # asked for

    async def create(
        self, name: Name, config: UnikernelConfig, source: Source | None, rights: Rights = OPERATOR, *, force: bool
    ) -> str:
        """Run ``config`` as ``name``; ``source`` has its image. Raises ``Refused`` and other ``AlbatrossError``."""
        supervisor = self._supervisor
        with supervisor.changing(name, "create"):
            old = supervisor.table.get(name)
            if old is not None and not force:
                raise Refused([_name_taken(old)], hint="destroy it first, or create with force")
            remembering = self._remembering(rights)
            with self._reserved(name, config, rights, old):
                if config.typ is UnikernelType.BHYVE:  # it boots from its disk, and has no image
                    source = Source(octets=b"")
                async with taken_image(supervisor, name, config, source, rights) as image:
                    deployment = self._deployment(name, config.settings, image, config)
                    check_deployment(rights, deployment)
                    commit = self._deploying(remembering)
                    if old is None:
                        await self._begin(deployment, commit)
                    else:
                        await self._swap(old, deployment, commit, rights.by)
            return CREATED

    async def restart(self, name: Name, settings: Settings | None, rights: Rights = OPERATOR) -> str:
        """Run ``name`` again, with other settings if there are some."""
        supervisor = self._supervisor
        with supervisor.changing(name, "restart"):
            unikernel = self._find(name, "restart")
            config = replace(unikernel.deployment.config(), settings=settings or unikernel.deployment.settings)
            remembering = self._remembering(rights)
            with self._reserved(name, config, rights, unikernel), self._pinned(unikernel.deployment.image):
                deployment = unikernel.deployment
                if settings is not None:
                    image = StoredImage(deployment.image, deployment.size)
                    deployment = self._deployment(name, settings, image, config)
                check_deployment(rights, deployment)
                restarted = self._running(remembering, events.Restarted(deployment.number))
                commit = restarted if settings is None else self._deploying(remembering)
                await self._swap(unikernel, deployment, commit, rights.by)
            return CREATED

    async def rollback(self, name: Name, rights: Rights = OPERATOR) -> str:
        """Back to the deployment before the present one."""
        supervisor = self._supervisor
        with supervisor.changing(name, "rollback"):
            unikernel = self._find(name, "rollback")
            if not unikernel.older:
                raise Refused([f"rollback: nothing before the present deployment of {name} is kept"])
            target = unikernel.older[0]
            remembering = self._remembering(rights)
            with self._reserved(name, target.config(), rights, unikernel), self._pinned(target.image):
                check_deployment(rights, target)

                def commit(deployment: Deployment) -> None:
                    supervisor.events.stage(name, _deployed(events.RolledBack, deployment), rights.by)
                    dropped = self._state.revert(deployment, remember=remembering.policies)
                    self._images.dropped(dropped)
                    unikernel.deployment, unikernel.older = deployment, unikernel.older[1:]
                    remembering.confirm()

                await self._swap(unikernel, target, commit, rights.by)
            return "rolled back unikernel"

    async def destroy(self, name: Name, rights: Rights = OPERATOR) -> str:
        """End ``name`` for good; works in every phase, and a second one waits for the first."""
        supervisor = self._supervisor
        unikernel = self._find(name, "destroy")
        if unikernel.leaving is not None:
            await asyncio.shield(unikernel.leaving)
            return DESTROYED
        with supervisor.changing(name, "destroy"):
            if unikernel.phase is Phase.ENDING:  # an earlier attempt gave up on its process
                await self._leave(unikernel)
                return DESTROYED
            remembering = self._remembering(rights)
            was = unikernel.phase
            _meet(unikernel, Event.DESTROY)
            supervisor.take(unikernel, Event.DESTROY)
            supervisor.events.stage(name, events.Destroyed(), rights.by)
            try:
                dropped = self._state.forget(name, remember=remembering.policies)
            except AlbatrossError:
                unikernel.phase = was  # nothing happened
                raise
            remembering.confirm()
            self._images.dropped(dropped)
            supervisor.cancel_timer(unikernel)
            if was in (Phase.WAITING, Phase.STOPPED):
                supervisor.remove(unikernel)
                return DESTROYED if was is Phase.STOPPED else "destroyed: removed from restarting"
            await self._leave(unikernel)
            return DESTROYED

    async def stop(self, name: Name, rights: Rights = OPERATOR, *, reason: str | None = None) -> str:
        """Keep the configuration of ``name``, do not run it; ``reason`` is for ``status`` and the events."""
        supervisor = self._supervisor
        with supervisor.changing(name, "stop"):
            unikernel = self._find(name, "stop")
            if unikernel.phase is Phase.STOPPED:
                return f"unikernel {name} is stopped already"
            remembering = self._remembering(rights)
            was = unikernel.phase
            _meet(unikernel, Event.STOP)
            supervisor.take(unikernel, Event.STOP)
            supervisor.events.stage(name, events.Stopped(reason), rights.by)
            try:
                self._state.want(name, Wanted.STOPPED, remember=remembering.policies)
            except AlbatrossError:
                unikernel.phase = was
                raise
            remembering.confirm()
            unikernel.trouble = reason
            supervisor.cancel_timer(unikernel)
            if unikernel.phase is Phase.HALTING:
                await supervisor.end_process(unikernel)
                supervisor.take(unikernel, Event.GONE)
            supervisor.tree.settle(name, unikernel.deployment.settings, stopped=True)
            return "stopped unikernel"

    async def start(self, name: Name, rights: Rights = OPERATOR) -> str:
        """Run ``name`` again after a stop, or at once while it waits to be restarted."""
        supervisor = self._supervisor
        with supervisor.changing(name, "start"):
            unikernel = self._find(name, "start")
            if unikernel.phase is Phase.RUNNING:
                return f"unikernel {name} is running already"
            _meet(unikernel, Event.START)
            deployment = unikernel.deployment
            remembering = self._remembering(rights)
            check_deployment(rights, deployment)
            with self._reserved(name, deployment.config(), rights, unikernel), self._pinned(deployment.image):
                prepared = await prepare(supervisor.host, deployment)
                before = unikernel.phase
                supervisor.cancel_timer(unikernel)
                supervisor.take(unikernel, Event.START)
                try:
                    await supervisor.bring_up(unikernel, prepared, commits=True)
                    self._running(remembering, events.Resumed())(deployment)
                except Exception as error:
                    await self._undo_start(unikernel, before, error)
                    raise
                unikernel.failures = 0
            return "started unikernel"

    async def get(self, name: Name, level: int) -> tuple[bool, bytes]:
        """The image of ``name`` and whether it is compressed, with zlib's ``level`` from 1 to 9; 0 is not at all."""
        unikernel = self._supervisor.table.get(name)
        if unikernel is None:
            raise Refused(["get: no unikernel found"])
        with self._pinned(unikernel.deployment.image):
            return await asyncio.to_thread(self._read, unikernel.deployment.image, level)

    # steps

    async def _begin(self, deployment: Deployment, commit: Commit) -> None:
        """A name that was not there."""
        supervisor = self._supervisor
        prepared = await prepare(supervisor.host, deployment)
        unikernel = Unikernel(deployment)
        supervisor.take(unikernel, Event.CREATE)
        supervisor.table[deployment.name] = unikernel
        try:
            await supervisor.bring_up(unikernel, prepared, commits=True)
            commit(deployment)
        except BaseException:
            await self._kill(unikernel)
            supervisor.table.pop(deployment.name, None)
            raise

    async def _swap(self, unikernel: Unikernel, deployment: Deployment, commit: Commit, by: By) -> None:
        """Put ``deployment`` in the place of what there is; the old one comes back if it does not come up."""
        supervisor = self._supervisor
        running = unikernel.running
        _meet(unikernel, Event.SWAP)
        prepared = await prepare(
            supervisor.host,
            deployment,
            replacing=None if running is None else running.record,
            claimed=frozenset() if running is None else running.blocks,
        )
        before = unikernel.phase
        if not possible(before, Event.SWAP):  # it ended for good while its successor was prepared
            prepared.discard()
            raise Refused([f"unikernel {unikernel.name} is {before.value} by now"], hint="try again")
        supervisor.cancel_timer(unikernel)
        supervisor.take(unikernel, Event.SWAP)
        if unikernel.phase is Phase.SWAPPING:
            try:
                await supervisor.end_process(unikernel)
            except BaseException:
                prepared.discard()
                unikernel.phase = Phase.RUNNING  # it does not end: it still is what it was
                raise
            supervisor.take(unikernel, Event.GONE)
        try:
            ended = await self._come_up(unikernel, prepared)
            commit(unikernel.running.deployment if unikernel.running is not None else deployment)
        except Exception as error:
            outcome = await self._put_back(unikernel, before)
            supervisor.events.tell(unikernel.name, events.NotReplaced(f"{error}; {outcome}"), by)
            raise DidNotComeUp(f"the new unikernel did not come up: {error}; {outcome}") from error
        unikernel.failures = 0
        self._off_trial(unikernel, ended)

    async def _come_up(self, unikernel: Unikernel, prepared: Prepared) -> Exit | None:
        """Start and watch for the grace period. How it ended, if that was a regular end; raises if it failed."""
        supervisor = self._supervisor
        running = await supervisor.bring_up(unikernel, prepared, on_trial=True)
        deadline = time.monotonic() + supervisor.patience.come_up
        while True:
            ended = await _ended_before(running.process, deadline)
            if ended is None or not ended.failed:
                return ended
            supervisor.take(unikernel, Event.FAILED)
            decision = judge_exit(running.deployment.settings, ended, running.deployment.typ)
            if decision is not Decision.WITHOUT_NAME:
                raise DidNotComeUp(f"it ended with {ended}")
            again = await prepare(supervisor.host, without_name(running.deployment))
            supervisor.take(unikernel, Event.DUE)
            running = await supervisor.bring_up(unikernel, again, on_trial=True)

    def _off_trial(self, unikernel: Unikernel, ended: Exit | None) -> None:
        """From here on, ends are followed as usual; an end during the trial is followed now."""
        running = unikernel.running
        if running is not None:
            running.on_trial = False
        elif ended is not None and unikernel.phase is Phase.RUNNING:
            self._supervisor.after_exit(unikernel, time.monotonic(), ended)

    async def _put_back(self, unikernel: Unikernel, before: Phase) -> str:
        """Start the old deployment again, or leave it as it was; what became of it, for people."""
        supervisor = self._supervisor
        await self._kill(unikernel)
        if unikernel.phase is Phase.RUNNING:
            supervisor.take(unikernel, Event.FAILED)
        elif unikernel.phase is Phase.STARTING:
            supervisor.take(unikernel, Event.DEFERRED)
        if before is Phase.STOPPED:
            supervisor.take(unikernel, Event.STOP)
            return "the old one is stopped, as it was"
        try:
            prepared = await prepare(supervisor.host, unikernel.deployment)
            supervisor.take(unikernel, Event.DUE)
            await supervisor.bring_up(unikernel, prepared)
        except Exception as error:  # noqa: BLE001  it is wanted: it is tried again until it starts
            if unikernel.phase is Phase.WAITING:
                supervisor.take(unikernel, Event.DUE)
            supervisor.defer(unikernel, error)
            return f"the old one could not be put back yet ({error}), it is tried again"
        return "the old one was put back"

    async def _kill(self, unikernel: Unikernel) -> None:
        """End a process that is not wanted after all."""
        if unikernel.running is not None:
            unikernel.running.on_trial = True
            with contextlib.suppress(AlbatrossError):
                await self._supervisor.end_process(unikernel)

    async def _undo_start(self, unikernel: Unikernel, before: Phase, error: Exception) -> None:
        supervisor = self._supervisor
        await self._kill(unikernel)
        supervisor.take(unikernel, Event.FAILED if unikernel.phase is Phase.RUNNING else Event.DEFERRED)
        if before is Phase.STOPPED:
            supervisor.take(unikernel, Event.STOP)
            return
        unikernel.trouble = str(error)
        supervisor.start_after(unikernel, 1.0)

    async def _leave(self, unikernel: Unikernel) -> None:
        """End the process of a unikernel that is ENDING, and tell everybody who waits for it."""
        supervisor = self._supervisor
        unikernel.leaving = asyncio.get_running_loop().create_future()
        try:
            await supervisor.end_process(unikernel)
        except BaseException as error:
            unikernel.leaving.set_exception(error)
            unikernel.leaving.exception()  # perhaps nobody else waits
            unikernel.leaving = None
            raise
        supervisor.take(unikernel, Event.GONE)
        supervisor.remove(unikernel)
        unikernel.leaving.set_result(None)

    # what is needed on the way

    def _find(self, name: Name, verb: str) -> Unikernel:
        unikernel = self._supervisor.table.get(name)
        if unikernel is None:
            raise Refused([f"{verb}: not found"])
        return unikernel

    def _remembering(self, rights: Rights) -> Remembering:
        return Remembering(*self._supervisor.book.remembering(rights.policies, datetime.now(UTC)), rights.by)

    @contextlib.contextmanager
    def _reserved(self, name: Name, config: UnikernelConfig, rights: Rights, old: Unikernel | None) -> Iterator[None]:
        """Check configuration and policies, and hold the place; afterwards exactly what is there is charged."""
        supervisor = self._supervisor
        reasons = configuration_violations(name, config.settings, config.typ, supervisor.host.platform.types)
        if len(supervisor.table) >= MAX_UNIKERNELS and old is None:
            reasons.append(f"this host supervises at most {MAX_UNIKERNELS} unikernels")
        if name.is_path:
            raise Refused(reasons)
        bridges = supervisor.host.bridges() if config.settings.interfaces else ()
        if bridges:  # one may have been made since the daemon started
            supervisor.book.bridges_are(bridges)
        reasons += missing_on_host(config.settings, bridges, online_cpus())
        effective = supervisor.book.effective_at(datetime.now(UTC), rights.policies)
        reasons += [violation.text for violation in supervisor.tree.admit(name, config.settings, effective)]
        if reasons:
            raise Refused(reasons)
        supervisor.tree.hold(name, config.settings)
        try:
            yield
        finally:
            left = supervisor.table.get(name)
            stopped = left is not None and left.phase is Phase.STOPPED
            supervisor.tree.settle(name, None if left is None else left.deployment.settings, stopped=stopped)
            supervisor.charge_images(name)

    @contextlib.contextmanager
    def _pinned(self, digest: bytes) -> Iterator[None]:
        self._images.pin(digest)
        try:
            yield
        finally:
            self._images.unpin(digest)

    def _deployment(self, name: Name, settings: Settings, image: StoredImage, config: UnikernelConfig) -> Deployment:
        number = self._supervisor.number()
        return Deployment(number, name, settings, image.digest, image.size, datetime.now(UTC), config.typ)

    def _deploying(self, remembering: Remembering) -> Commit:
        """Write a new deployment; the one before it is kept for rollback."""

        def commit(deployment: Deployment) -> None:
            keep = self._supervisor.keep
            fresh = self._supervisor.table[deployment.name].deployment.number == deployment.number
            what = _deployed(events.Created if fresh else events.Replaced, deployment)
            self._supervisor.events.stage(deployment.name, what, remembering.by)
            dropped = self._state.deploy(deployment, Wanted.RUNNING, keep=keep, remember=remembering.policies)
            self._images.record(deployment.image)
            unikernel = self._supervisor.table[deployment.name]
            if unikernel.deployment.number != deployment.number:
                unikernel.older = (unikernel.deployment, *unikernel.older)[:keep]
                unikernel.deployment = deployment
            self._images.dropped(dropped)
            remembering.confirm()

        return commit

    def _running(self, remembering: Remembering, what: What) -> Commit:
        """Write that a deployment that is recorded is to run."""

        def commit(deployment: Deployment) -> None:
            self._supervisor.events.stage(deployment.name, what, remembering.by)
            self._state.run(deployment, remember=remembering.policies)
            self._supervisor.table[deployment.name].deployment = deployment
            remembering.confirm()

        return commit

    def _read(self, digest: bytes, level: int) -> tuple[bool, bytes]:
        with mapped(self._images, digest) as octets:
            return (True, zlib.compress(octets, level)) if level else (False, bytes(octets))


async def _ended_before(process: Process, deadline: float) -> Exit | None:
    """How ``process`` ended, ``None`` if it still runs at ``deadline`` (monotonic)."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            return await process.ended()
    return None


def _meet(unikernel: Unikernel, event: Event) -> None:
    """Refuse what the life cycle does not allow now."""
    if not possible(unikernel.phase, event):
        raise Refused([f"unikernel {unikernel.name} is {unikernel.phase.value}"], hint="destroy it, or try again")


def _deployed(
    kind: type[events.Created] | type[events.Replaced] | type[events.RolledBack], deployment: Deployment
) -> What:
    return kind(deployment.number, deployment.image, deployment.settings.memory_mb)


def _name_taken(old: Unikernel) -> str:
    if old.phase is Phase.RUNNING:
        return "Unikernel with same name is already running"
    return f"unikernel with same name already exists ({old.phase.value})"
