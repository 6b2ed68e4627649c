"""Events as they come from a host: one line each for people, the host's own documents for programs.

The documents are described in ``docs/events.md``. What is not in there is shown all the same, escaped: a host may be
newer than its clients. A stream that is not to be followed ends when the host says that everything so far was told.
"""

import json
from typing import Any

from albatross_pki.client.conversation import NoAnswer, Streamed
from albatross_pki.client.documents import host_document
from albatross_pki.client.show import Screen
from albatross_pki.messages import Header
from albatross_pki.replies import Text
from albatross_pki.text import printable

CAUGHT_UP = "caught-up"
_HEAD = ("name", "id", "time", "event", "by", "lines", "code", "signal")  # said elsewhere, or not for people
_LONG = ("image", "issuer_key")


class EventPrinter:
    """Prints documents on ``screen``; ``follow`` goes on behind what is recorded, ``left`` ends after so many."""

    def __init__(self, screen: Screen, *, follow: bool, left: int | None) -> None:
        self._screen = screen
        self._follow = follow
        self._left = left

    def take(self, _: Header, data: Streamed) -> bool:
        """Print one; whether more is wanted."""
        if not isinstance(data, Text):
            raise NoAnswer(f"expected an event, got {type(data).__name__}")
        document = _document(data.text)
        if document.get("event") == CAUGHT_UP:
            return self._follow
        self._screen.document(document, event_text(document))
        if self._left is not None:
            self._left -= 1
        return self._left is None or self._left > 0


def event_text(document: dict[str, Any]) -> str:
    """``TIME NAME EVENT DETAILS by WHOM`` for people, and the lines that go with it below."""
    pieces = [
        _plain(document.get("time", "-")),
        _plain(document.get("name", "-")).removeprefix(":") or ":",
        _plain(document.get("event", "-")),
    ]
    pieces += [_detail(key, value) for key, value in document.items() if key not in _HEAD]
    by = document.get("by")
    if isinstance(by, dict):
        pieces.append("by " + " ".join(f"{printable(key)} {_short(key, value)}" for key, value in by.items()))
    lines = document.get("lines")
    below = [f"    {_plain(line)}" for line in lines] if isinstance(lines, list) else []
    return "\n".join([" ".join(pieces), *below])


def _detail(key: str, value: object) -> str:
    return _plain(value) if key in ("exit", "reason") else f"{printable(key)} {_short(key, value)}"


def _document(text: str) -> dict[str, Any]:
    try:
        document = host_document(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise NoAnswer(f"expected an event, got {printable(text, 64)}")
    return document


def _short(key: str, value: object) -> str:
    text = _plain(value)
    return text[:12] + "…" if key in _LONG and len(text) > 12 else text


def _plain(value: object) -> str:
    # the host has escaped what others wrote; escaping that again would double every backslash
    text = value if isinstance(value, str) else json.dumps(value)
    return text if text.isprintable() else printable(text)
