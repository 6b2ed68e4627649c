"""Untrusted octets survive unchanged inside and cannot move a cursor outside."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatross_pki.text import from_octets, printable, to_octets


@given(st.binary(max_size=200))
def test_octets_come_back_as_they_were(octets: bytes) -> None:
    assert to_octets(from_octets(octets)) == octets


@given(st.binary(max_size=200))
def test_p19_what_is_shown_is_printable_and_on_one_line(octets: bytes) -> None:
    shown = printable(octets)
    assert shown.isprintable()
    shown.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\nb", "a\\nb"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\u202eevil", "\\u202eevil"),
        ("back\\slash", "back\\\\slash"),
        (b"\xff\xfe", "\\xff\\xfe"),
    ],
)
def test_escapes(text: str | bytes, shown: str) -> None:
    assert printable(text) == shown


def test_a_cut_is_marked() -> None:
    assert printable("x" * 10, limit=4) == "xxxx…"
    assert printable(b"x" * 10000, limit=4) == "xxxx…"
