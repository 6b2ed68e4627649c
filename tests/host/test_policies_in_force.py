"""Policies where they count: at the moment of creation, at every level, for everybody at once."""

import asyncio
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path as FilePath

import pytest

from albatross_pki.authorised import ChainPolicy
from albatross_pki.commands import PolicyAdd, PolicyInfo, PolicyRemove, UnikernelDestroy, UnikernelInfoRequest
from albatross_pki.extensions import Status, Stop
from albatross_pki.host.rights import Rights
from albatross_pki.messages import Payload
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.replies import Failure, Policies, Text, Unikernels
from tests.host.running import RESTART, Inside, chain_policy, create, daemon, inside, text_of

CREATED = Text("created unikernel")


def policy(unikernels: int = 10, memory_mb: int = 1000) -> Policy:
    return Policy(frozenset({0}), unikernels, memory_mb, None)


def rights(*policies: ChainPolicy, top: str = "dev") -> Rights:
    return Rights(policies=policies, top=Path((top,)), operator=False)


async def test_p10_names_and_paths_are_different_things(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        assert await host.ask(":x", create()) == CREATED
        assert await host.ask("x:inner", create()) == CREATED
        pid = host.pid(":x")
        for command in (UnikernelDestroy(), Stop(), create(force=True)):
            assert isinstance(await host.ask("x:", command), Failure)
        shown = await host.ask("x:", UnikernelInfoRequest())
        assert isinstance(shown, Unikernels)
        assert [str(name) for name, _ in shown.unikernels] == [":inner"]
        assert host.pid(":x") == pid
        assert host.supervisor.tree.usage(Path(("x",))).unikernels == 1


async def test_p11_every_level_limits_everything_below_it_together(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        for path, count in (("a:", 2), ("a:b:", 2), ("a:c:", 2)):
            assert await host.ask(path, PolicyAdd(policy(count))) == Text("added policy")
        assert await host.ask("a:b:one", create()) == CREATED
        assert await host.ask("a:c:two", create()) == CREATED
        assert "maximum amount of unikernels (2) reached for a" in text_of(await host.ask("a:b:three", create()))
        assert await host.ask("z:four", create()) == CREATED


async def test_p11_the_root_policy_binds_everybody(tmp_path: FilePath) -> None:
    async with inside(tmp_path, policy=policy(10, 5)) as host:
        assert await host.ask("a:one", create(memory_mb=4)) == CREATED
        answer = text_of(await host.ask("b:two", create(memory_mb=2)))
        assert "maximum allowed memory (5, used 4) would be exceeded (requesting 2) on the whole host" in answer


async def test_p11_stopped_and_crash_looping_ones_count(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask("a:", PolicyAdd(policy(2)))
        await host.ask("a:stopped", create())
        await host.ask("a:stopped", Stop())
        await host.ask("a:looping", create("--exit=3", fail_behaviour=RESTART, add_name=False))
        await host.until(lambda: host.phase("a:looping") == "waiting")
        assert "maximum amount" in text_of(await host.ask("a:third", create()))


async def test_p11_of_fifty_at_once_for_one_last_place_one_wins(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask("a:", PolicyAdd(policy(3)))
        await host.ask("a:first", create())
        await host.ask("a:b:second", create())
        answers = await asyncio.gather(*(host.ask(f"a:n{number}", create()) for number in range(50)))
        assert answers.count(CREATED) == 1
        refused = [answer for answer in answers if answer != CREATED]
        assert all(isinstance(each, Failure) and "maximum amount" in each.text for each in refused)
        assert host.supervisor.tree.usage(Path(("a",))).unikernels == 3


def test_p11_of_fifty_clients_at_once_one_has_the_last_place_and_one_process_runs(tmp_path: FilePath) -> None:
    """The same over fifty connections to a daemon, half of them for one name."""
    with daemon(tmp_path) as host, ThreadPoolExecutor(50) as clients:
        host.ask(f"{host.prefix}:", PolicyAdd(policy(3)))
        assert host.ask(f"{host.prefix}:{host.label('a')}", create()) == CREATED
        assert host.ask(f"{host.prefix}:b:{host.label('b')}", create()) == CREATED
        together = threading.Barrier(50)

        def one_of_many(number: int) -> Payload:
            label = "same" if number % 2 else f"n{number}"
            together.wait()
            return host.ask(f"{host.prefix}:{host.label('c')}{label}", create())

        answers = list(clients.map(one_of_many, range(50)))
        assert answers.count(CREATED) == 1
        refused = [answer.text for answer in answers if isinstance(answer, Failure)]
        assert len(refused) == 49
        assert all(re.search("maximum amount|same name|is being changed", text) for text in refused)
        assert len(host.running()) == len(host.unikernels()) == len(host.recorded_pids()) == 3


async def test_p11_a_swap_holds_the_larger_of_both(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask("a:", PolicyAdd(policy(5, 20)))
        await host.ask("a:one", create(memory_mb=10))
        swap = asyncio.create_task(host.ask("a:one", create("new", force=True, memory_mb=2)))
        await host.until(lambda: host.supervisor.is_busy(Name.parse("a:one")))
        assert "maximum allowed memory (20, used 10)" in text_of(await host.ask("a:two", create(memory_mb=12)))
        assert await swap == CREATED
        assert await host.ask("a:two", create(memory_mb=12)) == CREATED


async def test_p12_what_an_operator_lowered_no_certificate_raises(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        generous = chain_policy("dev", policy(10))
        assert await host.ask("dev:one", create(), rights(generous)) == CREATED
        assert await host.ask("dev:", PolicyAdd(policy(1))) == Text("added policy")
        assert "maximum amount of unikernels (1)" in text_of(await host.ask("dev:two", create(), rights(generous)))
        newer = chain_policy("dev", policy(10), serial=2, age=1)
        assert "maximum amount of unikernels (1)" in text_of(await host.ask("dev:two", create(), rights(newer)))


async def test_p12_an_older_delegation_does_not_undo_a_newer_narrower_one(tmp_path: FilePath) -> None:
    older, newer = chain_policy("dev", policy(10), age=600), chain_policy("dev", policy(1), serial=2, age=60)
    async with inside(tmp_path) as host:
        assert await host.ask("dev:one", create(), rights(older)) == CREATED
        assert await host.ask("dev:one", create(force=True), rights(newer)) == CREATED
        assert "maximum amount of unikernels (1)" in text_of(await host.ask("dev:two", create(), rights(older)))
    async with inside(tmp_path) as host:  # also after a restart of the daemon
        assert "maximum amount of unikernels (1)" in text_of(await host.ask("dev:two", create(), rights(older)))


async def test_p12_a_withdrawn_policy_of_the_operator_leaves_those_of_the_chains(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        narrow = chain_policy("dev", policy(1))
        assert await host.ask("dev:one", create(), rights(narrow)) == CREATED
        await host.ask("dev:", PolicyAdd(policy(5)))
        assert await host.ask("dev:", PolicyRemove()) == Text("removed policy")
        assert "maximum amount" in text_of(await host.ask("dev:two", create()))


async def test_p13_a_refused_request_leaves_no_policy_behind(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        given = chain_policy("dev", policy(1, 2))
        assert isinstance(await host.ask("dev:one", create(memory_mb=4), rights(given)), Failure)
        assert host.supervisor.book.remembered.all() == ()
        assert host.state.load().remembered == ()


async def test_p13_reads_change_nothing(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        given = chain_policy("dev", policy(1))
        for command in (PolicyInfo(), UnikernelInfoRequest(), Status()):
            await host.ask("dev:", command, rights(given))
        assert host.supervisor.book.remembered.all() == ()
        assert host.state.load().remembered == ()


async def test_p13_the_number_of_remembered_policies_is_bounded(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask("dev:one", create())
        many = tuple(chain_policy(f"dev:d{number}", policy(), serial=number) for number in range(257))
        answer = text_of(await host.ask("dev:two", create(), rights(*many)))
        assert "too many delegations below dev" in answer
        assert host.state.load().remembered == ()


async def test_lowering_below_what_is_in_use_is_accepted_and_told(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask("dev:one", create())
        await host.ask("dev:two", create())
        assert await host.ask("dev:", PolicyAdd(policy(1))) == Text("added policy")
        assert "maximum amount" in text_of(await host.ask("dev:three", create()))
        assert "would exceed running unikernel limit set by policy to 1, running 2" in text_of(
            await host.ask("dev:", Status())
        )
        assert await host.ask("dev:one", create("again", force=True)) == CREATED  # no larger than before


async def test_policies_are_added_shown_and_removed_and_survive(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        assert await host.ask("a:", PolicyAdd(policy(2))) == Text("added policy")
        assert await host.ask("a:", PolicyAdd(policy(2))) == Text("no modification of policy")
        assert "policy above allows 2 unikernels" in text_of(await host.ask("a:b:", PolicyAdd(policy(3))))
        assert await host.ask("a:b:", PolicyAdd(policy(1))) == Text("added policy")
        shown = await host.ask("a:", PolicyInfo())
        assert isinstance(shown, Policies)
        assert [(str(name), each.unikernels) for name, each in shown.policies] == [(":", 2), ("b:", 1)]
        assert await host.ask("c:", PolicyRemove()) == Failure("unknown policy")
    async with inside(tmp_path) as host:
        assert host.supervisor.book.operator[Path(("a", "b"))] == policy(1)
        assert await host.ask("a:b:", PolicyRemove()) == Text("removed policy")
    async with inside(tmp_path) as host:
        assert Path(("a", "b")) not in host.supervisor.book.operator


async def test_the_root_policy_is_discovered_again_at_every_start(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        assert await host.ask(":", PolicyAdd(policy(1))) == Text("added policy")
        await host.ask(":one", create())
        assert isinstance(await host.ask(":two", create()), Failure)
        await host.ask(":one", UnikernelDestroy())
    async with inside(tmp_path) as host:
        assert host.supervisor.book.operator[Path()].unikernels == 1000


@pytest.mark.parametrize("path", ["dev:", ":"])
async def test_a_path_is_no_unikernel(tmp_path: FilePath, path: str) -> None:
    async with inside(tmp_path) as host:
        assert "is a path, a unikernel needs a name" in text_of(await host.ask(path, create()))


def test_inside_is_a_whole_host(tmp_path: FilePath) -> None:
    """The tests' own host takes over and ends like the daemon."""

    async def twice() -> None:
        async with inside(tmp_path) as host:
            await host.ask("a:b", create())
            pid = host.pid("a:b")
        async with inside(tmp_path) as again:
            assert again.pid("a:b") != pid
            assert isinstance(again, Inside)

    asyncio.run(twice())
