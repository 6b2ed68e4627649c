"""A relay exchanges headers: the payload goes through as it is, whatever its size."""

from typing import Any

import pytest

from albatross_pki.commands import ConsoleInactive, PolicyInfo
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import Empty, Failure, Text
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.header import with_header
from albatross_pki.wire.message import decode_message, encode_message

HEADER = Header(Name.parse("a:b"), 7)
GOOD = encode_message(Message(HEADER, Empty()))


@pytest.mark.parametrize("payload", [Empty(), Text("x" * 100), Failure("x" * 70_000), PolicyInfo()])
def test_a_header_is_exchanged_and_nothing_else(payload: Any) -> None:
    other = Header(Name.parse("a:b:" + "c" * 63), 2**63 - 1)
    relayed = with_header(encode_message(Message(HEADER, payload)), other)
    assert decode_message(relayed) == Message(other, payload)
    assert with_header(relayed, HEADER) == encode_message(Message(HEADER, payload))


def test_the_same_header_changes_nothing() -> None:
    octets = encode_message(Message(HEADER, ConsoleInactive()))
    assert with_header(octets, HEADER) is octets


@pytest.mark.parametrize("octets", [b"", b"\x30\x00", b"\x30\x02\x05\x00", GOOD[:-1], GOOD + b"\x00", b"\xff" * 9])
def test_what_is_no_message_is_not_relayed(octets: bytes) -> None:
    with pytest.raises(MalformedMessage) as refusal:
        with_header(octets, HEADER)
    assert refusal.value.place == "message"
