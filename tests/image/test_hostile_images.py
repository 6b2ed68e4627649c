"""Whatever the octets are: ``BadImage`` or an image, nothing else, and never more than the file holds."""

from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from albatross_pki.image.elf import BadImage
from albatross_pki.image.loading import lay_out
from albatross_pki.image.solo5 import MAX_DEVICES, parse_image
from tests.solo5_builder import build_image

SEEDS = [
    build_image(devices=[("service", "NET_BASIC"), ("storage", "BLOCK_BASIC")]),
    (Path(__file__).parents[2] / "examples" / "unikernels" / "block.spt").read_bytes(),
]
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63, 2**64 - 1)
LAST = 2**64 - 1

edits = st.lists(
    st.tuples(
        st.integers(0, 0x400), st.sampled_from((1, 2, 4, 8)), st.sampled_from(INTERESTING) | st.integers(0, LAST)
    ),
    min_size=1,
    max_size=6,
)


def read(octets: bytes) -> None:
    """Parse and lay out; what comes back lies within the file and within memory."""
    try:
        image = parse_image(octets)
        assert len(image.manifest.devices) <= MAX_DEVICES
        layout = lay_out(image, 32)
    except BadImage:
        return
    end = 0x100000
    for segment in layout.segments:
        assert end <= segment.start <= segment.address
        assert segment.address + segment.size <= segment.end <= layout.memory
        assert segment.offset + segment.size <= len(octets)
        end = segment.end
    assert 0x100000 <= layout.entry < layout.memory


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SEEDS), edits)
def test_an_image_with_words_changed(seed: bytes, changes: list[tuple[int, int, int]]) -> None:
    octets = bytearray(seed)
    for offset, size, value in changes:
        octets[offset : offset + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    read(bytes(octets))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
@example(b"")
@example(b"\x7fELF")
def test_any_octets(octets: bytes) -> None:
    read(octets)
    read(SEEDS[0][:20] + octets)


def test_an_image_cut_anywhere() -> None:
    for length in range(len(SEEDS[0])):
        read(SEEDS[0][:length])


def test_an_image_with_any_single_octet_changed() -> None:
    headers = len(SEEDS[0])
    for offset in (*range(64 + 4 * 56), *range(headers - 800, headers)):
        octets = bytearray(SEEDS[0])
        octets[offset] ^= 0xFF
        read(bytes(octets))
