"""When a conversation is over, and that an end without an answer is never a success."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from albatross_pki.client.conversation import (
    Answers,
    CommandFailed,
    NoAnswer,
    Streamed,
    answers_of,
    converse,
    socket_of,
)
from albatross_pki.commands import (
    BlockDump,
    ConsoleInactive,
    ConsoleSubscribe,
    PolicyInfo,
    StatsSubscribe,
    UnikernelDestroy,
)
from albatross_pki.errors import ExitCode
from albatross_pki.extensions import AnyCommand, Events
from albatross_pki.messages import Header, Message, Payload
from albatross_pki.replies import BlockChunk, BlockImage, ConsoleLine, Data, Empty, Failure, Success, Text

LINE = ConsoleLine(datetime(2026, 1, 1, tzinfo=UTC), b"line")


class Script:
    """A peer that sends these payloads and closes."""

    def __init__(self, *payloads: Payload) -> None:
        self._left: Iterator[Payload] = iter(payloads)
        self.asked = 0

    def receive(self) -> Message | None:
        self.asked += 1
        payload = next(self._left, None)
        return None if payload is None else Message(Header(), payload)


def follow(answers: Answers, *payloads: Payload, enough: int = 10**9) -> tuple[list[Success], list[Streamed], Script]:
    successes: list[Success] = []
    data: list[Streamed] = []
    peer = Script(*payloads)

    def on_data(_: Header, item: Streamed) -> bool:
        data.append(item)
        return len(data) < enough

    converse(peer, answers, lambda _, reply: successes.append(reply), on_data)
    return successes, data, peer


@pytest.mark.parametrize("answers", list(Answers))
def test_p29_an_end_without_an_answer_is_an_error(answers: Answers) -> None:
    with pytest.raises(NoAnswer, match="before an answer came") as caught:
        follow(answers)
    assert caught.value.exit_code is ExitCode.COMMUNICATION


@pytest.mark.parametrize("answers", list(Answers))
def test_p29_a_failure_is_told_in_the_servers_words(answers: Answers) -> None:
    with pytest.raises(CommandFailed, match="destroy: not found") as caught:
        follow(answers, Failure("destroy: not found"), Failure("exception while reading from fd"))
    assert caught.value.exit_code is ExitCode.REMOTE_COMMAND


@pytest.mark.parametrize("answers", list(Answers))
def test_data_or_a_command_in_place_of_an_answer_is_an_error(answers: Answers) -> None:
    for payload in (LINE, UnikernelDestroy()):
        with pytest.raises(NoAnswer, match="expected an answer"):
            follow(answers, payload)


def test_single_is_over_after_one_message() -> None:
    successes, _, peer = follow(Answers.SINGLE, Text("done"), Text("more"))
    assert successes == [Text("done")]
    assert peer.asked == 1


def test_read_goes_on_until_the_peer_closes() -> None:
    assert follow(Answers.READ, Empty(), LINE, LINE)[1] == [LINE, LINE]


def test_read_ends_when_the_reader_has_enough() -> None:
    _, data, peer = follow(Answers.READ, Empty(), LINE, LINE, LINE, enough=2)
    assert data == [LINE, LINE]
    assert peer.asked == 3


def test_the_failure_that_albatross_endpoint_ends_streams_with_is_an_end() -> None:
    assert follow(Answers.READ, Empty(), LINE, Failure("exception while reading from fd"))[1] == [LINE]


def test_another_failure_in_a_stream_is_one() -> None:
    with pytest.raises(CommandFailed, match="revoked"):
        follow(Answers.READ, Empty(), LINE, Failure("revoked"))


def test_a_dump_ends_with_its_mark() -> None:
    chunks = [BlockChunk(b"a"), BlockChunk(b""), BlockChunk(None)]
    assert follow(Answers.DUMP, BlockImage(False), *chunks)[1] == chunks


@pytest.mark.parametrize("tail", [(), (LINE,), (BlockChunk(b"b"), LINE)])
def test_p24_a_dump_that_stops_before_its_mark_is_an_error(tail: tuple[Data, ...]) -> None:
    with pytest.raises(NoAnswer):
        follow(Answers.DUMP, BlockImage(False), BlockChunk(b"a"), *tail)


def test_p24_a_failure_after_the_mark_is_one() -> None:
    with pytest.raises(CommandFailed, match="read error"):
        follow(Answers.DUMP, BlockImage(False), BlockChunk(b"a"), BlockChunk(None), Failure("read error"))


def test_the_closing_failure_of_albatross_endpoint_ends_a_whole_dump_and_fails_a_cut_one() -> None:
    closing = Failure("exception while reading from fd")
    assert follow(Answers.DUMP, BlockImage(False), BlockChunk(None), closing)[1] == [BlockChunk(None)]
    with pytest.raises(CommandFailed):
        follow(Answers.DUMP, BlockImage(False), BlockChunk(b"a"), closing)


@pytest.mark.parametrize(
    ("command", "answers", "socket"),
    [
        (ConsoleSubscribe(count=1), Answers.READ, "util/console.sock"),
        (ConsoleInactive(), Answers.SINGLE, "util/console.sock"),
        (StatsSubscribe(), Answers.READ, "util/stat.sock"),
        (BlockDump(0), Answers.DUMP, "util/vmmd.sock"),
        (PolicyInfo(), Answers.SINGLE, "util/vmmd.sock"),
        (Events(), Answers.TEXTS, "util/vmmd.sock"),
    ],
)
def test_each_command_has_its_socket_and_its_shape_of_answers(
    command: AnyCommand, answers: Answers, socket: str
) -> None:
    assert (answers_of(command), socket_of(command)) == (answers, socket)
