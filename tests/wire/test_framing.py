"""Frames: cut anywhere, they come out whole; too long ones are refused before anything is kept."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatross_pki.wire.errors import FrameTooLong, MalformedMessage
from albatross_pki.wire.framing import END_OF_STREAM, MOST_PAYLOAD_OCTETS, FrameDecoder, frame, frame_header


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 50), min_size=1))
def test_frames_come_out_as_they_went_in_wherever_they_are_cut(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(frame, payloads))
    decoder = FrameDecoder(300)
    came: list[bytes] = []
    position = turn = 0
    while position < len(stream):
        step = cuts[turn % len(cuts)]
        came += decoder.feed(stream[position : position + step])
        position, turn = position + step, turn + 1
    assert came == payloads
    assert decoder.pending == 0


def test_an_empty_frame_ends_a_stream() -> None:
    assert frame(b"") == END_OF_STREAM == b"\x00\x00\x00\x00"
    assert FrameDecoder(0).feed(END_OF_STREAM * 2) == [b"", b""]


def test_what_is_missing_is_pending() -> None:
    decoder = FrameDecoder(100)
    for count, octet in enumerate(frame(b"abc")[:-1], 1):
        assert decoder.feed(bytes((octet,))) == []
        assert decoder.pending == count
    assert decoder.feed(b"c") == [b"abc"]
    assert decoder.pending == 0
    assert decoder.feed(b"") == []


@pytest.mark.parametrize("length", [11, 2**31 - 1, 2**31, 2**32 - 1])
def test_p04_a_frame_over_the_limit_is_refused_when_its_header_is_there(length: int) -> None:
    decoder = FrameDecoder(10)
    tracemalloc.start()
    try:
        with pytest.raises(FrameTooLong) as refusal:
            decoder.feed(frame(b"fits") + length.to_bytes(4, "big"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (refusal.value.length, refusal.value.limit, refusal.value.complete) == (length, 10, (b"fits",))
    assert peak < 1 << 16
    with pytest.raises(FrameTooLong) as again:
        decoder.feed(frame(b"x"))
    assert again.value.complete == ()


def test_p04_a_frame_over_the_limit_is_refused_though_its_header_comes_in_pieces() -> None:
    decoder = FrameDecoder(10)
    assert decoder.feed(b"\x00\x00") == []
    with pytest.raises(FrameTooLong):
        decoder.feed(b"\x00\x0b")
    assert decoder.pending == 0


def test_a_frame_of_the_limit_is_not_too_long() -> None:
    assert FrameDecoder(10).feed(frame(bytes(10))) == [bytes(10)]


@pytest.mark.parametrize("limit", [-1, 2**31])
def test_a_limit_that_is_none_is_the_programmers_mistake(limit: int) -> None:
    with pytest.raises(TypeError):
        FrameDecoder(limit)


def test_no_frame_is_longer_than_its_length_can_say() -> None:
    assert frame_header(MOST_PAYLOAD_OCTETS) == b"\x7f\xff\xff\xff"
    with pytest.raises(MalformedMessage):
        frame_header(MOST_PAYLOAD_OCTETS + 1)


def test_a_long_frame_in_small_pieces_costs_no_more_than_its_octets() -> None:
    size, step = 4 << 20, 1 << 12
    stream = frame(bytes(size))
    decoder = FrameDecoder(size)
    tracemalloc.start()
    try:
        came = [
            payload for start in range(0, len(stream), step) for payload in decoder.feed(stream[start : start + step])
        ]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [len(payload) for payload in came] == [size]
    assert peak < 2.5 * size
