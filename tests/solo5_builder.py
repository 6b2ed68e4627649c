"""Solo5 images as data, right and wrong ones, for everybody's tests.

    octets = build_image(devices=[("service", "NET_BASIC")])
    octets = build_image(segments=[Segment(0x100000, code, flags=5)], entry=0x100000)
    octets = build_image(code=exits_with(7))

What a test wants different it says; ``patched`` changes octets at an offset. The machine code is x86_64's, made by the
few functions at the end: a list of system calls is a unikernel.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

PAGE = 0x1000
START = 0x100000
READ, WRITE, EXECUTE = 4, 2, 1
PT_LOAD, PT_NOTE = 1, 4
SECTIONS = ("", ".note.solo5.abi", ".note.solo5.manifest", ".shstrtab")
KINDS = {"BLOCK_BASIC": 1, "NET_BASIC": 2, "RESERVED_FIRST": 0x40000000}


@dataclass(frozen=True)
class Segment:
    """A ``PT_LOAD``; ``memory`` is the size in memory, by default that of the contents."""

    address: int
    content: bytes
    flags: int = READ | EXECUTE
    align: int = PAGE
    memory: int | None = None


def note(
    kind: int, descriptor: bytes, name: bytes = b"Solo5\0\0\0", name_size: int = 6, size: int | None = None
) -> bytes:
    return struct.pack("<III8s", name_size, len(descriptor) if size is None else size, kind, name) + descriptor


def abi_note(target: int = 2, version: int = 2, reserved: tuple[int, int] = (0, 0)) -> bytes:
    return note(0x31494241, struct.pack("<4I", target, version, *reserved))


def entry(name: str | bytes, kind: str | int, union: bytes = b"", handle: int = 0, attached: int = 0) -> bytes:
    octets = name.encode() if isinstance(name, str) else name
    number = KINDS[kind] if isinstance(kind, str) else kind
    return struct.pack("<68sI16sQB7x", octets, number, union, handle, attached)


def manifest_note(entries: Sequence[bytes], version: int = 1, count: int | None = None) -> bytes:
    head = struct.pack("<4xII", version, len(entries) if count is None else count)
    return note(0x3154464D, head + b"".join(entries))


def device_entries(devices: Sequence[tuple[str, str]]) -> list[bytes]:
    return [entry("", "RESERVED_FIRST"), *(entry(name, kind) for name, kind in devices)]


def build_image(
    *,
    code: bytes | None = None,
    segments: Sequence[Segment] | None = None,
    devices: Sequence[tuple[str, str]] = (),
    notes: Sequence[bytes] | None = None,
    entry: int = START,
    machine: int = 62,
    target: int = 2,
    version: int = 2,
) -> bytes:
    """An ELF file with the segments, one ``PT_NOTE`` and one section per note, and a table of section names."""
    if segments is None:
        segments = [Segment(START, code if code is not None else exits_with(0))]
    if notes is None:
        notes = [abi_note(target, version), manifest_note(device_entries(devices))]
    count = len(segments) + len(notes)
    body = bytearray(64 + 56 * count)
    headers, places = [], []
    for segment in segments:
        body += bytes((segment.address - len(body)) % PAGE)
        size = len(segment.content)
        memory = size if segment.memory is None else segment.memory
        where = (len(body), segment.address, segment.address, size, memory, segment.align)
        headers.append(struct.pack("<IIQQQQQQ", PT_LOAD, segment.flags, *where))
        body += segment.content
    for content in notes:
        body += bytes(-len(body) % 4)
        places.append((len(body), len(content)))
        headers.append(struct.pack("<IIQQQQQQ", PT_NOTE, READ, len(body), 0, 0, len(content), len(content), 4))
        body += content
    sections = _section_table(body, places)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0"),
        *(2, machine, 1, entry, 64, sections, 0, 64, 56, count, 64, len(places) + 2, len(places) + 1),
    )
    body[: 64 + 56 * count] = header + b"".join(headers)
    return bytes(body)


def _section_table(body: bytearray, places: Sequence[tuple[int, int]]) -> int:
    """Append the section headers and their names to ``body``; where the headers start."""
    names = [b"", *(f".note.{index}".encode() for index in range(len(places))), b".shstrtab"]
    if len(places) == 2:
        names = [name.encode() for name in SECTIONS]
    offsets, text = [], bytearray()
    for name in names:
        offsets.append(len(text))
        text += name + b"\0"
    text_at = len(body)
    body += text + bytes(-(len(body) + len(text)) % 8)
    start = len(body)
    body += bytes(64)
    for index, (offset, size) in enumerate(places, 1):
        body += struct.pack("<IIQQQQIIQQ", offsets[index], 7, 2, 0, offset, size, 0, 0, 4, 0)
    body += struct.pack("<IIQQQQIIQQ", offsets[-1], 3, 0, 0, text_at, len(text), 0, 0, 1, 0)
    return start


def patched(octets: bytes, offset: int, new: bytes) -> bytes:
    """``octets`` with ``new`` at ``offset``."""
    return octets[:offset] + new + octets[offset + len(new) :]


def header_at(index: int) -> int:
    """The offset of a program header."""
    return 64 + 56 * index


# x86_64 machine code ------------------------------------------------------------------------------------------------

_LOAD_IMMEDIATE = {
    "rax": b"\x48\xb8",
    "rdi": b"\x48\xbf",
    "rsi": b"\x48\xbe",
    "rdx": b"\x48\xba",
    "r10": b"\x49\xba",
    "r8": b"\x49\xb8",
    "r9": b"\x49\xb9",
}
_ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
SYSCALL = b"\x0f\x05"
LOAD_BYTE = b"\x0f\xb6\x00"  # movzx eax, byte ptr [rax]
STORE_BYTE = b"\xc6\x00\x01"  # mov byte ptr [rax], 1
JUMP_RAX = b"\xff\xe0"
EXIT_WITH_RESULT = b"\x89\xc7\xb8\xe7\x00\x00\x00\x0f\x05"  # exit_group(eax)
EXIT_WITH_NEGATED_RESULT = b"\xf7\xd8" + EXIT_WITH_RESULT


def load(register: str, value: int) -> bytes:
    return _LOAD_IMMEDIATE[register] + (value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")


def call(number: int, *arguments: int) -> bytes:
    """A system call; its result is in rax."""
    loads = b"".join(load(register, value) for register, value in zip(_ARGUMENTS, arguments, strict=False))
    return loads + load("rax", number) + SYSCALL


def exits_with(status: int) -> bytes:
    return call(231, status)


def prints(text: bytes, at: int) -> bytes:
    """Write ``text``, which stands at address ``at``, to the console."""
    return call(1, 1, at, len(text))
