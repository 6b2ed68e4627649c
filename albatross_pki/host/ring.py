"""What a unikernel wrote, as lines, and the last of them: pure, no file and no clock.

``LineSplitter`` decides what a line is, in this order:

1. octets up to a newline are a line, without it; empty ones are dropped; no other octet means anything;
2. a line over 512 octets is its first 512 and `` [truncated]``, the rest up to its newline is thrown away (Albatross
   AV5 cuts there too, but depending on how the octets were chopped into reads);
3. what has no newline yet is kept, and is a line when the writer is gone (``finish``).

``Ring`` decides what is kept: the last 1024 lines, fewer if they are more than ``limit`` octets, bookkeeping included.
Times are milliseconds since 1970, UTC; all lines of one append have the same. Bounds over several rings, and who reads
them, are left to the caller.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

RING_LINES = 1024
LINE_LIMIT = 512  # octets
TRUNCATED = b" [truncated]"
LONGEST_LINE = LINE_LIMIT + len(TRUNCATED)
SEGMENT_OVERHEAD = 256  # octets that an append costs beside its lines; measured below that on CPython 3.11
_NEWLINE = b"\n"


class LineSplitter:
    """Lines out of octets that come in any pieces."""

    __slots__ = ("_pending", "_skipping")

    def __init__(self) -> None:
        self._pending = b""
        self._skipping = False  # inside the rest of a line that was cut

    @property
    def pending(self) -> int:
        """Octets kept of a line without an end, at most 512."""
        return len(self._pending)

    def feed(self, octets: bytes) -> list[bytes]:
        """The lines that end within ``octets``."""
        pieces = octets.split(_NEWLINE)
        if self._skipping:
            if len(pieces) == 1:
                return []
            self._skipping = False
            pieces[0] = b""
        elif self._pending:
            pieces[0] = self._pending + pieces[0]
        rest = pieces.pop()
        if pieces and max(map(len, pieces)) > LINE_LIMIT:
            pieces = [_cut(piece) for piece in pieces]
        if len(rest) > LINE_LIMIT:
            pieces.append(_cut(rest))
            rest = b""
            self._skipping = True
        self._pending = rest
        return list(filter(None, pieces))

    def finish(self) -> list[bytes]:
        """The last line, if it had no newline; the splitter is as new afterwards."""
        rest, self._pending, self._skipping = self._pending, b"", False
        return [rest] if rest else []


def _cut(line: bytes) -> bytes:
    return line if len(line) <= LINE_LIMIT else line[:LINE_LIMIT] + TRUNCATED


@dataclass(frozen=True, slots=True)
class Segment:
    """Lines that came at one moment, joined by newlines: one object instead of a thousand."""

    moment: int
    count: int
    joined: bytes

    @property
    def lines(self) -> list[bytes]:
        return self.joined.split(_NEWLINE)

    @property
    def octets(self) -> int:
        return len(self.joined) + SEGMENT_OVERHEAD


class Ring:
    """The last lines of one unikernel, in at most ``limit`` octets."""

    __slots__ = ("_count", "_limit", "_octets", "_segments")

    def __init__(self, limit: int) -> None:
        self._segments: deque[Segment] = deque()
        self._limit = limit
        self._count = 0
        self._octets = 0

    @property
    def octets(self) -> int:
        """What the ring takes now, bookkeeping included."""
        return self._octets

    def __len__(self) -> int:
        return min(self._count, RING_LINES)

    def append(self, moment: int, lines: Sequence[bytes]) -> None:
        """Keep ``lines``, forgetting the oldest ones that no longer fit."""
        if not lines:
            return
        kept = lines[-RING_LINES:]
        self._push(Segment(moment, len(kept), _NEWLINE.join(kept)))
        self._forget()

    def set_limit(self, limit: int) -> None:
        """Change the number of octets that may be kept; takes effect at once."""
        self._limit = limit
        self._forget()

    def last(self, count: int) -> list[tuple[int, list[bytes]]]:
        """The newest ``count`` lines, oldest first, grouped by moment; any count below one gives none."""
        return self._take(count)

    def since(self, moment: int) -> list[tuple[int, list[bytes]]]:
        """The lines from the first one on after which none is older than ``moment``, oldest first."""
        wanted = 0
        for segment in reversed(self._segments):
            if segment.moment < moment:
                break
            wanted += segment.count
        return self._take(wanted)

    def _take(self, count: int) -> list[tuple[int, list[bytes]]]:
        return list(self._newest(min(count, RING_LINES)))[::-1]

    def _newest(self, missing: int) -> Iterator[tuple[int, list[bytes]]]:
        for segment in reversed(self._segments):
            if missing <= 0:
                return
            yield segment.moment, segment.lines[-missing:]
            missing -= segment.count

    def _push(self, segment: Segment) -> None:
        self._segments.append(segment)
        self._count += segment.count
        self._octets += segment.octets

    def _drop_oldest(self) -> Segment:
        segment = self._segments.popleft()
        self._count -= segment.count
        self._octets -= segment.octets
        return segment

    def _forget(self) -> None:
        segments = self._segments
        while len(segments) > 1 and (self._octets > self._limit or self._count - segments[0].count >= RING_LINES):
            self._drop_oldest()
        if segments and self._octets > self._limit:
            self._shorten(self._drop_oldest())

    def _shorten(self, segment: Segment) -> None:
        """Keep of the only segment the newest lines that fit."""
        room = self._limit - SEGMENT_OVERHEAD
        lines = segment.lines
        first = len(lines)
        while first and room >= len(lines[first - 1]):
            first -= 1
            room -= len(lines[first]) + 1
        kept = lines[first:]
        if kept:
            self._push(Segment(segment.moment, len(kept), _NEWLINE.join(kept)))
