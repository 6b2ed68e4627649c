"""Create, replace, restart, destroy, stop, start, roll back: with real unikernels, and what stays when they fail."""

import asyncio
import hashlib
import json
import os
import re
import signal
import subprocess
import zlib
from pathlib import Path as FilePath
from typing import Any

import pytest

from albatross_pki.authorised import Effect
from albatross_pki.commands import (
    UnikernelCreate,
    UnikernelDestroy,
    UnikernelGet,
    UnikernelInfoRequest,
    UnikernelRestart,
)
from albatross_pki.extensions import ImageBinding, Rollback, Start, Status, Stop
from albatross_pki.host.limits import HISTORY_DEPTH
from albatross_pki.host.preparation import Prepared, prepare
from albatross_pki.host.rights import Rights
from albatross_pki.host.supervisor import Patience, Running, Unikernel, without_name
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.replies import Failure, Text, UnikernelImage, Unikernels
from albatross_pki.unikernels import BlockDevice, NetworkInterface, Settings, UnikernelConfig
from tests.host.running import HELLO, RESTART, TICKER, UNHURRIED, Inside, create, hello, inside, text_of

NAME = "dev:hello"


def left_behind(host: Inside) -> list[str]:
    """What a host has beside its database: fifos, images, descriptors of fifos."""
    fifos = os.listdir(host.supervisor.host.fifo_directory)
    return fifos + os.listdir(host.supervisor.host.images.directory)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_unikernel_is_created_shown_and_destroyed(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        assert text_of(await host.ask(NAME, create("x"))) == "created unikernel"
        pid = host.pid(NAME)
        shown = await host.ask("dev:", UnikernelInfoRequest())
        assert isinstance(shown, Unikernels)
        ((name, info),) = shown.unikernels
        assert name == Name.parse(":hello")  # relative to the path that was asked about
        assert (info.memory_mb, info.arguments, info.cpuids) == (2, ("x",), frozenset({0}))
        assert info.started is not None
        got = await host.ask(NAME, UnikernelGet(0))
        assert got == UnikernelImage(False, HELLO)
        assert text_of(await host.ask(NAME, UnikernelDestroy())) == "destroyed unikernel"
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert left_behind(host) == []
        assert await host.ask(NAME, UnikernelDestroy()) == Failure("destroy: not found")
        assert host.supervisor.tree.usage(Path()).is_empty


async def test_p09_the_unikernel_is_pinned_and_no_helper_process_was_made(tmp_path: FilePath) -> None:
    made: list[str] = []
    async with inside(tmp_path) as host:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(subprocess.Popen, "__init__", lambda *args, **_: made.append(str(args)))
            patch.setattr(os, "fork", lambda: made.append("fork"))
            patch.setattr(os, "system", lambda command: made.append(command))
            before = children()
            await host.ask(NAME, create())
            assert children() - before == {host.pid(NAME)}
            await host.ask(NAME, create("y", force=True))
            assert children() - before == {host.pid(NAME)}
            assert os.sched_getaffinity(host.pid(NAME)) == {0}
            await host.ask(NAME, UnikernelDestroy())
            assert children() == before
        assert made == []


def children() -> set[int]:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as source:
        return {int(each) for each in source.read().split()}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (UnikernelConfig(b"#!/bin/sh\n", Settings(memory_mb=2)), "not an ELF|ELF"),
        (UnikernelConfig(HELLO[:100], Settings(memory_mb=2)), ""),
        (UnikernelConfig(b"", Settings(memory_mb=2)), "image must be sent along"),
        (hello(interfaces=(NetworkInterface("nowhere"),)), "interface nowhere does not exist"),
        (hello(blocks=(BlockDevice("storage"),)), r"specified block device\(s\) does not match with manifest"),
        (hello(blocks=(BlockDevice("storage"),)), "block device .*storage not found"),
        (hello(memory_mb=1), "does not fit into 1 MB"),
        (hello(cpuids=frozenset({50})), "CPU 50 does not exist"),
        (hello(cpuids=frozenset()), "not pinned"),
        (hello("a" * 9000), "too long"),
        (hello("a\0b"), "zero octet"),
    ],
)
async def test_p26_a_refused_create_leaves_nothing(tmp_path: FilePath, config: UnikernelConfig, reason: str) -> None:
    async with inside(tmp_path) as host:
        before = descriptors()
        answers, outcome = await host.asked(NAME, UnikernelCreate(config))
        assert isinstance(answers[0], Failure)
        assert re.search(reason, answers[0].text), answers[0].text
        assert (outcome.succeeded, outcome.effect) == (False, Effect.NONE)
        assert left_behind(host) == []
        assert descriptors() == before
        assert host.phase(NAME) == "absent"
        assert host.supervisor.tree.usage(Path()).is_empty
        assert host.state.load().unikernels == ()
        assert host.state.load().processes == ()


async def test_p31_all_reasons_are_told_at_once(tmp_path: FilePath) -> None:
    async with inside(tmp_path, policy=Policy(frozenset({0}), 0, 1, None)) as host:
        answer = text_of(await host.ask(NAME, create("a" * 9000, cpuids=frozenset({1}))))
        for reason in ("too long", "maximum amount of unikernels (0)", "maximum allowed memory (1", "CPUids 1"):
            assert reason in answer


@pytest.mark.parametrize("failing", ["fifo", "compose", "announce", "spawn", "record", "commit"])
async def test_p26_whatever_fails_on_the_way_is_undone(
    tmp_path: FilePath, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inside(tmp_path) as host:
        before, running = descriptors(), children()
        break_step(monkeypatch, host, failing)
        answers, outcome = await host.asked(NAME, create())
        monkeypatch.undo()
        assert isinstance(answers[0], Failure)
        assert not outcome.succeeded
        assert left_behind(host) == []
        assert descriptors() == before
        assert children() == running
        assert host.phase(NAME) == "absent"
        assert host.supervisor.tree.usage(Path()).is_empty
        assert host.state.load().processes == ()
        assert text_of(await host.ask(NAME, create())) == "created unikernel"


def break_step(patch: pytest.MonkeyPatch, host: Inside, step: str) -> None:
    """Let one step of a start fail, as a full or broken system would."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    targets = {
        "fifo": (os, "mkfifo"),
        "compose": (os, "memfd_create"),
        "announce": (host.supervisor.console, "announce"),
        "spawn": (os, "posix_spawn"),
        "record": (host.state, "record_processes"),
        "commit": (host.state, "deploy"),
    }
    patch.setattr(*targets[step], fail)


async def test_p23_what_replaces_is_checked_while_the_old_one_runs(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask(NAME, create("old"))
        pid = host.pid(NAME)
        for bad in (
            UnikernelCreate(UnikernelConfig(b"junk", Settings(memory_mb=2)), force=True),
            create(force=True, memory_mb=1),
            create(force=True, interfaces=(NetworkInterface("service"),)),
            create("a" * 9000, force=True),
            UnikernelRestart(Settings(memory_mb=2, cpuids=frozenset({70}))),
        ):
            answers, outcome = await host.asked(NAME, bad)
            assert isinstance(answers[0], Failure)
            assert outcome.effect is Effect.NONE
            assert host.pid(NAME) == pid
            os.kill(pid, 0)


async def test_p23_the_old_one_is_put_back_if_the_new_one_fails(tmp_path: FilePath) -> None:
    async with inside(tmp_path, patience=UNHURRIED) as host:
        await host.ask(NAME, create("old"))
        pid = host.pid(NAME)
        answers, outcome = await host.asked(NAME, create("--exit=3", force=True, add_name=False))
        assert "the new unikernel did not come up: it ended with exit 3; the old one was put back" in text_of(
            answers[0]
        )
        assert (outcome.succeeded, outcome.effect) == (False, Effect.CHANGED)
        assert host.phase(NAME) == "running"
        assert host.pid(NAME) != pid
        assert host.supervisor.table[Name.parse(NAME)].deployment.settings.arguments == ("old",)
        (record,) = host.state.load().unikernels
        assert [each.settings.arguments for each in record.deployments] == [("old",)]
        assert host.supervisor.tree.usage(Path()).unikernels == 1
        await host.ask(NAME, UnikernelDestroy())
        assert left_behind(host) == []


async def test_p23_a_successor_that_cannot_even_start_is_undone(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inside(tmp_path) as host:
        await host.ask(NAME, create("old"))
        with monkeypatch.context() as patch:
            calls = iter([True])
            real = os.posix_spawn

            def fail_once(*args: object, **settings: object) -> int:
                if next(calls, False):
                    raise OSError(12, "Cannot allocate memory")
                return real(*args, **settings)  # type: ignore[arg-type]

            patch.setattr(os, "posix_spawn", fail_once)
            answer = text_of(await host.ask(NAME, create("new", force=True)))
        assert "the old one was put back" in answer
        assert host.phase(NAME) == "running"


async def test_p23_a_state_that_cannot_be_written_brings_the_old_one_back(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inside(tmp_path) as host:
        await host.ask(NAME, create("old"))
        with monkeypatch.context() as patch:
            break_step(patch, host, "commit")
            answer = text_of(await host.ask(NAME, create("new", force=True)))
        assert "No space left" in answer
        assert "the old one was put back" in answer
        assert host.supervisor.table[Name.parse(NAME)].deployment.settings.arguments == ("old",)


async def test_a_successor_that_ends_well_is_no_failure(tmp_path: FilePath) -> None:
    async with inside(tmp_path, patience=UNHURRIED) as host:
        await host.ask(NAME, create("old"))
        answer = await host.ask(NAME, create("--exit=0", force=True, add_name=False))
        assert answer == Text("created unikernel")
        await host.until(lambda: host.phase(NAME) == "absent")
        assert host.state.load().unikernels == ()


async def test_restart_keeps_or_replaces_the_arguments(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask(NAME, create("one"))
        first = host.pid(NAME)
        assert text_of(await host.ask(NAME, UnikernelRestart())) == "created unikernel"
        assert host.pid(NAME) != first
        settings = Settings(memory_mb=5, arguments=("two",))
        assert text_of(await host.ask(NAME, UnikernelRestart(settings))) == "created unikernel"
        unikernel = host.supervisor.table[Name.parse(NAME)]
        assert unikernel.deployment.settings == settings
        assert host.supervisor.tree.usage(Path()).memory_mb == 5
        (record,) = host.state.load().unikernels
        assert [each.settings.memory_mb for each in record.deployments] == [5, 2]
        assert "not found" in text_of(await host.ask("dev:other", UnikernelRestart()))


async def test_rollback_goes_back_one_deployment_at_a_time(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        for argument in ("one", "two"):
            await host.ask(NAME, create(argument, force=True))
        await host.ask(NAME, UnikernelCreate(hello(image=TICKER), force=True))
        assert len(os.listdir(host.supervisor.host.images.directory)) == 2
        for argument in ("two", "one"):
            assert text_of(await host.ask(NAME, Rollback())) == "rolled back unikernel"
            assert host.supervisor.table[Name.parse(NAME)].deployment.settings.arguments == (argument,)
        assert "nothing before" in text_of(await host.ask(NAME, Rollback()))
        assert len(os.listdir(host.supervisor.host.images.directory)) == 1  # the ticker's is of no use any more


async def test_no_more_deployments_than_asked_for_are_kept(tmp_path: FilePath) -> None:
    async with inside(tmp_path, patience=Patience(come_up=0.01)) as host:
        for number in range(HISTORY_DEPTH + 3):
            await host.ask(NAME, create(str(number), force=True))
        assert len(host.supervisor.table[Name.parse(NAME)].older) == HISTORY_DEPTH
        assert len(host.state.load().unikernels[0].deployments) == HISTORY_DEPTH + 1


async def test_stop_and_start(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask(NAME, create("x"))
        assert text_of(await host.ask(NAME, Stop())) == "stopped unikernel"
        assert host.phase(NAME) == "stopped"
        usage = host.supervisor.tree.usage(Path())
        assert (usage.unikernels, usage.memory_mb) == (1, 0)  # it counts, its memory does not
        assert (await host.ask(":", UnikernelInfoRequest())) == Unikernels(())
        assert "same name already exists (stopped)" in text_of(await host.ask(NAME, create()))
        assert text_of(await host.ask(NAME, Start())) == "started unikernel"
        assert host.phase(NAME) == "running"
        await host.ask(NAME, Stop())
        assert text_of(await host.ask(NAME, UnikernelDestroy())) == "destroyed unikernel"
        assert left_behind(host) == []


async def test_a_stopped_one_stays_stopped_when_its_successor_fails(tmp_path: FilePath) -> None:
    async with inside(tmp_path, patience=UNHURRIED) as host:
        await host.ask(NAME, create("x"))
        await host.ask(NAME, Stop())
        answer = text_of(await host.ask(NAME, create("--exit=2", force=True, add_name=False)))
        assert "stopped, as it was" in answer
        assert host.phase(NAME) == "stopped"
        usage = host.supervisor.tree.usage(Path())
        assert (usage.unikernels, usage.memory_mb) == (1, 0)


async def test_p07_two_destroys_at_once_are_both_answered(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask(NAME, create())
        answers = await asyncio.gather(*(host.ask(NAME, UnikernelDestroy()) for _ in range(3)))
        assert answers == [Text("destroyed unikernel")] * 3


async def test_p07_what_does_not_end_by_sigterm_is_killed(tmp_path: FilePath) -> None:
    async with inside(tmp_path, patience=Patience(stop=0.1, kill=5)) as host:
        await host.ask(NAME, create())
        os.kill(host.pid(NAME), signal.SIGSTOP)  # SIGTERM stays pending
        async with asyncio.timeout(5):
            assert text_of(await host.ask(NAME, UnikernelDestroy())) == "destroyed unikernel"
        assert left_behind(host) == []


async def test_p25_a_unikernel_that_is_being_changed_is_busy(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask(NAME, create())
        swap = asyncio.create_task(host.ask(NAME, create("new", force=True)))
        await host.until(lambda: host.supervisor.is_busy(Name.parse(NAME)))
        for command in (UnikernelRestart(), UnikernelDestroy(), Stop(), Rollback(), create(force=True)):
            assert "is being changed (create)" in text_of(await host.ask(NAME, command))
        assert await swap == Text("created unikernel")


async def test_p08_a_crash_loop_backs_off_is_visible_counts_and_can_be_destroyed(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask(NAME, create("--exit=7", fail_behaviour=RESTART, add_name=False))
        unikernel = host.supervisor.table[Name.parse(NAME)]
        await host.until(lambda: unikernel.failures == 2 and unikernel.phase.value == "waiting")
        assert unikernel.due is not None
        (status,) = await status_of(host)
        assert (status["wanted"], status["actual"], status["last_exit"]) == ("running", "crash-looping", "exit 7")
        assert 0 < status["starts_in_seconds"] <= 1
        assert host.supervisor.tree.usage(Path()).unikernels == 1
        assert host.supervisor.tree.usage(Path()).memory_mb == 2
        assert text_of(await host.ask(NAME, UnikernelDestroy())) == "destroyed: removed from restarting"
        assert host.supervisor.tree.usage(Path()).is_empty
        assert left_behind(host) == []


async def status_of(host: Inside) -> list[dict[str, Any]]:
    answer = await host.ask(":", Status())
    documents: list[dict[str, Any]] = json.loads(text_of(answer))
    return documents


async def test_an_end_without_restart_frees_the_name_and_is_remembered_for_a_while(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask(NAME, create("--exit=5", add_name=False))
        await host.until(lambda: host.phase(NAME) == "absent")
        assert left_behind(host) == []
        assert host.state.load().unikernels == ()
        (status,) = await status_of(host)
        assert (status["actual"], status["last_exit"]) == ("ended", "exit 5")


async def test_exit_64_with_the_injected_name_starts_again_without_it(tmp_path: FilePath) -> None:
    async with inside(tmp_path, patience=UNHURRIED) as host:
        await host.ask(NAME, create("--exit=64"))
        await host.until(lambda: host.phase(NAME) == "absent")  # again exit 64, now without a name: over
        host.supervisor.ended.clear()
        answer = text_of(await host.ask(NAME, create("old")))
        assert answer == "created unikernel"
        answer = text_of(await host.ask(NAME, create("--exit=64", force=True)))
        assert "exit 64" in answer
        assert "put back" in answer


async def test_an_older_deployment_that_starts_without_its_name_now_is_recorded_so(tmp_path: FilePath) -> None:
    """Exit 64 with the injected name, at a rollback: the next start of the daemon must not try it with the name."""
    async with inside(tmp_path) as host:
        supervisor = host.supervisor
        await host.ask(NAME, create("one"))
        await host.ask(NAME, create("two", force=True))
        unikernel = supervisor.table[Name.parse(NAME)]
        nameless = without_name(unikernel.older[0])
        real = supervisor.bring_up

        async def bring_up(
            unikernel: Unikernel, prepared: Prepared, *, on_trial: bool = False, commits: bool = False
        ) -> Running:
            """As if the guest had ended with 64 for its name and came up without it."""
            if prepared.deployment.settings.add_name:
                prepared.discard()
                prepared = await prepare(supervisor.host, nameless)
            return await real(unikernel, prepared, on_trial=on_trial, commits=commits)

        supervisor.bring_up = bring_up  # type: ignore[method-assign]
        assert text_of(await host.ask(NAME, Rollback())) == "rolled back unikernel"
        assert unikernel.deployment.settings == nameless.settings
        (record,) = host.state.load().unikernels
        assert [each.settings for each in record.deployments] == [nameless.settings]


async def test_p34_a_digest_is_no_right(tmp_path: FilePath) -> None:
    binding = ImageBinding(hashlib.sha256(HELLO).digest(), len(HELLO))
    empty = UnikernelCreate(UnikernelConfig(b"", Settings(memory_mb=2)))
    known = Rights(binding=binding, top=Path(("other",)), operator=False)
    absent = Rights(binding=ImageBinding(b"x" * 32, 77), top=Path(("other",)), operator=False)
    async with inside(tmp_path) as host:
        await host.ask("dev:sub:hello", create())
        answers = [await host.ask("other:web", empty, rights) for rights in (known, absent)]
        assert answers[0] == answers[1]  # whether somebody has it cannot be told
        assert isinstance(answers[0], Failure)
        same = Rights(binding=binding, top=Path(("dev",)), operator=False)
        assert await host.ask("dev:web", empty, same) == Text("created unikernel")


async def test_p36_permitted_images_hold_for_every_way_to_run_one(tmp_path: FilePath) -> None:
    none = Rights(images=frozenset(), top=Path(("dev",)), operator=False)
    no_deployment = Rights(deployments=frozenset(), top=Path(("dev",)), operator=False)
    async with inside(tmp_path) as host:
        await host.ask(NAME, create("one"))
        await host.ask(NAME, create("two", force=True))
        pid = host.pid(NAME)
        for rights in (none, no_deployment):
            for command in (
                create("three", force=True),
                UnikernelRestart(),
                UnikernelRestart(Settings(memory_mb=2)),
                Rollback(),
            ):
                assert "not among those" in text_of(await host.ask(NAME, command, rights))
                assert host.pid(NAME) == pid
        await host.ask(NAME, Stop())
        for rights in (none, no_deployment):
            assert "not among those" in text_of(await host.ask(NAME, Start(), rights))
            assert "not among those" in text_of(await host.ask("dev:other", create(), rights))


async def test_p40_an_image_is_no_larger_than_the_memory_that_its_path_may_use(tmp_path: FilePath) -> None:
    """Together with the number of kept deployments, this bounds what a tenant can put on the disk."""
    async with inside(tmp_path) as host:
        command = UnikernelCreate(UnikernelConfig(HELLO + bytes(2 << 20), Settings(memory_mb=2)))
        assert "longer than the 2097152 octets that are allowed" in text_of(await host.ask(NAME, command))
        packed = UnikernelConfig(zlib.compress(HELLO + bytes(8 << 20)), Settings(memory_mb=2), compressed=True)
        assert "longer than the 2097152 octets" in text_of(await host.ask(NAME, UnikernelCreate(packed)))
        assert left_behind(host) == []


async def test_p26_a_prepared_unikernel_that_nobody_wants_is_undone(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask(NAME, create())
        deployment = host.supervisor.table[Name.parse(NAME)].deployment
        before, there = descriptors(), sorted(left_behind(host))
        prepared = await prepare(host.supervisor.host, deployment)
        prepared.discard()
        assert descriptors() == before
        assert sorted(left_behind(host)) == there


async def test_p03_a_defect_in_one_request_ends_that_request_alone(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inside(tmp_path) as host:
        await host.ask(NAME, create())
        pid = host.pid(NAME)

        def defect(*_: object, **__: object) -> None:
            raise KeyError("a defect")

        with monkeypatch.context() as patch:
            patch.setattr("albatross_pki.host.preparation.command_line", defect)
            answers, outcome = await host.asked("dev:other", create())
        assert answers == [Failure("internal error (KeyError)")]
        assert not outcome.succeeded
        assert host.pid(NAME) == pid
        assert host.phase("dev:other") == "absent"
        assert host.supervisor.tree.usage(Path()).unikernels == 1
        assert await host.ask("dev:other", create()) == Text("created unikernel")
