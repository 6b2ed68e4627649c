"""Samples as Prometheus reads them, and the small HTTP server that it reads them from.

``exposition`` is pure: every unikernel's sample as text. ``serve_scrapes`` answers ``GET /metrics`` and nothing else,
one request per connection, within bounds of size, time and number. Who may connect is decided by the address that the
operator gives: whoever can reach it sees the names of all unikernels.

Source: Prometheus, "Exposition formats", text format 0.0.4.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator

from albatross_pki.names import Name
from albatross_pki.replies import Statistics, Timeval
from albatross_pki.transport.errors import NotListening

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_REQUEST = 8192  # octets of a request's head
TIMEOUT = 5.0  # seconds for a request, and for its answer to be taken
MAX_SCRAPES = 4  # at once
PAGE = os.sysconf("SC_PAGESIZE")
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})

log = logging.getLogger(__name__)

Samples = Iterable[tuple[Name, Statistics]]
Row = tuple[dict[str, str], float]
Family = tuple[str, str, str, Callable[[Statistics], Iterator[Row]]]


def _cpu(sample: Statistics) -> Iterator[Row]:
    yield {"mode": "user"}, _seconds(sample.usage.utime)
    yield {"mode": "system"}, _seconds(sample.usage.stime)


def _faults(sample: Statistics) -> Iterator[Row]:
    yield {"kind": "minor"}, sample.usage.minflt
    yield {"kind": "major"}, sample.usage.majflt


def _switches(sample: Statistics) -> Iterator[Row]:
    yield {"kind": "voluntary"}, sample.usage.nvcsw
    yield {"kind": "involuntary"}, sample.usage.nivcsw


def _resident(sample: Statistics) -> Iterator[Row]:
    if sample.memory is not None:
        yield {}, sample.memory.rss * PAGE


def _virtual(sample: Statistics) -> Iterator[Row]:
    if sample.memory is not None:
        yield {}, sample.memory.vsize


def _started(sample: Statistics) -> Iterator[Row]:
    if sample.memory is not None:
        yield {}, _seconds(sample.memory.start)


def _network(sent: str, received: str) -> Callable[[Statistics], Iterator[Row]]:
    """Counters of every interface, as the unikernel sees the direction: the host's input is what it sent."""

    def read(sample: Statistics) -> Iterator[Row]:
        for interface in sample.interfaces:
            yield {"device": interface.name, "direction": "sent"}, getattr(interface, sent)
            yield {"device": interface.name, "direction": "received"}, getattr(interface, received)

    return read


FAMILIES: tuple[Family, ...] = (
    ("albatross_unikernel_cpu_seconds_total", "counter", "Processor time used.", _cpu),
    ("albatross_unikernel_resident_memory_bytes", "gauge", "Memory in use.", _resident),
    ("albatross_unikernel_virtual_memory_bytes", "gauge", "Memory mapped.", _virtual),
    ("albatross_unikernel_start_time_seconds", "gauge", "When its process began, since 1970.", _started),
    ("albatross_unikernel_page_faults_total", "counter", "Page faults.", _faults),
    ("albatross_unikernel_context_switches_total", "counter", "Context switches.", _switches),
    (
        "albatross_unikernel_network_bytes_total",
        "counter",
        "Octets on its interfaces.",
        _network("input_bytes", "output_bytes"),
    ),
    (
        "albatross_unikernel_network_packets_total",
        "counter",
        "Packets on its interfaces.",
        _network("input_packets", "output_packets"),
    ),
    (
        "albatross_unikernel_network_dropped_total",
        "counter",
        "Packets dropped on its interfaces.",
        _network("input_dropped", "output_dropped"),
    ),
    (
        "albatross_unikernel_network_errors_total",
        "counter",
        "Errors on its interfaces.",
        _network("input_errors", "output_errors"),
    ),
)


def exposition(samples: Samples) -> bytes:
    """All families, each with its help, and their rows for every unikernel."""
    samples = list(samples)
    text = []
    for family, kind, help_text, rows in FAMILIES:
        text.append(f"# HELP {family} {help_text}\n# TYPE {family} {kind}\n")
        for name, sample in samples:
            text += [f"{family}{_labels(name, labels)} {value}\n" for labels, value in rows(sample)]
    text.append("# HELP albatross_unikernels Unikernels that are watched.\n# TYPE albatross_unikernels gauge\n")
    text.append(f"albatross_unikernels {len(samples)}\n")
    return "".join(text).encode("utf-8", "replace")


def _labels(name: Name, labels: dict[str, str]) -> str:
    pairs = {"name": str(name), **labels}
    return "{" + ",".join(f'{key}="{value.translate(_ESCAPES)}"' for key, value in pairs.items()) + "}"


def _seconds(time: Timeval) -> float:
    return time.seconds + time.microseconds / 1_000_000


Collect = Callable[[], Awaitable[Samples]]


async def serve_scrapes(host: str, port: int, collect: Collect) -> None:
    """Answer scrapes at an address until cancelled; raises ``NotListening``."""
    places = asyncio.Semaphore(MAX_SCRAPES)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT), places:
                await _answer(reader, writer, collect)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            log.info("a scrape ended: %s", type(error).__name__)
        finally:
            if writer.transport.get_write_buffer_size():  # it did not read in time
                writer.transport.abort()
            writer.close()

    try:
        server = await asyncio.start_server(serve, host, port, limit=MAX_REQUEST)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise NotListening(f"cannot serve scrapes at {host} port {port}: {reason}") from error
    async with server:
        await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, collect: Collect) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) != 3 or words[0] != b"GET":
        status, body = "405 Method Not Allowed", b"only GET is understood\n"
    elif words[1].partition(b"?")[0] != b"/metrics":
        status, body = "404 Not Found", b"there is only /metrics\n"
    else:
        status, body = "200 OK", exposition(await collect())
    fields = (
        f"HTTP/1.1 {status}",
        f"Content-Type: {CONTENT_TYPE}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    writer.write("\r\n".join((*fields, "", "")).encode("ascii") + body)
    await writer.drain()
