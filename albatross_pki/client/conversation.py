"""Which socket a command goes to, what comes back, and when a conversation is over.

``converse`` follows one conversation, whatever carries it:

1. the first message is the answer; no message at all is an error, never a success (a server that refuses without a
   word must not look like one that obeyed);
2. a failure ends it (a second failure that some servers add is not looked at);
3. ``SINGLE``: that was all. ``READ``: data until the other side closes, or the reader has enough; ``TEXTS``: the same
   with documents. ``DUMP``: chunks until the end mark, and then whatever still comes, because a dump that broke says so
   only after its mark.

What is done with answer and data is the caller's.
"""

from collections.abc import Callable
from enum import Enum
from typing import Protocol, cast

from albatross_pki import commands as c
from albatross_pki.errors import AlbatrossError, ExitCode, Refused
from albatross_pki.extensions import AnyCommand, Events
from albatross_pki.messages import ROOT, Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import BlockChunk, ConsoleLine, Data, Failure, Statistics, Success, Text

Streamed = Data | Text  # what comes behind the answer that begins a stream


class Answers(Enum):
    """The shape of what a command is answered with."""

    SINGLE = "single"
    READ = "read"
    TEXTS = "texts"
    DUMP = "dump"


class NoAnswer(AlbatrossError):
    """The other side closed the connection, or sent what is no answer."""

    exit_code = ExitCode.COMMUNICATION


class CommandFailed(Refused):
    """The other side understood the command and answered with a failure, which may have several reasons.

    ``name`` is what the answer is about.
    """

    exit_code = ExitCode.REMOTE_COMMAND

    def __init__(self, text: str, name: Name = ROOT) -> None:
        super().__init__(text.split("; "))
        self.name = name


class Incoming(Protocol):
    """Anything that messages come from."""

    def receive(self) -> Message | None:
        """The next message, ``None`` at the orderly end."""


def answers_of(command: AnyCommand) -> Answers:
    """The shape of the answers to ``command``."""
    match command:
        case c.ConsoleSubscribe() | c.StatsSubscribe():
            return Answers.READ
        case Events():
            return Answers.TEXTS
        case c.BlockDump():
            return Answers.DUMP
        case _:
            return Answers.SINGLE


def socket_of(command: AnyCommand) -> str:
    """The file below a ``--tmpdir`` that ``command`` is sent to when it is sent locally."""
    match command:
        case c.ConsoleAdd() | c.ConsoleSubscribe() | c.ConsoleInactive():
            return "util/console.sock"
        case c.StatsAdd() | c.StatsRemove() | c.StatsSubscribe():
            return "util/stat.sock"
        case _:
            return "util/vmmd.sock"


def converse(
    incoming: Incoming,
    answers: Answers,
    on_success: Callable[[Header, Success], None],
    on_data: Callable[[Header, Streamed], bool],
) -> None:
    """Follow one conversation; ``on_data`` returns whether more is wanted.

    Raises ``CommandFailed`` with the other side's words, ``NoAnswer``, and what ``incoming`` raises.
    """
    first = incoming.receive()
    if first is None:
        raise NoAnswer("the connection was closed before an answer came", hint="the server's log says why")
    if isinstance(first.payload, Failure):
        raise CommandFailed(first.payload.text, first.header.name)
    if not isinstance(first.payload, Success):
        raise NoAnswer(f"expected an answer, got {type(first.payload).__name__}")
    on_success(first.header, first.payload)
    if answers is Answers.READ:
        _read(incoming, on_data, (ConsoleLine, Statistics))
    elif answers is Answers.TEXTS:
        _read(incoming, on_data, (Text,))
    elif answers is Answers.DUMP:
        _dump(incoming, on_data)


def _read(incoming: Incoming, on_data: Callable[[Header, Streamed], bool], expected: tuple[type, ...]) -> None:
    while (message := incoming.receive()) is not None:
        if isinstance(message.payload, Failure):
            # Albatross' endpoint ends every stream with a failure, an orderly end included
            if message.payload.text == "exception while reading from fd":
                return
            raise CommandFailed(message.payload.text, message.header.name)
        if not isinstance(message.payload, expected):
            raise NoAnswer(f"expected data, got {type(message.payload).__name__}")
        if not on_data(message.header, cast(Streamed, message.payload)):
            return


def _dump(incoming: Incoming, on_data: Callable[[Header, Streamed], bool]) -> None:
    ended = False
    while (message := incoming.receive()) is not None:
        match message.payload:
            case Failure(text="exception while reading from fd") if ended:
                return
            case Failure(text=text):
                raise CommandFailed(text, message.header.name)
            case BlockChunk() if not ended:
                on_data(message.header, message.payload)
                ended = message.payload.content is None
            case other:
                raise NoAnswer(f"expected a chunk, got {type(other).__name__}")
    if not ended:
        raise NoAnswer("the connection was closed in the middle of the dump")
