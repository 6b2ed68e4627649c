"""Users for the processes of unikernels, as far as this host and this daemon's user allow; cgroups are beside.

As root, every unikernel's process gets a user of its own from a range that nothing else on the host uses, so that no
unikernel can signal, trace or read another. What cannot be in force is listed by ``gaps``, for people.
"""

import os
from collections.abc import Callable

from albatross_pki.errors import AlbatrossError
from albatross_pki.host.cgroups import Cgroups

# between the ranges that systemd's documentation of users and groups gives to containers and the end of 31 bits
FIRST_UID = 0x70000000
UID_COUNT = 0x10000


_SETGID, _SETUID = 6, 7  # numbers of capabilities


class NoUserLeft(AlbatrossError):
    """Every user of the range has a unikernel."""


class Users:
    """Users ``first`` … ``first + count - 1``, one for each process; none at all without root."""

    def __init__(self, first: int = FIRST_UID, count: int = UID_COUNT, *, root: bool | None = None) -> None:
        self.first, self.count = first, count
        self.in_force = may_give_users(first, count) if root is None else root
        self._taken: set[int] = set()
        self._next = 0

    def take(self) -> int | None:
        """A user that no other unikernel has; ``None`` where there are no users to give. Raises ``NoUserLeft``."""
        if not self.in_force:
            return None
        if len(self._taken) >= self.count:
            raise NoUserLeft(f"all {self.count} users of the range from {self.first} are in use")
        while self.first + self._next in self._taken:
            self._next = (self._next + 1) % self.count
        uid = self.first + self._next
        self._next = (self._next + 1) % self.count  # the most recently used one is used again last
        self._taken.add(uid)
        return uid

    def adopt(self, uid: int) -> None:
        """A process that outlived its daemon has this user."""
        if self.first <= uid < self.first + self.count:
            self._taken.add(uid)

    def give_back(self, uid: int | None) -> None:
        self._taken.discard(-1 if uid is None else uid)


def may_give_users(first: int, count: int) -> bool:
    """Whether this process may make others run as users ``first`` … ``first + count - 1`` and groups of these numbers.

    Root may, except in a user namespace (a rootless container) that does not have them, or without the capabilities.
    """
    status = _read("/proc/self/status")
    effective = int(status.partition("CapEff:")[2].split()[0], 16) if "CapEff:" in status else 0
    return (
        os.geteuid() == 0
        and effective >> _SETUID & effective >> _SETGID & 1 == 1
        and all(_is_mapped(_read(f"/proc/self/{kind}_map"), first, count) for kind in ("uid", "gid"))
        and _read("/proc/self/setgroups").strip() in ("", "allow")
    )


def _is_mapped(table: str, first: int, count: int) -> bool:
    """Whether one line of a user namespace's table (inside, outside, length) has the range; no table has all."""
    ranges = [tuple(map(int, line.split())) for line in table.splitlines()]
    return not ranges or any(start <= first and first + count <= start + length for start, _, length in ranges)


def _read(path: str) -> str:
    """The text of a file of /proc, empty where this kernel does not have it."""
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def gaps(users: Users, cgroups: Cgroups, say: Callable[[str], None]) -> None:
    """Say what of the confinement is not in force."""
    if not users.in_force:
        say(
            "not root, or no users mapped here: unikernels run as this daemon's own user, "
            "and cannot be kept from each other by the system"
        )
    if not cgroups.in_force:
        say(f"no cgroups, a unikernel's process is bounded by its own size only: {cgroups.why}")
