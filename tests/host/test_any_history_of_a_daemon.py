"""Random commands to albatrossd as a process, which is killed and started again, against a model that fits on a page.

What is beside unikernels is in it too: block devices, who has them, and the operator's policy. After every step the
model is compared with what the daemon says, the process table, the fifos, the block devices' files and the state.
"""

import contextlib
import os
import shutil
import signal
import sqlite3
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from albatross_pki.authorised import LocalRequest
from albatross_pki.commands import (
    BlockAdd,
    BlockInfoRequest,
    BlockRemove,
    Command,
    PolicyAdd,
    PolicyInfo,
    PolicyRemove,
    UnikernelCreate,
    UnikernelDestroy,
)
from albatross_pki.extensions import Rollback, Start, Stop
from albatross_pki.names import Name
from albatross_pki.policies import Policy
from albatross_pki.replies import BlockDevices, Empty, Policies, Text
from albatross_pki.transport.blocking import Connection
from albatross_pki.unikernels import BlockDevice, UnikernelConfig
from albatross_pki.wire.side import encode_side
from tests.host.lives import on_disk, replayed
from tests.host.running import EXAMPLES, Daemon, hello, titled

LETTERS = st.sampled_from("ab")
DISKS = st.sampled_from(["d", "e"])
BLOCK_IMAGE = (EXAMPLES / "block.spt").read_bytes()


@dataclass(frozen=True)
class Expected:
    """What a name is, and what it was before, newest first; ``disk`` is the label of its block device."""

    disk: str | None
    stopped: bool = False
    before: tuple["Expected", ...] = ()


class History(RuleBasedStateMachine):
    """One daemon and its model."""

    @initialize()
    def begin(self) -> None:
        self.root = FilePath(tempfile.mkdtemp(prefix="any-history-"))
        self.host = Daemon(self.root, "--come-up-grace", "0")
        self.model: dict[str, Expected] = {}
        self.disks: set[str] = set()
        self.most: int | None = None
        self.host.start()
        self.add_disk("d")

    # asking

    def name(self, letter: str) -> str:
        return f"dev:{self.host.label(letter)}"

    def ask(self, name: str, command: Command) -> bool:
        """Whether it succeeded."""
        return isinstance(self.host.ask(name, command), Text | Empty)

    def ask_extended(self, letter: str, command: Start | Stop | Rollback) -> bool:
        with Connection(self.host.socket("extended.sock"), timeout=20) as connection:
            connection.send_payload(encode_side(LocalRequest(Name.parse(self.name(letter)), command)))
            answer = connection.receive()
        assert answer is not None
        return isinstance(answer.payload, Text)

    # what the model says

    def running(self) -> set[str]:
        return {letter for letter, expected in self.model.items() if not expected.stopped}

    def free(self, disk: str | None, successor_of: str = "") -> bool:
        """Whether a unikernel with ``disk`` can start in the place of another one."""
        users = {self.model[letter].disk for letter in self.running() - {successor_of}}
        return disk is None or (disk in self.disks and disk not in users)

    # rules

    @rule(letter=LETTERS, disk=st.none() | DISKS, force=st.booleans())
    def create(self, letter: str, disk: str | None, force: bool) -> None:
        old = self.model.get(letter)
        has_place = force if old is not None else self.most is None or len(self.model) < self.most
        possible = has_place and self.free(disk, letter)
        assert self.ask(self.name(letter), UnikernelCreate(_config(disk), force)) == possible
        if possible:
            before = () if old is None else (replace(old, before=(), stopped=False), *old.before)[:3]
            self.model[letter] = Expected(disk, before=before)

    @rule(letter=LETTERS)
    def destroy(self, letter: str) -> None:
        assert self.ask(self.name(letter), UnikernelDestroy()) == (letter in self.model)
        self.model.pop(letter, None)

    @rule(letter=LETTERS)
    def stop(self, letter: str) -> None:
        assert self.ask_extended(letter, Stop()) == (letter in self.model)
        if letter in self.model:
            self.model[letter] = replace(self.model[letter], stopped=True)

    @rule(letter=LETTERS)
    def start(self, letter: str) -> None:
        old = self.model.get(letter)
        possible = old is not None and self.free(old.disk, letter)
        assert self.ask_extended(letter, Start()) == possible
        if old is not None and possible:
            self.model[letter] = replace(old, stopped=False)

    @rule(letter=LETTERS)
    def roll_back(self, letter: str) -> None:
        old = self.model.get(letter)
        possible = old is not None and bool(old.before) and self.free(old.before[0].disk, letter)
        assert self.ask_extended(letter, Rollback()) == possible
        if old is not None and possible:
            target, *rest = old.before
            self.model[letter] = replace(target, before=tuple(rest))

    @rule(disk=DISKS)
    def add_disk(self, disk: str) -> None:
        assert self.ask(f"dev:{disk}", BlockAdd(1)) == (disk not in self.disks)
        self.disks.add(disk)

    @rule(disk=DISKS)
    def remove_disk(self, disk: str) -> None:
        possible = self.free(disk)
        assert self.ask(f"dev:{disk}", BlockRemove()) == possible
        if possible:
            self.disks.remove(disk)

    @rule(most=st.integers(1, 2))
    def add_policy(self, most: int) -> None:
        """An operator may allow less than there is: then nothing more is admitted."""
        assert self.ask("dev:", PolicyAdd(_policy(most)))
        self.most = most

    @rule()
    def remove_policy(self) -> None:
        assert self.ask("dev:", PolicyRemove()) == (self.most is not None)
        self.most = None

    @rule(letter=LETTERS)
    def kill(self, letter: str) -> None:
        """An end by a signal is final."""
        if letter in self.running():
            (pid,) = self.host.unikernels(letter)
            os.kill(pid, signal.SIGKILL)
            del self.model[letter]

    @rule(meanwhile=st.none() | LETTERS)
    def kill_the_daemon(self, meanwhile: str | None) -> None:
        """What ends while there is no daemon was wanted until then, and is started again."""
        self.host.kill()
        ended = self.host.unikernels(meanwhile) if meanwhile is not None else set()
        kept = self.host.unikernels() - ended
        for pid in ended:
            os.kill(pid, signal.SIGKILL)
        self.host.start()
        assert kept <= self.host.unikernels()  # nothing else was disturbed

    @rule()
    def end_the_daemon(self) -> None:
        assert self.host.stop() == 0
        assert self.host.unikernels() == set()
        self.host.start()

    # comparing

    @invariant()
    def is_as_expected(self) -> None:
        if not hasattr(self, "host"):
            return
        running = {self.name(letter) for letter in self.running()}
        _until(lambda: (set(self.host.running()), running), self.host)
        once = {each: int(each in self.running()) for each in "ab"}
        _until(lambda: ({each: len(self.host.unikernels(each)) for each in once}, once), self.host)
        _until(lambda: (self.host.recorded_pids(), self.host.unikernels()), self.host)
        assert set(os.listdir(os.path.join(self.host.tmpdir, "fifo"))) == running
        assert wanted(self.host) == {
            self.name(letter): "stopped" if expected.stopped else "running" for letter, expected in self.model.items()
        }
        in_use = {self.model[letter].disk for letter in self.running()}
        shown = self.host.ask("dev:", BlockInfoRequest())
        assert isinstance(shown, BlockDevices)
        assert {(each.name.label, each.active) for each in shown.devices} == {
            (each, each in in_use) for each in self.disks
        }
        assert set(os.listdir(os.path.join(self.host.dbdir, "block"))) == {f"dev:{each}" for each in self.disks}
        policies = self.host.ask("dev:", PolicyInfo())
        assert isinstance(policies, Policies)
        assert [policy for _, policy in policies.policies] == ([] if self.most is None else [_policy(self.most)])
        names = {self.name(letter) for letter in self.model}
        assert replayed(on_disk(self.host.dbdir)) == (names, running)

    def teardown(self) -> None:
        if hasattr(self, "host"):
            self.host.stop()
            self.host.close()
            assert titled(self.host.prefix) == set()
            shutil.rmtree(self.root)


def wanted(host: Daemon) -> dict[str, str]:
    """What the state on the disk says."""
    with contextlib.closing(sqlite3.connect(os.path.join(host.dbdir, "albatross.sqlite"))) as database:
        return dict(database.execute("SELECT name, wanted FROM unikernels").fetchall())


def _config(disk: str | None) -> UnikernelConfig:
    if disk is None:
        return hello()
    return hello("--wait", image=BLOCK_IMAGE, blocks=(BlockDevice("storage", disk),))


def _policy(most: int) -> Policy:
    return Policy(frozenset({0}), most, 64, 16)


def _until(compared: Callable[[], tuple[object, object]], host: Daemon) -> None:
    """Wait until what is found is what is expected."""
    deadline = time.monotonic() + 30
    while True:
        found, expected = compared()
        if found == expected:
            return
        assert time.monotonic() < deadline, (found, expected, host.log())
        time.sleep(0.01)


def test_a_daemon_that_is_killed_disturbs_nothing_that_runs() -> None:
    """One history by hand, with what random ones seldom have in a row."""
    history = History()
    history.begin()
    try:
        history.create("a", "d", force=False)
        history.create("b", None, force=False)
        history.kill_the_daemon(None)
        history.is_as_expected()
        history.remove_disk("d")
        history.kill_the_daemon("a")
        history.is_as_expected()
    finally:
        history.teardown()


TestAnyHistory = History.TestCase
TestAnyHistory.settings = settings(
    max_examples=6,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
