"""Unikernels under the embedded tender: what they find, what they may do, how they end."""

import os
import re
import resource
import signal
import stat
import struct
from pathlib import Path

import pytest

from albatross_pki.host.spt.attached import AttachedBlock, Confinement
from albatross_pki.host.spt.bootinfo import BOOT, MAX_COMMAND_LINE
from albatross_pki.host.spt.stub import CODE, TABLE, TABLE_ROOM
from tests.host.spt.conftest import Start
from tests.solo5_builder import (
    EXIT_WITH_NEGATED_RESULT,
    EXIT_WITH_RESULT,
    JUMP_RAX,
    LOAD_BYTE,
    READ,
    START,
    STORE_BYTE,
    WRITE,
    Segment,
    build_image,
    call,
    exits_with,
    load,
)

MEMORY = 2 << 20
DATA = 0x102000
TABLE_END = TABLE + TABLE_ROOM - 1


@pytest.mark.parametrize("status", [0, 1, 77, 125, 255])
def test_the_exit_status_is_the_unikernels(start: Start, status: int) -> None:
    assert start("hello", f"--exit={status}").wait() == status


def test_the_command_line_arrives(start: Start) -> None:
    guest = start("hello", "--name=dev:hello one two --exit=0")
    assert guest.read_line() == b"hello, the command line is: --name=dev:hello one two --exit=0"


def test_the_longest_command_line_arrives(start: Start) -> None:
    guest = start("hello", "--exit=9 " + "x" * (MAX_COMMAND_LINE - 9))
    assert guest.wait() == 9


def test_lines_arrive_while_it_runs(start: Start) -> None:
    guest = start("ticker", "--lines=2")
    assert guest.read_line() == b"tick 1"
    assert guest.read_line() == b"tick 2"
    assert guest.wait() == 0


def test_it_waits_without_using_the_processor_and_ends_on_sigterm(start: Start) -> None:
    guest = start("hello")
    guest.read_line()
    os.kill(guest.pid, signal.SIGTERM)
    assert guest.wait() == -signal.SIGTERM


@pytest.mark.usefixtures("machine_code")
def test_boot_information_and_registers_are_those_of_the_interface(start: Start) -> None:
    # write(1, stack pointer - 56, 56) of: rdi, rsp as pushed, [rsp]; then the boot information itself
    registers = [b"\x57", b"\x54", b"\xff\x74\x24\x10", b"\x53", b"\x55", b"\x41\x54", b"\x41\x57"]  # push each
    code = b"".join(registers)
    code += b"\x48\x89\xe6" + load("rdi", 1) + load("rdx", 56) + load("rax", 1) + b"\x0f\x05"
    code += call(1, 1, BOOT, 40) + exits_with(0)
    guest = start(build_image(code=code), "abc", memory_mb=3)
    assert guest.wait() == 0
    r15, r12, rbp, rbx, word, rsp, rdi = struct.unpack_from("<7Q", guest.output)
    assert rdi == BOOT
    assert rsp == (3 << 20) - 16  # pushed once before: 3 MiB - 8 at the entry
    assert (r15, r12, rbp, rbx, word) == (0, 0, 0, 0, 0)
    memory, image_end, command_line, manifest, epoll, timer = struct.unpack_from("<QQQQii", guest.output, 56)
    assert (memory, image_end) == (3 << 20, 0x101000)
    assert (manifest, command_line) == (BOOT + 40, BOOT + 40 + 8 + 104)
    assert (epoll, timer) == (3, 4)


@pytest.mark.usefixtures("machine_code")
def test_segments_have_their_contents_and_zeros_behind(start: Start) -> None:
    segments = [
        Segment(START, load("rax", DATA + 4) + LOAD_BYTE + EXIT_WITH_RESULT),
        Segment(DATA, b"data\x07", READ | WRITE, memory=0x3000),
    ]
    assert start(build_image(segments=segments)).wait() == 7
    segments[0] = Segment(START, load("rax", DATA + 5) + LOAD_BYTE + EXIT_WITH_RESULT)
    assert start(build_image(segments=segments)).wait() == 0


@pytest.mark.usefixtures("machine_code")
def test_zeros_around_writable_contents_are_memory_like_all_other(start: Start) -> None:
    end = START + 0x40000
    for place in (START + 0x10000, START + 0x12010, START + 0x13000, end - 1):
        segments = [
            Segment(START, load("rax", place) + STORE_BYTE + LOAD_BYTE + EXIT_WITH_RESULT),
            Segment(START + 0x12010, b"data", READ | WRITE, align=0x10000, memory=0x20000),
        ]
        assert start(build_image(segments=segments)).wait() == 1


READABLE = {"boot": BOOT, "low": 0x10000, "gap": 0x50000, "heap": MEMORY // 2 + 0x80000, "top": MEMORY - 1}
UNMAPPED = {"zero": 0, "below": 0xFFFF, "above": MEMORY, "old stack": 0x7FFFFFFFE000, "far": 1 << 40}
CONSTANT = {
    "zero page": 0,
    "own code": START,
    "stub": CODE,
    "table": TABLE,
    "table end": TABLE_END,
    "above": MEMORY,
}
NO_CODE = {
    "boot": BOOT,
    "heap": MEMORY - 0x4000,
    "data": DATA,
    "table": TABLE,
    "table end": TABLE_END,
    "low": 0x10000,
}


@pytest.mark.usefixtures("machine_code")
@pytest.mark.parametrize("place", READABLE)
def test_its_memory_is_readable_and_writable(start: Start, place: str) -> None:
    code = load("rax", READABLE[place]) + STORE_BYTE + LOAD_BYTE + EXIT_WITH_RESULT
    assert start(build_image(code=code)).wait() == 1


@pytest.mark.usefixtures("machine_code")
@pytest.mark.parametrize("place", UNMAPPED)
def test_nothing_else_is_mapped(start: Start, place: str) -> None:
    code = load("rax", UNMAPPED[place]) + LOAD_BYTE + exits_with(0)
    assert start(build_image(code=code)).wait() == -signal.SIGSEGV


@pytest.mark.usefixtures("machine_code")
@pytest.mark.parametrize("place", CONSTANT)
def test_what_is_not_writable_stays_so(start: Start, place: str) -> None:
    code = load("rax", CONSTANT[place]) + STORE_BYTE + exits_with(0)
    assert start(build_image(code=code)).wait() == -signal.SIGSEGV


@pytest.mark.usefixtures("machine_code")
@pytest.mark.parametrize("place", NO_CODE)
def test_what_is_not_code_cannot_be_executed(start: Start, place: str) -> None:
    segments = [
        Segment(START, load("rax", NO_CODE[place]) + JUMP_RAX),
        Segment(DATA, exits_with(0), READ | WRITE),
    ]
    assert start(build_image(segments=segments)).wait() == -signal.SIGSEGV


def test_the_address_space_is_the_unikernels_alone(start: Start) -> None:
    guest = start("hello")
    guest.read_line()
    lowest = end = 0x10000
    for line in Path(f"/proc/{guest.pid}/maps").read_text().splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) (....)", line)
        assert found
        first, last, flags = int(found[1], 16), int(found[2], 16), found[3]
        assert not ("w" in flags and "x" in flags), line
        if "[vsyscall]" in line:
            continue  # no mapping: a page of the kernel that some x86_64 kernels emulate
        assert lowest <= first == end, line
        end = last
    assert end == MEMORY


@pytest.mark.usefixtures("machine_code")
def test_every_other_system_call_kills(start: Start) -> None:
    allowed = {0, 1, 17, 18, 158, 228, 231, 281, 286}
    trampolines = {
        335,
        336,
    }  # uretprobe and uprobe: newer kernels ask no filter, and do nothing outside their own pages
    numbers = [number for number in range(470) if number not in allowed | trampolines] + [0x40000001, 1 << 31]
    for some in (numbers[at : at + 40] for at in range(0, len(numbers), 40)):
        guests = [start(build_image(code=call(number, 1, BOOT, 1) + exits_with(0))) for number in some]
        assert {number: guest.wait() for number, guest in zip(some, guests, strict=True)} == dict.fromkeys(
            some, -signal.SIGSYS
        )


@pytest.mark.usefixtures("machine_code")
def test_it_can_set_its_thread_pointer(start: Start) -> None:
    code = call(158, 0x1002, 0x180000) + EXIT_WITH_NEGATED_RESULT
    assert start(build_image(code=code)).wait() == 0


@pytest.mark.usefixtures("machine_code")
def test_the_wrong_descriptor_kills(start: Start) -> None:
    for descriptor in (0, 2, 3, 4, 5):
        code = call(1, descriptor, BOOT, 8) + exits_with(0)
        assert start(build_image(code=code)).wait() == -signal.SIGSYS


def disk(tmp_path: Path, octets: int, sector_size: int = 512, name: str = "storage") -> AttachedBlock:
    """A sparse file as a disk; the descriptor is closed by the fixture of the test."""
    descriptor = os.open(tmp_path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.ftruncate(descriptor, octets)
    return AttachedBlock(name, descriptor, octets, sector_size)


@pytest.mark.parametrize("sector_size", [512, 4096, 32768])
def test_a_disk_is_read_changed_and_written(start: Start, tmp_path: Path, sector_size: int) -> None:
    device = disk(tmp_path, 2 << 20, sector_size)
    last = (2 << 20) // sector_size - 1
    try:
        for turn in (1, 2):
            guest = start("block", f"--sector={last}", devices=[device])
            assert guest.wait() == 0
            assert f"was changed {turn} times".encode() in guest.output
    finally:
        os.close(device.descriptor)
    content = (tmp_path / "storage").read_bytes()
    assert content[last * sector_size :] == b"\2" + bytes(sector_size - 1)
    assert not any(content[: last * sector_size])


def test_a_sector_behind_the_disk_kills(start: Start, tmp_path: Path) -> None:
    device = disk(tmp_path, 1 << 20)
    try:
        assert start("block", "--sector=2048", devices=[device]).wait() == -signal.SIGSYS
    finally:
        os.close(device.descriptor)


@pytest.mark.usefixtures("machine_code")
def test_63_disks_each_behind_its_own_descriptor(start: Start, tmp_path: Path) -> None:
    names = [f"disk{index}" for index in range(63)]
    devices = [disk(tmp_path, 512, name=name) for name in names]
    try:
        for index, device in enumerate(devices):
            os.pwrite(device.descriptor, bytes([index + 100]), 0)
        for index in (0, 31, 62):
            code = call(17, 3 + index, DATA, 512, 0) + load("rax", DATA) + LOAD_BYTE + EXIT_WITH_RESULT
            image = build_image(code=code, devices=[(name, "BLOCK_BASIC") for name in names])
            assert start(image, devices=devices).wait() == index + 100
    finally:
        for device in devices:
            os.close(device.descriptor)


def test_devices_may_be_attached_in_any_order(start: Start, tmp_path: Path) -> None:
    image = build_image(
        code=call(17, 3, DATA, 512, 0) + load("rax", DATA) + LOAD_BYTE + EXIT_WITH_RESULT,
        devices=[("a", "BLOCK_BASIC"), ("b", "BLOCK_BASIC")],
    )
    if os.uname().machine != "x86_64":
        pytest.skip("this unikernel is machine code for x86_64")
    first, second = disk(tmp_path, 512, name="b"), disk(tmp_path, 512, name="a")
    try:
        os.pwrite(first.descriptor, b"\x42", 0)
        assert start(image, devices=[first, second]).wait() == 0x42
    finally:
        os.close(first.descriptor)
        os.close(second.descriptor)


def test_p06_a_console_that_nobody_reads_any_more_is_no_reason_to_end(start: Start) -> None:
    guest = start("ticker", "--fast --lines=20000")
    guest.read_line()
    # the reader goes away while the unikernel writes
    replacement = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(replacement, guest.console, inheritable=False)
    os.close(replacement)
    assert guest.wait() == 0


def test_too_much_memory_is_a_reason_on_the_console(start: Start) -> None:
    guest = start("hello", memory_mb=1 << 28)
    assert guest.wait() == 125
    assert guest.output == b"tender: cannot reserve 268435456 MB of memory\n"


def test_a_limit_of_the_address_space_is_a_reason_on_the_console(start: Start) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, before[1]))
    try:
        guest = start("hello", memory_mb=4096)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
    assert guest.wait() == 125
    assert guest.output == b"tender: cannot reserve 4096 MB of memory\n"


def test_a_cpu_that_is_not_there_is_a_reason_on_the_console(start: Start) -> None:
    guest = start("hello", confinement=Confinement(cpuids=frozenset({8000})))
    assert guest.wait() == 125
    assert guest.output == b"tender: this host cannot run it on cpu 8000\n"


def test_p33_resident_memory_of_a_waiting_unikernel_is_below_200_kb(start: Start) -> None:
    for memory_mb in (2, 512):
        guest = start("hello", memory_mb=memory_mb)
        guest.read_line()
        resident = guest.state()["VmRSS"]
        assert resident.endswith(" kB")
        assert int(resident.split()[0]) < 200


@pytest.mark.parametrize(("memory_mb", "allowed"), [(2, "0"), (255, "0"), (256, "1")])
def test_p33_huge_pages_are_for_large_unikernels(start: Start, memory_mb: int, allowed: str) -> None:
    """Where a system uses them for everything, as Debian's does, one would be most of a small unikernel's memory."""
    guest = start("hello", memory_mb=memory_mb)
    guest.read_line()
    assert guest.state()["THP_enabled"] == allowed


def test_the_composed_file_is_not_executable_by_name_anywhere(start: Start) -> None:
    guest = start("hello")
    guest.read_line()
    assert "deleted" in os.readlink(f"/proc/{guest.pid}/exe")
    assert stat.S_ISCHR(os.stat(f"/proc/{guest.pid}/fd/0").st_mode)
