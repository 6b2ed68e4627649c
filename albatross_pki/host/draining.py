"""Pipes that nobody reads: never full, so that no writer waits, and never emptied, so that the newest output stays.

While there is no console, what a unikernel writes stays in its pipe up to three eighths of the pipe's capacity (of
64 KiB usually, pipe(7)). Beyond, the oldest of it is dropped, whole lines, down to a quarter. A console that comes late
finds the rest in the pipe, and if the unikernel ends before, its last lines are there (``unread``).

Three eighths, because a pipe can be full with half of its capacity in it: writes are not merged into pages that they
do not fit into. A pipe of one or two pages, which is what a user gets who has too many pipes, is emptied.

New octets are seen edge-triggered (epoll(7), EPOLLET), since what stays would wake a level-triggered loop for ever;
once a second all pipes are looked at whether there was an edge or not. Where there is no epoll, pipes are emptied.
"""

import asyncio
import contextlib
import fcntl
import os
import select
import struct
import termios
from dataclasses import dataclass

from albatross_pki.host.limits import DRAIN_PIECE

SMALL = 2 * 4096  # octets of capacity up to which nothing is kept
LOOK_SECONDS = 1.0
LONGEST_REST = 512  # octets that are looked at for the end of a line that was begun (the console's longest line)
_EVENTS_AT_ONCE = 64
_INT = struct.Struct("i")


@dataclass(slots=True)
class Drained:
    """One pipe; ``dropped`` counts the lines that are lost so far, the last one perhaps in part."""

    descriptor: int
    high: int
    low: int
    dropped: int = 0

    @classmethod
    def of(cls, descriptor: int) -> "Drained":
        capacity = fcntl.fcntl(descriptor, fcntl.F_GETPIPE_SZ) if hasattr(fcntl, "F_GETPIPE_SZ") else 0
        if capacity <= SMALL:
            return cls(descriptor, 0, 0)
        return cls(descriptor, capacity * 3 // 8, capacity // 4)

    def relieve(self) -> None:
        """Drop the oldest lines if there is too much."""
        waiting = self.waiting()
        if waiting > self.high:
            last = self._drop(waiting - self.low)
            for _ in range(LONGEST_REST if self.low else 0):
                if last == b"\n" or not last:
                    break
                last = self._drop(1)

    def unread(self) -> bytes:
        """Take out what is there."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.descriptor, DRAIN_PIECE)
        return b""

    def waiting(self) -> int:
        """Octets in the pipe."""
        octets: bytes = fcntl.ioctl(self.descriptor, termios.FIONREAD, _INT.pack(0))
        return int(_INT.unpack(octets)[0])

    def _drop(self, count: int) -> bytes:
        """Drop up to ``count`` octets; the last one of them."""
        with contextlib.suppress(BlockingIOError):
            octets = os.read(self.descriptor, count)
            self.dropped += octets.count(b"\n")
            return octets[-1:]
        return b""


class Draining:
    """All pipes that nobody reads, by descriptor; to be used inside a running event loop."""

    def __init__(self) -> None:
        self._pipes: dict[int, Drained] = {}
        self._poll: select.epoll | None = None
        self._look: asyncio.TimerHandle | None = None

    def begin(self, descriptor: int) -> None:
        """Look after a pipe, which is open for reading and non-blocking, from now on."""
        if descriptor in self._pipes:
            return
        loop = asyncio.get_running_loop()
        pipe = self._pipes[descriptor] = Drained.of(descriptor)
        if not hasattr(select, "epoll"):
            pipe.high = pipe.low = 0
            loop.add_reader(descriptor, pipe.relieve)
            return
        if self._poll is None:
            self._poll = select.epoll()
            loop.add_reader(self._poll.fileno(), self._on_edges)
            self._look = loop.call_later(LOOK_SECONDS, self._look_at_all)
        self._poll.register(descriptor, select.EPOLLIN | select.EPOLLET)  # tells at once if there is something

    def end(self, descriptor: int) -> Drained | None:
        """Somebody else reads it, or nobody needs to; what is known about it, if it was looked after."""
        pipe = self._pipes.pop(descriptor, None)
        if pipe is None:
            return None
        if self._poll is None:
            asyncio.get_running_loop().remove_reader(descriptor)
            return pipe
        self._poll.unregister(descriptor)
        if not self._pipes:
            self._close()
        return pipe

    def _on_edges(self) -> None:
        if self._poll is not None:
            for descriptor, _ in self._poll.poll(0, _EVENTS_AT_ONCE):
                self._pipes[descriptor].relieve()

    def _look_at_all(self) -> None:
        for pipe in self._pipes.values():
            pipe.relieve()
        self._look = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look_at_all)

    def _close(self) -> None:
        if self._poll is not None:
            asyncio.get_running_loop().remove_reader(self._poll.fileno())
            self._poll.close()
            self._poll = None
        if self._look is not None:
            self._look.cancel()
            self._look = None
