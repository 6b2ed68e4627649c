"""How far an upload or a download has come, for somebody who waits at a terminal.

A bar appears after half a second and never where nobody looks. ``Watched`` is a file that tells its reader's pace;
the last line is taken away again when it is done.
"""

import sys
from time import monotonic
from typing import Protocol, TextIO

PATIENCE = 0.5  # seconds before anything is shown
PACE = 0.1  # seconds between two updates


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
