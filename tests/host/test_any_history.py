"""Random commands, ends, kills and restarts of the daemon, against a model that fits on a page.

After every step the model is compared with what info says, the process table, the fifos, the taps, the images and the
state. Where that may be made, the host has a network namespace of its own with a bridge, and some unikernels are on it.
"""

import asyncio
import contextlib
import ctypes
import hashlib
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from albatross_pki.commands import UnikernelCreate, UnikernelDestroy, UnikernelInfoRequest, UnikernelRestart
from albatross_pki.extensions import AnyCommand, Rollback, Start, Stop
from albatross_pki.host.supervisor import Patience
from albatross_pki.names import Name
from albatross_pki.replies import Text, Unikernels
from albatross_pki.unikernels import QUIT, NetworkInterface, Settings
from tests.host.lives import on_disk, replayed
from tests.host.running import EXAMPLES, HELLO, RESTART, TICKER, Inside, hello, inside, titled

Result = TypeVar("Result")
LETTERS = st.sampled_from("abc")
IMAGES = {"hello": HELLO, "ticker": TICKER}
INTERFACES = {"hello": (), "ticker": (), "echo-net": (NetworkInterface("service"),)}
CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
MS_PRIVATE_ALL = 0x44000  # MS_REC | MS_PRIVATE


def enter_namespace() -> None:
    """Give the calling thread, and what it makes, a network of its own with a bridge; /sys shows that network."""
    from pyroute2 import IPRoute

    libc = ctypes.CDLL(None, use_errno=True)
    for made in (
        libc.unshare(CLONE_NEWNS | CLONE_NEWNET),
        libc.mount(b"none", b"/", None, MS_PRIVATE_ALL, None),
        libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None),
    ):
        if made:
            raise OSError(ctypes.get_errno(), "no network namespace")
    with IPRoute() as netlink:
        netlink.link("add", ifname="service", kind="bridge")


def why_without_networks() -> str | None:
    """Why histories here have no bridge and no taps in them, or ``None``."""
    if os.geteuid() != 0:
        return "needs root to make a network namespace with a bridge"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    try:
        with ThreadPoolExecutor(1) as thread:
            thread.submit(enter_namespace).result()
    except Exception as error:  # noqa: BLE001  of the system, or of netlink
        return f"cannot make a network namespace with a bridge: {error}"
    return None


CANNOT = why_without_networks()
if CANNOT is None:
    IMAGES["echo-net"] = (EXAMPLES / "echo-net.spt").read_bytes()


def taps() -> set[str]:
    """The taps in the network of the calling thread that are ports of the bridge."""
    return {each for each in os.listdir("/sys/class/net/service/brif") if each.startswith("vmmtap")}


def all_taps() -> set[str]:
    return {each for each in os.listdir("/sys/class/net") if each.startswith("vmmtap")}


@dataclass(frozen=True)
class Expected:
    """What a name is, and what it was before, newest first."""

    argument: str
    image: str
    restarts: bool
    stopped: bool = False
    before: tuple["Expected", ...] = ()


class History(RuleBasedStateMachine):
    """One host and its model."""

    @initialize()
    def begin(self) -> None:
        self.root = FilePath(tempfile.mkdtemp(prefix="any-history-"))
        self.prefix = "h" + secrets.token_hex(2)
        self.model: dict[str, Expected] = {}
        self.thread = ThreadPoolExecutor(1, initializer=enter_namespace if "echo-net" in IMAGES else None)
        self.loop = self.there(asyncio.new_event_loop)
        self.stack = contextlib.AsyncExitStack()
        self.host: Inside = self.run(self.enter())
        self.step = 0

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self.there(lambda: self.loop.run_until_complete(work))

    def there(self, work: Callable[[], Result]) -> Result:
        """Do something in the network of the host."""
        return self.thread.submit(work).result()

    async def enter(self) -> Inside:
        patience = Patience(stop=2, kill=2, come_up=0.03)
        return await self.stack.enter_async_context(inside(self.root, patience=patience))

    def name(self, letter: str) -> str:
        return f"dev:{self.prefix}{letter}"

    def ask(self, letter: str, command: AnyCommand) -> bool:
        """Whether it succeeded."""
        return isinstance(self.run(self.host.ask(self.name(letter), command)), Text)

    @rule(letter=LETTERS, image=st.sampled_from(sorted(IMAGES)), restarts=st.booleans(), force=st.booleans())
    def create(self, letter: str, image: str, restarts: bool, force: bool) -> None:
        self.step += 1
        behaviour = RESTART if restarts else QUIT
        argument = self.argument(image)
        config = hello(argument, image=IMAGES[image], fail_behaviour=behaviour, interfaces=INTERFACES[image])
        old = self.model.get(letter)
        assert self.ask(letter, UnikernelCreate(config, force)) == (old is None or force)
        if old is None or force:
            before = () if old is None else (replace(old, before=()), *old.before)[:3]
            self.model[letter] = Expected(argument, image, restarts, before=before)

    def argument(self, image: str) -> str:
        """One that no other deployment has."""
        return f"--ipv4=10.0.0.{self.step}" if image == "echo-net" else str(self.step)

    @rule(letter=LETTERS)
    def create_what_fails(self, letter: str) -> None:
        """A successor that ends at once is no successor."""
        if letter in self.model:
            config = hello("--exit=9", add_name=False)
            supervisor = self.host.supervisor
            patience, supervisor.patience = supervisor.patience, Patience(stop=2, kill=2, come_up=10)
            assert not self.ask(letter, UnikernelCreate(config, force=True))
            supervisor.patience = patience

    @rule(letter=LETTERS, memory_mb=st.sampled_from([2, 3]), new=st.booleans())
    def restart(self, letter: str, memory_mb: int, new: bool) -> None:
        self.step += 1
        old = self.model.get(letter)
        image = "hello" if old is None else old.image
        argument = self.argument(image)
        settings = Settings(memory_mb=memory_mb, arguments=(argument,), interfaces=INTERFACES[image])
        asked = settings if new else None
        assert self.ask(letter, UnikernelRestart(asked)) == (old is not None)
        if old is not None and new:
            before = (replace(old, before=(), stopped=False), *old.before)[:3]
            self.model[letter] = Expected(argument, old.image, False, before=before)
        elif old is not None:
            self.model[letter] = replace(old, stopped=False)

    @rule(letter=LETTERS)
    def roll_back(self, letter: str) -> None:
        old = self.model.get(letter)
        possible = old is not None and bool(old.before)
        assert self.ask(letter, Rollback()) == possible
        if old is not None and possible:
            target, *rest = old.before
            self.model[letter] = replace(target, before=tuple(rest), stopped=False)

    @rule(letter=LETTERS)
    def destroy(self, letter: str) -> None:
        assert self.ask(letter, UnikernelDestroy()) == (letter in self.model)
        self.model.pop(letter, None)

    @rule(letter=LETTERS)
    def stop(self, letter: str) -> None:
        assert self.ask(letter, Stop()) == (letter in self.model)
        if letter in self.model:
            self.model[letter] = replace(self.model[letter], stopped=True)

    @rule(letter=LETTERS)
    def start(self, letter: str) -> None:
        assert self.ask(letter, Start()) == (letter in self.model)
        if letter in self.model:
            self.model[letter] = replace(self.model[letter], stopped=False)

    @rule(letter=LETTERS)
    def kill(self, letter: str) -> None:
        """An end by a signal is final, whatever the configuration says."""
        expected = self.model.get(letter)
        if expected is not None and not expected.stopped:
            os.kill(self.host.pid(self.name(letter)), signal.SIGKILL)
            self.run(self.host.until(lambda: self.host.phase(self.name(letter)) == "absent"))
            del self.model[letter]

    @rule(keep_running=st.booleans())
    def replace_the_daemon(self, keep_running: bool) -> None:
        async def again() -> Inside:
            await self.stack.aclose()
            self.stack = contextlib.AsyncExitStack()
            return await self.enter()

        if keep_running:
            self.run(self.keep())
        self.host = self.run(again())

    async def keep(self) -> None:
        """End the daemon's part alone; what follows adopts its children."""
        await self.host.supervisor.shut_down(keep_running=True)
        self.host.supervisor.table.clear()

    @invariant()
    def is_as_expected(self) -> None:
        if not hasattr(self, "host"):
            return
        running = {letter for letter, expected in self.model.items() if not expected.stopped}
        self.run(self.host.until(lambda: all(self.host.phase(self.name(letter)) == "running" for letter in running)))
        shown = self.run(self.host.ask(":", UnikernelInfoRequest()))
        assert isinstance(shown, Unikernels)
        infos = {str(name): info for name, info in shown.unikernels}
        assert {name: info.arguments for name, info in infos.items()} == {
            self.name(letter): (self.model[letter].argument,) for letter in running
        }
        pids = {self.host.pid(self.name(letter)) for letter in running}
        self.run(self.host.until(lambda: titled(self.prefix) == pids))  # a process takes its title in its first moment
        assert set(os.listdir(self.host.supervisor.host.fifo_directory)) == {self.name(letter) for letter in running}
        state = self.there(self.host.state.load)
        wanted = {(str(each.name), each.wanted.value) for each in state.unikernels}
        assert wanted == {
            (self.name(letter), "stopped" if expected.stopped else "running") for letter, expected in self.model.items()
        }
        on_bridge = sum(self.model[letter].image == "echo-net" for letter in running)
        recorded = {tap.interface for each in state.processes for tap in each.taps}
        assert len(recorded) == on_bridge
        if "echo-net" in IMAGES:
            assert self.there(taps) == self.there(all_taps) == recorded
        images = {image.image for each in self.model.values() for image in (each, *each.before)}
        assert set(os.listdir(self.host.supervisor.host.images.directory)) == {
            hashlib.sha256(IMAGES[image]).hexdigest() for image in images
        }
        usage = self.host.supervisor.tree.usage(Name.parse("dev:").path)
        assert usage.unikernels == len(self.model)
        told = replayed(on_disk(self.host.supervisor.host.dbdir))
        assert told == ({self.name(letter) for letter in self.model}, {self.name(letter) for letter in running})

    def teardown(self) -> None:
        if hasattr(self, "host"):
            self.run(self.stack.aclose())
            assert titled(self.prefix) == set()
            if "echo-net" in IMAGES:
                assert self.there(all_taps) == set()
            self.there(self.loop.close)
            self.thread.shutdown()
            shutil.rmtree(self.root)


@pytest.mark.skipif(CANNOT is not None, reason=CANNOT or "")
def test_a_history_has_the_taps_of_what_runs() -> None:
    """One history by hand: what the random ones compare after each step is not nothing."""
    history = History()
    history.begin()
    try:
        steps: list[tuple[Callable[[], None], int]] = [
            (lambda: history.create("a", "echo-net", restarts=False, force=False), 1),
            (lambda: history.create("b", "echo-net", restarts=True, force=False), 2),
            (lambda: history.create("b", "echo-net", restarts=True, force=True), 2),
            (lambda: history.create_what_fails("b"), 2),
            (lambda: history.restart("a", 3, new=True), 2),
            (lambda: history.replace_the_daemon(keep_running=True), 2),
            (lambda: history.create("a", "hello", restarts=False, force=True), 1),
            (lambda: history.roll_back("a"), 2),
            (lambda: history.stop("b"), 1),
            (lambda: history.replace_the_daemon(keep_running=False), 1),
            (lambda: history.kill("a"), 0),
            (lambda: history.start("b"), 1),
            (lambda: history.destroy("b"), 0),
        ]
        for step, expected in steps:
            step()
            history.is_as_expected()
            assert len(history.there(taps)) == expected
    finally:
        history.teardown()


TestAnyHistory = History.TestCase
TestAnyHistory.settings = hypothesis_settings(
    max_examples=12,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
