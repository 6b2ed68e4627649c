"""A disk that somebody else has filled: what makes room works, what needs room is refused, nothing is lost."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path as FilePath

import pytest

from albatross_pki.commands import BlockAdd, PolicyAdd, PolicyRemove, UnikernelCreate, UnikernelDestroy
from albatross_pki.host.blocks import BlockRefused, BlockStore
from albatross_pki.host.disk_reserve import DiskFull, check_room, hold
from albatross_pki.host.images import ImageStore, Source, StoreError
from albatross_pki.host.limits import LOG_RESERVE, MEBIBYTE
from albatross_pki.host.state import State, StateError
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.replies import Text
from tests.host.running import Daemon, create, hello, text_of

POLICY = Policy(frozenset({0}), 100, 1000, 1000)
SMALL = 128  # MB

CANNOT = "needs root to mount a small file system" if os.geteuid() else None


@contextlib.contextmanager
def small_disk(at: FilePath, size_mb: int = SMALL) -> Iterator[FilePath]:
    """A file system in memory, at a directory of its own."""
    at.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mb}M,mode=0700", "tmpfs", str(at)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def fill(directory: FilePath) -> int:
    """Take every octet that is left; how many."""
    took = 0
    with (
        contextlib.suppress(OSError),
        open(os.open(directory / "somebody-else", os.O_WRONLY | os.O_CREAT | os.O_APPEND), "wb", buffering=0) as file,
    ):
        while True:
            took += file.write(bytes(4096))
    return took


needs_root = pytest.mark.skipif(CANNOT is not None, reason=CANNOT or "")


@needs_root
@pytest.mark.parametrize("crash", [False, True])
def test_p07_destroy_works_on_a_disk_that_somebody_else_has_filled(tmp_path: FilePath, crash: bool) -> None:
    with small_disk(tmp_path / "host") as root:
        host = Daemon(root)
        try:
            host.start()
            names = [f"dev:{host.label(letter)}" for letter in "abcdefghijklmnopqrstuvwxyz"]
            for name in names:
                assert host.ask(name, create()) == Text("created unikernel")
            assert fill(root) > 30 * MEBIBYTE
            if crash:
                host.kill()
                host.start()
                for name in names:
                    host.ask(name, UnikernelDestroy())
                    fill(root)
                assert host.running() == {}
            else:
                for name in names:
                    assert host.ask(name, UnikernelDestroy()) == Text("destroyed unikernel"), host.log()
                    fill(root)  # whatever that has freed is gone at once
            assert host.unikernels() == set()
            assert host.stop() == 0
        finally:
            host.close()
        with contextlib.closing(State(host.dbdir)) as state:
            assert state.load().unikernels == ()


@needs_root
def test_p40_what_needs_room_is_refused_on_a_full_disk_and_says_so(tmp_path: FilePath) -> None:
    with small_disk(tmp_path / "host") as root:
        host = Daemon(root)
        try:
            host.start()
            first, second = (f"dev:{host.label(letter)}" for letter in "ab")
            assert host.ask(first, create()) == Text("created unikernel")
            assert host.ask("dev:", PolicyAdd(POLICY)) == Text("added policy")
            fill(root)
            for command in (create(), UnikernelCreate(hello(image=hello().image + b"x"))):
                assert "full but for" in text_of(host.ask(second, command))
            assert "full but for" in text_of(host.ask("other:", PolicyAdd(POLICY)))
            assert set(host.running()) == {first}, "nothing that ran was touched"
            assert "full but for" in text_of(host.ask(first, create("new", force=True)))
            assert set(host.running()) == {first}
            assert host.ask("dev:", PolicyRemove()) == Text("removed policy")
            (root / "somebody-else").unlink()
            assert host.ask(second, create()) == Text("created unikernel"), "with room everything works again"
        finally:
            host.close()


@needs_root
def test_p21_it_starts_again_on_a_full_disk_and_can_be_emptied(tmp_path: FilePath) -> None:
    with small_disk(tmp_path / "host") as root:
        host = Daemon(root)
        try:
            host.start()
            name = f"dev:{host.label()}"
            assert host.ask(name, create()) == Text("created unikernel")
            assert host.stop() == 0
            fill(root)
            host.start()
            assert host.ask(name, UnikernelDestroy()) in (
                Text("destroyed unikernel"),
                Text("destroyed: removed from restarting"),  # it had not started yet
            )
            assert host.stop() == 0
        finally:
            host.close()


@needs_root
def test_p40_a_unikernel_that_fills_the_disk_with_its_device_can_be_destroyed(tmp_path: FilePath) -> None:
    """Its device is sparse: nobody has the room for it before it is written."""
    with small_disk(tmp_path / "host") as root:
        host = Daemon(root)
        try:
            host.start()
            name = f"dev:{host.label()}"
            assert isinstance(host.ask("dev:disk", BlockAdd(SMALL)), Text)
            device = FilePath(host.dbdir) / "block" / "dev:disk"
            assert host.ask(name, create()) == Text("created unikernel")
            with contextlib.suppress(OSError), open(device, "r+b", buffering=0) as writer:  # as the guest would
                while True:
                    writer.write(bytes(MEBIBYTE))
            assert host.ask(name, UnikernelDestroy()) == Text("destroyed unikernel")
        finally:
            host.close()


@needs_root
def test_p40_uploads_leave_the_reserve_alone(tmp_path: FilePath) -> None:
    with small_disk(tmp_path / "disk", 32) as disk:
        blocks = BlockStore(str(disk / "block"), reserve=16 * MEBIBYTE)
        blocks.scan()
        name = Name.parse("dev:disk")
        blocks.add(name, 64)
        with blocks.replace(name, compressed=False) as replacement, pytest.raises(BlockRefused, match="full but for"):
            replacement.write(b"x" * (64 * MEBIBYTE))
        images = ImageStore(str(disk / "images"), reserve=16 * MEBIBYTE)
        with pytest.raises(StoreError, match="full but for its reserve of 16 MB"):
            images.take(Source(octets=b"x" * (20 * MEBIBYTE)))
        status = os.statvfs(disk)
        assert status.f_bavail * status.f_frsize >= 16 * MEBIBYTE, "and what was written is gone"
        images.close()


def test_the_log_has_its_room_as_long_as_the_state_is_open_and_afterwards(tmp_path: FilePath) -> None:
    log = tmp_path / "albatross.sqlite-wal"
    state = State(str(tmp_path))
    try:
        assert log.stat().st_blocks * 512 >= LOG_RESERVE
        for number in range(3000):  # more than one turn of the log
            state.set_policy(Path((f"p{number % 50}",)), POLICY)
        assert log.stat().st_blocks * 512 >= LOG_RESERVE
    finally:
        state.close()
    assert log.stat().st_blocks * 512 >= LOG_RESERVE
    assert log.stat().st_mode & 0o777 == 0o600
    with contextlib.closing(State(str(tmp_path))) as again:
        assert len(again.load().operator) == 50


def test_p21_a_full_disk_in_the_middle_of_a_write_changes_nothing(tmp_path: FilePath) -> None:
    """Without the reserve, as on a file system that cannot hold any."""
    with contextlib.closing(State(str(tmp_path))) as state:
        state.set_policy(Path(("dev",)), POLICY)
        before = state.load()
        state._database.execute("PRAGMA max_page_count = 1")  # SQLite's own way to say full

        def fill_it() -> None:
            for number in range(2000):
                state.set_policy(Path((f"p{number}",)), POLICY)

        with pytest.raises(StateError, match="full") as refused:
            fill_it()
        assert "make room" in (refused.value.hint or "")
        assert set(before.operator) <= set(state.load().operator)


def test_what_has_no_room_says_how_much_there_is(tmp_path: FilePath) -> None:
    status = os.statvfs(tmp_path)
    check_room(str(tmp_path))
    with pytest.raises(DiskFull, match=r"the file system of .* is full but for \d+ MB") as refused:
        check_room(str(tmp_path), status.f_blocks * status.f_frsize)
    assert "destroy unikernels" in (refused.value.hint or "")
    assert not hold(str(tmp_path / "no" / "such" / "directory"))
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert not hold(str(tmp_path / "link"))
