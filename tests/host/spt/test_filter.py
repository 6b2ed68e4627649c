"""The seccomp filter, run by an interpreter of classic BPF that knows nothing about how it was made."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albatross_pki.host.spt.architecture import AARCH64, X86_64, Architecture
from albatross_pki.host.spt.attached import AttachedBlock, AttachedNet
from albatross_pki.host.spt.filter import MAX_INSTRUCTIONS, Comparison, assemble, program, rules

ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000
NET = AttachedNet("service", 90, bytes(6), 1500)
DISK = AttachedBlock("storage", 91, 5 * 2**32 + 0x2000, 512)
LAST_SECTOR = 5 * 2**32 + 0x2000 - 512
SHAPES = (None, (DISK.capacity, DISK.sector_size))
DEVICES = (NET, DISK)  # descriptors 3 and 4, so the epoll set is 5 and the timer 6


def verdict(octets: bytes, number: int, arguments: tuple[int, ...] = (), audit: int = X86_64.audit) -> int:
    """What Linux does with one call (seccomp(2); ``struct seccomp_data``)."""
    padded = (*arguments, *[0] * 6)[:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, audit, 0x100000, *padded)
    instructions = list(struct.iter_unpack("<HBBI", octets))
    accumulator = counter = steps = 0
    while True:
        code, yes, no, operand = instructions[counter]
        counter += 1
        steps += 1
        assert steps <= len(instructions)
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            assert operand % 4 == 0
            accumulator = int.from_bytes(data[operand : operand + 4], "little")
        elif code == 0x05:  # BPF_JMP | BPF_JA
            counter += operand
        elif code == 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
            counter += yes if accumulator == operand else no
        elif code == 0x25:  # BPF_JMP | BPF_JGT | BPF_K
            counter += yes if accumulator > operand else no
        elif code == 0x06:  # BPF_RET | BPF_K
            return int(operand)
        else:
            raise AssertionError(f"instruction {code:#x}")


FILTERS = {architecture: program(architecture, DEVICES) for architecture in (X86_64, AARCH64)}
HIGH = 1 << 32  # a number whose low half is zero

ALLOWED = [
    ("write", (1, 0x1000, 5)),
    ("write", (3, 0x1000, 5)),
    ("read", (3, 0x1000, 1514)),
    ("exit_group", (77,)),
    ("exit_group", (2**64 - 1,)),
    ("epoll_pwait", (5, 0x1000, 2, 2**64 - 1, 0, 0)),
    ("timerfd_settime", (6, 1, 0x1000, 0)),
    ("clock_gettime", (0, 0x1000)),
    ("clock_gettime", (1, 0x1000)),
    ("pread64", (4, 0x1000, 512, 0)),
    ("pwrite64", (4, 0x1000, 512, LAST_SECTOR)),
    ("pread64", (4, 0x1000, 512, 4 * HIGH + 0xFFFFFFFF)),  # a smaller high half, whatever the low one
    ("pwrite64", (4, 0x1000, 512, 7)),  # alignment is the unikernel's duty
]
DENIED = [
    ("write", (0, 0x1000, 5)),
    ("write", (2, 0x1000, 5)),
    ("write", (1 + HIGH, 0x1000, 5)),
    ("write", (4, 0x1000, 512)),
    ("write", (5, 0x1000, 8)),
    ("read", (0, 0x1000, 5)),
    ("read", (1, 0x1000, 5)),
    ("read", (4, 0x1000, 512)),
    ("read", (6, 0x1000, 8)),
    ("read", (2**64 - 1, 0, 0)),
    ("epoll_pwait", (6, 0x1000, 2)),
    ("timerfd_settime", (5, 1, 0x1000, 0)),
    ("clock_gettime", (2, 0x1000)),
    ("clock_gettime", (HIGH, 0x1000)),
    ("pread64", (3, 0x1000, 512, 0)),
    ("pread64", (4, 0x1000, 511, 0)),
    ("pread64", (4, 0x1000, 1024, 0)),
    ("pread64", (4, 0x1000, 512 + HIGH, 0)),
    ("pwrite64", (4, 0x1000, 512, LAST_SECTOR + 1)),
    ("pwrite64", (4, 0x1000, 512, 6 * HIGH)),
    ("pwrite64", (4, 0x1000, 512, 2**64 - 512)),
    ("epoll_create1", (0,)),
    ("mmap", (0, 4096, 7, 0x22, 2**64 - 1, 0)),
    ("openat", (2**64 - 100, 0x1000, 0)),
    ("seccomp", (1, 0, 0)),
]


@pytest.mark.parametrize("architecture", FILTERS, ids=lambda each: each.name)
@pytest.mark.parametrize(("call", "arguments"), ALLOWED)
def test_what_a_unikernel_needs_is_allowed(architecture: Architecture, call: str, arguments: tuple[int, ...]) -> None:
    assert verdict(FILTERS[architecture], architecture.calls[call], arguments, architecture.audit) == ALLOW


@pytest.mark.parametrize("architecture", FILTERS, ids=lambda each: each.name)
@pytest.mark.parametrize(("call", "arguments"), DENIED)
def test_everything_else_kills(architecture: Architecture, call: str, arguments: tuple[int, ...]) -> None:
    assert verdict(FILTERS[architecture], architecture.calls[call], arguments, architecture.audit) == KILL_PROCESS


def test_thread_local_storage_is_a_call_on_x86_64_only() -> None:
    call = X86_64.calls["arch_prctl"]
    assert verdict(FILTERS[X86_64], call, (0x1002, 0x5000)) == ALLOW
    assert verdict(FILTERS[X86_64], call, (0x1001, 0x5000)) == KILL_PROCESS
    assert "arch_prctl" not in AARCH64.calls


@pytest.mark.parametrize("architecture", FILTERS, ids=lambda each: each.name)
def test_no_other_number_is_allowed(architecture: Architecture) -> None:
    wanted = {"write", "read", "exit_group", "epoll_pwait", "timerfd_settime", "clock_gettime", "pread64", "pwrite64"}
    if architecture is X86_64:
        wanted.add("arch_prctl")
    numbers = {architecture.calls[call] for call in wanted}
    for number in (*range(1024), *range(0x40000000, 0x40000400), 2**31, 2**32 - 1):
        if number not in numbers:
            assert verdict(FILTERS[architecture], number, (1, 1, 1), architecture.audit) == KILL_PROCESS


def test_another_architectures_calls_are_not_allowed() -> None:
    i386 = 0x40000003
    assert verdict(FILTERS[X86_64], 231, (0,), i386) == KILL_PROCESS
    assert verdict(FILTERS[X86_64], 231, (0,), AARCH64.audit) == KILL_PROCESS


@pytest.mark.parametrize("architecture", FILTERS, ids=lambda each: each.name)
def test_the_largest_manifest_fits(architecture: Architecture) -> None:
    devices = [AttachedBlock(f"d{index}", index, 2**40, 4096) for index in range(63)]
    octets = program(architecture, devices)
    assert len(octets) // 8 <= MAX_INSTRUCTIONS // 2
    for descriptor in (3, 65):
        assert verdict(octets, architecture.calls["pread64"], (descriptor, 0, 4096, 0), architecture.audit) == ALLOW
    assert verdict(octets, architecture.calls["pread64"], (66, 0, 4096, 0), architecture.audit) == KILL_PROCESS


def test_a_filter_that_is_too_long_is_a_mistake_of_ours() -> None:
    with pytest.raises(RuntimeError, match="a filter of"):
        assemble(X86_64, rules(X86_64, SHAPES) * 200)


words = st.sampled_from((0, 1, 2, 3, 4, 5, 6, 512, 0x1002, LAST_SECTOR, LAST_SECTOR + 1, 6 * HIGH, HIGH + 3, 2**64 - 1))


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(sorted(X86_64.calls.values())), st.tuples(*[words | st.integers(0, 2**64 - 1)] * 4))
def test_the_program_does_what_the_rules_say(number: int, arguments: tuple[int, ...]) -> None:
    expected = any(
        X86_64.calls[rule.call] == number
        and all(
            arguments[condition.argument] == condition.value
            if condition.comparison is Comparison.EQUAL
            else arguments[condition.argument] <= condition.value
            for condition in rule.conditions
        )
        for rule in rules(X86_64, SHAPES)
    )
    assert verdict(FILTERS[X86_64], number, arguments) == (ALLOW if expected else KILL_PROCESS)
