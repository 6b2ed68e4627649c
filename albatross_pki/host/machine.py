"""What this machine has: CPUs, memory, disk, bridges; asked of the kernel, without a process.

``discover`` gives the root policy: as many unikernels as can be counted, every CPU, all memory, the whole file system
of the block devices (its size, not what is free), and every bridge.
"""

import functools
import logging
import os
import time
from collections.abc import Collection, Sequence

from albatross_pki.commands import UNLIMITED
from albatross_pki.errors import AlbatrossError
from albatross_pki.policies import Policy

log = logging.getLogger(__name__)

MEBIBYTE = 1 << 20
RESERVE_SHARE = 20  # one twentieth of the memory …
LARGEST_RESERVE_MB = 512  # … and at most this is kept for the host


def discover(block_directory: str, bridges: Collection[str]) -> Policy:
    """The root policy of this machine; ``OSError`` if ``block_directory`` cannot be looked at."""
    system = os.statvfs(block_directory)
    return Policy(
        cpuids=frozenset(online_cpus()),
        unikernels=UNLIMITED,
        memory_mb=memory_mb(),
        block_mb=system.f_blocks * system.f_frsize // MEBIBYTE,
        bridges=frozenset(bridges),
    )


def memory_mb() -> int:
    """Physical memory, rounded down."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MEBIBYTE


def reserve_mb(total_mb: int) -> int:
    """What of ``total_mb`` is kept for the host itself."""
    return min(total_mb // RESERVE_SHARE, LARGEST_RESERVE_MB)


def online_cpus() -> Sequence[int]:
    """The CPUs, numbered from 0 as Albatross' policies number them; counted at most once a second.

    A start of many asks for each, and counting reads a file of /sys.
    """
    return _online_in(int(time.monotonic()))


@functools.lru_cache(maxsize=1)
def _online_in(second: int) -> Sequence[int]:
    del second
    return range(os.cpu_count() or 1)


def bridges() -> Collection[str]:
    """The names of all bridges of this network namespace; none where they cannot be listed."""
    from albatross_pki.host.network import NoNetwork

    try:
        return NoNetwork().bridges()
    except (AlbatrossError, OSError) as error:
        log.warning("bridges cannot be listed: %s", error)
        return frozenset()
