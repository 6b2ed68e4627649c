"""What is put into the memory file, what is refused before, and that nobody can change it afterwards."""

import errno
import fcntl
import io
import mmap
import os
import struct
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from albatross_pki.errors import OutOfRange, Refused
from albatross_pki.host.spt.architecture import X86_64
from albatross_pki.host.spt.attached import AttachedBlock, AttachedDevice, AttachedNet, Confinement
from albatross_pki.host.spt.bootinfo import BOOT
from albatross_pki.host.spt.compose import compose
from albatross_pki.host.spt.filter import program
from albatross_pki.host.spt.stub import CODE, MACHINE_CODE, TABLE
from albatross_pki.image.solo5 import parse_image
from tests.solo5_builder import READ, START, WRITE, Segment, build_image

MAC = bytes.fromhex("020304050607")
Composer = Callable[..., int]


@pytest.fixture
def composed() -> Iterator[Composer]:
    """``compose`` with the parsed image and defaults; descriptors are closed at the end."""
    made: list[int] = []

    def composer(
        octets: bytes, *, memory_mb: int = 2, arguments: bytes = b"", devices: Sequence[AttachedDevice] = ()
    ) -> int:
        made.append(compose(parse_image(octets), octets, memory_mb, arguments, devices, Confinement()))
        return made[-1]

    yield composer
    for descriptor in made:
        os.close(descriptor)


def content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def loaded(descriptor: int) -> dict[int, tuple[int, bytes]]:
    """What ``execve`` maps, as pyelftools reads it: address, then flags and octets."""
    elf = ELFFile(io.BytesIO(content(descriptor)))
    segments = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
    assert all(segment["p_offset"] % 4096 == 0 and segment["p_align"] == 4096 for segment in segments)
    assert all(segment["p_filesz"] == segment["p_memsz"] for segment in segments)
    return {segment["p_vaddr"]: (segment["p_flags"], segment.data()) for segment in segments}


def test_the_executable_has_our_pieces_and_the_images_segments(composed: Composer) -> None:
    segments = [Segment(START, b"\xf4" * 5000), Segment(START + 0x3010, b"data", READ | WRITE, memory=0x100)]
    descriptor = composed(build_image(segments=segments), memory_mb=4)
    pieces = loaded(descriptor)
    assert [(address, flags, len(octets)) for address, (flags, octets) in pieces.items()] == [
        (BOOT, 6, 0x1000),
        (CODE, 5, 0x1000),
        (TABLE, 4, 0x9000),
        (START, 5, 0x2000),
        (START + 0x3000, 6, 0x1000),
    ]
    assert pieces[START][1] == (b"\xf4" * 5000).ljust(0x2000, b"\0")
    assert pieces[START + 0x3000][1] == (bytes(0x10) + b"data").ljust(0x1000, b"\0")
    assert pieces[CODE][1].rstrip(b"\0") == MACHINE_CODE[62]
    elf = ELFFile(io.BytesIO(content(descriptor)))
    assert elf["e_entry"] == CODE
    (stack,) = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_GNU_STACK"]
    assert stack["p_flags"] == READ | WRITE  # not executable: older kernels would make everything executable


def test_an_image_with_as_many_segments_as_it_may_have(composed: Composer) -> None:
    segments = [Segment(START + index * 0x2000, b"\xf4") for index in range(62)]
    pieces = loaded(composed(build_image(segments=segments)))
    assert len(pieces) == 62 + 3


def test_the_longest_table_fits() -> None:
    """As many segments with gaps between them, taps, CPUs and octets of a path as there may be."""
    names = [f"n{index}" for index in range(63)]
    segments = [Segment(START + index * 0x2000, b"\xf4") for index in range(62)]
    octets = build_image(segments=segments, devices=[(name, "NET_BASIC") for name in names])
    devices = [AttachedNet(name, 50, MAC, 1500) for name in names]
    cpuids = frozenset(range(8192))
    confinement = Confinement(title="x" * 99, uid=2**32 - 2, cpuids=cpuids, cgroup="/" + "c" * 3999)
    for image in (octets, build_image(segments=segments, machine=183)):
        attached = devices if image is octets else []
        os.close(compose(parse_image(image), image, 2, b"x" * 8191, attached, confinement))


def test_the_image_for_another_processor_is_composed_for_that(composed: Composer) -> None:
    descriptor = composed(build_image(machine=183))
    elf = ELFFile(io.BytesIO(content(descriptor)))
    assert elf["e_machine"] == "EM_AARCH64"
    assert loaded(descriptor)[CODE][1].rstrip(b"\0") == MACHINE_CODE[183].rstrip(b"\0")


def test_devices_are_filled_into_the_manifest(composed: Composer) -> None:
    octets = build_image(devices=[("service", "NET_BASIC"), ("storage", "BLOCK_BASIC")])
    devices = [AttachedBlock("storage", 50, 1 << 33, 4096), AttachedNet("service", 51, MAC, 1420)]
    boot = loaded(composed(octets, devices=devices, arguments=b"--name=x y"))[BOOT][1]
    memory, end, command_line, manifest, epoll, timer = struct.unpack_from("<QQQQii", boot)
    assert (memory, end, epoll, timer) == (2 << 20, START + 0x1000, 5, 6)
    assert boot[command_line - BOOT :].startswith(b"--name=x y\0")
    entries = boot[manifest - BOOT :]
    assert struct.unpack_from("<II", entries) == (1, 3)
    service, storage = entries[8 + 104 : 8 + 208], entries[8 + 208 : 8 + 312]
    assert service[:8] == b"service\0"
    assert struct.unpack_from("<I6sH", service, 68) == (2, MAC, 1420)
    assert struct.unpack_from("<iIB", service, 88) == (4, 0, 1)
    assert storage[:8] == b"storage\0"
    assert struct.unpack_from("<IQH", storage, 68) == (1, 1 << 33, 4096)
    assert struct.unpack_from("<iIB", storage, 88) == (3, 0, 1)


def test_p18_the_executable_is_sealed_against_its_writer_too(composed: Composer) -> None:
    descriptor = composed(build_image())
    seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    assert seals == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    before = content(descriptor)
    with pytest.raises(PermissionError):
        os.pwrite(descriptor, b"\xcc", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    with pytest.raises(PermissionError):
        os.posix_fallocate(descriptor, 0, len(before) + 4096)
    with pytest.raises(PermissionError):
        mmap.mmap(descriptor, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    with pytest.raises(PermissionError):
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0)
    again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
    try:
        with pytest.raises(PermissionError):
            os.pwrite(again, b"\xcc", 0)
    finally:
        os.close(again)
    assert content(descriptor) == before


def test_p18_changing_the_image_afterwards_changes_nothing(composed: Composer) -> None:
    octets = bytearray(build_image())
    image = parse_image(octets)
    descriptor = compose(image, octets, 2, b"", (), Confinement())
    try:
        before = content(descriptor)
        octets[:] = bytes(len(octets))
        assert content(descriptor) == before
    finally:
        os.close(descriptor)


def test_kernels_that_do_not_know_executable_memory_files_are_asked_for_an_ordinary_one(
    composed: Composer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux before 6.3 refuses the flag MFD_EXEC, and lets every memory file be executed."""
    real = os.memfd_create
    asked = []

    def older(name: str, flags: int) -> int:
        asked.append(flags)
        if flags & 0x10:
            raise OSError(errno.EINVAL, "unknown flag")
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", older)
    assert loaded(composed(build_image()))
    assert asked == [os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | 0x10, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING]


def test_the_descriptor_is_closed_on_exec(composed: Composer) -> None:
    assert not os.get_inheritable(composed(build_image()))


def test_a_large_image_is_copied_once() -> None:
    size = 64 << 20
    octets = bytearray(build_image(segments=[Segment(START, b"\xf4"), Segment(START + 0x1000, bytes(size), READ)]))
    image = parse_image(octets)
    tracemalloc.start()
    try:
        os.close(compose(image, octets, 128, b"", (), Confinement()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_zeros_take_no_memory(composed: Composer) -> None:
    zeros = Segment(START + 0x1000, b"x", READ, memory=64 << 20)
    status = os.fstat(composed(build_image(segments=[Segment(START, b"\xf4"), zeros]), memory_mb=128))
    assert status.st_size > 64 << 20
    assert status.st_blocks * 512 < 1 << 20


def test_zeros_that_can_be_written_are_not_in_the_file(composed: Composer) -> None:
    data = Segment(START + 0x10000, b"x" * 0x1001, READ | WRITE, align=0x10000, memory=64 << 20)
    odd = Segment(START + (80 << 20) + 0x2010, b"y", READ | WRITE, align=0x10000)
    descriptor = composed(build_image(segments=[Segment(START, b"\xf4"), data, odd]), memory_mb=128)
    pieces = loaded(descriptor)
    assert [(address, len(octets)) for address, (flags, octets) in pieces.items() if address > START] == [
        (START + 0x10000, 0x2000),
        (START + (80 << 20) + 0x2000, 0x1000),
    ]
    assert os.fstat(descriptor).st_size < 1 << 20


def test_nothing_stays_open_when_the_file_cannot_be_written() -> None:
    octets = build_image()
    image = parse_image(octets)
    before = sorted(os.listdir("/proc/self/fd"))
    view = memoryview(octets)
    view.release()
    with pytest.raises(ValueError, match="released"):
        compose(image, view, 2, b"", (), Confinement())
    assert sorted(os.listdir("/proc/self/fd")) == before


NET = AttachedNet("service", 50, MAC, 1500)
DISK = AttachedBlock("storage", 51, 8192, 512)
WITH_BOTH = build_image(devices=[("service", "NET_BASIC"), ("storage", "BLOCK_BASIC")])


def refusal(
    octets: bytes, memory_mb: int = 2, arguments: bytes = b"", devices: tuple[AttachedDevice, ...] = ()
) -> Refused:
    with pytest.raises(Refused) as refused:
        compose(parse_image(octets), octets, memory_mb, arguments, devices, Confinement())
    return refused.value


def test_an_image_for_another_tender_is_refused() -> None:
    assert refusal(build_image(target=1)).reasons == ("the image is for Solo5's hvt, the embedded tender runs spt",)
    assert refusal(build_image(version=1)).reasons == (
        "the image is for version 1 of Solo5's spt interface, the embedded tender knows version 2",
    )


def test_p31_everything_that_is_wrong_is_said_at_once() -> None:
    broken = AttachedBlock("storage", 51, 8000, 512)
    stranger = AttachedNet("management", 52, MAC[:5], 0)
    reasons = refusal(WITH_BOTH, 0, b"x" * 8192 + b"\0", (broken, stranger, DISK)).reasons
    assert reasons == (
        "block device 'storage': 8000 octets are not one or more sectors of 512 octets",
        "device 'management' of type NET_BASIC is not declared in the manifest",
        "network interface 'management': a MAC address has six octets",
        "network interface 'management': an MTU of 0 is not possible",
        "device 'storage' is attached twice",
        "device 'service' of type NET_BASIC is declared in the manifest but not attached",
        "arguments of 8193 octets are too long (at most 8191)",
        "a zero octet in the arguments would end them",
        "the image reaches up to 0x101000 and does not fit into 0 MB of memory",
    )


def test_a_device_of_the_other_kind_is_not_the_declared_one() -> None:
    other = AttachedBlock("service", 50, 8192, 512)
    reasons = refusal(WITH_BOTH, devices=(other, DISK)).reasons
    assert reasons == ("device 'service' of type BLOCK_BASIC is not declared in the manifest",)


@pytest.mark.parametrize("size", [0, 1, 256, 513, 1000, 65536, -512])
def test_impossible_sectors_are_refused(size: int) -> None:
    reasons = refusal(WITH_BOTH, devices=(NET, AttachedBlock("storage", 51, 1 << 20, size))).reasons
    assert reasons == (f"block device 'storage': a sector of {size} octets is no power of two from 512 to 32768",)


def test_an_empty_disk_is_refused() -> None:
    reasons = refusal(WITH_BOTH, devices=(NET, AttachedBlock("storage", 51, 0, 512))).reasons
    assert reasons == ("block device 'storage': 0 octets are not one or more sectors of 512 octets",)


@pytest.mark.parametrize(
    "impossible",
    [
        {"uid": 0},
        {"uid": 2**32 - 1},
        {"uid": 5, "gid": 0},
        {"cpuids": frozenset({8192})},
        {"out_of_memory_score": 1001},
        {"cgroup": ""},
        {"cgroup": "/" * 4001},
    ],
)
def test_impossible_confinements_are_refused(impossible: dict[str, Any]) -> None:
    with pytest.raises(OutOfRange):
        Confinement(**impossible)


def test_a_group_without_a_user_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError):
        Confinement(gid=5)


def test_the_filter_stands_where_the_table_says(composed: Composer) -> None:
    table = loaded(composed(build_image()))[TABLE][1]
    rows = list(struct.iter_unpack("<11Q", table[: 88 * 64]))
    seccomp = next(row for row in rows if row[0] == 317)
    assert seccomp[1:3] == (1, 0)
    count, address = struct.unpack_from("<H6xQ", table, seccomp[3] - TABLE)
    assert table[address - TABLE : address - TABLE + 8 * count] == program(X86_64, ())
