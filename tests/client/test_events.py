"""``events``: what is shown of a stream of documents, and where it ends."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from albatross_pki.client.conversation import Answers, CommandFailed, NoAnswer, converse
from albatross_pki.client.events import EventPrinter, event_text
from albatross_pki.client.show import Screen
from albatross_pki.messages import Header, Message, Payload
from albatross_pki.replies import ConsoleLine, Failure, Text

SUBSCRIBED = Text('{"name":":","event":"subscribed","kept_since":null}')
CAUGHT_UP = Text('{"name":":","event":"caught-up"}')


def text(name: str, event: str, **members: Any) -> Text:
    return Text(json.dumps({"name": name, "id": "1", "time": "2026-01-02T03:04:05.678Z", "event": event, **members}))


STARTED = text(":a", "started", deployment=1, tender="embedded spt")
EXITED = text("x:a", "exited", exit="exit 3", code=3)


class Scripted:
    """A host that says what it was given."""

    def __init__(self, *payloads: Payload) -> None:
        self._payloads = list(payloads)

    def receive(self) -> Message | None:
        return Message(Header(), self._payloads.pop(0)) if self._payloads else None


def shown(*payloads: Payload, form: str = "table", follow: bool = False, left: int | None = None) -> None:
    """Print what ``events`` prints of a conversation."""
    printer = EventPrinter(Screen(form), follow=follow, left=left)
    converse(Scripted(SUBSCRIBED, *payloads), Answers.TEXTS, lambda _, __: None, printer.take)


def test_the_line_for_people_has_everything_that_matters() -> None:
    assert event_text(json.loads(STARTED.text)) == (
        "2026-01-02T03:04:05.678Z a started deployment 1 tender embedded spt"
    )
    assert event_text(json.loads(EXITED.text)) == "2026-01-02T03:04:05.678Z x:a exited exit 3"
    by = {"certificate": "abc", "issuer_key": "0123456789abcdef"}
    created = text("dev:", "created", image="f" * 64, by=by)
    assert event_text(json.loads(created.text)) == (
        "2026-01-02T03:04:05.678Z dev: created image ffffffffffff… by certificate abc issuer_key 0123456789ab…"
    )


def test_lines_stand_below_and_the_host_s_escapes_stay_as_they_are() -> None:
    lines = event_text(json.loads(text(":a", "last-lines", lines=["one", "\\x1b[2J"]).text))
    assert lines.splitlines() == ["2026-01-02T03:04:05.678Z a last-lines", "    one", "    \\x1b[2J"]


def test_p19_a_host_that_escapes_nothing_cannot_move_the_cursor() -> None:
    line = event_text({"name": "\x1b[2J", "event": "a\nb", "time": 3, "\x07": "\u202e", "lines": ["\r"], "by": 0})
    assert line.replace("\n    ", "").isprintable()


def test_without_follow_it_ends_where_the_present_begins(capsys: pytest.CaptureFixture[str]) -> None:
    shown(STARTED, CAUGHT_UP, EXITED)
    assert capsys.readouterr().out == event_text(json.loads(STARTED.text)) + "\n"


def test_with_follow_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    shown(STARTED, CAUGHT_UP, EXITED, follow=True)
    assert capsys.readouterr().out.count("\n") == 2


def test_it_ends_after_so_many(capsys: pytest.CaptureFixture[str]) -> None:
    shown(STARTED, EXITED, EXITED, left=2)
    assert capsys.readouterr().out.count("\n") == 2


def test_programs_get_the_documents_of_the_host(capsys: pytest.CaptureFixture[str]) -> None:
    shown(STARTED, EXITED, CAUGHT_UP, form="json")
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(STARTED.text), json.loads(EXITED.text)]


def test_p29_why_a_stream_ended_is_told() -> None:
    with pytest.raises(CommandFailed, match="a certificate of the chain has expired"):
        shown(STARTED, Failure("a certificate of the chain has expired"), follow=True)


@pytest.mark.parametrize(
    "payload",
    [Text("started"), Text("[1]"), Text("[" * 5000), Text(""), ConsoleLine(datetime(2026, 1, 1, tzinfo=UTC), b"x")],
)
def test_what_is_no_event_is_refused(payload: Payload) -> None:
    with pytest.raises(NoAnswer, match="expected"):
        shown(payload)
