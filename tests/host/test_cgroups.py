"""cgroups, on directories that look like them, and on a new one of the running kernel with a process of ours."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path as FilePath

import pytest

from albatross_pki.host import cgroups
from albatross_pki.host.cgroups import Cgroups, NoCgroup, open_cgroups, open_given
from albatross_pki.host.limits import PROCESS_OVERHEAD
from albatross_pki.host.records import Deployment
from albatross_pki.names import Name
from albatross_pki.unikernels import Settings

ALL = "cpuset cpu io memory hugetlb pids"


class Host:
    """A mount of cgroup2 at ``mount``, in which this process is in the cgroup /svc."""

    def __init__(self, root: FilePath, controllers: str = ALL, pids: str | None = None) -> None:
        self.mount = root / "mount"
        self.base = self.mount / "svc"
        self.base.mkdir(parents=True)
        (self.base / "cgroup.controllers").write_text(controllers)
        (self.base / "cgroup.procs").write_text(f"{os.getpid()}\n" if pids is None else pids)
        self.mounts = root / "mountinfo"
        self.mounts.write_text(f"33 25 0:27 / {self.mount} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n")
        self.own = root / "own"
        self.own.write_text("4:memory:/elsewhere\n0::/svc\n")

    def open(self) -> Cgroups:
        return open_cgroups(str(self.mounts), str(self.own))


@pytest.fixture
def _like_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """New cgroups have their files, and go with them."""
    real_mkdir, real_rmdir = os.mkdir, os.rmdir

    def make(path: str, mode: int = 0o777) -> None:
        real_mkdir(path, mode)
        if "/svc/" in str(path):
            for name, content in (("cgroup.controllers", ALL), ("cgroup.procs", ""), ("memory.swap.max", "max")):
                FilePath(path, name).write_text(content)

    def unmake(path: str, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None:  # pytest removes its directory while this is still in place
            real_rmdir(path, dir_fd=dir_fd)
            return
        if any(each.is_dir() for each in FilePath(path).iterdir()):
            raise OSError(39, "Directory not empty")
        for each in FilePath(path).iterdir():
            each.unlink()
        real_rmdir(path)

    monkeypatch.setattr(os, "mkdir", make)
    monkeypatch.setattr(os, "rmdir", unmake)


def deployment(name: str) -> Deployment:
    return Deployment(1, Name.parse(name), Settings(memory_mb=40), b"", 0, datetime.now(UTC))


@pytest.mark.usefixtures("_like_the_kernel")
def test_p33_each_process_is_bounded_and_each_delegation_weighted(tmp_path: FilePath) -> None:
    host = Host(tmp_path)
    found = host.open()
    assert found.in_force
    assert (host.base / "albatrossd" / "cgroup.procs").read_text() == str(os.getpid())
    with contextlib.ExitStack() as held:
        place = found.make(deployment("dev:sub:web"), "12ab", held)
        assert place == str(host.base / "unikernels" / "path-dev" / "12ab")
        assert FilePath(place, "memory.max").read_text() == str((40 << 20) + PROCESS_OVERHEAD)
        assert FilePath(place, "memory.swap.max").read_text()[0] == "0"
        assert int(FilePath(place, "pids.max").read_text()) > 0
        assert "memory" in FilePath(place, "..", "cgroup.subtree_control").read_text()
        found.make(deployment(":web"), "34cd", held)
        assert (host.base / "unikernels" / "root" / "34cd").is_dir()
        found.make(deployment("..:web"), "56ef", held)
        assert (host.base / "unikernels" / "path-.." / "56ef").is_dir()
    assert list((host.base / "unikernels").glob("*/")) == []


@pytest.mark.usefixtures("_like_the_kernel")
def test_p27_a_cgroup_that_somebody_else_keeps_is_free_for_the_next_daemon(tmp_path: FilePath) -> None:
    """albatrossd stays where it is, and what it was started in has no children: systemd starts it there again."""
    host = Host(tmp_path, pids="4711\n")
    found = open_given(str(host.base))
    assert found.in_force
    assert (host.base / "keeper" / "cgroup.procs").read_text() == "4711"
    assert not (host.base / "albatrossd").exists()
    assert "+memory" in (host.base / "cgroup.subtree_control").read_text()
    (host.base / "cgroup.procs").write_text("")  # the keeper has moved
    with contextlib.ExitStack() as held:
        place = found.make(deployment("dev:web"), "12ab", held)
        again = open_given(str(host.base))
        assert again.in_force
        assert again.directory(Name.parse("dev:web"), "12ab") == place
        held.pop_all()


@pytest.mark.usefixtures("_like_the_kernel")
def test_a_given_cgroup_without_a_keeper_gets_no_child_for_one(tmp_path: FilePath) -> None:
    host = Host(tmp_path, pids="")
    assert open_given(str(host.base)).in_force
    assert not (host.base / "keeper").exists()


@pytest.mark.parametrize(("controllers", "why"), [("cpu pids", "no controller for memory"), (None, "cannot be used")])
def test_a_given_cgroup_that_cannot_be_used_is_said(tmp_path: FilePath, controllers: str | None, why: str) -> None:
    place = tmp_path / "gone" if controllers is None else Host(tmp_path, controllers=controllers).base
    found = open_given(str(place))
    assert not found.in_force
    assert why in found.why


@pytest.mark.usefixtures("_like_the_kernel")
def test_what_belongs_to_nobody_is_reclaimed(tmp_path: FilePath) -> None:
    found = Host(tmp_path).open()
    with contextlib.ExitStack() as forgotten:
        kept = found.make(deployment("a:web"), "kept", forgotten)
        gone = found.make(deployment("b:web"), "gone", forgotten)
        forgotten.pop_all()
    assert kept is not None
    assert gone is not None
    found.reclaim(["kept"])
    assert os.path.isdir(kept)
    assert not os.path.exists(os.path.dirname(gone))


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"controllers": "cpu pids"}, "no controller for memory"),
        ({"controllers": ""}, "no controller for memory and pids"),
        ({"pids": f"{os.getpid()}\n1\n"}, "is shared"),
    ],
)
def test_where_it_is_not_possible_nothing_is_changed(tmp_path: FilePath, settings: dict[str, str], why: str) -> None:
    host = Host(tmp_path, **settings)
    before = sorted(os.listdir(host.base))
    found = host.open()
    assert not found.in_force
    assert why in found.why
    assert sorted(os.listdir(host.base)) == before
    with contextlib.ExitStack() as held:
        assert found.make(deployment("a:b"), "12ab", held) is None


def test_without_version_2_there_are_none(tmp_path: FilePath) -> None:
    host = Host(tmp_path)
    host.mounts.write_text("30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
    assert "version 2" in host.open().why
    assert not open_cgroups("/nowhere", "/nowhere").in_force


def test_a_cgroup_that_cannot_be_made_is_an_answer(tmp_path: FilePath) -> None:
    with contextlib.ExitStack() as held, pytest.raises(NoCgroup, match="cannot be made"):
        Cgroups(str(tmp_path / "gone")).make(deployment("a:b"), "12ab", held)
    with pytest.raises(NoCgroup, match="cannot be entered"):
        cgroups.enter(str(tmp_path / "gone"), os.getpid())


def real_cgroup() -> FilePath:
    """A new cgroup of version 2 of the running kernel, or a skip: limits need controllers, processes do not."""
    place = cgroups._own_cgroup("/proc/self/mountinfo", "/proc/self/cgroup")
    if place is None:
        pytest.skip("this machine has no cgroups of version 2")
    made = FilePath(place) / f"albatross-test-{os.getpid()}"
    try:
        made.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    return made


def test_processes_enter_and_leave_cgroups_of_the_running_kernel() -> None:
    base = real_cgroup()
    place = base / "unikernels" / "path-dev" / "token"
    place.mkdir(parents=True)
    guest = subprocess.Popen(["sleep", "100"])
    try:
        cgroups.enter(str(place), guest.pid)
        assert (place / "cgroup.procs").read_text() == f"{guest.pid}\n"
        assert FilePath(f"/proc/{guest.pid}/cgroup").read_text().splitlines()[-1].endswith("/unikernels/path-dev/token")
        cgroups.remove(str(place))
        assert place.exists(), "a cgroup with a process in it stays"
        guest.kill()
        guest.wait()
        with pytest.raises(NoCgroup):
            cgroups.enter(str(place), guest.pid)
        Cgroups(str(base)).reclaim(["another"])
        assert not place.parent.exists(), "the last one takes its delegation's with it"
    finally:
        guest.kill()
        guest.wait()
        for path in (place, place.parent, place.parent.parent, base):
            with contextlib.suppress(OSError):
                path.rmdir()


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FilePath, str]]:
    """A cgroup with a controller that version 2 can give away here, in the place of those for memory and tasks.

    Where version 1 has those, one of no use here may be left (hugetlb); the kernel's rules are the same for all.
    """
    base = real_cgroup()
    given = ""
    try:
        for name in (base.parent / "cgroup.controllers").read_text().split():
            before = (base.parent / "cgroup.subtree_control").read_text().split()
            with contextlib.suppress(OSError):
                (base.parent / "cgroup.subtree_control").write_text(f"+{name}")
                given = name if name not in before else ""
                monkeypatch.setattr(cgroups, "_NEEDED", frozenset({name}))
                monkeypatch.setattr(cgroups, "_WANTED", (name,))
                break
        else:
            pytest.skip("no controller can be had in a cgroup of a test here")
        yield base, name
    finally:
        for path in sorted((path for path in base.rglob("*/")), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
        base.rmdir()
        with contextlib.suppress(OSError):  # in use by another test, which does the same
            if given:
                (base.parent / "cgroup.subtree_control").write_text(f"-{given}")


def test_p27_the_kernel_takes_a_daemon_beside_unikernels_with_limits(controller: tuple[FilePath, str]) -> None:
    """Why unikernels have a unit of their own: nobody can be put into a cgroup whose children have limits."""
    base, name = controller
    with contextlib.ExitStack() as stack:
        keeper, unikernel, daemon = (stack.enter_context(subprocess.Popen(["sleep", "100"])) for _ in range(3))
        for each in (keeper, unikernel, daemon):
            stack.callback(each.kill)
        cgroups.enter(str(base), keeper.pid)
        with pytest.raises(OSError, match="busy"):
            (base / "cgroup.subtree_control").write_text(f"+{name}")
        for _ in range(2):  # the second time is the next daemon's
            found = open_given(str(base))
            assert found.in_force, found.why
        assert (base / "keeper" / "cgroup.procs").read_text() == f"{keeper.pid}\n"
        place = base / "unikernels" / "path-dev" / "token"
        place.mkdir(parents=True)
        cgroups.enter(str(place), unikernel.pid)
        with pytest.raises(NoCgroup, match="busy"):
            cgroups.enter(str(base), daemon.pid)
        assert (base / "unikernels" / "cgroup.subtree_control").read_text() == f"{name}\n"
        assert f"{name}." in " ".join(each.name for each in place.parent.iterdir()), "children have the limit's files"
