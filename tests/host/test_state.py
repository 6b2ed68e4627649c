"""The state database: what was answered is there again, what cannot be read is refused and left alone."""

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath

import pytest

from albatross_pki.authorised import CertificateId, ChainPolicy
from albatross_pki.host import faults
from albatross_pki.host.lifecycle import Wanted
from albatross_pki.host.records import AttachedTap, ChainPolicies, Deployment, ProcessRecord
from albatross_pki.host.state import FILE_NAME, SCHEMA_VERSION, State, StateError
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.unikernels import BlockDevice, FailBehaviour, NetworkInterface, Settings

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
NAME = Name.parse("dev:web")
POLICY = Policy(frozenset({0, 3}), 2, 64, None, frozenset({"service", "caf\udce9"}))


def deployment(number: int, name: Name = NAME, image: bytes = b"i" * 32) -> Deployment:
    settings = Settings(
        cpuids=frozenset({0, 1}),
        memory_mb=40,
        fail_behaviour=FailBehaviour(frozenset({2})),
        startup=7,
        add_name=False,
        blocks=(BlockDevice("storage", "disk", 4096),),
        interfaces=(NetworkInterface("service", "br0", b"\2\0\0\0\0\1"),),
        arguments=("--a=b", "\udcff", ""),
    )
    return Deployment(number, name, settings, image, 1234, WHEN)


@pytest.fixture
def state(tmp_path: FilePath) -> Iterator[State]:
    state = State(str(tmp_path))
    yield state
    state.close()


def reopened(state: State) -> State:
    state.close()
    return State(os.path.dirname(state.path))


def chain(serial: int, days: int = 1) -> ChainPolicy:
    return ChainPolicy(Path(("dev",)), POLICY, CertificateId(b"k" * 32, serial), WHEN, WHEN + timedelta(days=days))


def test_p21_everything_is_there_again(state: State) -> None:
    policies = (chain(1), chain(2**159))
    state.deploy(deployment(1), Wanted.RUNNING, keep=3, remember=ChainPolicies(policies))
    state.deploy(deployment(2, image=b"j" * 32), Wanted.RUNNING, keep=3)
    state.set_policy(Path(("dev",)), POLICY)
    record = ProcessRecord("ab12", NAME, 2, "boot", "embedded", 7, (AttachedTap("service", "vmmtap0", "br0"),))
    state.record_processes([record])
    again = reopened(state)
    snapshot = again.load()
    (unikernel,) = snapshot.unikernels
    assert unikernel.wanted is Wanted.RUNNING
    assert unikernel.deployments == (deployment(2, image=b"j" * 32), deployment(1))
    assert snapshot.operator == ((Path(("dev",)), POLICY),)
    assert set(snapshot.remembered) == set(policies)
    assert snapshot.processes == (record,)
    assert snapshot.images == {b"i" * 32, b"j" * 32}
    assert snapshot.next_number == 3
    again.close()


def test_the_history_is_as_long_as_asked_for_and_tells_what_goes_out_of_use(state: State) -> None:
    images = [bytes([number]) * 32 for number in range(5)]
    dropped = [state.deploy(deployment(n, image=images[n]), Wanted.RUNNING, keep=2) for n in range(5)]
    assert dropped == [[], [], [], [images[0]], [images[1]]]
    assert [each.number for each in state.load().unikernels[0].deployments] == [4, 3, 2]
    before = deployment(3, image=images[3])
    changed = replace(before, settings=replace(before.settings, add_name=True, memory_mb=5))
    assert state.revert(changed) == [images[4]]  # with the settings that it came up with
    assert [each.number for each in state.load().unikernels[0].deployments] == [3, 2]
    assert state.load().unikernels[0].deployments[0] == changed
    assert state.forget(NAME) == [images[2], images[3]]
    assert state.load().unikernels == ()


def test_an_image_that_another_unikernel_has_stays_in_use(state: State) -> None:
    state.deploy(deployment(1), Wanted.RUNNING, keep=0)
    state.deploy(deployment(2, Name.parse("other:web")), Wanted.RUNNING, keep=0)
    assert state.forget(NAME) == []
    assert state.forget(Name.parse("other:web")) == [b"i" * 32]


def test_p21_a_write_that_fails_is_told_and_changes_nothing(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    state.deploy(deployment(1), Wanted.RUNNING, keep=3)
    state._database.execute("PRAGMA max_page_count = 1")  # a full disk, as SQLite sees it
    big = deployment(2, image=b"x" * 32)
    object.__setattr__(big.settings, "arguments", ("a" * 200_000,))
    with pytest.raises(StateError, match="could not be written"):
        state.deploy(big, Wanted.RUNNING, keep=3)
    state._database.execute("PRAGMA max_page_count = 1000000")
    assert [each.number for each in state.load().unikernels[0].deployments] == [1]
    state.deploy(deployment(3), Wanted.STOPPED, keep=3)
    assert state.load().unikernels[0].wanted is Wanted.STOPPED


def test_p21_an_interrupted_write_changes_nothing(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(point: str) -> None:
        if point == "state.before-commit":
            raise KeyboardInterrupt

    monkeypatch.setattr(faults, "reach", crash)
    with pytest.raises(KeyboardInterrupt):
        state.deploy(deployment(1), Wanted.RUNNING, keep=3)
    monkeypatch.undo()
    assert state.load().unikernels == ()


def test_p19_the_files_are_private(state: State) -> None:
    state.set_policy(Path(("dev",)), POLICY)
    for name in os.listdir(os.path.dirname(state.path)):
        assert os.stat(os.path.join(os.path.dirname(state.path), name)).st_mode & 0o077 == 0, name


def test_two_daemons_cannot_share_a_state(state: State, tmp_path: FilePath) -> None:
    with pytest.raises(StateError, match="another albatrossd uses") as refused:
        State(str(tmp_path))
    assert refused.value.hint


def test_a_newer_state_is_refused_and_left_alone(state: State) -> None:
    state._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    state.close()
    before = FilePath(state.path).read_bytes()
    with pytest.raises(StateError, match="newer albatrossd"):
        State(os.path.dirname(state.path))
    assert FilePath(state.path).read_bytes() == before
    os.unlink(state.path)
    fresh = State(os.path.dirname(state.path))
    fresh.close()


@pytest.mark.parametrize("content", [b"not a database at all, but some text of a file", os.urandom(8192)])
def test_a_damaged_state_is_refused_and_left_alone(tmp_path: FilePath, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(StateError) as refused:
        State(str(tmp_path))
    assert "left as it is" in (refused.value.hint or "")
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_a_database_of_somebody_else_is_refused(tmp_path: FilePath) -> None:
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        database.execute("CREATE TABLE theirs (x)")
    database.close()
    with pytest.raises(StateError, match="not a state of albatrossd"):
        State(str(tmp_path))


def test_a_record_that_cannot_be_understood_is_refused(state: State) -> None:
    state.deploy(deployment(1), Wanted.RUNNING, keep=0)
    state._database.execute("UPDATE deployments SET config = x'3000'")
    with pytest.raises(StateError, match="cannot be read"):
        state.load()


def test_p13_expired_policies_can_be_forgotten(state: State) -> None:
    state.remember(ChainPolicies((chain(1), chain(2))))
    state.remember(ChainPolicies(stale=(chain(1),)))
    assert state.load().remembered == (chain(2),)
