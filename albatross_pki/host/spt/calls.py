"""The system calls that the stub makes between ``execve`` and the unikernel's first instruction.

In this order; every one but those marked is checked, and a failure ends the process before the unikernel runs:

1. ``close_range``: no descriptor but console and devices survives, whoever left one open;
2. the cgroup is entered and the out-of-memory score raised (the score unchecked: it may already be higher);
3. ``mmap`` of all memory between and behind the segments, so that a lack of memory is an error and not a fault; a small
   unikernel does without huge pages (unchecked);
4. the epoll set and the timer, which get the two descriptors behind the devices;
5. SIGPIPE is ignored: a console that nobody reads is no reason to end;
6. CPUs, name, no core dumps; then group, user and all capabilities are given up, debuggers shut out;
7. ``munmap`` of everything above the unikernel's memory: stack, vdso, arguments (unchecked: one of the sizes fits);
8. no new privileges, and the seccomp filter.
"""

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from albatross_pki.host.spt.architecture import Architecture
from albatross_pki.host.spt.attached import (
    FIRST_DESCRIPTOR,
    TITLE_OCTETS,
    AttachedDevice,
    AttachedNet,
    Confinement,
)
from albatross_pki.host.spt.stub import Call, Program
from albatross_pki.image.solo5 import Manifest
from albatross_pki.text import to_octets

LOWEST = 0x10000  # of a unikernel's memory; nothing is mapped below

# With huge pages a small unikernel's first touch of its stack makes 2 MiB resident, which would be most of what it ever
# uses; from here on one is less than a hundredth of its memory, and saves it work.
HUGE_PAGES_FROM = 256 << 20

SHOWN_CPUS = 8  # in a message

_AT_FDCWD, _WRITE_ONLY = 2**64 - 100, 1
_NO_FILE = 2**64 - 1
_READ_WRITE, _PRIVATE_ANONYMOUS_FIXED_NOREPLACE = 3, 0x100022
_CLOCK_MONOTONIC, _NONBLOCK = 1, 0x800
_EPOLL_CTL_ADD, _EPOLLIN = 1, 1
_TIMER_KEY = 0xFFFFFFFE
_SIGPIPE, _SIGNAL_SET_OCTETS = 13, 8
_IGNORE = struct.pack("<4Q", 1, 0, 0, 0)
_RLIMIT_CORE = 4
_PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS, _PR_SET_THP_DISABLE = 4, 15, 38, 41
_CAPABILITY_VERSION_3 = struct.pack("<Ii", 0x20080522, 0)
_SECCOMP_SET_MODE_FILTER = 1
_ALL = 0xFFFFFFFF


class Region(NamedTuple):
    """Memory ``[start, end)``."""

    start: int
    end: int


def calls(
    architecture: Architecture,
    manifest: Manifest,
    devices: Sequence[AttachedDevice],
    confinement: Confinement,
    occupied: Sequence[Region],
    memory: int,
    program: bytes,
) -> list[Call]:
    """The list for one unikernel.

    ``occupied`` are the regions that ``execve`` maps, ascending; ``memory`` is the size of the unikernel's memory in
    octets; ``program`` the seccomp filter.
    """
    first_free = FIRST_DESCRIPTOR + len(devices)
    close = Call("close_range", (first_free, _ALL, 0), 0, "cannot close inherited descriptors (Linux 5.9 is needed)")
    return [
        close,
        *_accounting(confinement, first_free),
        *_memory(occupied, memory),
        *_waiting(architecture, manifest, devices, first_free),
        Call("rt_sigaction", (_SIGPIPE, _IGNORE, 0, _SIGNAL_SET_OCTETS), 0, "cannot ignore SIGPIPE"),
        *_giving_up(confinement),
        *(Call("munmap", (memory, top - memory)) for top in architecture.tops if top > memory),
        Call("prctl", (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0, "cannot renounce new privileges"),
        Call(
            "seccomp",
            (_SECCOMP_SET_MODE_FILTER, 0, Program(program)),
            0,
            "cannot install the seccomp filter",
        ),
    ]


def _accounting(confinement: Confinement, free: int) -> list[Call]:
    made: list[Call] = []
    if confinement.cgroup is not None:
        path = to_octets(f"{confinement.cgroup}/cgroup.procs")
        made += _write_file(path, b"0", free, "cannot enter its cgroup")
    if confinement.out_of_memory_score is not None:
        score = str(confinement.out_of_memory_score).encode()
        made += _write_file(b"/proc/self/oom_score_adj", score, free, None)
    return made


def _write_file(path: bytes, content: bytes, free: int, failure: str | None) -> list[Call]:
    """Open, write, close; ``free`` is the lowest free descriptor. Without ``failure``, a failed open fails all."""
    opened, written, closed = (free, len(content), 0) if failure else (None, None, None)
    return [
        Call("openat", (_AT_FDCWD, path + b"\0", _WRITE_ONLY, 0), opened, failure or ""),
        Call("write", (free, content, len(content)), written, failure or ""),
        Call("close", (free,), closed, failure or ""),
    ]


def _memory(occupied: Iterable[Region], memory: int) -> list[Call]:
    gaps: list[Region] = []
    position = LOWEST
    for region in (*occupied, Region(memory, memory)):
        if position < region.start:
            gaps.append(Region(position, region.start))
        position = region.end
    small = [Call("prctl", (_PR_SET_THP_DISABLE, 1, 0, 0, 0))] if memory < HUGE_PAGES_FROM else []
    return small + [
        Call(
            "mmap",
            (gap.start, gap.end - gap.start, _READ_WRITE, _PRIVATE_ANONYMOUS_FIXED_NOREPLACE, _NO_FILE, 0),
            gap.start,
            f"cannot reserve {memory >> 20} MB of memory",
        )
        for gap in gaps
    ]


def _waiting(
    architecture: Architecture, manifest: Manifest, devices: Sequence[AttachedDevice], epoll: int
) -> list[Call]:
    timer = epoll + 1
    handles = {device.name: handle for handle, device in enumerate(manifest.devices, 1)}
    readable = [(timer, _TIMER_KEY)]
    readable += [
        (descriptor, handles[device.name])
        for descriptor, device in enumerate(devices, FIRST_DESCRIPTOR)
        if isinstance(device, AttachedNet)
    ]
    return [
        Call("epoll_create1", (0,), epoll, "cannot make its epoll set"),
        Call("timerfd_create", (_CLOCK_MONOTONIC, _NONBLOCK), timer, "cannot make its timer"),
        *(
            Call(
                "epoll_ctl",
                (epoll, _EPOLL_CTL_ADD, descriptor, architecture.epoll_event.pack(_EPOLLIN, key)),
                0,
                "cannot wait for its devices",
            )
            for descriptor, key in readable
        ),
    ]


def _giving_up(confinement: Confinement) -> list[Call]:
    title = to_octets(confinement.title)[:TITLE_OCTETS] + b"\0"
    made = [
        Call("prctl", (_PR_SET_NAME, title), 0, "cannot set its name"),
        Call("prlimit64", (0, _RLIMIT_CORE, struct.pack("<QQ", 0, 0), 0), 0, "cannot forbid core dumps"),
    ]
    if confinement.cpuids:
        mask = sum(1 << cpu for cpu in confinement.cpuids)
        octets = mask.to_bytes((max(confinement.cpuids) // 64 + 1) * 8, "little")
        first = sorted(confinement.cpuids)[:SHOWN_CPUS]
        shown = ", ".join(map(str, first)) + ("…" if len(first) < len(confinement.cpuids) else "")
        made.append(Call("sched_setaffinity", (0, len(octets), octets), 0, f"this host cannot run it on cpu {shown}"))
    if confinement.uid is not None:
        uid, gid = confinement.uid, confinement.uid if confinement.gid is None else confinement.gid
        made += [
            Call("setgroups", (0, 0), 0, "cannot leave its groups"),
            Call("setresgid", (gid, gid, gid), 0, f"cannot become group {gid}"),
            Call("setresuid", (uid, uid, uid), 0, f"cannot become user {uid}"),
        ]
    made.append(Call("capset", (_CAPABILITY_VERSION_3, bytes(24)), 0, "cannot give up its capabilities"))
    dumpable = int(confinement.inspectable)
    made.append(Call("prctl", (_PR_SET_DUMPABLE, dumpable, 0, 0, 0), 0, "cannot shut out debuggers"))
    return made
