"""The fast encoder gives, octet for octet, what the wire package gives."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from albatross_pki.host.console_frames import LineFramer
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import ConsoleLine
from albatross_pki.wire.framing import FrameDecoder, frame
from albatross_pki.wire.message import decode_message, encode_message

LONG_NAME = Name.parse(":".join(["a" * 63] * 9))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def plainly(name: Name, moment: int, line: bytes) -> bytes:
    when = EPOCH + timedelta(milliseconds=moment)
    return frame(encode_message(Message(Header(name), ConsoleLine(when, line))))


@given(
    st.sampled_from([Name.parse("hello"), Name.parse("dev:web:hello"), LONG_NAME]),
    st.one_of(st.integers(0, 4 * 10**12), st.integers(0, 4 * 10**9).map(lambda second: second * 1000)),
    st.lists(st.binary(max_size=525), max_size=8),
)
def test_frames_are_those_of_the_wire(name: Name, moment: int, lines: list[bytes]) -> None:
    assert LineFramer(name).frames(moment, lines) == b"".join(plainly(name, moment, line) for line in lines)


def test_every_length_around_the_boundaries_of_der_lengths() -> None:
    name, moment = Name.parse("dev:hello"), 1_750_000_000_123
    framer = LineFramer(name)
    for length in [*range(140), *range(180, 270), 523, 524]:
        assert framer.frames(moment, [b"y" * length]) == plainly(name, moment, b"y" * length)


def test_templates_are_used_for_the_length_and_kind_of_time_that_they_were_made_for() -> None:
    framer = LineFramer(Name.parse("hello"))
    lines = [b"1234567890", b"time is 20010203040506.789Z", b"x"]
    for moment in (0, 1000, 1001, 86_400_000, 1):
        octets = framer.frames(moment, lines)
        messages = [decode_message(payload) for payload in FrameDecoder(1 << 16).feed(octets)]
        when = EPOCH + timedelta(milliseconds=moment)
        assert [message.payload for message in messages] == [ConsoleLine(when, line) for line in lines]
