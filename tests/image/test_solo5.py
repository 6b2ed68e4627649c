"""What an image says about itself, and every way in which it can be wrong."""

import io
import mmap
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from albatross_pki.image.elf import BadImage, Octets
from albatross_pki.image.solo5 import Abi, Device, DeviceKind, Manifest, Target, parse_image
from tests.solo5_builder import (
    Segment,
    abi_note,
    build_image,
    device_entries,
    entry,
    header_at,
    manifest_note,
    note,
    patched,
)

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "unikernels").glob("*.spt"))
FIRST = entry("", "RESERVED_FIRST")


def test_an_image_tells_machine_target_version_and_devices() -> None:
    octets = build_image(devices=[("service", "NET_BASIC"), ("storage", "BLOCK_BASIC")])
    image = parse_image(octets)
    assert image.machine == 62
    assert image.entry == 0x100000
    assert image.abi == Abi(Target.SPT, 2)
    assert image.manifest == Manifest((Device("service", DeviceKind.NET), Device("storage", DeviceKind.BLOCK)))
    assert image.manifest.of_kind(DeviceKind.BLOCK) == ("storage",)


@pytest.mark.parametrize("target", Target)
def test_every_target_is_known(target: Target) -> None:
    assert parse_image(build_image(target=target, version=9)).abi == Abi(target, 9)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_octets_come_in_any_buffer(kind: Callable[[bytes], Octets]) -> None:
    assert parse_image(kind(build_image())).abi.target is Target.SPT


def test_a_mapped_file_can_be_closed_after_parsing(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(build_image())
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        parse_image(mapped)
        mapped.close()  # BufferError if a view of it were left


def test_a_full_manifest_has_63_devices() -> None:
    devices = [(f"disk{index}", "BLOCK_BASIC") for index in range(63)]
    assert len(parse_image(build_image(devices=devices)).manifest.devices) == 63


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_notes_are_those_that_pyelftools_finds(path: Path) -> None:
    octets = path.read_bytes()
    image = parse_image(octets)
    elf = ELFFile(io.BytesIO(octets))
    assert image.entry == elf["e_entry"]
    assert elf["e_machine"] == {62: "EM_X86_64", 183: "EM_AARCH64"}[image.machine]
    sections = {section.name: section.data() for section in elf.iter_sections()}
    assert sections[".note.solo5.abi"][20:28] == bytes([image.abi.target, 0, 0, 0, image.abi.version, 0, 0, 0])
    rest = sections[".note.solo5.manifest"][32 + 104 :]
    names = [rest[start : start + 68].rstrip(b"\0").decode() for start in range(0, len(rest), 104)]
    assert names == [device.name for device in image.manifest.devices]
    for mine, theirs in zip(image.elf.headers, elf.iter_segments(), strict=True):
        assert (mine.offset, mine.address, mine.file_size, mine.memory_size, mine.alignment, mine.flags) == tuple(
            theirs[field] for field in ("p_offset", "p_vaddr", "p_filesz", "p_memsz", "p_align", "p_flags")
        )


GOOD = build_image()

BAD_FILES = {
    "empty": (b"", "not an ELF file"),
    "text": (b"#!/bin/sh\n" + bytes(100), "not an ELF file"),
    "only a header's start": (GOOD[:63], "not an ELF file"),
    "32-bit": (patched(GOOD, 4, b"\1"), "not 64-bit little-endian"),
    "big-endian": (patched(GOOD, 5, b"\2"), "not 64-bit little-endian"),
    "version of the ident": (patched(GOOD, 6, b"\2"), "unknown version"),
    "version": (patched(GOOD, 20, b"\2"), "unknown version"),
    "size of the header": (patched(GOOD, 52, b"\x41"), "unknown version"),
    "shared object": (patched(GOOD, 16, b"\3"), "not a statically linked executable"),
    "machine": (patched(GOOD, 18, b"\x28"), "for machine 40"),
    "size of a program header": (patched(GOOD, 54, b"\x39"), "program headers of 57 octets"),
    "no program header": (patched(GOOD, 56, b"\0\0"), "0 program headers"),
    "65 program headers": (patched(GOOD, 56, b"\x41\0"), "65 program headers"),
    "65535 program headers": (patched(GOOD, 56, b"\xff\xff"), "65535 program headers"),
    "program headers outside": (patched(GOOD, 32, (len(GOOD) - 100).to_bytes(8, "little")), "outside the file"),
    "program headers far outside": (patched(GOOD, 32, b"\xff" * 8), "outside the file"),
    "segment outside": (patched(GOOD, header_at(0) + 8, b"\xff" * 8), "segment 0 ends outside"),
    "long segment": (patched(GOOD, header_at(0) + 32, b"\xff" * 8), "segment 0 ends outside"),
    "long note segment": (patched(GOOD, header_at(1) + 32, b"\xff\xff"), "segment 1 ends outside"),
    "truncated": (GOOD[: len(GOOD) // 8], "outside"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_is_not_such_an_elf_is_refused(name: str) -> None:
    octets, words = BAD_FILES[name]
    with pytest.raises(BadImage, match=words):
        parse_image(octets)


def manifest(*entries: bytes, **changes: int) -> bytes:
    return build_image(notes=[abi_note(), manifest_note([FIRST, *entries], **changes)])


NET = entry("service", "NET_BASIC")
BAD_NOTES = {
    "no notes": (build_image(notes=[]), "no Solo5 ABI information"),
    "no abi": (build_image(notes=[manifest_note([FIRST])]), "no Solo5 ABI information"),
    "no manifest": (build_image(notes=[abi_note()]), "manifest not found"),
    "other owner": (
        build_image(notes=[note(0x31494241, bytes(16), name=b"Sol05\0\0\0"), manifest_note([FIRST])]),
        "no Solo5 ABI information",
    ),
    "other length of the owner": (
        build_image(notes=[note(0x31494241, bytes(16), name_size=7), manifest_note([FIRST])]),
        "no Solo5 ABI information",
    ),
    "second note of a segment": (
        build_image(notes=[note(1, bytes(4)) + abi_note(), manifest_note([FIRST])]),
        "no Solo5 ABI information",
    ),
    "abi of 12 octets": (build_image(notes=[note(0x31494241, bytes(12)), manifest_note([FIRST])]), "size mismatch"),
    "empty note": (build_image(notes=[note(0x31494241, b"\0", size=0), manifest_note([FIRST])]), "its segment"),
    "note outside": (build_image(notes=[note(0x31494241, bytes(16), size=17)]), "its segment"),
    "reserved0": (build_image(notes=[abi_note(reserved=(1, 0)), manifest_note([FIRST])]), "non-zero reserved0"),
    "reserved1": (build_image(notes=[abi_note(reserved=(0, 1)), manifest_note([FIRST])]), "non-zero reserved1"),
    "target 0": (build_image(target=0), "unknown abi target: 0"),
    "target 7": (build_image(target=7), "unknown abi target: 7"),
    "manifest of 11 octets": (build_image(notes=[abi_note(), note(0x3154464D, bytes(11))]), "manifest too small"),
    "manifest version": (manifest(version=2), "unsupported manifest version"),
    "no entry": (build_image(notes=[abi_note(), manifest_note([], count=0)]), "zero manifest entries"),
    "65 entries": (manifest(count=65), "too many manifest entries"),
    "2^32-1 entries": (manifest(count=0xFFFFFFFF), "too many manifest entries"),
    "an entry less": (manifest(count=2), "unexpected note size"),
    "an entry more": (manifest(NET, count=1), "unexpected note size"),
    "more than 64 entries": (manifest(*[NET] * 64, count=64), "its segment"),
    "first is a device": (build_image(notes=[abi_note(), manifest_note([NET])]), "expected RESERVED_FIRST"),
    "first has a name": (
        build_image(notes=[abi_note(), manifest_note([entry("x", "RESERVED_FIRST")])]),
        "non-zero RESERVED_FIRST",
    ),
    "first again": (manifest(FIRST), "found RESERVED_FIRST not as first entry"),
    "unterminated": (manifest(entry(b"a" * 68, "NET_BASIC")), "unterminated device name"),
    "nameless": (manifest(entry("", "NET_BASIC")), "invalid device name ''"),
    "characters": (manifest(entry("eth-0", "NET_BASIC")), "invalid device name 'eth-0'"),
    "escape": (manifest(entry(b"\x1b[2J", "NET_BASIC")), r"invalid device name '\\x1b\[2J'"),
    "octets behind the name": (manifest(entry(b"a\0b", "NET_BASIC")), "invalid device name"),
    "union": (manifest(entry("a", "NET_BASIC", union=b"\0\1")), "non-zero mft_entry.u"),
    "handle": (manifest(entry("a", "NET_BASIC", handle=3)), "non-zero mft_entry.b"),
    "attached": (manifest(entry("a", "NET_BASIC", attached=1)), "non-zero mft_entry.attached"),
    "padding": (manifest(NET[:-1] + b"\1"), "non-zero mft_entry.padding"),
    "type": (manifest(entry("a", 3)), "unknown manifest entry type: 3"),
    "same name twice": (manifest(NET, entry("service", "BLOCK_BASIC")), "declares a device name twice"),
}


@pytest.mark.parametrize("name", BAD_NOTES)
def test_notes_that_are_wrong_are_refused_in_words_that_people_know(name: str) -> None:
    octets, words = BAD_NOTES[name]
    with pytest.raises(BadImage, match=words):
        parse_image(octets)


def test_the_first_of_two_notes_counts() -> None:
    image = parse_image(build_image(notes=[abi_note(2), abi_note(1), manifest_note([FIRST])]))
    assert image.abi.target is Target.SPT


def test_an_ordinary_program_gets_a_hint() -> None:
    with pytest.raises(BadImage) as refusal:
        parse_image(build_image(notes=[note(3, bytes(20), name=b"GNU\0\0\0\0\0", name_size=4)]))
    assert refusal.value.hint == "an ordinary program is not a unikernel: it has to be built for Solo5"


def test_devices_keep_the_manifests_order() -> None:
    entries = device_entries([(name, "NET_BASIC") for name in ("z", "a", "m")])
    image = parse_image(build_image(notes=[abi_note(), manifest_note(entries)], segments=[Segment(0x100000, b"\xf4")]))
    assert [device.name for device in image.manifest.devices] == ["z", "a", "m"]
