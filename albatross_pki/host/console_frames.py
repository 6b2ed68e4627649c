"""Console lines as AV5 frames, fast: the constant part of a message is encoded once per length of line.

A frame of a line is ``head + time + tail + line``. Head and tail depend on the unikernel's name and on the length of
the line alone, because DER lengths do, and the line comes last (Albatross AV5, ``ConsoleData``). So one message of each
length is encoded by ``wire``, cut at its time and before its line, and kept as a template; this module knows nothing
else of the encoding. There are at most 2 x 525 templates, as long as the longest line.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import ConsoleLine
from albatross_pki.wire.framing import frame
from albatross_pki.wire.message import encode_message

_WHOLE_SECOND = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC), b"20010203040506Z"
_WITH_FRACTION = datetime(2001, 2, 3, 4, 5, 6, 789000, tzinfo=UTC), b"20010203040506.789Z"


class _Prefixes(dict[int, bytes]):
    """What stands before a line of each length at one moment; made when it is first asked for."""

    def __init__(self, framer: "LineFramer", moment: int) -> None:
        super().__init__()
        seconds, milliseconds = divmod(moment, 1000)
        text = time.strftime("%Y%m%d%H%M%S", time.gmtime(seconds))
        self._framer = framer
        self._fraction = milliseconds != 0
        self._time = (f"{text}.{milliseconds:03}Z" if milliseconds else f"{text}Z").encode("ascii")

    def __missing__(self, length: int) -> bytes:
        head, tail = self._framer.template(length, fraction=self._fraction)
        prefix = self[length] = head + self._time + tail
        return prefix


class LineFramer:
    """Frames for the console lines of one unikernel: header with sequence 0 and its full name."""

    def __init__(self, name: Name) -> None:
        self._header = Header(name)
        self._templates: dict[tuple[int, bool], tuple[bytes, bytes]] = {}

    def frames(self, moment: int, lines: Sequence[bytes]) -> bytes:
        """``lines``, each as a frame, all of ``moment`` (milliseconds since 1970, UTC)."""
        prefixes = _Prefixes(self, moment)
        return b"".join([prefixes[len(line)] + line for line in lines])

    def template(self, length: int, *, fraction: bool) -> tuple[bytes, bytes]:
        """What stands before and after the time in the frame of a line of ``length`` octets."""
        key = (length, fraction)
        if key not in self._templates:
            self._templates[key] = self._make(length, fraction)
        return self._templates[key]

    def _make(self, length: int, fraction: bool) -> tuple[bytes, bytes]:
        moment, text = _WITH_FRACTION if fraction else _WHOLE_SECOND
        whole = frame(encode_message(Message(self._header, ConsoleLine(moment, b"x" * length))))
        prefix = whole[: len(whole) - length]
        at = prefix.rindex(text)
        return prefix[:at], prefix[at + len(text) :]
