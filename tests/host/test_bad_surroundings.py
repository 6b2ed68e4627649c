"""A host that lacks something: images, memory, a guest that stays. Nothing is lost, and it says what it lacks."""

import contextlib
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path as FilePath

import pytest

from albatross_pki.commands import UnikernelCreate, UnikernelDestroy
from albatross_pki.host.state import State
from albatross_pki.replies import Text
from albatross_pki.transport.errors import TransportError
from tests.host.running import RESTART, TICKER, Daemon, create, daemon, hello, text_of


def test_p21_an_image_store_that_cannot_be_read_ends_the_start_and_nothing_else(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        name = f"dev:{host.label()}"
        assert host.ask(name, create("x", fail_behaviour=RESTART)) == Text("created unikernel")
        assert host.stop() == 0
        images, aside = FilePath(host.dbdir) / "images", tmp_path / "aside"
        images.rename(aside)
        images.write_text("in the way")
        host.start(wait=False)
        assert host.process is not None
        assert host.process.wait(30) in (124, 125)
        assert f"error: {images}" in host.log()
        assert "hint: the image store must be a directory" in host.log()
        assert images.read_text() == "in the way", "it is left as it is"
        images.unlink()
        aside.rename(images)
        host.start()
        wait_until(lambda: set(host.running()) == {name})


def test_p22_what_lacks_its_image_stays_wanted_and_the_others_run(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        first, second = (f"dev:{host.label(letter)}" for letter in "ab")
        assert host.ask(first, create()) == Text("created unikernel")
        assert host.ask(second, UnikernelCreate(hello(image=TICKER), force=False)) == Text("created unikernel")
        host.stop()
        with contextlib.closing(State(host.dbdir)) as state:
            digest = next(each.deployments[0].image for each in state.load().unikernels if str(each.name) == first)
        os.unlink(os.path.join(host.dbdir, "images", digest.hex()))
        host.start()
        wait_until(lambda: set(host.running()) == {second})
        wait_until(lambda: f"failed to create {first}" in host.log())
        assert f"the image {digest.hex()} is missing: what needs it cannot start" in host.log()
        assert host.ask(first, create(force=True)) == Text("created unikernel"), "deploying it again mends it"
        assert set(host.running()) == {first, second}


@pytest.mark.parametrize("status", [0, 7])
def test_one_that_ends_before_the_answer_was_created_and_is_gone(tmp_path: FilePath, status: int) -> None:
    """Its process is over when the create is answered, or soon after: both are told as they are."""
    with daemon(tmp_path) as host:
        name = f"dev:{host.label()}"
        for _ in range(5):
            command = create(f"--exit={status}", add_name=False)
            answer = host.ask(name, command)
            assert answer == Text("created unikernel"), (answer, host.log())
            wait_until(lambda: host.running() == {})
        assert host.log().count(f"stopped with exit {status}") == 5
        assert host.unikernels() == set()
        assert "not found" in text_of(host.ask(name, UnikernelDestroy()))


def test_p03_without_memory_a_request_is_refused_and_the_host_goes_on(tmp_path: FilePath) -> None:
    """The daemon may not grow, and is sent an image that it cannot take in."""
    with daemon(tmp_path) as host:
        assert host.process is not None
        first, second = (f"dev:{host.label(letter)}" for letter in "ab")
        assert host.ask(first, create()) == Text("created unikernel")
        large = UnikernelCreate(hello(image=hello().image + bytes(64 << 20), memory_mb=128), force=False)
        pages = int(FilePath(f"/proc/{host.process.pid}/statm").read_text().split()[0])
        before = resource.prlimit(host.process.pid, resource.RLIMIT_AS)
        room = pages * resource.getpagesize() + (16 << 20)
        resource.prlimit(host.process.pid, resource.RLIMIT_AS, (room, before[1]))
        try:
            refused: object = host.ask(second, large)
        except (TransportError, OSError, AssertionError) as error:  # it could not even take the frame in
            refused = error
        assert refused != Text("created unikernel")
        assert host.process.poll() is None, host.log()
        assert set(host.running()) == {first}
        resource.prlimit(host.process.pid, resource.RLIMIT_AS, before)
        assert host.ask(second, large) == Text("created unikernel"), host.log()


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_daemons_of_one_directory_are_refused(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        other = Daemon(tmp_path)
        other.prefix = host.prefix
        other.start(wait=False)
        assert other.process is not None
        assert other.process.wait(30) in (124, 125)
        assert host.ask(f"dev:{host.label()}", create()) == Text("created unikernel")
