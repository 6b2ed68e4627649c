"""How far an upload or a download has come, for somebody who waits at a terminal.

A bar appears after half a second and never where nobody looks. ``Watched`` is a file that tells its reader's pace;
the last line is taken away again when it is done.

Whoever interrupts a transfer is told what became of it, because it depends on the moment: before the end mark of a
stream the other side does nothing with it.
"""

import contextlib
import sys
from collections.abc import Iterator
from time import monotonic
from typing import Protocol, TextIO

from albatross_pki.console_script import interruption_says

PATIENCE = 0.5  # seconds before anything is shown
PACE = 0.1  # seconds between two updates
_ALL_SENT = "interrupted: all was sent, and the host may have done it; ask it for its state"


class Readable(Protocol):
    """What a stream is sent from."""

    def read(self, size: int = -1, /) -> bytes: ...


class Meter:
    """Counts octets and shows them on ``screen`` if that is a terminal; ``total`` is ``None`` if unknown."""

    def __init__(self, what: str, total: int | None, screen: TextIO | None = None) -> None:
        self._what, self._total = what, total
        self._screen = screen if screen is not None else sys.stderr
        self._looked_at = self._screen.isatty()
        self._begin = monotonic()
        self._next = self._begin + PATIENCE
        self._shown = False
        self.octets = 0

    def add(self, count: int) -> None:
        """Note that ``count`` more octets have passed."""
        self.octets += count
        now = monotonic()
        if self._looked_at and now >= self._next:
            self._next = now + PACE
            self._shown = True
            self._screen.write(f"\r{pace(self._what, self.octets, self._total, now - self._begin)}\x1b[K")
            self._screen.flush()

    def done(self) -> None:
        """Take the line away."""
        if self._shown:
            self._screen.write("\r\x1b[K")
            self._screen.flush()


@contextlib.contextmanager
def upload_meter(what: str, total: int | None) -> Iterator[Meter]:
    """A meter for sending the file ``what``, in the block that does it."""
    meter = Meter(f"sending {what}", total)
    try:
        yield meter
    except KeyboardInterrupt as error:
        part = f"interrupted: {what} was not sent to its end, and the host makes no use of a part"
        raise KeyboardInterrupt(part if total is None or meter.octets < total else _ALL_SENT) from error
    finally:
        meter.done()


def answer_awaited(uploaded: bool) -> contextlib.AbstractContextManager[None]:
    """The block that waits for the answer to what was sent, and something was ``uploaded`` with it."""
    if not uploaded:
        return contextlib.nullcontext()
    return interruption_says(_ALL_SENT)


class Watched:
    """``source``, counted while it is read."""

    def __init__(self, source: Readable, meter: Meter) -> None:
        self._source, self._meter = source, meter

    def read(self, size: int = -1, /) -> bytes:
        octets = self._source.read(size)
        self._meter.add(len(octets))
        return octets


def pace(what: str, octets: int, total: int | None, elapsed: float) -> str:
    """``sending web.spt: 12.0 of 64.0 MB, 6.0 MB/s, 9 s left``; ``elapsed`` in seconds."""
    rate = octets / elapsed if elapsed > 0 else 0.0
    text = f"{what}: {octets / 2**20:.1f}"
    text += f" of {total / 2**20:.1f} MB" if total is not None else " MB"
    text += f", {rate / 2**20:.1f} MB/s"
    if total is not None and rate:
        text += f", {max(0, total - octets) / rate:.0f} s left"
    return text
