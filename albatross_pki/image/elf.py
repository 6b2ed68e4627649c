"""The few parts of ELF that a unikernel image needs, read with bounds and without a library.

An image comes from a stranger and is read by root's daemon, so this module believes nothing: every offset is checked
against the file before it is used, counts have limits, and whatever the octets are, the only thing raised is
``BadImage``. In order:

1. the file header: magic, class, byte order, versions, sizes, type (System V ABI, "ELF Header");
2. the program headers, at most ``MAX_PROGRAM_HEADERS``, with their contents inside the file;
3. on request, the *first* note of a ``PT_NOTE`` segment: Solo5's tenders look no further.

Section headers are not read: what runs is described by the program headers alone. What the segments mean for a guest's
memory is decided in ``loading``, what the notes mean in ``solo5``.
"""

import mmap
import struct
from dataclasses import dataclass

from albatross_pki.errors import AlbatrossError

Octets = bytes | bytearray | memoryview | mmap.mmap

PT_LOAD, PT_NOTE = 1, 4
EM_X86_64, EM_AARCH64 = 62, 183
MAX_PROGRAM_HEADERS = 64  # ordinary images have seven; more than 73 would not fit Linux' page of them once composed

_FILE_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_NOTE_HEADER = struct.Struct("<III8s")
_MAGIC = b"\x7fELF"
_CLASS_64, _LITTLE_ENDIAN, _CURRENT, _EXECUTABLE = 2, 1, 1, 2


class BadImage(AlbatrossError):
    """Octets that are not an image that can run; the message says what is wrong with them."""


@dataclass(frozen=True, slots=True)
class ProgramHeader:
    """One ``Elf64_Phdr``; ``offset`` and ``file_size`` lie within the file for kinds that we use."""

    kind: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int
    alignment: int


@dataclass(frozen=True, slots=True)
class Elf:
    """A statically linked 64-bit little-endian executable."""

    machine: int
    entry: int
    headers: tuple[ProgramHeader, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """A note's type and descriptor; the owner is not kept, because it is asked for when reading."""

    kind: int
    descriptor: bytes


def read_elf(view: memoryview) -> Elf:
    """The headers of the image in ``view`` (octets, format ``B``); raises ``BadImage``."""
    if len(view) < _FILE_HEADER.size or bytes(view[:4]) != _MAGIC:
        raise BadImage("error during ELF parsing: this is not an ELF file")
    (ident, kind, machine, version, entry, table, _, _, own_size, entry_size, count, _, _, _) = (
        _FILE_HEADER.unpack_from(view)
    )
    if ident[4] != _CLASS_64 or ident[5] != _LITTLE_ENDIAN:
        raise BadImage("error during ELF parsing: not 64-bit little-endian")
    if ident[6] != _CURRENT or version != _CURRENT or own_size != _FILE_HEADER.size:
        raise BadImage("error during ELF parsing: unknown version of the header")
    if kind != _EXECUTABLE:
        raise BadImage(f"error during ELF parsing: not a statically linked executable (type {kind})")
    if machine not in (EM_X86_64, EM_AARCH64):
        raise BadImage(f"error during ELF parsing: for machine {machine}, neither x86_64 nor aarch64")
    return Elf(machine, entry, _program_headers(view, table, entry_size, count))


def _program_headers(view: memoryview, table: int, entry_size: int, count: int) -> tuple[ProgramHeader, ...]:
    if entry_size != _PROGRAM_HEADER.size or not 1 <= count <= MAX_PROGRAM_HEADERS:
        raise BadImage(
            f"error during ELF parsing: {count} program headers of {entry_size} octets, "
            f"not 1 to {MAX_PROGRAM_HEADERS} of {_PROGRAM_HEADER.size}"
        )
    if table + count * entry_size > len(view):
        raise BadImage("error during ELF parsing: program headers outside the file")
    headers = tuple(_program_header(view, table + index * entry_size) for index in range(count))
    for index, header in enumerate(headers):
        if header.kind in (PT_LOAD, PT_NOTE) and header.offset + header.file_size > len(view):
            raise BadImage(f"error during ELF parsing: segment {index} ends outside the file")
    return headers


def _program_header(view: memoryview, offset: int) -> ProgramHeader:
    kind, flags, start, address, _, file_size, memory_size, alignment = _PROGRAM_HEADER.unpack_from(view, offset)
    return ProgramHeader(kind, flags, start, address, file_size, memory_size, alignment)


def first_note(view: memoryview, header: ProgramHeader, owner: bytes, limit: int) -> Note | None:
    """The first note of a ``PT_NOTE`` segment, or ``None`` if it is not one of ``owner``.

    ``owner`` is given with its terminating zero and padded to eight octets as it stands in the file; the descriptor
    may have at most ``limit`` octets and must end inside the segment, else ``BadImage``.
    """
    if header.file_size < _NOTE_HEADER.size:
        return None
    name_size, size, kind, name = _NOTE_HEADER.unpack_from(view, header.offset)
    if name_size != len(owner.rstrip(b"\0")) + 1 or name[:name_size] != owner[:name_size]:
        return None
    if not 1 <= size <= min(limit, header.file_size - _NOTE_HEADER.size):
        raise BadImage("error during ELF parsing: note does not fall within its segment")
    start = header.offset + _NOTE_HEADER.size
    return Note(kind, bytes(view[start : start + size]))
