"""Each rule of loading, and an image that breaks it."""

from pathlib import Path

import pytest

from albatross_pki.image.elf import BadImage
from albatross_pki.image.loading import Layout, lay_out
from albatross_pki.image.loading import Segment as Placed
from albatross_pki.image.solo5 import parse_image
from tests.solo5_builder import EXECUTE, READ, WRITE, Segment, build_image

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "unikernels").glob("*.spt"))
CODE = Segment(0x100000, b"\xf4" * 100)


def laid_out(*segments: Segment, memory_mb: int = 2, entry: int = 0x100000) -> Layout:
    return lay_out(parse_image(build_image(segments=segments, entry=entry)), memory_mb)


def test_segments_cover_whole_pages_and_the_rest_of_them_is_zero() -> None:
    layout = laid_out(CODE, Segment(0x101010, b"data", READ | WRITE, memory=0x2000))
    code, data = layout.segments
    assert (code.start, code.end, code.flags) == (0x100000, 0x101000, READ | EXECUTE)
    assert (data.start, data.end, data.flags) == (0x101000, 0x104000, READ | WRITE)
    assert (data.address, data.size) == (0x101010, 4)
    assert layout.image_end == 0x104000
    assert layout.memory == 2 << 20


def test_a_segment_without_contents_is_not_there() -> None:
    layout = laid_out(CODE, Segment(0x101000, b"", READ | WRITE, memory=0x5000))
    assert len(layout.segments) == 1
    assert layout.image_end == 0x101000


def test_an_alignment_above_a_page_widens_the_segment() -> None:
    (placed,) = laid_out(Segment(0x100000, b"\xf4", align=0x10000)).segments
    assert placed == Placed(0x100000, 0x110000, READ | EXECUTE, 0x100000, placed.offset, 1)


def test_an_image_may_end_where_memory_ends() -> None:
    assert laid_out(Segment(0x100000, b"\xf4", memory=0x100000)).image_end == 2 << 20


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_can_be_loaded(path: Path) -> None:
    layout = lay_out(parse_image(path.read_bytes()), 2)
    assert layout.image_end >= 0x101000


BROKEN = {
    "entry below": ([CODE], {"entry": 0xFFFFF}, "its entry 0xfffff lies below 0x100000"),
    "entry at the end of memory": ([CODE], {"entry": 2 << 20}, "does not fit into 2 MB"),
    "entry far away": ([CODE], {"entry": 2**64 - 1}, "it reaches up to"),
    "segment below": ([Segment(0xFF000, b"x")], {}, "segment 0 at 0xff000 lies below 0x100000"),
    "descending": ([Segment(0x102000, b"x"), CODE], {}, "segment 1 at 0x100000 lies below 0x102000"),
    "alignment 0": ([Segment(0x100000, b"x", align=0)], {}, "aligned to 0"),
    "alignment 3": ([Segment(0x100000, b"x", align=3)], {}, "aligned to 3"),
    "alignment below a page": ([Segment(0x100000, b"x", align=16)], {}, "whole pages"),
    "start within a page": ([Segment(0x100010, b"x", align=16)], {}, "whole pages"),
    "larger in the file": ([Segment(0x100000, b"xyz", memory=2)], {}, "more octets in the file"),
    "overlap": ([Segment(0x100000, b"x", memory=0x1001), Segment(0x101000, b"y")], {}, "before 0x102000"),
    "rounded below": ([Segment(0x180000, b"x", align=0x100000 * 2)], {}, "starts at 0x0"),
    "beyond memory": ([Segment(0x100000, b"x", memory=0x100001)], {}, "does not fit into 2 MB"),
    "overflow": ([Segment(0x100000, b"x", memory=2**64 - 0x100000)], {}, "beyond all addresses"),
    "huge": ([Segment(0x100000, b"x", memory=2**60)], {}, "it reaches up to"),
    "huge alignment": ([Segment(2**63, b"x", align=2**63)], {}, "beyond all addresses"),
    "writable code": ([Segment(0x100000, b"x", WRITE | EXECUTE)], {}, "both writable and executable"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_image_that_breaks_a_rule_is_refused(name: str) -> None:
    segments, changes, words = BROKEN[name]
    with pytest.raises(BadImage, match=words):
        laid_out(*segments, **changes)


def test_too_little_memory_comes_with_a_hint() -> None:
    with pytest.raises(BadImage) as refusal:
        laid_out(Segment(0x100000, b"x", memory=0x500000))
    assert refusal.value.hint == "it needs more than 6 MB, because its own stack and heap come on top"
