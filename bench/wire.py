"""The formats: answers of growing length per entry, an image of 16 MiB against a copy of it, frames against slices."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from time import perf_counter

from albatross_pki.commands import UnikernelCreate
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name, Path
from albatross_pki.replies import Unikernels
from albatross_pki.unikernels import (
    BlockDeviceInfo,
    InterfaceInfo,
    Settings,
    UnikernelConfig,
    UnikernelInfo,
)
from albatross_pki.wire.framing import HEADER_OCTETS, FrameDecoder, frame
from albatross_pki.wire.message import decode_message, encode_message
from bench.measure import Row, compare

IMAGE_OCTETS = 16 << 20
FRAMES = 20_000
FRAME_OCTETS = 200
ENTRIES_AT_ONCE = 2_000  # so many entries at least are read in one measurement, in however many messages
IMAGES_AT_ONCE = 10
LINEAR = 1.5  # what an entry of 10,000 may cost against one of 100
COPIES = 3.0


def rows() -> Iterator[Row]:
    """Reading and writing of info answers, of a create with an image, and of frames."""
    yield from answers("reading", lambda message: _reader(encode_message(message)))
    yield from answers("writing", lambda message: lambda: encode_message(message))
    yield from images()
    yield frames()


def answers(what: str, action: Callable[[Message], Callable[[], object]]) -> Iterator[Row]:
    """Seconds per entry of an info answer with 1, 100 and 10,000 entries, each against the one with 100."""
    hundred = per_entry(action(info(100)), 100)
    for entries in (1, 100, 10_000):
        yield compare(
            f"wire: {what} an info answer, per entry of {entries:,}",
            per_entry(action(info(entries)), entries),
            "of 100:",
            hundred,
            at_most=LINEAR if entries == 10_000 else None,
        )


def per_entry(action: Callable[[], object], entries: int, at_once: int = ENTRIES_AT_ONCE) -> Callable[[], float]:
    """Seconds that ``action`` takes for each of the ``entries`` that it is about, at least ``at_once`` in all."""
    times = max(1, at_once // entries)

    def measured() -> float:
        begin = perf_counter()
        for _ in range(times):
            action()
        return (perf_counter() - begin) / times / entries

    return measured


def _reader(octets: bytes) -> Callable[[], object]:
    return lambda: decode_message(octets)


def info(entries: int) -> Message:
    """An answer about that many unikernels with a disk, an interface and an argument each."""
    one = UnikernelInfo(
        cpuids=frozenset({0, 1}),
        memory_mb=32,
        digest=bytes(32),
        blocks=(BlockDeviceInfo("data", "storage", 512, 4),),
        interfaces=(InterfaceInfo("service", "br0", bytes(6)),),
        arguments=("--ipv4=10.0.0.1/24",),
        started=datetime(2026, 1, 1, tzinfo=UTC),
    )
    path = Path(("dev", "team"))
    return Message(Header(), Unikernels(tuple((Name(path, f"web{number}"), one) for number in range(entries))))


def images() -> Iterator[Row]:
    """A create that carries its image, read and written, against copying the image once."""
    image = bytes(IMAGE_OCTETS)
    message = Message(Header(Name.parse("dev:hello")), UnikernelCreate(UnikernelConfig(image, Settings())))
    octets = encode_message(message)
    copying = per_entry(lambda: bytearray(image), 1, IMAGES_AT_ONCE)
    what = f"wire: {{}} a create with an image of {IMAGE_OCTETS >> 20} MiB"
    reading = per_entry(_reader(octets), 1, IMAGES_AT_ONCE)
    writing = per_entry(lambda: encode_message(message), 1, IMAGES_AT_ONCE)
    yield compare(what.format("reading"), reading, "copying it", copying, at_most=COPIES)
    yield compare(what.format("writing"), writing, "copying it", copying, at_most=COPIES)


def frames() -> Row:
    """Frames per second through the decoder, against cutting the same stream at known places."""
    stream = frame(bytes(FRAME_OCTETS)) * FRAMES
    pieces = [stream[start : start + 65_536] for start in range(0, len(stream), 65_536)]
    step = HEADER_OCTETS + FRAME_OCTETS

    def decoding() -> float:
        decoder = FrameDecoder(FRAME_OCTETS)
        begin = perf_counter()
        count = sum(len(decoder.feed(piece)) for piece in pieces)
        return count / (perf_counter() - begin)

    def cutting() -> float:
        begin = perf_counter()
        payloads = [stream[start + HEADER_OCTETS : start + step] for start in range(0, len(stream), step)]
        return len(payloads) / (perf_counter() - begin)

    return compare(f"wire: frames of {FRAME_OCTETS} octets", decoding, "slices", cutting, unit="/s")
