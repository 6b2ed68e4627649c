"""What waits for one subscriber, and what it misses: pure, no socket.

1. frames are queued while they fit into ``limit`` octets;
2. the first batch that does not fit starts a gap: its lines and all later ones are counted and not queued, so that
   what is missing is one stretch and never a line here and there;
3. when half of the room is free again, the gap ends with one marker that says how many lines were missed, and then
   lines are queued again.

So a subscriber sees lines in order, sees where some are missing and how many, and costs at most ``limit`` octets.
"""

from collections import deque
from collections.abc import Callable

MARKER_ROOM = 8192  # octets kept free for the marker: its text and a name of any length fit
_BUFFERS = 16  # handed to one system call


class Backlog:
    """Frames for one subscriber. ``marker`` makes the frame that stands for a number of missed lines."""

    __slots__ = ("_limit", "_marker", "_missed", "_octets", "_queue", "missed_in_all")

    def __init__(self, limit: int, marker: Callable[[int], bytes]) -> None:
        self._queue: deque[memoryview] = deque()
        self._octets = 0
        self._limit = limit
        self._marker = marker
        self._missed = 0
        self.missed_in_all = 0

    def __len__(self) -> int:
        """Octets that wait."""
        return self._octets

    @property
    def in_gap(self) -> bool:
        return self._missed > 0

    def set_limit(self, limit: int) -> None:
        """Change the room; what waits already stays."""
        self._limit = limit
        self._end_gap()

    def offer(self, frames: bytes, lines: int) -> None:
        """Queue ``frames``, which show ``lines`` lines, or count them as missed."""
        if self._missed or self._octets + len(frames) + MARKER_ROOM > self._limit:
            self.miss(lines)
        else:
            self._push(frames)

    def answer(self, frame: bytes) -> None:
        """Queue what is no line and must arrive."""
        self._push(frame)

    def miss(self, lines: int) -> None:
        """Count lines as missed; the marker follows as soon as there is room."""
        self._missed += lines
        self.missed_in_all += lines
        self._end_gap()

    def buffers(self) -> list[memoryview]:
        """What to send next, in order, without taking it out."""
        return [self._queue[index] for index in range(min(len(self._queue), _BUFFERS))]

    def sent(self, octets: int) -> None:
        """Take out what was sent."""
        self._octets -= octets
        while octets:
            first = self._queue[0]
            if len(first) > octets:
                self._queue[0] = first[octets:]
                break
            octets -= len(first)
            self._queue.popleft()
        self._end_gap()

    def _end_gap(self) -> None:
        if self._missed and self._octets <= self._limit // 2:
            missed, self._missed = self._missed, 0
            self._push(self._marker(missed))

    def _push(self, frames: bytes) -> None:
        if frames:
            self._queue.append(memoryview(frames))
            self._octets += len(frames)
