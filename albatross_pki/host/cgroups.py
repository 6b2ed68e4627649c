"""cgroups for unikernels: what their processes may take of the host, whatever they do.

Below the cgroup that albatrossd was started in (a systemd service with ``Delegate=yes``), in this shape::

    albatrossd/                 the daemon itself: a cgroup with children may hold no process (cgroups(7))
    unikernels/
        path-dev/               all unikernels of a top-level delegation share one weight
            3fa9c1d2/           one process: memory, no swap, number of tasks

``open_cgroups`` decides whether that is possible: version 2 with the controllers for memory and tasks, and nobody else
in the cgroup. Otherwise nothing is changed, and ``why`` says what is missing.

``open_given`` does the same with a cgroup that somebody else keeps for us (``albatross-unikernels.service``):
albatrossd stays in the one that it was started in, so that its service can be started again beside unikernels that
outlived it. Whoever keeps it is moved into a child called ``keeper``.
"""

import contextlib
import errno
import logging
import os
from collections.abc import Collection

from albatross_pki.errors import AlbatrossError
from albatross_pki.host.limits import MEBIBYTE, PROCESS_OVERHEAD, PROCESS_TASKS
from albatross_pki.host.records import Deployment
from albatross_pki.names import Name

log = logging.getLogger(__name__)

_OWN, _KEEPER, _UNIKERNELS = "albatrossd", "keeper", "unikernels"
_NEEDED = frozenset({"memory", "pids"})
_WANTED = (*sorted(_NEEDED), "cpu")
_WEIGHT = 100  # the same for every delegation


class NoCgroup(AlbatrossError):
    """A cgroup cannot be made."""


class Cgroups:
    """The cgroups below ``base``; without a base there are none, and ``why`` says the reason."""

    def __init__(self, base: str | None = None, why: str = "") -> None:
        self._base = base
        self.why = why

    @property
    def in_force(self) -> bool:
        return self._base is not None

    def make(self, deployment: Deployment, token: str, held: contextlib.ExitStack) -> str | None:
        """The directory of a new cgroup for a process, removed when ``held`` is closed; ``None`` without cgroups.

        Raises ``NoCgroup``.
        """
        path = self.directory(deployment.name, token)
        if path is None:
            return None
        try:
            delegation = os.path.dirname(path)
            if not os.path.isdir(delegation):
                os.mkdir(delegation)
                _enable(delegation, _available(delegation))
                _write_if_there(delegation, "cpu.weight", _WEIGHT)
            os.mkdir(path)
            held.callback(remove, path)
            _write(path, "memory.max", deployment.settings.memory_mb * MEBIBYTE + PROCESS_OVERHEAD)
            _write_if_there(path, "memory.swap.max", 0)
            _write(path, "pids.max", PROCESS_TASKS)
        except OSError as error:
            raise NoCgroup(f"the cgroup {path} cannot be made: {os.strerror(error.errno or 0).lower()}") from error
        return path

    def directory(self, name: Name, token: str) -> str | None:
        """Where the cgroup of a process is."""
        if self._base is None:
            return None
        top = f"path-{name.path.labels[0]}" if name.path.labels else "root"  # a label may be two dots
        return os.path.join(self._base, _UNIKERNELS, top, token)

    def reclaim(self, kept: Collection[str]) -> None:
        """Remove the cgroups of processes that are gone; ``kept`` are tokens."""
        if self._base is None:
            return
        for delegation in _directories(os.path.join(self._base, _UNIKERNELS)):
            for path in _directories(delegation):
                if os.path.basename(path) not in kept:
                    remove(path)


def open_cgroups(mounts: str = "/proc/self/mountinfo", own: str = "/proc/self/cgroup") -> Cgroups:
    """The cgroups that this process may make; never raises."""
    try:
        place = _own_cgroup(mounts, own)
        if place is None:
            return Cgroups(why="this host has no cgroups of version 2")
        if os.path.basename(place) == _OWN:  # replaced in place: we made it
            place = os.path.dirname(place)
        missing = _NEEDED - set(_available(place))
        if missing:
            return Cgroups(why=f"the cgroup {place} has no controller for {' and '.join(sorted(missing))}")
        if _pids(place) - {os.getpid()}:
            return Cgroups(why=f"the cgroup {place} is shared: run albatrossd as a service with Delegate=yes")
        return _set_up(place, _OWN, {os.getpid()})
    except OSError as error:
        return Cgroups(why=f"cgroups cannot be made: {os.strerror(error.errno or 0).lower()}")


def open_given(place: str) -> Cgroups:
    """The cgroups below ``place``, which is for unikernels alone; never raises."""
    try:
        missing = _NEEDED - set(_available(place))
        if missing:
            return Cgroups(why=f"the cgroup {place} has no controller for {' and '.join(sorted(missing))}")
        return _set_up(place, _KEEPER, _pids(place))
    except OSError as error:
        return Cgroups(why=f"the cgroup {place} cannot be used: {os.strerror(error.errno or 0).lower()}")


def remove(path: str) -> None:
    """Remove the cgroup of a process that is gone, and its delegation's if that was the last."""
    for each in (path, os.path.dirname(path)):
        try:
            os.rmdir(each)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
                log.warning("the cgroup %s cannot be removed: %s", each, error)
            return


def enter(path: str, pid: int) -> None:
    """Put a process into a cgroup; raises ``NoCgroup``."""
    try:
        _write(path, "cgroup.procs", pid)
    except OSError as error:
        raise NoCgroup(f"the cgroup {path} cannot be entered: {os.strerror(error.errno or 0).lower()}") from error


def _own_cgroup(mounts: str, own: str) -> str | None:
    """The directory of this process's cgroup of version 2 (proc(5): mountinfo; cgroups(7): /proc/self/cgroup)."""
    with open(mounts, encoding="utf-8", errors="surrogateescape") as source:
        lines = [line.split() for line in source]
    points = [fields[4] for fields in lines if "-" in fields and fields[fields.index("-") + 1] == "cgroup2"]
    with open(own, encoding="utf-8", errors="surrogateescape") as source:
        paths = [line.rstrip("\n").partition("::")[2] for line in source if line.startswith("0::")]
    if not points or not paths:
        return None
    return os.path.normpath(f"{points[0]}/{paths[0]}")


def _set_up(base: str, inner: str, pids: Collection[int]) -> Cgroups:
    """Move the processes of ``base`` into its child ``inner``; then others can have limits (cgroups(7))."""
    own = os.path.join(base, inner)
    if pids:
        os.makedirs(own, exist_ok=True)
    for pid in pids:
        _write(own, "cgroup.procs", pid)
    try:
        _enable(base, _available(base))
        unikernels = os.path.join(base, _UNIKERNELS)
        os.makedirs(unikernels, exist_ok=True)
        _enable(unikernels, _available(unikernels))
    except OSError:
        for pid in pids:
            _write(base, "cgroup.procs", pid)
        with contextlib.suppress(OSError):
            os.rmdir(own)
        raise
    return Cgroups(base)


def _available(path: str) -> list[str]:
    with open(os.path.join(path, "cgroup.controllers"), encoding="ascii") as source:
        there = source.read().split()
    return [each for each in _WANTED if each in there]


def _enable(path: str, controllers: Collection[str]) -> None:
    _write(path, "cgroup.subtree_control", " ".join(f"+{each}" for each in controllers))


def _pids(path: str) -> set[int]:
    with open(os.path.join(path, "cgroup.procs"), encoding="ascii") as source:
        return {int(line) for line in source}


def _write(path: str, name: str, value: object) -> None:
    with open(os.path.join(path, name), "w", encoding="ascii") as target:
        target.write(str(value))


def _write_if_there(path: str, name: str, value: object) -> None:
    """Not every kernel has every limit."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(os.path.join(path, name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, str(value).encode("ascii"))
        finally:
            os.close(descriptor)


def _directories(path: str) -> list[str]:
    try:
        return [each.path for each in os.scandir(path) if each.is_dir(follow_symlinks=False)]
    except OSError:
        return []
