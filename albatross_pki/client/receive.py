"""What happens with the answers to a command: shown on the screen, or stored in a file.

``receive`` takes the conversation as a function, so that it is the same for sockets and TLS. Images and block
contents are stored uncompressed, and only when they came as a whole.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from albatross_pki.client.conversation import Answers, NoAnswer, Streamed, answers_of
from albatross_pki.client.files import MAX_IMAGE, default_target, new_file
from albatross_pki.client.progress import Meter
from albatross_pki.client.show import Screen, short
from albatross_pki.commands import ConsoleSubscribe, StatsSubscribe, UnikernelGet
from albatross_pki.console_script import interruption_says
from albatross_pki.extensions import AnyCommand
from albatross_pki.messages import Header
from albatross_pki.names import Name
from albatross_pki.replies import BlockChunk, BlockImage, Success, Text, UnikernelImage

if TYPE_CHECKING:
    from albatross_pki.client.line_filter import LineFilter

MAX_BLOCK = 1 << 42  # octets of one block device

Conversation = Callable[[Callable[[Header, Success], None], Callable[[Header, Streamed], bool]], None]


@dataclass(frozen=True, slots=True)
class Reception:
    """How answers are received: ``to`` is a file for fetched content, ``lines`` ends a stream after so many.

    ``follow`` is about events: go on behind those that are recorded. ``pattern`` is about lines of a console.
    """

    screen: Screen
    to: str | None = None
    lines: int | None = None
    follow: bool = False
    pattern: "LineFilter | None" = None


def receive(reception: Reception, name: Name, command: AnyCommand, conversation: Conversation) -> None:
    """Hold ``conversation`` about ``name`` and show or store what it brings."""
    if isinstance(command, UnikernelGet):
        _store_image(reception, name, conversation)
    elif answers_of(command) is Answers.DUMP:
        _store_dump(reception, name, conversation)
    elif answers_of(command) is Answers.TEXTS:
        _show_events(reception, conversation)
    elif isinstance(command, ConsoleSubscribe):
        _show_console(reception, name, command, conversation)
    elif isinstance(command, StatsSubscribe) and reception.lines is None and reception.screen.width is not None:
        _show_usage(reception, name, conversation)
    else:
        _show(reception, conversation, streamed=answers_of(command) is Answers.READ)


def _show(reception: Reception, conversation: Conversation, *, streamed: bool) -> None:
    left = reception.lines

    def on_success(header: Header, reply: Success) -> None:
        # a subscription's own answer is of interest only to people who wait for what follows
        form = reception.screen.form
        if not streamed or form == "upstream" or (reception.lines is None and form == "table"):
            reception.screen.answer(header.name, reply)

    def on_data(header: Header, data: Streamed) -> bool:
        nonlocal left
        if isinstance(data, Text):
            raise NoAnswer("expected data, got Text")
        reception.screen.data(header.name, data)
        left = None if left is None else left - 1
        return left is None or left > 0

    conversation(on_success, on_data)


def _show_console(reception: Reception, name: Name, command: ConsoleSubscribe, conversation: Conversation) -> None:
    from albatross_pki.client.consoles import Wish, show_consoles

    wish = Wish(command, pattern=reception.pattern, lines=reception.lines)
    for failed in show_consoles([name], wish, lambda _, *take: conversation(*take), reception.screen):
        raise failed.error


def _show_usage(reception: Reception, name: Name, conversation: Conversation) -> None:
    from albatross_pki.client import top

    if top.can_be_live(reception.screen):
        top.live(short(name), conversation, "name", whole_screen=False)
    else:
        _show(reception, conversation, streamed=True)


def _show_events(reception: Reception, conversation: Conversation) -> None:
    from albatross_pki.client.events import EventPrinter

    printer = EventPrinter(reception.screen, follow=reception.follow, left=reception.lines)
    conversation(lambda _, __: None, printer.take)


def _store_image(reception: Reception, name: Name, conversation: Conversation) -> None:
    target = reception.to or default_target(name)

    def on_success(header: Header, reply: Success) -> None:
        if not isinstance(reply, UnikernelImage):
            raise NoAnswer(f"expected an image, got {type(reply).__name__}")
        _begin(reception, header, reply)
        image = reply.image
        if reply.compressed:
            from albatross_pki.wire.compression import decompress

            image = decompress(image, MAX_IMAGE)
        with new_file(target) as file:
            file.write(image)
        _tell_stored(reception, header.name, target, len(image), "image")
        reception.screen.upstream(f"dumped image to {target}")

    with interruption_says(f"interrupted: {target} was not made"):
        conversation(on_success, _nothing_more)


def _store_dump(reception: Reception, name: Name, conversation: Conversation) -> None:
    target = reception.to or default_target(name)
    meter, about = Meter(f"receiving {short(name)}", None), name
    with interruption_says(f"interrupted: {target} was not made"), new_file(target) as file:
        sink = _Sink(file)

        def on_success(header: Header, reply: Success) -> None:
            if not isinstance(reply, BlockImage):
                raise NoAnswer(f"expected a dump, got {type(reply).__name__}")
            nonlocal about
            about = header.name
            _begin(reception, header, reply)
            sink.begin(reply.compressed)

        def on_data(_: Header, data: Streamed) -> bool:
            if not isinstance(data, BlockChunk):
                raise NoAnswer(f"expected a chunk, got {type(data).__name__}")
            meter.add(sink.take(data.content))
            return True

        try:
            conversation(on_success, on_data)
        finally:
            meter.done()
    _tell_stored(reception, about, target, sink.octets, "content")
    reception.screen.upstream(f"dumped to {target}")


def _tell_stored(reception: Reception, name: Name, target: str, octets: int, what: str) -> None:
    """Tell people and programs where something is now; those who asked for names alone know it."""
    if reception.screen.form == "json":
        reception.screen.whole_document({"name": str(name), "stored": target, "octets": octets}, "")
    else:
        reception.screen.note(f"{what} of {octets} octets stored in {target}")


def _begin(reception: Reception, header: Header, reply: Success) -> None:
    """Tell what is about to be stored, to those who expect Albatross' words; all others are told what was stored."""
    if reception.screen.form == "upstream":
        reception.screen.answer(header.name, reply)


class _Sink:
    """Chunks of a dump on their way into a file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._inflate: Callable[[bytes], bytes] | None = None
        self._finish: Callable[[], object] = bytes
        self.octets = 0

    def begin(self, compressed: bool) -> None:
        if compressed:
            from albatross_pki.wire.compression import Inflater

            inflater = Inflater(MAX_BLOCK)
            self._inflate, self._finish = inflater.feed, inflater.finish

    def take(self, content: bytes | None) -> int:
        """Store one chunk, or end with ``None``; the number of octets that came out of it."""
        if content is None:
            self._finish()
            return 0
        octets = self._inflate(content) if self._inflate else content
        self._file.write(octets)
        self.octets += len(octets)
        return len(octets)


def _nothing_more(_: Header, data: Streamed) -> bool:
    raise NoAnswer(f"expected nothing more, got {type(data).__name__}")
