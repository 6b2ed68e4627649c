"""zlib streams: read whole or refused, and never more of them than was asked for."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatross_pki.wire.compression import PIECE, Inflater, compress, decompress
from albatross_pki.wire.errors import InflatedTooLarge, MalformedMessage
from tests.vectors.manifest import vectors

CONTENT = b"an image" * 100


@pytest.mark.parametrize("level", range(10))
def test_every_level_is_a_zlib_stream_of_32_kib_windows(level: int) -> None:
    stream = compress(CONTENT, level)
    assert stream[0] == 0x78
    assert int.from_bytes(stream[:2], "big") % 31 == 0
    assert zlib.decompress(stream) == decompress(stream, len(CONTENT)) == CONTENT


@pytest.mark.parametrize("level", [-1, 10, 2**60])
def test_p01_a_level_that_zlib_does_not_know_is_refused(level: int) -> None:
    with pytest.raises(MalformedMessage, match="between 0 and 9"):
        compress(b"", level)


def test_the_limit_is_reached_and_not_passed() -> None:
    stream = compress(CONTENT, 9)
    assert decompress(stream, len(CONTENT)) == CONTENT
    with pytest.raises(InflatedTooLarge) as refusal:
        decompress(stream, len(CONTENT) - 1)
    assert refusal.value.limit == len(CONTENT) - 1
    assert decompress(compress(b"", 9), 0) == b""


def test_p04_a_bomb_is_refused_after_its_first_pieces() -> None:
    bomb = compress(bytes(20 << 20), 9)
    sizes: list[int] = []

    def inflate() -> None:
        sizes.extend(len(piece) for piece in Inflater(1 << 20).pieces(bomb))

    with pytest.raises(InflatedTooLarge):
        inflate()
    assert max(sizes) <= PIECE
    assert (1 << 20) - PIECE <= sum(sizes) <= 1 << 20


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_chunks_may_be_cut_anywhere(step: int) -> None:
    stream = compress(CONTENT, 6)
    inflater = Inflater(len(CONTENT))
    assert b"".join(inflater.feed(stream[at : at + step]) for at in range(0, len(stream), step)) == CONTENT
    inflater.finish()


@given(st.integers(0, 60), st.integers(1, 60))
def test_a_cut_stream_is_refused(length: int, step: int) -> None:
    stream = compress(CONTENT, 9)
    cut = stream[: min(length, len(stream) - 1)]
    inflater = Inflater(len(CONTENT))
    for at in range(0, len(cut), step):
        inflater.feed(cut[at : at + step])
    with pytest.raises(MalformedMessage, match="ends in the middle"):
        inflater.finish()


@given(st.binary(min_size=1, max_size=5), st.integers(1, 100))
def test_octets_after_the_end_are_refused_wherever_they_are_cut(more: bytes, step: int) -> None:
    stream = compress(CONTENT, 9) + more
    inflater = Inflater(len(CONTENT))

    def inflate() -> None:
        for at in range(0, len(stream), step):
            inflater.feed(stream[at : at + step])

    with pytest.raises(MalformedMessage, match="octets after its end"):
        inflate()


@pytest.mark.parametrize(
    "stream",
    [
        b"nonsense",
        compress(CONTENT, 9)[:-1] + b"\x00",  # another checksum
        zlib.compressobj(9, zlib.DEFLATED, -15).compress(CONTENT) + bytes(8),  # no header
        b"\x1f\x8b" + bytes(20),  # gzip
        b"\x78\xbb" + bytes(20),  # a dictionary that nobody has
    ],
)
def test_a_damaged_stream_is_refused(stream: bytes) -> None:
    with pytest.raises(MalformedMessage, match=r"damaged|middle"):
        decompress(stream, 1 << 16)


def test_a_negative_limit_is_the_programmers_mistake() -> None:
    with pytest.raises(TypeError):
        Inflater(-1)


def test_what_upstream_compressed_is_read() -> None:
    chunks = {
        vector.file: vector.octets for vector in vectors("chunk", directories=("wire",)) if "compressed" in vector.file
    }
    assert chunks
    content = decompress(b"".join(chunks[file] for file in sorted(chunks)), 1 << 20)
    assert len(content) > len(b"".join(chunks.values())) // 2
