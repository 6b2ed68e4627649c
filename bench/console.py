"""Console lines per second, from a fifo through albatross-console into its subscribers, against ``cat`` of the fifo.

A process writes lines of 71 octets as fast as it can; each subscriber is a process that counts what it gets. Lines that
a subscriber was too slow for come as a marker with their number and do not count as delivered. The stopped subscriber
subscribes and never reads.
"""

import contextlib
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection as PipeEnd
from statistics import median

from albatross_pki.commands import ConsoleAdd, ConsoleSubscribe
from albatross_pki.host.console_frames import LineFramer
from albatross_pki.host.ring import RING_LINES, Ring
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.transport.blocking import Connection
from bench.measure import Row, compare, spread

LINE = b"x" * 70 + b"\n"  # 71 octets with its newline
TEXT = LINE[:-1]
LINES = 600_000
BLOCK = LINE * 900
NAME = Name.parse("ticker")
TARGET = 600_000  # lines a second into one subscriber on a machine of two cores
ROUNDS = 5
RINGS = 20
MISSED = re.compile(rb"\[albatross-console: (\d+) lines missed\]")
MARKER = b"lines missed]"
START = "from albatross_pki.host.console_cli import main; main()"


def rows() -> Iterator[Row]:
    """Lines a second: one subscriber against ``cat``, five with one that does not read; the framing alone."""
    with tempfile.TemporaryDirectory() as directory, Console(directory) as console:
        measured: list[float] = []

        def ours() -> float:
            measured.append(console.delivered(readers=1)[0])
            return measured[-1]

        row = compare(
            "console lines/s, 1 subscriber",
            ours,
            "cat of the fifo",
            lambda: plainly(directory),
            rounds=ROUNDS,
            unit="lines/s",
        )
        yield replace(row, bound=f"≥ {TARGET:,} lines/s", met=median(measured) >= TARGET)
        console.delivered(readers=4, stopped=1)
        rates = [console.delivered(readers=4, stopped=1) for _ in range(ROUNDS)]
        slowest = [min(rate) for rate in rates]
        yield Row(
            "console lines/s, slowest of 4 beside 1 stopped",
            f"{median(slowest):,.0f} lines/s",
            bound="nobody waits",
            met=min(slowest) > 0,
            spread=spread(slowest),
        )
        mebibytes = console.resident() / 2**20
        yield Row("console memory after that", f"{mebibytes:.0f} MiB", bound="≤ 112 MiB", met=mebibytes <= 112)
    yield framing()
    yield ring()


def ring() -> Row:
    """What a full ring takes in memory when each line came alone, against what it counts itself as."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        rings = [Ring(1 << 20) for _ in range(RINGS)]
        for each in rings:
            for moment in range(RING_LINES):
                each.append(1_750_000_000_000 + moment, [b"%d" % moment + TEXT])
        taken = (tracemalloc.get_traced_memory()[0] - before) / RINGS
    finally:
        tracemalloc.stop()
    counted = rings[0].octets
    return Row(
        f"console memory of a ring of {RING_LINES:,} lines",
        f"{taken / 1024:.0f} kB",
        f"counted as {counted / 1024:.0f} kB",
        taken / counted,
        "≤ 1x",
        taken <= counted,
    )


def framing() -> Row:
    """How fast lines become frames, with nothing else around it."""
    framer, lines = LineFramer(NAME), [TEXT] * 900
    begin, moments = time.perf_counter(), 500
    for moment in range(moments):
        framer.frames(1_750_000_000_000 + moment, lines)
    return Row("console framing alone", f"{moments * len(lines) / (time.perf_counter() - begin):,.0f} lines/s")


def write(path: str) -> None:
    """The writer: what a unikernel at full speed does."""
    with open(path, "wb", buffering=0) as fifo:
        left = LINES * len(LINE)
        while left:
            left -= fifo.write(BLOCK[: min(len(BLOCK), left)]) or 0


def plainly(directory: str) -> float:
    """Lines a second that ``cat`` takes out of a fifo."""
    path = os.path.join(directory, "plain")
    os.mkfifo(path)
    writer = multiprocessing.get_context("fork").Process(target=write, args=(path,))
    begin = time.perf_counter()
    writer.start()
    with open(path, "rb") as fifo:
        subprocess.run(["cat"], stdin=fifo, stdout=subprocess.DEVNULL, check=True)
    taken = time.perf_counter() - begin
    writer.join()
    os.unlink(path)
    return LINES / taken


def read(path: str, report: PipeEnd) -> None:
    """A subscriber: reports when it is ready, then lines a second that it was given."""
    with Connection(path) as connection:
        connection.send(Message(Header(NAME), ConsoleSubscribe(count=0)))
        connection.receive()
        report.send(0.0)
        seen = missed = 0
        carried = b""  # the beginning of a line or marker that the end of a read cut
        begin = time.perf_counter()
        while seen + missed < LINES:
            received = carried + connection.socket.recv(1 << 20)
            seen += received.count(TEXT)
            last = received.rfind(TEXT)
            end = last + len(TEXT) if last >= 0 else 0
            if MARKER in received:
                markers = list(MISSED.finditer(received))
                missed += sum(int(marker[1]) for marker in markers)
                end = max(end, *(marker.end() for marker in markers))
            carried = received[end:]
        report.send(seen / (time.perf_counter() - begin))


class Console:
    """A console process and one announced unikernel."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, "util", "console.sock")
        self._fifo = os.path.join(directory, "fifo", str(NAME))
        for name in ("util", "fifo"):
            os.mkdir(os.path.join(directory, name))
        os.mkfifo(self._fifo)
        self._process = subprocess.Popen([sys.executable, "-c", START, "--tmpdir", directory])
        while True:
            with contextlib.suppress(Exception), Connection(self._path):
                break
            time.sleep(0.01)

    def delivered(self, readers: int, stopped: int = 0) -> list[float]:
        """Lines a second for each of ``readers``, beside some that never read."""
        with contextlib.ExitStack() as stack:
            announce = stack.enter_context(Connection(self._path))
            announce.send(Message(Header(NAME), ConsoleAdd(5)))
            announce.receive()
            for _ in range(stopped):
                connection = stack.enter_context(Connection(self._path))
                connection.send(Message(Header(NAME), ConsoleSubscribe(count=0)))
                connection.receive()
            context = multiprocessing.get_context("fork")
            ends = [context.Pipe(duplex=False) for _ in range(readers)]
            processes = [context.Process(target=read, args=(self._path, end[1])) for end in ends]
            for process in processes:
                process.start()
            for end in ends:
                end[0].recv()
            writer = context.Process(target=write, args=(self._fifo,))
            writer.start()
            rates = [end[0].recv() for end in ends]
            for process in (*processes, writer):
                process.join()
        return rates

    def resident(self) -> int:
        with open(f"/proc/{self._process.pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
