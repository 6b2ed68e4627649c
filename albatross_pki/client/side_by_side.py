"""Several conversations at once, their answers in the order in which they arrive.

``side_by_side`` holds each conversation in a thread of its own and hands everything to the caller's thread, so that
what shows it needs no lock:

1. they are opened one after the other: the next one begins when the one before was answered or has failed. So a person
   is asked one question at a time, and a host sees one handshake at a time;
2. then all go on at once. What waits for the caller is bounded; beyond that the conversations wait, and their hosts say
   what was missed;
3. one that fails does not end the others. The failures are returned, each with the label of its stream;
4. it is over when every stream has ended, when the caller has enough, or when nothing came for ``quiet`` seconds.

A single stream without ``quiet`` is held in the caller's thread itself. Threads that still wait for their host when it
is over are left to the end of the process.

``prefixes`` are what stands in front of each stream's lines.
"""

import os
import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from albatross_pki.client.conversation import Streamed
from albatross_pki.client.receive import Conversation
from albatross_pki.errors import AlbatrossError
from albatross_pki.messages import Header
from albatross_pki.replies import Success

MOST_STREAMS = 24  # at once; an endpoint takes 32 connections of one address, and others want some
WAITING = 1024  # pieces that wait for the caller
COLOURS = (36, 33, 32, 35, 34, 31)  # of names, in turn (ECMA-48, 8.3.117): cyan, yellow, green, magenta, blue, red


@dataclass(frozen=True, slots=True)
class Stream:
    """One conversation, and what people call it."""

    label: str
    converse: Conversation


@dataclass(frozen=True, slots=True)
class Failed:
    """A stream that did not end in order."""

    label: str
    error: AlbatrossError


OnSuccess = Callable[[int, Header, Success], None]
OnData = Callable[[int, Header, Streamed], bool]


@dataclass(slots=True)
class _Running:
    """What the threads share: pieces for the caller, and whether it has had enough."""

    on_success: OnSuccess
    on_data: OnData
    pieces: "queue.Queue[Callable[[], object]]" = field(default_factory=lambda: queue.Queue(WAITING))
    over: threading.Event = field(default_factory=threading.Event)
    failures: list[Failed] = field(default_factory=list)
    going: int = 0

    def hand(self, piece: Callable[[], object]) -> bool:
        """Give the caller something to do; whether it still takes any."""
        while not self.over.is_set():
            try:
                self.pieces.put(piece, timeout=1.0)
            except queue.Full:
                continue
            return True
        return False


def side_by_side(
    streams: Sequence[Stream], on_success: OnSuccess, on_data: OnData, *, quiet: float | None = None
) -> list[Failed]:
    """Hold all conversations at once; what went wrong, in the order in which it did.

    Both functions are called in the caller's thread with the number of the stream. ``on_data`` returns whether more is
    wanted of that stream; ``StopIteration`` raised by it ends all. ``quiet`` is in seconds.
    """
    if len(streams) == 1 and quiet is None:
        return _alone(streams[0], on_success, on_data)
    running = _Running(on_success, on_data)
    try:
        for number, stream in enumerate(streams):
            _Held(stream, number, running).open()
        while running.going:
            running.pieces.get(timeout=quiet)()
    except (StopIteration, queue.Empty):
        pass
    finally:
        running.over.set()
    return running.failures


def _alone(stream: Stream, on_success: OnSuccess, on_data: OnData) -> list[Failed]:
    def take(header: Header, data: Streamed) -> bool:
        try:
            return on_data(0, header, data)
        except StopIteration:
            return False

    try:
        stream.converse(lambda header, reply: on_success(0, header, reply), take)
    except AlbatrossError as error:
        return [Failed(stream.label, error)]
    return []


class _Held:
    """One conversation in its thread. What is called ``_told_…`` runs in the caller's."""

    def __init__(self, stream: Stream, number: int, running: _Running) -> None:
        self._stream, self._number, self._running = stream, number, running
        self._opened = False
        self._wanted = True

    def open(self) -> None:
        """Begin, and serve all conversations until this one was answered or has failed."""
        self._running.going += 1
        threading.Thread(target=self._hold, name=f"stream {self._stream.label}", daemon=True).start()
        while not self._opened:
            self._running.pieces.get()()

    def _hold(self) -> None:
        error: AlbatrossError | None = None
        try:
            self._stream.converse(self._answered, self._heard)
        except AlbatrossError as failure:
            error = failure
        except Exception as failure:  # noqa: BLE001  a thread has nobody else to tell
            error = AlbatrossError(f"{type(failure).__name__}: {failure}")
        self._running.hand(lambda: self._told_end(error))

    def _answered(self, header: Header, reply: Success) -> None:
        self._running.hand(lambda: self._told_answer(header, reply))

    def _heard(self, header: Header, data: Streamed) -> bool:
        return self._running.hand(lambda: self._told_data(header, data)) and self._wanted

    def _told_answer(self, header: Header, reply: Success) -> None:
        self._opened = True
        self._running.on_success(self._number, header, reply)

    def _told_data(self, header: Header, data: Streamed) -> None:
        self._wanted = self._wanted and self._running.on_data(self._number, header, data)

    def _told_end(self, error: AlbatrossError | None) -> None:
        self._opened = True
        self._running.going -= 1
        if error is not None:
            self._running.failures.append(Failed(self._stream.label, error))


def colours_wanted(environment: Mapping[str, str] | None = None) -> bool:
    """Whether standard output is a terminal for which colours were not switched off (no-color.org)."""
    environment = os.environ if environment is None else environment
    return sys.stdout.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def prefixes(labels: Sequence[str], *, coloured: bool) -> list[str]:
    """``label | `` for each stream, all of the same width; colours go by the place in the list."""
    width = max(map(len, labels), default=0)
    padded = [f"{label:<{width}}" for label in labels]
    if coloured:
        padded = [f"\x1b[{COLOURS[place % len(COLOURS)]}m{text}\x1b[0m" for place, text in enumerate(padded)]
    return [f"{text} | " for text in padded]
