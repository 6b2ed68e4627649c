"""``-o upstream``: what is printed is what upstream's own client printed for the same octets."""

import re

import pytest

from albatross_pki.client.upstream import answer_text, data_text, failure_text
from albatross_pki.messages import Message
from albatross_pki.replies import Data, Failure, Success
from albatross_pki.wire.message import decode_message
from tests.vectors.manifest import Vector, vectors
from tests.wire.upstream_words import fold

ANSWERS = [vector for vector in vectors("message") if vector.refused is None]


def text_of(message: Message) -> str | None:
    """What a client prints for a message; ``None`` for a command."""
    match message.payload:
        case Failure(text):
            return failure_text("albatross-client", message.header.name, text)
        case payload if isinstance(payload, Success):
            return answer_text(message.header.name, payload)
        case payload if isinstance(payload, Data):
            return data_text(payload)
        case _:
            return None


@pytest.mark.parametrize("vector", ANSWERS, ids=str)
def test_every_recorded_answer_is_printed_in_the_words_that_were_recorded(vector: Vector) -> None:
    text = text_of(decode_message(vector.octets))
    if text is None:
        return  # a command
    expected = (vector.reads or "").partition(" | ")[2]
    if expected.startswith("block data"):
        assert text == ""  # goes into a file
        return
    # the records were made with everything shown; arguments are shown by upstream only to those who debug
    expected = re.sub(r" argv .*?(?= \[unikernel: |$)", "", fold(expected))
    assert fold(text.removeprefix("albatross-client: [WARNING] ")) == expected


def test_there_is_something_to_compare() -> None:
    kinds = {type(decode_message(vector.octets).payload).__name__ for vector in ANSWERS}
    assert {"Text", "Empty", "Failure", "Unikernels", "Policies", "BlockDevices", "Consoles", "ConsoleLine"} <= kinds
    assert {"Statistics", "UnikernelImage", "BlockImage"} <= kinds
