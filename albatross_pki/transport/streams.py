"""A stream of chunks inside a connection, cut without ever holding a chunk.

On the wire a stream is frames (4 octets of length, then the octets) up to a frame of length 0. Where one chunk ends and
the next begins carries no meaning (Albatross AV5), so a chunk of any length costs nothing here: what arrived of it is
handed on at once. No input or output happens here.
"""

from collections.abc import Iterator

from albatross_pki.wire.framing import HEADER_OCTETS, MOST_PAYLOAD_OCTETS


class ChunkDecoder:
    """``ended`` after the end mark; ``total`` counts the octets of content so far.

    Lengths from 2**31 on count as the end mark, as upstream reads them.
    """

    def __init__(self) -> None:
        self.ended = False
        self.total = 0
        self._header = b""
        self._left = 0

    @property
    def promised(self) -> int:
        """The octets of content that came, and those that the chunk under way still announces."""
        return self.total + self._left

    @property
    def announced(self) -> int:
        """The octets that the chunk under way still announces."""
        return self._left

    def feed(self, octets: memoryview) -> Iterator[memoryview]:
        """The content that is in ``octets``, as views of it. What follows the end mark is left alone."""
        return (octets[start:stop] for start, stop in self.spans(octets))

    def spans(self, octets: memoryview) -> Iterator[tuple[int, int]]:
        """The same as places in ``octets``: where content starts, and where it stops."""
        position = 0
        while position < len(octets) and not self.ended:
            if self._left:
                start, position = position, min(position + self._left, len(octets))
                self._left -= position - start
                self.total += position - start
                yield start, position
                continue
            header = octets[position : position + HEADER_OCTETS - len(self._header)]
            self._header += header
            position += len(header)
            if len(self._header) == HEADER_OCTETS:
                length = int.from_bytes(self._header, "big")
                self._header = b""
                self.ended = not 0 < length <= MOST_PAYLOAD_OCTETS
                self._left = length
