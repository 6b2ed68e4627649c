"""Where an image's segments go in a unikernel's memory, and which images cannot be loaded at all.

The rules are those of Solo5's tenders (``tenders/common/elf.c``), the same for hvt and spt, in this order:

1. the entry lies in ``[1 MiB, memory)``;
2. each ``PT_LOAD`` with file contents: address from 1 MiB and ascending; alignment a power of two; memory size not
   below file size; its start, rounded down, not before the end of the previous one, its end, rounded up, within memory;
3. start and end are whole pages; never both writable and executable;
4. a ``PT_LOAD`` without file contents (a ``.bss`` of its own) is skipped: all memory is zero and writable anyway.

``image_end`` is the end of the last segment placed; a unikernel calls it the end of its kernel.
"""

from dataclasses import dataclass

from albatross_pki.image.elf import PT_LOAD, BadImage, ProgramHeader
from albatross_pki.image.solo5 import Solo5Image

PAGE = 0x1000
LOWEST_ADDRESS = 0x100000
MIB = 1 << 20
EXECUTE, WRITE, READ = 1, 2, 4

_HIGHEST = 1 << 64


@dataclass(frozen=True, slots=True)
class Segment:
    """Memory ``[start, end)`` with protection ``flags`` (ELF's READ, WRITE, EXECUTE).

    ``size`` octets from ``offset`` of the image stand at ``address``; all other octets are zero.
    """

    start: int
    end: int
    flags: int
    address: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A loadable image in ``memory`` octets; segments ascend and do not overlap."""

    memory: int
    entry: int
    segments: tuple[Segment, ...]
    image_end: int


def lay_out(image: Solo5Image, memory_mb: int) -> Layout:
    """Place ``image`` in ``memory_mb`` MiB; raises ``BadImage`` with the first rule that it breaks."""
    memory = memory_mb * MIB
    segments: list[Segment] = []
    end = LOWEST_ADDRESS
    for index, header in enumerate(image.elf.headers):
        if header.kind == PT_LOAD and header.file_size:
            lowest = segments[-1].address if segments else LOWEST_ADDRESS
            segment = _place(index, header, lowest, end)
            segments.append(segment)
            end = segment.end
    if end > memory or image.entry >= memory:
        _refuse_size(max(end, image.entry + 1), memory_mb)
    if image.entry < LOWEST_ADDRESS:
        raise BadImage(f"invalid or unsupported executable: its entry {image.entry:#x} lies below {LOWEST_ADDRESS:#x}")
    return Layout(memory, image.entry, tuple(segments), segments[-1].end if segments else 0)


def _refuse_size(end: int, memory_mb: int) -> None:
    needed = -(-end // MIB)
    if end >= _HIGHEST >> 16:  # beyond what any processor can address: not a question of memory
        raise BadImage(f"invalid or unsupported executable: it reaches up to {end:#x}")
    raise BadImage(
        f"the image reaches up to {end:#x} and does not fit into {memory_mb} MB of memory",
        hint=f"it needs more than {needed} MB, because its own stack and heap come on top",
    )


def _place(index: int, header: ProgramHeader, lowest: int, previous_end: int) -> Segment:
    def refuse(rule: str) -> BadImage:
        return BadImage(f"invalid or unsupported executable: segment {index} {rule}")

    if header.address < lowest:
        raise refuse(f"at {header.address:#x} lies below {lowest:#x}")
    if header.alignment < 1 or header.alignment & (header.alignment - 1):
        raise refuse(f"is aligned to {header.alignment}, which is no power of two")
    if header.memory_size < header.file_size:
        raise refuse("has more octets in the file than in memory")
    start = header.address & -header.alignment
    end = (header.address + header.memory_size + header.alignment - 1) & -header.alignment
    if start < previous_end:
        raise refuse(f"starts at {start:#x}, before {previous_end:#x}")
    if end >= _HIGHEST:
        raise refuse("ends beyond all addresses")
    if start % PAGE or end % PAGE:
        raise refuse("does not consist of whole pages")
    if header.flags & WRITE and header.flags & EXECUTE:
        raise refuse("is both writable and executable")
    return Segment(start, end, header.flags & (READ | WRITE | EXECUTE), header.address, header.offset, header.file_size)
