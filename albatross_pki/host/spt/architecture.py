"""What differs between x86_64 and aarch64: the numbers of system calls, and the shapes of two structures.

The numbers are those of Linux' ``asm/unistd_64.h`` (x86_64) and ``asm-generic/unistd.h`` (aarch64).
"""

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from albatross_pki.image.elf import EM_AARCH64, EM_X86_64


@dataclass(frozen=True, slots=True, eq=False)
class Architecture:
    """One processor's side of Linux and of Solo5's spt.

    ``machine`` is ELF's, ``audit`` seccomp's number for it; ``tops`` are the first addresses above what a process can
    have mapped, one per size of address space, the largest first; ``stack_gap`` the octets between the first stack
    pointer and the end of memory; ``epoll_event`` packs events and data.
    """

    name: str
    machine: int
    audit: int
    tops: tuple[int, ...]
    stack_gap: int
    epoll_event: struct.Struct
    calls: Mapping[str, int]


X86_64 = Architecture(
    name="x86_64",
    machine=EM_X86_64,
    audit=0xC000003E,
    tops=(0x7FFFFFFFF000,),
    stack_gap=8,  # as after a call: the stack pointer plus eight is a multiple of sixteen
    epoll_event=struct.Struct("<IQ"),
    calls={
        "read": 0,
        "write": 1,
        "close": 3,
        "mmap": 9,
        "munmap": 11,
        "rt_sigaction": 13,
        "pread64": 17,
        "pwrite64": 18,
        "setgroups": 116,
        "setresuid": 117,
        "setresgid": 119,
        "capset": 126,
        "prctl": 157,
        "arch_prctl": 158,
        "sched_setaffinity": 203,
        "clock_gettime": 228,
        "exit_group": 231,
        "epoll_ctl": 233,
        "openat": 257,
        "epoll_pwait": 281,
        "timerfd_create": 283,
        "timerfd_settime": 286,
        "epoll_create1": 291,
        "prlimit64": 302,
        "seccomp": 317,
        "close_range": 436,
    },
)

AARCH64 = Architecture(
    name="aarch64",
    machine=EM_AARCH64,
    audit=0xC00000B7,
    tops=(1 << 48, 1 << 47, 1 << 42, 1 << 39),
    stack_gap=16,
    epoll_event=struct.Struct("<I4xQ"),
    calls={
        "epoll_create1": 20,
        "epoll_ctl": 21,
        "epoll_pwait": 22,
        "openat": 56,
        "close": 57,
        "read": 63,
        "write": 64,
        "pread64": 67,
        "pwrite64": 68,
        "timerfd_create": 85,
        "timerfd_settime": 86,
        "capset": 91,
        "exit_group": 94,
        "clock_gettime": 113,
        "sched_setaffinity": 122,
        "rt_sigaction": 134,
        "setresuid": 147,
        "setresgid": 149,
        "setgroups": 159,
        "prctl": 167,
        "munmap": 215,
        "mmap": 222,
        "prlimit64": 261,
        "seccomp": 277,
        "close_range": 436,
    },
)

ARCHITECTURES: Mapping[int, Architecture] = {each.machine: each for each in (X86_64, AARCH64)}


def native_architecture() -> Architecture | None:
    """The architecture of this host, ``None`` where the embedded tender knows none."""
    machine = os.uname().machine
    return next((each for each in ARCHITECTURES.values() if each.name == machine), None)
