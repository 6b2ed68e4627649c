"""The seccomp filter of an spt unikernel: which system calls it may make, on what.

Everything that is not listed kills the process with SIGSYS. The list is that of Solo5's spt tender (ABI version 2):

* ``write`` to the console, ``exit_group``, ``clock_gettime`` of the wall and the monotonic clock;
* ``epoll_pwait`` on its epoll set, ``timerfd_settime`` on its timer; on x86_64 ``arch_prctl(ARCH_SET_FS)``;
* ``read`` and ``write`` of each of its taps;
* ``pread64`` and ``pwrite64`` of each of its disks, exactly one sector, ending within the capacity.

Arguments are compared as the 64-bit words that they are, in two halves, because the machine of the filter (classic
BPF) has 32 bits. The number is compared exactly, which also excludes the x32 numbers of x86_64.
"""

import struct
from collections.abc import Iterable, Sequence
from enum import Enum
from functools import lru_cache
from itertools import starmap
from typing import NamedTuple

from albatross_pki.host.spt.architecture import Architecture
from albatross_pki.host.spt.attached import FIRST_DESCRIPTOR, AttachedBlock, AttachedDevice

CONSOLE = 1
MAX_INSTRUCTIONS = 4096
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_ARCH_SET_FS = 0x1002
_CLOCK_REALTIME, _CLOCK_MONOTONIC = 0, 1

# struct seccomp_data: number and architecture, then (after the instruction pointer) six 64-bit arguments
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_LOAD, _JUMP, _IF_EQUAL, _IF_GREATER, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x06
_INSTRUCTION = struct.Struct("<HBBI")
_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


class Comparison(Enum):
    EQUAL = "="
    AT_MOST = "<="


class Condition(NamedTuple):
    """What one argument (0 to 5) of a call must be; ``value`` is an unsigned 64-bit number."""

    argument: int
    comparison: Comparison
    value: int


class Rule(NamedTuple):
    """A call that is allowed if all conditions hold; several rules for one call are alternatives."""

    call: str
    conditions: tuple[Condition, ...] = ()


def rules(architecture: Architecture, shapes: Sequence[tuple[int, int] | None]) -> list[Rule]:
    """The list above for a unikernel whose devices have the descriptors from ``FIRST_DESCRIPTOR`` on, in order.

    A disk's shape is its capacity and its sector size in octets, a tap's is ``None``.
    """
    epoll = FIRST_DESCRIPTOR + len(shapes)
    timer = epoll + 1
    allowed = [
        Rule("write", (_equal(0, CONSOLE),)),
        Rule("epoll_pwait", (_equal(0, epoll),)),
        Rule("timerfd_settime", (_equal(0, timer),)),
        Rule("clock_gettime", (_equal(0, _CLOCK_MONOTONIC),)),
        Rule("clock_gettime", (_equal(0, _CLOCK_REALTIME),)),
        Rule("exit_group"),
    ]
    if "arch_prctl" in architecture.calls:
        allowed.append(Rule("arch_prctl", (_equal(0, _ARCH_SET_FS),)))
    for descriptor, shape in enumerate(shapes, FIRST_DESCRIPTOR):
        own = _equal(0, descriptor)
        if shape is None:
            allowed += [Rule("read", (own,)), Rule("write", (own,))]
        else:
            capacity, sector_size = shape
            sector = (own, _equal(2, sector_size), Condition(3, Comparison.AT_MOST, capacity - sector_size))
            allowed += [Rule("pread64", sector), Rule("pwrite64", sector)]
    return allowed


def _equal(argument: int, value: int) -> Condition:
    return Condition(argument, Comparison.EQUAL, value)


def program(architecture: Architecture, devices: Sequence[AttachedDevice]) -> bytes:
    """The assembled filter for ``devices``; the last few are kept, because most unikernels have the same one."""
    shapes = tuple((each.capacity, each.sector_size) if isinstance(each, AttachedBlock) else None for each in devices)
    return _program(architecture, shapes)


@lru_cache(maxsize=64)
def _program(architecture: Architecture, shapes: tuple[tuple[int, int] | None, ...]) -> bytes:
    return assemble(architecture, rules(architecture, shapes))


def assemble(architecture: Architecture, allowed: Iterable[Rule]) -> bytes:
    """The filter as an array of ``struct sock_filter``; raises ``RuntimeError`` above 4,096 instructions.

    63 disks, the most that a manifest can have, need fewer than half of them.
    """
    by_call: dict[str, list[Rule]] = {}
    for rule in allowed:
        by_call.setdefault(rule.call, []).append(rule)
    program = [
        (_LOAD, 0, 0, _ARCH),
        (_IF_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER),
    ]
    for call, alternatives in by_call.items():
        body = [instruction for rule in alternatives for instruction in _alternative(rule)]
        body.append((_RETURN, 0, 0, _KILL_PROCESS))
        # a conditional jump reaches 255 instructions, the plain one any number
        program += [(_IF_EQUAL, 1, 0, architecture.calls[call]), (_JUMP, 0, 0, len(body)), *body]
    program.append((_RETURN, 0, 0, _KILL_PROCESS))
    if len(program) > MAX_INSTRUCTIONS:
        raise RuntimeError(f"a filter of {len(program)} instructions")
    return b"".join(starmap(_INSTRUCTION.pack, program))


def _alternative(rule: Rule) -> list[_Instruction]:
    """Instructions that return "allow" if all conditions hold and fall out at the end otherwise."""
    tail: list[_Instruction] = [(_RETURN, 0, 0, _ALLOW)]
    for condition in reversed(rule.conditions):
        tail = [*_condition(condition, len(tail)), *tail]
    return tail


def _condition(condition: Condition, beyond: int) -> tuple[_Instruction, ...]:
    """Instructions that skip ``beyond`` instructions behind them unless ``condition`` holds."""
    low, high = condition.value & 0xFFFFFFFF, condition.value >> 32
    place = _ARGUMENTS + 8 * condition.argument
    if condition.comparison is Comparison.EQUAL:
        return (
            (_LOAD, 0, 0, place),
            (_IF_EQUAL, 0, beyond + 2, low),
            (_LOAD, 0, 0, place + 4),
            (_IF_EQUAL, 0, beyond, high),
        )
    return (
        (_LOAD, 0, 0, place + 4),
        (_IF_GREATER, beyond + 3, 0, high),
        (_IF_EQUAL, 0, 2, high),  # a lower high half decides: the low half does not matter
        (_LOAD, 0, 0, place),
        (_IF_GREATER, beyond, 0, low),
    )
