"""Chunks and records cut anywhere mean the same."""

from hypothesis import given
from hypothesis import strategies as st

from albatross_pki.transport.session import FirstProtectedRecord
from albatross_pki.transport.streams import ChunkDecoder
from albatross_pki.wire.framing import END_OF_STREAM, frame

CHUNKS = st.lists(st.binary(min_size=1, max_size=50), max_size=8)
CUTS = st.lists(st.integers(1, 20), min_size=1, max_size=20)


def cut(octets: bytes, sizes: list[int]) -> list[bytes]:
    """``octets`` in pieces of these sizes, over and over."""
    pieces, position, turn = [], 0, 0
    while position < len(octets):
        size = sizes[turn % len(sizes)]
        pieces.append(octets[position : position + size])
        position += size
        turn += 1
    return pieces


@given(CHUNKS, CUTS)
def test_content_is_the_same_however_it_arrives(chunks: list[bytes], sizes: list[int]) -> None:
    decoder = ChunkDecoder()
    stream = b"".join(map(frame, chunks)) + END_OF_STREAM + b"what follows is not ours"
    got = b"".join(bytes(piece) for octets in cut(stream, sizes) for piece in decoder.feed(memoryview(octets)))
    assert got == b"".join(chunks)
    assert decoder.ended
    assert decoder.total == len(got)


@given(CHUNKS, CUTS)
def test_a_stream_without_its_mark_has_not_ended(chunks: list[bytes], sizes: list[int]) -> None:
    decoder = ChunkDecoder()
    for octets in cut(b"".join(map(frame, chunks)), sizes):
        list(decoder.feed(memoryview(octets)))
    assert not decoder.ended


def test_p04_a_chunk_of_two_gigabytes_costs_nothing_until_it_comes() -> None:
    decoder = ChunkDecoder()
    assert list(decoder.feed(memoryview(b"\x7f\xff\xff\xffab"))) == [b"ab"]
    assert not decoder.ended


def test_lengths_that_upstream_reads_as_an_end_are_an_end() -> None:
    decoder = ChunkDecoder()
    assert list(decoder.feed(memoryview(b"\x80\0\0\0ab"))) == []
    assert decoder.ended


RECORDS = st.lists(st.tuples(st.sampled_from([20, 21, 22]), st.binary(max_size=40)), max_size=5)


@given(RECORDS, st.integers(1, 20000), CUTS)
def test_the_first_protected_record_is_found_wherever_it_begins(
    before: list[tuple[int, bytes]], length: int, sizes: list[int]
) -> None:
    octets = b"".join(bytes((kind, 3, 3)) + len(body).to_bytes(2, "big") + body for kind, body in before)
    octets += bytes((23, 3, 3)) + length.to_bytes(2, "big") + b"\x17\x03\x03\x00\x01 more of it"
    finder = FirstProtectedRecord()
    found = [size for piece in cut(octets, sizes) if (size := finder.feed(piece)) is not None]
    assert found == [length]
