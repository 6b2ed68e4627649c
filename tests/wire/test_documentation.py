"""docs/wire.md tells the truth: its examples decode, its lists are those of the code."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from albatross_pki.commands import ConsoleSubscribe
from albatross_pki.extensions import COMMAND_WORDS, CONSTRAINTS_OID, PKI_ARC
from albatross_pki.messages import Message
from albatross_pki.wire import composite
from albatross_pki.wire.extension import (
    decode_albatross_extension,
    decode_constraints,
    decode_extended_command,
    encode_albatross_extension,
    encode_constraints,
    encode_extended_command,
)
from albatross_pki.wire.message import decode_message, encode_message
from albatross_pki.wire.side import decode_side, encode_side
from albatross_pki.wire.tolerance import Form

PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```(\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
FORMATS: dict[str, tuple[Callable[..., Any], Callable[[Any], bytes]]] = {
    "message": (decode_message, encode_message),
    "albatross-extension": (decode_albatross_extension, encode_albatross_extension),
    "constraints": (decode_constraints, encode_constraints),
    "extended-command": (decode_extended_command, encode_extended_command),
    "side-message": (decode_side, encode_side),
}


@pytest.mark.parametrize(("kind", "octets"), [example for example in EXAMPLES if example[0] != "json"])
def test_an_example_is_what_it_says(kind: str, octets: str) -> None:
    decode, encode = FORMATS[kind]
    forms: set[Form] = set()
    value = decode(bytes.fromhex(octets), forms)
    assert (encode(value), forms) == (bytes.fromhex(octets), set())


def test_every_format_with_an_example_format_has_one() -> None:
    assert {kind for kind, _ in EXAMPLES} - {"json"} == set(FORMATS)


def test_the_first_example_is_the_subscription_that_it_says() -> None:
    message = decode_message(bytes.fromhex(EXAMPLES[0][1]))
    assert isinstance(message, Message)
    assert isinstance(message.payload, ConsoleSubscribe)
    assert str(message.payload.since) == "2023-03-12 23:42:15.500000+00:00"


@pytest.mark.parametrize("form", Form)
def test_every_tolerated_form_is_described(form: Form) -> None:
    assert f"| `{form.name}` |" in PAGE


@pytest.mark.parametrize("word", sorted(COMMAND_WORDS))
def test_every_command_word_is_described(word: str) -> None:
    assert f"`{word}`" in PAGE


def test_numbers_of_the_page_are_those_of_the_code() -> None:
    assert PKI_ARC in PAGE
    assert f"{PKI_ARC}.1" == CONSTRAINTS_OID
    assert (composite.MOST_PARTS, composite.MOST_ITEMS) == (2**14, 2**20)
    assert "at most 2^14" in PAGE
    assert "at most 2^20" in PAGE
