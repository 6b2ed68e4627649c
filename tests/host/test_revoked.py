"""Revocation on the host: what is forgotten, what is stopped, and what outlives daemons that die in between."""

import asyncio
import json
from pathlib import Path as FilePath

import pytest

from albatross_pki.authorised import MOST_CERTIFICATE_IDS, CertificateId, ChainPolicy, Effect, Revoked
from albatross_pki.extensions import Start, Status
from albatross_pki.host import revoked as module
from albatross_pki.host.revoked import Revocation
from albatross_pki.host.rights import Rights
from albatross_pki.host.state import StateError
from albatross_pki.names import Path
from albatross_pki.policies import Policy
from albatross_pki.replies import Text
from tests.host.lives import on_disk
from tests.host.running import Inside, chain_policy, create, inside, text_of

POLICY = Policy(frozenset({0}), 10, 1000, None)
CREATED = Text("created unikernel")
DEV = chain_policy("dev", POLICY, serial=1)
TEAM = chain_policy("dev:team", POLICY, serial=2)
OTHER = chain_policy("other", POLICY, serial=3)


def rights(*policies: ChainPolicy) -> Rights:
    return Rights(policies=policies, top=Path(policies[0].path.labels[:1]), operator=False)


async def populate(host: Inside) -> None:
    assert await host.ask("dev:one", create(), rights(DEV)) == CREATED
    assert await host.ask("dev:team:two", create(), rights(DEV, TEAM)) == CREATED
    assert await host.ask("other:three", create(), rights(OTHER)) == CREATED


def revoked(*policies: ChainPolicy, stop: bool) -> Revoked:
    return Revoked(tuple(each.certificate for each in policies), stop)


def phases(host: Inside) -> list[str]:
    return [host.phase(name) for name in ("dev:one", "dev:team:two", "other:three")]


async def test_d10_keep_forgets_the_policy_and_lets_everything_run(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await populate(host)
        revocation = Revocation(host.supervisor)
        assert revocation.page(None).certificates == (DEV.certificate, TEAM.certificate, OTHER.certificate)
        outcome = await revocation.revoke(revoked(TEAM, stop=False))
        assert (outcome.succeeded, outcome.effect) == (True, Effect.CHANGED)
        assert revocation.page(None).certificates == (DEV.certificate, OTHER.certificate)
        assert phases(host) == ["running"] * 3
        assert {each.certificate for each in host.supervisor.state.load().remembered} == {
            DEV.certificate,
            OTHER.certificate,
        }
        again = await revocation.revoke(revoked(TEAM, stop=True))
        assert again.effect is Effect.NONE


async def test_d10_stop_stops_what_is_at_and_below_and_nothing_else(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await populate(host)
        outcome = await Revocation(host.supervisor).revoke(revoked(DEV, stop=True))
        assert outcome.text == "forgot 1 policies, stopped 2 unikernels"
        assert phases(host) == ["stopped", "stopped", "running"]
        (document,) = json.loads(text_of(await host.ask("dev:one", Status())))
        assert (document["wanted"], document["trouble"]) == ("stopped", module.TROUBLE)
    async with inside(tmp_path) as host:  # a restart brings nothing back
        await host.until(lambda: host.phase("other:three") == "running")
        assert phases(host) == ["stopped", "stopped", "running"]
        assert await host.ask("dev:one", Start(), rights(chain_policy("dev", POLICY, serial=9, age=0))) == Text(
            "started unikernel"
        )


async def test_d10_a_renewal_that_is_in_use_keeps_the_path_alive(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await populate(host)
        renewed = chain_policy("dev", POLICY, serial=4, age=1)
        assert await host.ask("dev:four", create(), rights(renewed)) == CREATED
        await Revocation(host.supervisor).revoke(revoked(DEV, stop=True))
        assert phases(host) == ["running"] * 3
        await Revocation(host.supervisor).revoke(revoked(renewed, stop=True))
        assert phases(host) == ["stopped", "stopped", "running"]


async def test_d10_an_older_delegation_does_not_keep_the_path_alive(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await populate(host)
        newer = chain_policy("dev", POLICY, serial=4, age=1)
        assert await host.ask("dev:four", create(), rights(newer)) == CREATED
        await Revocation(host.supervisor).revoke(revoked(newer, stop=True))
        assert phases(host) == ["stopped", "stopped", "running"]


async def test_d10_what_is_being_made_is_waited_for_and_stopped(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await populate(host)
        making = asyncio.ensure_future(host.ask("dev:late", create(), rights(DEV)))
        await host.until(lambda: any(str(name) == "dev:late" for name in host.supervisor.names()))
        await Revocation(host.supervisor).revoke(revoked(DEV, stop=True))
        assert await making == CREATED
        assert host.phase("dev:late") == "stopped"


async def test_d10_what_cannot_be_stopped_keeps_the_policy_for_the_next_time(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inside(tmp_path) as host:
        await populate(host)
        monkeypatch.setattr(module, "REVOKED_PATIENCE", 0.2)
        revocation = Revocation(host.supervisor)
        (busy,) = (name for name in host.supervisor.table if str(name) == "dev:one")
        with host.supervisor.changing(busy, "test"):
            outcome = await revocation.revoke(revoked(DEV, stop=True))
        assert (outcome.succeeded, outcome.effect) == (False, Effect.UNKNOWN)
        assert DEV.certificate in revocation.page(None).certificates
        assert (await revocation.revoke(revoked(DEV, stop=True))).succeeded
        assert phases(host) == ["stopped", "stopped", "running"]


async def test_d10_what_died_between_stopping_and_forgetting_is_told_again(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inside(tmp_path) as host:
        await populate(host)
        with monkeypatch.context() as patch:
            patch.setattr(host.state, "remember", broken)
            outcome = await Revocation(host.supervisor).revoke(revoked(DEV, stop=True))
        assert (outcome.succeeded, outcome.effect) == (False, Effect.UNKNOWN)
    async with inside(tmp_path) as host:  # as after a crash: the state is what counts
        revocation = Revocation(host.supervisor)
        assert phases(host)[:2] == ["stopped", "stopped"]
        assert DEV.certificate in revocation.page(None).certificates
        assert (await revocation.revoke(revoked(DEV, stop=True))).text == "forgot 1 policies, stopped 0 unikernels"
        assert DEV.certificate not in revocation.page(None).certificates


def broken(_: object) -> None:
    raise StateError("the state could not be written")


async def test_p04_pages_are_bounded_and_complete(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        book = host.supervisor.book
        many = [chain_policy(f"d{serial}", POLICY, serial=serial) for serial in range(MOST_CERTIFICATE_IDS + 3)]
        book.load((), many, many[0].not_before)
        revocation = Revocation(host.supervisor)
        first = revocation.page(None).certificates
        rest = revocation.page(first[-1]).certificates
        assert (len(first), len(rest)) == (MOST_CERTIFICATE_IDS, 3)
        assert {*first, *rest} == {each.certificate for each in many}
        assert revocation.page(CertificateId(b"\xff" * 32, 0)).certificates == ()


async def test_a_revocation_is_told_to_whom_it_concerns(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await populate(host)
        await Revocation(host.supervisor).revoke(revoked(TEAM, stop=True))
        told = [(name, each["event"]) for name, each in on_disk(host.supervisor.host.dbdir)][-3:]
        assert told == [("dev:team:two", "stopped"), ("dev:team:two", "exited"), ("dev:team:", "revoked")]
        (document,) = [each for _, each in on_disk(host.supervisor.host.dbdir) if each["event"] == "revoked"]
        assert (document["certificate"], document["issuer_key"]) == ("2", TEAM.certificate.issuer_key.hex())
