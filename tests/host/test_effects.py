"""What albatrossd says that a request did: only "nothing" lets a one-time certificate be used again."""

import os
import signal
from pathlib import Path as FilePath

import pytest

from albatross_pki.authorised import Effect
from albatross_pki.commands import BlockAdd, UnikernelDestroy
from albatross_pki.extensions import Stop
from albatross_pki.host import supervisor as module
from albatross_pki.host.rights import Rights
from albatross_pki.host.state import StateError
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.replies import Text
from tests.host.running import chain_policy, create, inside, text_of

POLICY = Policy(frozenset({0}), 10, 1000, 100)


async def test_p35_a_destroy_that_forgot_the_unikernel_had_an_effect(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inside(tmp_path) as host:
        assert await host.ask("a:one", create()) == Text("created unikernel")

        async def stuck(*_: object, **__: object) -> None:
            return None

        with monkeypatch.context() as patch:
            patch.setattr(module, "end", stuck)
            answers, outcome = await host.asked("a:one", UnikernelDestroy())
        assert "does not end" in text_of(answers[0])
        assert (outcome.succeeded, outcome.effect) == (False, Effect.CHANGED)
        assert not host.state.load().unikernels
        assert await host.ask("a:one", UnikernelDestroy()) == Text("destroyed unikernel")


async def test_a_stop_that_was_given_up_is_one_when_the_process_ends(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inside(tmp_path) as host:
        assert await host.ask("a:one", create()) == Text("created unikernel")
        pid = host.pid("a:one")

        async def stuck(*_: object, **__: object) -> None:
            return None

        with monkeypatch.context() as patch:
            patch.setattr(module, "end", stuck)
            answers, _ = await host.asked("a:one", Stop())
        assert "does not end" in text_of(answers[0])
        assert host.supervisor.tree.usage(Path(("a",))).memory_mb > 0
        os.kill(pid, signal.SIGKILL)
        await host.until(lambda: host.phase("a:one") == "stopped")
        assert host.supervisor.tree.usage(Path(("a",))).memory_mb == 0


async def test_p03_a_block_device_that_is_refused_is_not_there(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inside(tmp_path) as host:
        rights = Rights(policies=(chain_policy("a", POLICY),), top=Path(("a",)), operator=False)

        def full(_: object) -> None:
            raise StateError("the state could not be written: disk full")

        with monkeypatch.context() as patch:
            patch.setattr(host.state, "remember", full)
            answers, outcome = await host.asked("a:disk", BlockAdd(1), rights)
        assert "disk full" in text_of(answers[0])
        assert outcome.effect is Effect.NONE
        assert Name.parse("a:disk") not in host.supervisor.host.blocks.devices
        assert host.supervisor.tree.usage(Path()).is_empty
        assert await host.ask("a:disk", BlockAdd(1), rights) == Text("added block device")
