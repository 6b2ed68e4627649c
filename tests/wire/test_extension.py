"""Our extensions, octet by octet as the grammar in docs/asn1 has them, and what is refused in them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from albatross_pki.commands import PolicyAdd
from albatross_pki.extensions import COMMAND_WORDS, AlbatrossExtension, Constraints, Events, ImageBinding, Rollback
from albatross_pki.policies import Policy
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.extension import (
    decode_albatross_extension,
    decode_constraints,
    decode_extended_command,
    decode_image_binding,
    encode_albatross_extension,
    encode_constraints,
    encode_extended_command,
    encode_image_binding,
)
from tests.wire import oracle

DIGEST = bytes(range(32))


def constraints(**fields: Any) -> bytes:
    return oracle.encode("Constraints", {"version": 1, **fields})


def test_a_delegation_is_the_octets_of_the_description() -> None:
    policy = Policy(frozenset({0, 1}), 16, 1024, 100)
    octets = bytes.fromhex("301d020105a418a11630143006020100020101020110020204000201643000")
    assert encode_albatross_extension(AlbatrossExtension(PolicyAdd(policy))) == octets
    assert decode_albatross_extension(octets).command == PolicyAdd(policy)


def test_constraints_are_these_octets() -> None:
    octets = encode_constraints(Constraints(frozenset({"info", "get"}), names=frozenset({"web*"}), once=True))
    expected = "3020 020101 a00d 300b 0c03676574 0c04696e666f a208 3006 0c047765622a a502 0500"
    assert octets == bytes.fromhex(expected)


@pytest.mark.parametrize("word", sorted(COMMAND_WORDS))
def test_every_word_has_its_encoding(word: str) -> None:
    one = Constraints(frozenset({word}))
    assert decode_constraints(encode_constraints(one)) == one


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "constrains nothing"),
        ({"commands": [b"policy-add"]}, "is not a command"),
        ({"commands": [b"Info"]}, "is not a command"),
        ({"commands": [b""]}, "is not a command"),
        ({"commands": [b"info", b"info"]}, "twice"),
        ({"images": [DIGEST, DIGEST]}, "twice"),
        *(({"names": [text]}, "is not a pattern") for text in (b"", b"Web", b"a*b", b"**", b"a b", b"\xff", b"a\n")),
        *(({"hosts": [text]}, "is not the name of a host") for text in (b"", b"a b", b"\xc3\xa4", b"x" * 256)),
    ],
)
def test_constraints_that_say_nothing_or_something_unknown_are_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(MalformedMessage, match=reason) as refusal:
        decode_constraints(constraints(**fields))
    assert refusal.value.place.startswith("constraints")


@pytest.mark.parametrize("size", [0, 20, 31, 33, 64])
def test_a_digest_has_32_octets(size: int) -> None:
    lengths = bytes((size + 9, size + 4, size + 2, size)) if size + 9 < 128 else None
    assert lengths is not None
    octets = b"\x30" + lengths[:1] + b"\x02\x01\x01\xa1" + lengths[1:2] + b"\x30" + lengths[2:3] + b"\x04" + lengths[3:]
    with pytest.raises(MalformedMessage, match=f"must have 32 octets, not {size}") as refusal:
        decode_constraints(octets + bytes(size))
    assert refusal.value.place == "constraints.images[0]"


def test_an_empty_list_is_not_an_absent_one() -> None:
    nothing = Constraints(commands=frozenset())
    assert decode_constraints(encode_constraints(nothing)) == nothing
    assert decode_constraints(constraints(commands=[])) == nothing


def test_constraints_without_any_are_not_written() -> None:
    with pytest.raises(MalformedMessage, match="constrains nothing"):
        encode_constraints(Constraints())


@pytest.mark.parametrize("version", [0, 2])
def test_another_version_is_refused(version: int) -> None:
    octets = constraints(once=None).replace(b"\x02\x01\x01", bytes((2, 1, version)))
    with pytest.raises(MalformedMessage, match=f"unknown version {version}"):
        decode_constraints(octets)
    command = encode_extended_command(Rollback()).replace(b"\x02\x01\x01", bytes((2, 1, version)))
    with pytest.raises(MalformedMessage, match=f"unknown version {version}"):
        decode_extended_command(command)


def test_a_field_that_nobody_knows_is_refused() -> None:
    octets = constraints(once=None)
    more = octets[:1] + bytes((octets[1] + 4,)) + octets[2:] + b"\xa6\x02\x05\x00"
    with pytest.raises(MalformedMessage, match="unexpected tag a6 after the last element"):
        decode_constraints(more)


@pytest.mark.parametrize("size", [1, 2**62 - 1])
def test_an_image_binding_has_a_size(size: int) -> None:
    binding = ImageBinding(DIGEST, size)
    assert decode_image_binding(encode_image_binding(binding)) == binding


@pytest.mark.parametrize("size", [0, -1, 2**62])
def test_an_image_binding_without_a_size_is_refused(size: int) -> None:
    octets = oracle.encode("ImageBinding", {"digest": DIGEST, "size": size})
    with pytest.raises(MalformedMessage, match="must be between 1 and"):
        decode_image_binding(octets)


def test_extended_commands_are_these_octets() -> None:
    assert encode_extended_command(Rollback()).hex() == "3007020101a2020500"
    assert encode_extended_command(Events()).hex() == "3007020101a1023000"
    since = Events(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert encode_extended_command(since) == b"\x30\x18\x02\x01\x01\xa1\x13\x30\x11\x18\x0f20260102030405Z"


@pytest.mark.parametrize("number", [7, 20])
def test_an_extended_command_that_nobody_knows_is_refused(number: int) -> None:
    with pytest.raises(MalformedMessage, match=rf"unknown alternative \[{number}\]"):
        decode_extended_command(b"\x30\x07\x02\x01\x01" + bytes((0xA0 + number,)) + b"\x02\x05\x00")
