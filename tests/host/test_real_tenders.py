"""A whole albatrossd with Solo5's own tenders: life, network, block device, adoption.

Run where ``SOLO5_BIN`` names a directory with ``solo5-hvt`` and ``solo5-spt``. The example unikernels are for ``spt``;
those for ``hvt`` are Solo5's own, where ``SOLO5_TESTS`` names the tests directory of the same Solo5, built. As root,
``hvt`` needs /dev/kvm for a group of its own, and networks need /dev/net/tun for everybody: what is refused for lack of
them is skipped.
"""

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import pytest

from albatross_pki.commands import BlockAdd, UnikernelCreate, UnikernelDestroy
from albatross_pki.extensions import Rollback
from albatross_pki.names import Name
from albatross_pki.replies import Failure, Text
from albatross_pki.unikernels import BlockDevice, NetworkInterface, UnikernelConfig
from tests.host.running import EXAMPLES, RESTART, Daemon, hello, inside
from tests.host.test_networks_and_users import NAMESPACE, needs_root, ping

BIN, SUITE = os.environ.get("SOLO5_BIN"), os.environ.get("SOLO5_TESTS")
pytestmark = pytest.mark.skipif(BIN is None, reason="SOLO5_BIN names no directory with Solo5's tenders")
WITH_SUITE = pytest.mark.skipif(
    SUITE is None, reason="SOLO5_TESTS does not name the tests directory of a built Solo5, which has images for hvt"
)
TARGETS = pytest.mark.parametrize("target", [pytest.param("hvt", marks=WITH_SUITE), "spt"])


@dataclass(frozen=True)
class Work:
    """An image and the arguments with which it does what a test needs."""

    image: FilePath
    arguments: tuple[str, ...] = ()

    def config(self, **settings: Any) -> UnikernelConfig:
        return hello(*self.arguments, image=self.image.read_bytes(), memory_mb=32, add_name=False, **settings)


EXAMPLE_WORK = {
    "ends": Work(EXAMPLES / "hello.spt", ("--exit=0",)),
    "fails": Work(EXAMPLES / "hello.spt", ("--exit=9",)),
    "waits": Work(EXAMPLES / "ticker.spt"),
    "pings": Work(EXAMPLES / "echo-net.spt", ("--ipv4=10.0.0.2",)),
    "writes": Work(EXAMPLES / "block.spt"),
}
# what those of Solo5's suite do: test_net has the address 10.0.0.2, test_blk writes to every sector and reads it back
SUITE_WORK = {
    "ends": ("test_hello", ("Hello_Solo5",)),
    "fails": ("test_exception", ("ignored",)),
    "waits": ("test_time", ()),
    "pings": ("test_net", ()),
    "writes": ("test_blk", ()),
}
NETWORK = {"spt": "service", "hvt": "service0"}  # how the images call their device


def work(what: str, target: str) -> Work:
    """An image for ``target`` that does ``what``."""
    if target == "spt":
        return EXAMPLE_WORK[what]
    test, arguments = SUITE_WORK[what]
    return Work(FilePath(str(SUITE)) / test / f"{test}.{target}", arguments)


@contextlib.contextmanager
def host_with(root: FilePath, target: str, before: str = "") -> Iterator[Daemon]:
    """A host whose only tender for ``target`` is Solo5's."""
    host = Daemon(root, "--come-up-grace", "0.5", before=before)
    shutil.copy(FilePath(str(BIN)) / f"solo5-{target}", FilePath(host.dbdir) / f"solo5-{target}")
    try:
        yield host.start()
    finally:
        host.close()


def created(host: Daemon, name: str, command: UnikernelCreate) -> None:
    answer = host.ask(name, command)
    skip_if_closed(answer)
    assert answer == Text("created unikernel"), host.log()


def skip_if_closed(answer: object) -> None:
    """Devices that this machine keeps for root are no failure of ours, and the refusal says what to do."""
    if isinstance(answer, Failure) and "/dev/" in answer.text:
        pytest.skip(answer.text)


def until(host: Daemon, text: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while text not in host.log():
        assert time.monotonic() < deadline, host.log()
        time.sleep(0.02)


@TARGETS
def test_it_runs_by_its_own_tender_and_ends_as_it_says(tmp_path: FilePath, target: str) -> None:
    with host_with(tmp_path, target) as host:
        name = f"dev:{host.label()}"
        created(host, name, UnikernelCreate(work("ends", target).config()))
        until(host, f"started {name} (solo5-{target}")
        until(host, f"unikernel {name} (PID ")
        assert "stopped with exit 0" in host.log()
        assert host.running() == {}


@needs_root
@TARGETS
def test_it_answers_on_a_bridge_as_a_user_of_its_own(tmp_path: FilePath, target: str) -> None:
    with host_with(tmp_path, target, before=NAMESPACE) as host:
        name = f"dev:{host.label()}"
        interface = NetworkInterface(NETWORK[target], "br0")
        config = work("pings", target).config(interfaces=(interface,), fail_behaviour=RESTART)
        created(host, name, UnikernelCreate(config))
        assert ping(host, "10.0.0.2") == "10.0.0.2", host.log()
        (pid,) = host.recorded_pids()
        uid = FilePath(f"/proc/{pid}").stat().st_uid
        assert uid >= 0x70000000, "it has a user of its own"
        assert host.ask(name, UnikernelDestroy()) == Text("destroyed unikernel")
        assert not os.path.exists(f"/proc/{pid}")


@TARGETS
def test_its_block_device_is_written_and_kept(tmp_path: FilePath, target: str) -> None:
    with host_with(tmp_path, target) as host:
        name = f"dev:{host.label()}"
        assert isinstance(host.ask("dev:storage", BlockAdd(1)), Text)
        blocks = (BlockDevice("storage"),)
        created(host, name, UnikernelCreate(work("writes", target).config(blocks=blocks)))
        until(host, f"unikernel {name} (PID ")
        assert "stopped with exit 0" in host.log()
        assert (FilePath(host.dbdir) / "block" / "dev:storage").read_bytes().count(0) < 1 << 20


@TARGETS
async def test_a_successor_that_fails_brings_the_old_one_back(tmp_path: FilePath, target: str) -> None:
    async with inside(tmp_path) as host:
        shutil.copy(FilePath(str(BIN)) / f"solo5-{target}", host.supervisor.host.dbdir)
        waits = work("waits", target).config(fail_behaviour=RESTART)
        answer = await host.ask("dev:web", UnikernelCreate(waits))
        skip_if_closed(answer)
        assert answer == Text("created unikernel")
        refused = await host.ask("dev:web", UnikernelCreate(work("fails", target).config(), force=True))
        assert isinstance(refused, Failure)
        assert "did not come up" in refused.text
        assert Name.parse("dev:web") in host.supervisor.table
        assert isinstance(await host.ask("dev:web", Rollback()), Failure), "nothing else was deployed"
        await host.ask("dev:web", UnikernelDestroy())


@TARGETS
def test_whoever_is_killed_first_nothing_is_left(tmp_path: FilePath, target: str) -> None:
    with host_with(tmp_path, target) as host:
        name = f"dev:{host.label()}"
        created(host, name, UnikernelCreate(work("waits", target).config(fail_behaviour=RESTART)))
        host.kill()
        host.start()
        for pid in host.recorded_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        host.ask(name, UnikernelDestroy())
        deadline = time.monotonic() + 10
        while host.recorded_pids():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert host.stop() == 0
