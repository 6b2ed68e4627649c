"""Putting image, boot information, filter and stub together into one executable that needs nothing of ours any more.

In this order:

1. everything that can be refused is refused, all at once: target and version, devices, command line, memory;
2. what stands where is decided: boot information (read, write), stub (read, execute), its table with the filter (read),
   the image's segments as they ask for; everything else up to the end of memory is left to the stub to reserve;
3. the pieces are written into a new memory file, sparsely, the image's octets straight from where they are, and the
   file is sealed: nobody, its writer included, can change what will be executed.

Nothing of the image's own headers gets into the new file: the kernel never parses a stranger's ELF.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from albatross_pki.errors import Refused
from albatross_pki.host.spt.architecture import ARCHITECTURES, Architecture
from albatross_pki.host.spt.attached import AttachedDevice, Confinement, attachment_violations
from albatross_pki.host.spt.bootinfo import BOOT, MAX_COMMAND_LINE, boot_information
from albatross_pki.host.spt.calls import Region, calls
from albatross_pki.host.spt.errors import CannotStart
from albatross_pki.host.spt.filter import program
from albatross_pki.host.spt.stub import CODE, MACHINE_CODE, TABLE, TABLE_ROOM, assemble_table
from albatross_pki.image.elf import PT_LOAD, BadImage, Octets
from albatross_pki.image.loading import EXECUTE, PAGE, READ, WRITE, Layout, Segment, lay_out
from albatross_pki.image.solo5 import Solo5Image, Target

SUPPORTED_ABI_VERSION = 2

_FILE_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
_EXECUTABLE = 2
_PT_GNU_STACK = 0x6474E551
_MFD_EXEC = 0x10  # Linux 6.3; before that every memory file can be executed
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Piece(NamedTuple):
    """Memory ``[start, end)`` with protection ``flags``, whose octets stand from ``offset`` of the new file on."""

    start: int
    end: int
    flags: int
    offset: int

    def place_of(self, address: int) -> int:
        """Where the octet for ``address`` stands in the file."""
        return self.offset + address - self.start


def compose(
    image: Solo5Image,
    octets: Octets,
    memory_mb: int,
    command_line: bytes,
    devices: Sequence[AttachedDevice],
    confinement: Confinement,
) -> int:
    """A sealed descriptor (close-on-exec) of the executable for ``spawn``; the caller closes it.

    ``octets`` are those that ``image`` was parsed from; ``command_line`` has at most 8,191 octets and none of them
    zero; ``devices`` are those of the manifest in any order, and ``spawn`` must get the same sequence. Raises
    ``Refused`` with every reason why this image cannot run so; ``CannotStart`` if the host has no memory for it.
    """
    architecture, layout = _check(image, memory_mb, command_line, devices)
    boot = boot_information(layout, image.manifest, devices, command_line)
    filter_program = program(architecture, devices)
    pieces = _pieces(layout, len(boot), TABLE_ROOM + len(filter_program))
    occupied = [Region(piece.start, piece.end) for piece in pieces]
    made = calls(architecture, image.manifest, devices, confinement, occupied, layout.memory, filter_program)
    table = assemble_table(architecture, made, layout.memory - architecture.stack_gap, BOOT, layout.entry)
    ours = {BOOT: boot, CODE: MACHINE_CODE[architecture.machine], TABLE: table}
    try:
        descriptor = _memory_file()
        try:
            _fill(descriptor, architecture, pieces, ours, layout, octets)
        except BaseException:
            os.close(descriptor)
            raise
    except OSError as error:
        raise CannotStart(error) from error
    return descriptor


def _fill(
    descriptor: int,
    architecture: Architecture,
    pieces: Sequence[Piece],
    ours: Mapping[int, bytes],
    layout: Layout,
    octets: Octets,
) -> None:
    """Write headers, our own octets and the image's segments into the file, and seal it."""
    _write(descriptor, 0, _headers(architecture, pieces))
    for address, content in ours.items():
        _write(descriptor, _piece_of(pieces, address).place_of(address), content)
    with memoryview(octets) as whole, whole.cast("B") as view:
        for segment in layout.segments:
            place = _piece_of(pieces, segment.address).place_of(segment.address)
            with view[segment.offset : segment.offset + segment.size] as part:
                _write(descriptor, place, part)
    os.ftruncate(descriptor, pieces[-1].place_of(pieces[-1].end))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)


def _check(
    image: Solo5Image, memory_mb: int, command_line: bytes, devices: Sequence[AttachedDevice]
) -> tuple[Architecture, Layout]:
    reasons: list[str] = []
    hint = None
    if image.abi.target is not Target.SPT:
        reasons.append(f"the image is for Solo5's {image.abi.target.name.lower()}, the embedded tender runs spt")
    elif image.abi.version != SUPPORTED_ABI_VERSION:
        reasons.append(
            f"the image is for version {image.abi.version} of Solo5's spt interface, "
            f"the embedded tender knows version {SUPPORTED_ABI_VERSION}"
        )
    reasons += attachment_violations(image.manifest, devices)
    if len(command_line) > MAX_COMMAND_LINE:
        reasons.append(f"arguments of {len(command_line)} octets are too long (at most {MAX_COMMAND_LINE})")
    if b"\0" in command_line:
        reasons.append("a zero octet in the arguments would end them")
    try:
        layout = lay_out(image, memory_mb)
    except BadImage as error:
        reasons.append(error.message)
        hint = error.hint
    if reasons:
        raise Refused(reasons, hint=hint)
    return ARCHITECTURES[image.machine], layout


def _pieces(layout: Layout, boot_size: int, table_size: int) -> list[Piece]:
    """What ``execve`` maps, ascending, one page of headers in front of it in the file."""
    wanted = [
        (BOOT, BOOT + _whole_pages(boot_size), READ | WRITE),
        (CODE, CODE + PAGE, READ | EXECUTE),
        (TABLE, TABLE + _whole_pages(table_size), READ),
        *(_mapped(segment) for segment in layout.segments),
    ]
    pieces: list[Piece] = []
    offset = PAGE
    for start, end, flags in wanted:
        pieces.append(Piece(start, end, flags, offset))
        offset += end - start
    return pieces


def _mapped(segment: Segment) -> tuple[int, int, int]:
    """What of a segment comes out of the file: start, end, flags.

    Pages of zeros around writable contents are reserved by the stub like all other memory: out of the file, each would
    be held twice once it is written to.
    """
    if segment.flags != READ | WRITE:
        return segment.start, segment.end, segment.flags
    return segment.address & -PAGE, _whole_pages(segment.address + segment.size), segment.flags


def _whole_pages(octets: int) -> int:
    return (octets + PAGE - 1) & -PAGE


def _piece_of(pieces: Sequence[Piece], address: int) -> Piece:
    return next(piece for piece in pieces if piece.start <= address < piece.end)


def _headers(architecture: Architecture, pieces: Sequence[Piece]) -> bytes:
    """File header and program headers; they fit into a page because an image has at most 64 segments.

    The stack is asked for as not executable: without that, Linux before 5.8 makes all that is readable executable.
    """
    programs = [
        _PROGRAM_HEADER.pack(PT_LOAD, each.flags, each.offset, each.start, each.start, size, size, PAGE)
        for each in pieces
        for size in (each.end - each.start,)
    ]
    programs.append(_PROGRAM_HEADER.pack(_PT_GNU_STACK, READ | WRITE, 0, 0, 0, 0, 0, 16))
    head = _FILE_HEADER.pack(
        _IDENT,
        _EXECUTABLE,
        architecture.machine,
        1,
        CODE,
        _FILE_HEADER.size,
        0,
        0,
        _FILE_HEADER.size,
        _PROGRAM_HEADER.size,
        len(programs),
        0,
        0,
        0,
    )
    return head + b"".join(programs)


def _memory_file() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("unikernel", flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("unikernel", flags)


def _write(descriptor: int, place: int, octets: bytes | memoryview) -> None:
    written = 0
    while written < len(octets):
        with memoryview(octets)[written:] as rest:
            written += os.pwrite(descriptor, rest, place + written)
