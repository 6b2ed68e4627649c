"""What upstream's encoder wrote for each constructor is what ours writes for the same facts, and reads as them."""

from pathlib import Path

import pytest

from albatross_pki.extensions import AlbatrossExtension
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.wire.extension import decode_albatross_extension, encode_albatross_extension
from albatross_pki.wire.message import decode_message, encode_message
from albatross_pki.wire.state import decode_state_dump, encode_state_dump
from tests.vectors.manifest import ROOT, vectors
from tests.wire.facts import COMMANDS, MESSAGES, STATES

ENCODED = ROOT / "encoded"


def octets(*parts: str) -> bytes:
    return Path(ENCODED, *parts).with_suffix(".der").read_bytes()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_written_and_read_as_upstream_does(name: str) -> None:
    message = Message(Header(Name.parse("a:b:hello")), COMMANDS[name])
    assert encode_message(message) == octets("wire-command", name)
    assert decode_message(octets("wire-command", name)) == message


@pytest.mark.parametrize("name", COMMANDS)
def test_a_certificate_extension_is_written_and_read_as_upstream_does(name: str) -> None:
    extension = AlbatrossExtension(COMMANDS[name])
    assert encode_albatross_extension(extension) == octets("cert-extension", name)
    assert decode_albatross_extension(octets("cert-extension", name)) == extension


@pytest.mark.parametrize("name", MESSAGES)
def test_an_answer_is_written_and_read_as_upstream_does(name: str) -> None:
    assert encode_message(MESSAGES[name]) == octets("wire-other", name)
    assert decode_message(octets("wire-other", name)) == MESSAGES[name]


@pytest.mark.parametrize("name", STATES)
def test_a_state_dump_is_written_and_read_as_upstream_does(name: str) -> None:
    assert encode_state_dump(STATES[name]) == octets("state", name)
    assert decode_state_dump(octets("state", name)) == STATES[name]


def test_no_constructor_of_upstream_is_left_out() -> None:
    accepted = {vector.file for vector in vectors(directories=("encoded",)) if vector.refused is None}
    assert accepted == {
        *(f"{directory}/{name}.der" for name in COMMANDS for directory in ("wire-command", "cert-extension")),
        *(f"wire-other/{name}.der" for name in MESSAGES),
        *(f"state/{name}.der" for name in STATES),
    }
