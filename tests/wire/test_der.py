"""Strictness of the shell of elements: what DER forbids is refused, and nothing but a refusal comes out."""

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import Failure
from albatross_pki.wire import der
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.message import decode_message, encode_message
from fuzz.claims import ENTRY_POINTS
from fuzz.corpus import seeds
from fuzz.mutation import Node, mutate, parse

GOOD = encode_message(Message(Header(Name.parse("a:b")), Failure("no")))


def refusal(octets: bytes) -> MalformedMessage:
    """The error that ``octets`` are refused with."""
    with pytest.raises(MalformedMessage) as refused:
        decode_message(octets)
    return refused.value


def elements(octets: bytes) -> Iterator[tuple[int, int, int]]:
    """Where each element starts, where its content starts and where it ends, from the outside in."""
    waiting = [(0, len(octets))]
    while waiting:
        start, stop = waiting.pop()
        while start < stop:
            identifier, inside, end = der.read_header(octets, start, stop)
            yield start, inside, end
            if identifier & 0x20:
                waiting.append((inside, end))
            start = end


def rewritten(octets: bytes, at: int, header: bytes) -> bytes:
    """``octets`` with another header for the element at ``at``, the lengths around it put right."""

    def encoded(position: int, stop: int) -> bytes:
        written = b""
        while position < stop:
            identifier, inside, end = der.read_header(octets, position, stop)
            content = encoded(inside, end) if identifier & 0x20 else octets[inside:end]
            written += (header if position == at else der.header(identifier, len(content))) + content
            position = end
        return written

    return encoded(0, len(octets))


ELEMENTS = list(elements(GOOD))


@pytest.mark.parametrize(("start", "inside", "end"), ELEMENTS)
def test_a_length_in_more_octets_than_it_needs_is_refused(start: int, inside: int, end: int) -> None:
    length = end - inside
    for long in (bytes((0x81, length)), bytes((0x82, 0, length)), bytes((0x84, 0, 0, 0, length))):
        error = refusal(rewritten(GOOD, start, GOOD[start : start + 1] + long))
        assert error.reason == "length not in its shortest form"


@pytest.mark.parametrize("start", [start for start, _, _ in ELEMENTS])
def test_an_indefinite_length_is_refused(start: int) -> None:
    assert refusal(rewritten(GOOD, start, GOOD[start : start + 1] + b"\x80")).reason == "indefinite length"


@pytest.mark.parametrize(("start", "inside", "end"), ELEMENTS)
def test_a_high_tag_number_is_refused(start: int, inside: int, end: int) -> None:
    header = bytes((GOOD[start] | 0x1F, end - inside))
    assert "tag" in refusal(rewritten(GOOD, start, header)).reason
    assert refusal(header + GOOD[2:]).reason == "tag number over 30"


@pytest.mark.parametrize(("start", "inside", "end"), ELEMENTS)
def test_a_primitive_in_pieces_or_a_constructed_in_one_is_refused(start: int, inside: int, end: int) -> None:
    header = bytes((GOOD[start] ^ 0x20, end - inside))
    assert refusal(rewritten(GOOD, start, header)).place.startswith("message")


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_every_truncation_is_refused(length: int) -> None:
    refusal(GOOD[:length])


def test_octets_after_the_end_are_refused() -> None:
    assert refusal(GOOD + b"\x00").reason == "1 octets after the end"


@pytest.mark.parametrize("level", range(2, 9))
def test_a_claimed_length_beyond_the_end_costs_nothing(level: int) -> None:
    octets = b"\x30" + bytes((0x80 | level,)) + b"\x7f" + b"\xff" * (level - 1) + GOOD
    assert "where" in refusal(octets).reason


def test_a_length_of_more_octets_than_any_machine_has_is_refused() -> None:
    assert refusal(b"\x30\x89\x01" + bytes(8)).reason == "length of 9 octets"


def test_deep_nesting_is_no_recursion() -> None:
    octets = b""
    for _ in range(10_000):
        octets = der.header(0xA0, len(octets)) + octets
    refusal(octets)


def test_a_long_length_is_written_as_it_is_read() -> None:
    for size in (0, 127, 128, 255, 256, 65_535, 65_536):
        octets = encode_message(Message(Header(), Failure("x" * size)))
        assert decode_message(octets).payload == Failure("x" * size)


def test_an_unfitting_buffer_is_the_programmers_mistake() -> None:
    with pytest.raises(TypeError):
        decode_message("text")  # type: ignore[arg-type]


def test_a_memoryview_of_wider_items_is_read_by_its_octets() -> None:
    octets = encode_message(Message(Header(), Failure("x")))
    padded = octets if len(octets) % 2 == 0 else encode_message(Message(Header(), Failure("xy")))
    assert decode_message(memoryview(padded).cast("H")) == decode_message(padded)


# the claims of fuzzing, over everything fuzzing starts from, cut and changed


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_the_claims_hold_for_every_seed(entry_point: str) -> None:
    claim = ENTRY_POINTS[entry_point]
    for octets in seeds(entry_point):
        claim(octets)


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@given(octets=st.binary(max_size=200))
def test_p01_arbitrary_octets_are_refused_or_read(entry_point: str, octets: bytes) -> None:
    ENTRY_POINTS[entry_point](octets)


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
@given(draw=st.data(), flips=st.lists(st.tuples(st.integers(0, 4095), st.integers(1, 255)), min_size=1, max_size=3))
def test_p01_flipped_bits_are_refused_or_read(
    entry_point: str, draw: st.DataObject, flips: list[tuple[int, int]]
) -> None:
    octets = bytearray(draw.draw(st.sampled_from(seeds(entry_point))))
    for position, bits in flips:
        if octets:
            octets[position % len(octets)] ^= bits
    ENTRY_POINTS[entry_point](bytes(octets))


@pytest.mark.parametrize("entry_point", sorted(ENTRY_POINTS.keys() - {"framing", "compression", "images"}))
@given(draw=st.data(), seed=st.integers(0, 2**32))
def test_p01_moved_doubled_and_dropped_elements_are_refused_or_read(
    entry_point: str, draw: st.DataObject, seed: int
) -> None:
    octets = draw.draw(st.sampled_from(seeds(entry_point)))
    ENTRY_POINTS[entry_point](mutate(octets, 1 << 16, seed, lambda content, _: content[::-1]))


def test_a_tree_is_put_together_as_it_was() -> None:
    assert parse(GOOD).encoded() == GOOD
    assert len(parse(GOOD).everything()) == len(ELEMENTS)
    assert parse(b"\x30\x00") == Node(0x30)
