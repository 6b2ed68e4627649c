"""The one compression of the protocol: zlib streams (RFC 1950), never without a bound on what comes out.

Images, dumps and uploads are compressed so. Upstream ignores octets after the stream; here they are refused, because
nothing that is signed or hashed may have a part that nobody looks at.
"""

import zlib
from collections.abc import Iterator

from albatross_pki.wire.errors import InflatedTooLarge, MalformedMessage, shown_number

PIECE = 2**16
_PLACE = "zlib stream"
_LEVELS = range(10)


def compress(octets: bytes | bytearray | memoryview, level: int) -> bytes:
    """One zlib stream; ``level`` is 0 (stored) to 9, anything else raises ``MalformedMessage``."""
    return zlib.compress(octets, checked_level(level))


def checked_level(level: int) -> int:
    """``level`` if it is one of zlib's, 0 to 9; raises ``MalformedMessage`` otherwise."""
    if level not in _LEVELS:
        raise MalformedMessage(f"must be between 0 and 9, not {shown_number(level)}", "compression level")
    return level


def decompress(octets: bytes | bytearray | memoryview, limit: int) -> bytes:
    """The content of one whole zlib stream, at most ``limit`` octets.

    Raises ``InflatedTooLarge`` above the limit, ``MalformedMessage`` if the stream is damaged, cut or followed by
    anything.
    """
    inflater = Inflater(limit)
    content = inflater.feed(octets)
    inflater.finish()
    return content


class Inflater:
    """Inflates a zlib stream that comes in chunks, up to ``limit`` octets in all; raises as ``decompress`` does."""

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise TypeError(f"a limit from 0 octets on is needed, not {limit}")
        self._stream = zlib.decompressobj()
        self._limit = limit
        self._left = limit

    def feed(self, chunk: bytes | bytearray | memoryview) -> bytes:
        """Everything that ``chunk`` inflates to; use ``pieces`` where that may be more than memory should hold."""
        return b"".join(self.pieces(chunk))

    def pieces(self, chunk: bytes | bytearray | memoryview) -> Iterator[bytes]:
        """What ``chunk`` inflates to, in pieces of at most 64 KiB; to be read to its end before the next chunk."""
        rest: bytes | bytearray | memoryview = chunk
        while len(rest) or not self._stream.eof:
            piece = self._inflate(rest)
            rest = self._stream.unconsumed_tail
            if piece:
                yield piece
            elif not len(rest):
                return

    def finish(self) -> None:
        """The chunks are over; raises ``MalformedMessage`` if the stream is not."""
        if not self._stream.eof:
            raise MalformedMessage("ends in the middle", _PLACE)

    def _inflate(self, octets: bytes | bytearray | memoryview) -> bytes:
        """Some of what ``octets`` inflate to; one octet more than is allowed is asked for, so that excess shows."""
        try:
            piece = self._stream.decompress(octets, min(PIECE, self._left + 1))
        except zlib.error as error:
            raise MalformedMessage(f"damaged ({error})", _PLACE) from None
        if len(piece) > self._left:
            raise InflatedTooLarge(self._limit)
        if self._stream.unused_data:
            raise MalformedMessage("octets after its end", _PLACE)
        self._left -= len(piece)
        return piece
