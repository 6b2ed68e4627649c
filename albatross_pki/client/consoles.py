"""Consoles of one or more unikernels: which ones, and how their lines are shown.

``names_meant`` turns what was typed into names: a path stands for the unikernels that run in it, which the host is
asked for. AV5 subscribes to one console at a time, so each name becomes a command of its own; through TLS each is
signed, sent and judged on its own, and a delegation gets no more than what it could ask for one by one.

``ConsolePrinter`` shows lines as they arrive: with the name in front if there are several, those that the filter takes,
and always the lines that say how many were missed.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from albatross_pki.client.conversation import NoAnswer, Streamed
from albatross_pki.client.line_filter import LineFilter
from albatross_pki.client.local import OnData, OnSuccess
from albatross_pki.client.show import Screen, short
from albatross_pki.client.side_by_side import MOST_STREAMS, Failed, Stream, colours_wanted, prefixes, side_by_side
from albatross_pki.command_line import TypedCommand
from albatross_pki.commands import ConsoleSubscribe, UnikernelInfoRequest
from albatross_pki.errors import AlbatrossError, ExitCode
from albatross_pki.messages import Header
from albatross_pki.names import Name
from albatross_pki.replies import ConsoleLine, Success, Unikernels

MISSED = re.compile(rb"\[albatross-console: \d+ lines missed\]")  # in place of lines, by our own console
QUIET = 1.0  # seconds without a line after which there is no more history
MOST_HISTORY = 1024  # lines that a console keeps (Albatross AV5)

Send = Callable[[TypedCommand, OnSuccess, OnData], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be shown: ``subscription`` for each console; ``lines`` ends after so many that were shown."""

    subscription: ConsoleSubscribe
    follow: bool = True
    pattern: LineFilter | None = None
    lines: int | None = None


class NothingRuns(AlbatrossError):
    """A path in which nothing runs."""

    exit_code = ExitCode.REMOTE_COMMAND


def names_meant(typed: Sequence[Name], send: Send, *, remote: bool) -> list[Name]:
    """The names that were typed, and those that run in the paths that were, each once; raises ``AlbatrossError``.

    ``remote``: names below another delegation cannot be asked for, because a leaf has one label.
    """
    found: dict[Name, None] = {}
    for name in typed:
        if not name.is_path:
            found[name] = None
            continue
        running = [each.below(name.path) for each in _running(name, send)]
        reachable = [each for each in running if not remote or not each.path.labels]
        if not reachable:
            raise NothingRuns(f"nothing runs in {name}", hint="inactive-consoles shows what has ended")
        found.update(dict.fromkeys(sorted(reachable)))
    if len(found) > MOST_STREAMS:
        raise AlbatrossError(
            f"at most {MOST_STREAMS} consoles can be shown at once, these are {len(found)}",
            hint="name those that matter",
        )
    return list(found)


def _running(path: Name, send: Send) -> list[Name]:
    names: list[Name] = []

    def on_success(_: Header, reply: Success) -> None:
        if not isinstance(reply, Unikernels):
            raise NoAnswer(f"expected unikernels, got {type(reply).__name__}")
        names.extend(name for name, _ in reply.unikernels)

    def on_data(_: Header, data: Streamed) -> bool:
        raise NoAnswer(f"expected nothing more, got {type(data).__name__}")

    send(TypedCommand(path, UnikernelInfoRequest()), on_success, on_data)
    return names


def show_consoles(names: Sequence[Name], wish: Wish, send: Send, screen: Screen) -> list[Failed]:
    """Show the consoles of ``names`` until they end or enough was shown; what went wrong with any."""
    printer = ConsolePrinter(names, wish, screen, coloured=colours_wanted())
    streams = [_stream(name, wish, send) for name in names]
    return side_by_side(streams, printer.answer, printer.take, quiet=None if wish.follow else QUIET)


def _stream(name: Name, wish: Wish, send: Send) -> Stream:
    typed = TypedCommand(name, wish.subscription)
    return Stream(short(name), lambda on_success, on_data: send(typed, on_success, on_data))


class ConsolePrinter:
    """Prints lines of the consoles of ``names`` on ``screen``."""

    def __init__(self, names: Sequence[Name], wish: Wish, screen: Screen, *, coloured: bool) -> None:
        labels = [short(name) for name in names]
        self._prefixes = prefixes(labels, coloured=coloured) if len(labels) > 1 else [""]
        self._wish, self._screen = wish, screen
        self._left = wish.lines
        history = MOST_HISTORY if wish.subscription.count is None else min(wish.subscription.count, MOST_HISTORY)
        self._history = [history] * len(labels)

    def answer(self, number: int, header: Header, reply: Success) -> None:
        """Print that a subscription was accepted, for those who wait at it."""
        waited_at = self._wish.lines is None and self._wish.follow and self._screen.form == "table"
        if waited_at or self._screen.form == "upstream":
            self._screen.answer(header.name, reply, self._prefixes[number])

    def take(self, number: int, header: Header, data: Streamed) -> bool:
        """Print one line; whether more of this console is wanted. Raises ``StopIteration`` if nothing more is."""
        if not isinstance(data, ConsoleLine):
            raise NoAnswer(f"expected a line, got {type(data).__name__}")
        missed = MISSED.fullmatch(data.line) is not None
        if not self._wish.follow and not missed:
            if not self._history[number]:
                return False
            self._history[number] -= 1
        if self._wish.pattern is None or missed or self._wish.pattern.shows(line_text(data)):
            self._screen.data(header.name, data, self._prefixes[number])
            self._count()
        return self._wish.follow or self._history[number] > 0

    def _count(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                raise StopIteration


def line_text(data: ConsoleLine) -> str:
    """A line as it is shown."""
    from albatross_pki.client.documents import data_document

    text: str = data_document(Name(), data)["line"]
    return text
