"""Frames: four octets of length, big endian, then that many octets of payload. No input or output happens here.

A frame of length 0 ends a stream of chunks. Lengths from 2**31 on are never valid.
"""

from albatross_pki.wire.errors import FrameTooLong, MalformedMessage

HEADER_OCTETS = 4
MOST_PAYLOAD_OCTETS = 2**31 - 1
END_OF_STREAM = bytes(HEADER_OCTETS)


def frame(payload: bytes) -> bytes:
    """``payload`` with its length in front; raises ``MalformedMessage`` if it is longer than a frame can be."""
    return frame_header(len(payload)) + payload


def frame_header(length: int) -> bytes:
    """The four octets in front of a payload of ``length`` octets, for senders that do not want to copy it."""
    if length > MOST_PAYLOAD_OCTETS:
        raise MalformedMessage(f"{length} octets, a frame has at most {MOST_PAYLOAD_OCTETS}", "frame")
    return length.to_bytes(HEADER_OCTETS, "big")


class FrameDecoder:
    """Cuts what arrives into payloads of at most ``limit`` octets.

    A longer one is refused when its header is complete, before any of it is kept; the decoder is of no use after
    that and says so again at every call. Octets of an unfinished frame are kept once.
    """

    def __init__(self, limit: int) -> None:
        if not 0 <= limit <= MOST_PAYLOAD_OCTETS:
            raise TypeError(f"a limit between 0 and {MOST_PAYLOAD_OCTETS} octets is needed, not {limit}")
        self._limit = limit
        self._kept = bytearray()
        self._wanted: int | None = None  # length of the payload whose header was taken
        self._refused: FrameTooLong | None = None

    @property
    def pending(self) -> int:
        """Octets of an unfinished frame, its header included; not 0 at the end of a connection means it was cut."""
        return len(self._kept) + (0 if self._wanted is None else HEADER_OCTETS)

    def feed(self, octets: bytes | bytearray | memoryview) -> list[bytes]:
        """Take what arrived; the payloads that are complete now, in order, an empty frame being ``b""``.

        Raises ``FrameTooLong``, with the payloads that came before in its ``complete``.
        """
        if self._refused is not None:
            raise FrameTooLong(self._refused.length, self._limit)
        view = memoryview(octets).cast("B")
        payloads: list[bytes] = []
        position = self._finish_kept(view, payloads)
        end = len(view)
        while self._wanted is None and not self._kept and end - position >= HEADER_OCTETS:
            start = position + HEADER_OCTETS
            length = self._checked(int.from_bytes(view[position:start], "big"), payloads)
            if length > end - start:
                self._wanted = length
                position = start
                break
            position = start + length
            payloads.append(bytes(view[start:position]))
        self._kept += view[position:]
        return payloads

    def _finish_kept(self, view: memoryview, payloads: list[bytes]) -> int:
        """Complete the frame that was begun, if there is one; where in ``view`` the next one starts."""
        position = 0
        if self._wanted is None and self._kept:
            position = min(HEADER_OCTETS - len(self._kept), len(view))
            self._kept += view[:position]
            if len(self._kept) < HEADER_OCTETS:
                return position
            self._wanted = self._checked(int.from_bytes(self._kept, "big"), payloads)
            self._kept.clear()
        if self._wanted is not None:
            stop = min(position + self._wanted - len(self._kept), len(view))
            self._kept += view[position:stop]
            position = stop
            if len(self._kept) == self._wanted:
                payloads.append(bytes(self._kept))
                self._kept.clear()
                self._wanted = None
        return position

    def _checked(self, length: int, payloads: list[bytes]) -> int:
        if length > self._limit:
            self._kept.clear()
            self._wanted = None
            self._refused = FrameTooLong(length, self._limit, tuple(payloads))
            raise self._refused
        return length
