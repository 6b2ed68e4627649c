"""What a host does differently on each operating system, behind one small interface.

``Platform`` names it: unikernels that can run, networks, processes that are followed and found again, virtual machines.
On which CPUs a process runs belongs to how it is made: by affinity in ``tenders``, by ``cpuset`` in a machine's command
line. ``current`` chooses by the system that this is. Linux' part (``platform_linux``) uses netlink and pidfds,
FreeBSD's (``platform_freebsd``) the programs that are its interface: ``ifconfig``, ``cpuset``, ``bhyve``.
"""

import functools
import sys
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Protocol

from albatross_pki.errors import AlbatrossError, ExitCode
from albatross_pki.host.processes import Process, Sought
from albatross_pki.host.records import ProcessRecord
from albatross_pki.host.tenders import Starter
from albatross_pki.unikernels import Settings, UnikernelType

if TYPE_CHECKING:
    from albatross_pki.host.network import Network


class NoPlatform(AlbatrossError):
    """albatrossd does not know this operating system."""

    exit_code = ExitCode.INTERNAL


class Machines(Protocol):
    """Virtual machines that are no Solo5 unikernels."""

    def violations(self, settings: Settings) -> list[str]:
        """Every reason why no host could run a machine with these settings."""

    def load(self, settings: Settings, token: str, disk: str) -> None:
        """Make the machine of ``token`` and load what it boots from ``disk``. Blocks; raises ``AlbatrossError``."""

    def starter(self, settings: Settings, token: str, taps: list[tuple[str, bytes]], disks: list[str]) -> Starter:
        """What starts it, with its taps (interface, MAC address) and disks in their order."""

    def unload(self, token: str) -> None:
        """Remove the machine; one that is gone already is fine."""

    def name(self, token: str) -> str:
        """What it is called on this host."""


class Platform(Protocol):
    """One operating system."""

    @property
    def name(self) -> str: ...

    @property
    def types(self) -> frozenset[UnikernelType]:
        """The types of unikernels that can run here."""

    @property
    def embedded_tender(self) -> bool:
        """Whether the embedded tender is for this system."""

    @property
    def machines(self) -> Machines | None:
        """Virtual machines, where there are some."""

    def boot_id(self) -> str:
        """What tells this boot of the machine from every other."""

    def open_network(self) -> "Network":
        """The networks of this host, as far as this process may use them."""

    def bridges(self) -> Collection[str]:
        """The bridges that there are now; none where they cannot be listed."""

    def child(self, pid: int) -> Process:
        """Follow a child that was just made and that nobody else waits for."""

    def start_time(self, pid: int) -> int | None:
        """When ``pid`` was started, in the system's own unit; ``None`` if there is no such process."""

    def find_again(self, pid: int, started: int) -> Process | None:
        """The process that had ``pid`` and was started then, if it still runs."""

    def strays(self, sought: Iterable[Sought]) -> dict[str, Process]:
        """Processes that were made but not recorded, by token."""

    def ended(self, record: ProcessRecord) -> None:
        """Remove what the process of a predecessor left behind on this system."""


@functools.cache
def current() -> Platform:
    """The platform of this machine; raises ``NoPlatform``."""
    if sys.platform.startswith("freebsd"):
        from albatross_pki.host.platform_freebsd import FreeBSDPlatform

        return FreeBSDPlatform()
    if sys.platform == "linux":
        from albatross_pki.host.platform_linux import LinuxPlatform

        return LinuxPlatform()
    raise NoPlatform(f"albatrossd runs on Linux and FreeBSD, not on {sys.platform}")
