"""Messages as a whole: unknown and retired alternatives, elements too many or too few, and whom to tell."""

from typing import Any

import pytest

from albatross_pki.commands import Command
from albatross_pki.extensions import ExtendedCommand
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import Data, Empty, Success
from albatross_pki.wire import der
from albatross_pki.wire.command import COMMAND
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.extension import EXTENDED
from albatross_pki.wire.message import decode_message, encode_message
from albatross_pki.wire.reply import SUCCESS
from albatross_pki.wire.streamed import STREAMED

HEADER = Header(Name.parse("a:b"), 7)
GOOD = encode_message(Message(HEADER, Empty()))
HEADER_OCTETS = GOOD[2 : GOOD.index(b"\xa1")]


def tagged(*numbers: int, content: bytes = b"\x05\x00") -> bytes:
    """NULL, or ``content``, within explicit tags, the outermost first."""
    for number in reversed(numbers):
        content = der.header(0xA0 + number, len(content)) + content
    return content


def message(payload: bytes) -> bytes:
    return der.header(0x30, len(HEADER_OCTETS) + len(payload)) + HEADER_OCTETS + payload


def refusal(octets: bytes) -> MalformedMessage:
    with pytest.raises(MalformedMessage) as refused:
        decode_message(octets)
    return refused.value


RETIRED = [
    ("payload.command", (0, 2)),
    ("payload.command.console", (0, 0, 1)),
    *(("payload.command.unikernel", (0, 3, number)) for number in (0, 1, 2, 4, 5, 6, 7, 8, 12, 13)),
    *(("payload.reply", (1, number)) for number in (3, 5, 8)),
    *(("payload.data", (3, number)) for number in (0, 2)),
]
UNKNOWN = [
    ("payload", (4,)),
    ("payload.command", (0, 6)),
    ("payload.command.console", (0, 0, 4)),
    ("payload.command.console.subscribe", (0, 0, 2, 2)),
    ("payload.command.statistics", (0, 1, 4)),
    ("payload.command.unikernel", (0, 3, 22)),
    ("payload.command.unikernel.restart", (0, 3, 14, 4)),
    ("payload.command.policy", (0, 4, 3)),
    ("payload.command.block", (0, 5, 8)),
    ("payload.reply", (1, 14)),
    ("payload.data", (3, 5)),
    ("payload.data.block", (3, 4, 2)),
]


@pytest.mark.parametrize(("place", "numbers"), RETIRED)
def test_a_retired_alternative_is_refused_by_name(place: str, numbers: tuple[int, ...]) -> None:
    error = refusal(message(tagged(*numbers)))
    assert (error.place, error.reason) == (f"message.{place}", f"retired alternative [{numbers[-1]}]")


@pytest.mark.parametrize(("place", "numbers"), UNKNOWN)
def test_an_unknown_alternative_is_refused_by_name(place: str, numbers: tuple[int, ...]) -> None:
    error = refusal(message(tagged(*numbers)))
    assert (error.place, error.reason) == (f"message.{place}", f"unknown alternative [{numbers[-1]}]")
    assert error.header == HEADER


def test_every_alternative_of_the_vocabulary_has_an_encoding() -> None:
    for union, choice in ((Command, COMMAND), (Success, SUCCESS), (Data, STREAMED), (ExtendedCommand, EXTENDED)):
        keys: set[Any] = {key[0] if isinstance(key, tuple) else key for key in choice.keys}
        assert keys == set(union.__args__)


@pytest.mark.parametrize(
    "octets",
    [
        message(tagged(1, 0) + b"\x05\x00"),  # one more element in the message
        message(tagged(1, 0, content=b"\x05\x00\x05\x00")),  # two in a tag
        message(tagged(1, 0, content=b"")),  # none in a tag
        message(tagged(1, 0, content=b"\x05\x01\x00")),  # NULL with content
        message(b"\x81\x02\x05\x00"),  # an implicit tag
        message(b""),
        b"",
        b"\x05\x00",
        b"\x31" + GOOD[1:],
        GOOD + GOOD,
    ],
)
def test_elements_too_many_too_few_or_of_another_type_are_refused(octets: bytes) -> None:
    refusal(octets)


def test_an_element_too_many_in_the_header_is_refused() -> None:
    header = HEADER_OCTETS[:1] + bytes((HEADER_OCTETS[1] + 2,)) + HEADER_OCTETS[2:] + b"\x05\x00"
    octets = der.header(0x30, len(header) + 6) + header + tagged(1, 0)
    error = refusal(octets)
    assert (error.place, error.header) == ("message.header", None)


def test_a_refusal_says_where_and_whom_to_answer() -> None:
    error = refusal(message(tagged(0, 3, 11, content=b"\x02\x01\x0a")))
    assert str(error) == "malformed message.payload.command.unikernel.get: must be between 0 and 9, not 10"
    assert (error.header, error.hint) == (HEADER, None)


def test_a_refusal_without_a_header_has_nobody_to_answer() -> None:
    assert refusal(b"\x30\x02\x30\x00").header is None
    assert refusal(b"\x30\x02\x05\x00").header is None
    assert refusal(b"\xff").header is None


def test_what_is_no_payload_is_the_programmers_mistake() -> None:
    with pytest.raises(TypeError, match="none of the alternatives"):
        encode_message(Message(HEADER, HEADER))  # type: ignore[arg-type]
