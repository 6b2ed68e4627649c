"""Several conversations at once: nothing lost, nothing mixed, one failure no end of the others."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from albatross_pki.client.conversation import CommandFailed, Streamed
from albatross_pki.client.receive import Conversation
from albatross_pki.client.side_by_side import WAITING, Failed, Stream, colours_wanted, prefixes, side_by_side
from albatross_pki.errors import AlbatrossError
from albatross_pki.messages import Header
from albatross_pki.replies import ConsoleLine, Success, Text

HEADER = Header()
MOMENT = datetime(2026, 1, 2, tzinfo=UTC)


def speaker(*lines: bytes, after: threading.Event | None = None, fails: AlbatrossError | None = None) -> Conversation:
    """A host that answers, waits for ``after``, and says ``lines`` as long as they are wanted."""

    def converse(on_success: Callable[[Header, Success], None], on_data: Callable[[Header, Streamed], bool]) -> None:
        on_success(HEADER, Text("subscribed"))
        if after is not None:
            assert after.wait(20)
        for line in lines:
            if not on_data(HEADER, ConsoleLine(MOMENT, line)):
                return
        if fails is not None:
            raise fails

    return converse


class Heard:
    """What came, and from whom; after ``enough`` pieces nothing more is wanted."""

    def __init__(self, enough: int | None = None) -> None:
        self.lines: list[tuple[int, bytes]] = []
        self.answers: list[int] = []
        self.threads = {threading.current_thread()}
        self._enough = enough

    def answer(self, number: int, header: Header, reply: Success) -> None:
        self.threads.add(threading.current_thread())
        self.answers.append(number)

    def take(self, number: int, header: Header, data: Streamed) -> bool:
        self.threads.add(threading.current_thread())
        assert isinstance(data, ConsoleLine)
        self.lines.append((number, data.line))
        if len(self.lines) == self._enough:
            raise StopIteration
        return data.line != b"last"

    def of(self, number: int) -> list[bytes]:
        return [line for who, line in self.lines if who == number]


def test_everything_comes_in_order_of_each_and_in_one_thread() -> None:
    lines = [b"%d" % number for number in range(3 * WAITING)]
    heard = Heard()
    streams = [Stream(label, speaker(*lines)) for label in "abc"]
    assert side_by_side(streams, heard.answer, heard.take) == []
    assert heard.answers == [0, 1, 2]
    assert [heard.of(number) for number in range(3)] == [lines] * 3
    assert heard.threads == {threading.current_thread()}


def test_lines_come_as_they_arrive_and_not_stream_by_stream() -> None:
    gate = threading.Event()
    heard = Heard()

    def take(number: int, header: Header, data: Streamed) -> bool:
        if number == 1:
            gate.set()
        return heard.take(number, header, data)

    assert (
        side_by_side([Stream("a", speaker(b"late", after=gate)), Stream("b", speaker(b"early"))], heard.answer, take)
        == []
    )
    assert heard.lines == [(1, b"early"), (0, b"late")]


def test_one_that_fails_does_not_end_the_others() -> None:
    heard = Heard()
    error = CommandFailed("no")
    streams = [Stream("a", speaker(b"x", fails=error)), Stream("b", speaker(b"y"))]
    assert side_by_side(streams, heard.answer, heard.take) == [Failed("a", error)]
    assert sorted(heard.lines) == [(0, b"x"), (1, b"y")]


def test_a_defect_in_one_is_a_failure_and_no_silence() -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    (failed,) = side_by_side([Stream("a", broken), Stream("b", speaker())], Heard().answer, Heard().take)
    assert "ZeroDivisionError" in failed.error.message


def test_one_that_is_done_ends_alone_and_enough_ends_all() -> None:
    heard = Heard()
    streams = [Stream("a", speaker(b"last", b"not wanted")), Stream("b", speaker(b"1", b"2"))]
    assert side_by_side(streams, heard.answer, heard.take) == []
    assert heard.of(0) == [b"last"]
    assert heard.of(1) == [b"1", b"2"]
    never = threading.Event()
    enough = Heard(enough=2)
    streams = [Stream("a", speaker(b"1", b"2", b"3")), Stream("b", speaker(b"x", after=never))]
    assert side_by_side(streams, enough.answer, enough.take) == []
    assert len(enough.lines) == 2
    never.set()


@pytest.mark.parametrize("count", [1, 2])
def test_quiet_streams_end_where_that_was_asked_for(count: int) -> None:
    never = threading.Event()
    heard = Heard()
    streams = [Stream(str(number), speaker(b"x", after=never)) for number in range(count)]
    assert side_by_side(streams, heard.answer, heard.take, quiet=0.05) == []
    assert heard.lines == []
    never.set()


def test_one_alone_needs_no_thread() -> None:
    heard = Heard(enough=2)
    threads: list[threading.Thread] = []

    def converse(on_success: Callable[[Header, Success], None], on_data: Callable[[Header, Streamed], bool]) -> None:
        threads.append(threading.current_thread())
        speaker(b"1", b"2", b"3")(on_success, on_data)

    assert side_by_side([Stream("a", converse)], heard.answer, heard.take) == []
    assert threads == [threading.current_thread()]
    assert heard.of(0) == [b"1", b"2"]
    error = CommandFailed("no")
    assert side_by_side([Stream("a", speaker(fails=error))], heard.answer, heard.take) == [Failed("a", error)]


def test_prefixes_are_of_one_width_and_coloured_by_place() -> None:
    assert prefixes(["a", "long"], coloured=False) == ["a    | ", "long | "]
    assert prefixes(["a", "b"], coloured=True) == ["\x1b[36ma\x1b[0m | ", "\x1b[33mb\x1b[0m | "]
    assert len(prefixes([str(number) for number in range(50)], coloured=True)) == 50


@pytest.mark.parametrize(
    ("terminal", "environment", "wanted"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),  # no-color.org: only when not empty
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    terminal: bool, environment: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    assert colours_wanted(environment) is wanted
