"""Netlink, as little of it as bridges, taps, filters and counters need: messages, attributes, answers.

One request is one or more messages that the kernel does or refuses (``request``), a question with one answer
(``ask``), or one with many (``dump``). Attributes are octets in, octets out; what they mean is in ``network_links``
and ``network_filter``. The library pyroute2 is the oracle of the tests: its synchronous calls run an event loop of
their own, which cannot be done inside the one of a daemon.

Sources: netlink(7), rtnetlink(7), linux/netlink.h.
"""

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from albatross_pki.errors import AlbatrossError

ROUTE = 0  # NETLINK_ROUTE
NETFILTER = 12  # NETLINK_NETFILTER
TIMEOUT = 5.0  # seconds; the kernel answers at once

# flags of messages
F_ACK = 4
F_REPLACE = 0x100
F_EXCL = 0x200
F_CREATE = 0x400
F_APPEND = 0x800
_F_REQUEST = 1
_F_DUMP = 0x300

_ERROR = 2  # NLMSG_ERROR
_DONE = 3  # NLMSG_DONE
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")
_ERROR_CODE = struct.Struct("=i")
_ERROR_TEXT_AT = 4 + _HEADER.size
_TYPE_MASK = 0x3FFF
NESTED = 0x8000
_SOL_NETLINK = 270
_CAP_ACK = 10
_EXT_ACK = 11
_BUFFER = 1 << 18


class NetlinkError(AlbatrossError):
    """The kernel refused a message; ``code`` is its errno."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(os.strerror(code).lower() + (f" ({text})" if text else ""))
        self.code = code


@dataclass(frozen=True, slots=True)
class Request:
    """One message to the kernel: its type, its flags beside "request", its octets."""

    kind: int
    body: bytes
    flags: int = 0


def attribute(kind: int, content: bytes) -> bytes:
    """One attribute, padded to four octets."""
    return _ATTRIBUTE.pack(4 + len(content), kind) + content + bytes(-len(content) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NESTED, b"".join(attributes))


def text(kind: int, content: str) -> bytes:
    """A text with its final NUL."""
    return attribute(kind, content.encode("utf-8", "surrogateescape") + b"\0")


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=B", value))


def u32(kind: int, value: int) -> bytes:
    """A number in the machine's order of octets, as rtnetlink has them."""
    return attribute(kind, struct.pack("=I", value))


def be32(kind: int, value: int) -> bytes:
    """A number in network order, as nftables has them; negative ones as two's complement."""
    return attribute(kind, struct.pack("!I", value & 0xFFFFFFFF))


def attributes(octets: bytes) -> dict[int, bytes]:
    """The attributes in ``octets``, by type; of several of one type the last."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(octets):
        length, kind = _ATTRIBUTE.unpack_from(octets, at)
        if length < 4:
            break
        found[kind & _TYPE_MASK] = octets[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


class Netlink:
    """One netlink socket in the network namespace of the calling thread. Not to be used by two threads at once."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.settimeout(TIMEOUT)
        for option in (_CAP_ACK, _EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * _BUFFER)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def request(self, *requests: Request, before: bytes = b"", after: bytes = b"") -> None:
        """Send messages together and wait until each is answered; raises the first refusal.

        ``before`` and ``after`` are put around them as they are (nftables' batch marks).
        """
        waiting = set()
        octets = before
        for each in requests:
            octets += self._message(each, F_ACK)
            waiting.add(self._sequence)
        self._send(octets + after)
        refusal: NetlinkError | None = None
        while waiting:
            for kind, sequence, body in self._receive():
                if kind == _ERROR and sequence in waiting | {0}:
                    refusal = refusal or _refusal(body)
                    waiting.discard(sequence)
                    if sequence == 0 and refusal:  # the batch mark itself was refused: no other answer comes
                        raise refusal
        if refusal is not None:
            raise refusal

    def ask(self, kind: int, body: bytes) -> bytes:
        """The octets of the one answer to a question; raises ``NetlinkError``."""
        self._send(self._message(Request(kind, body), 0))
        while True:
            for answer, sequence, octets in self._receive():
                if sequence != self._sequence:
                    continue
                if answer == _ERROR and (refusal := _refusal(octets)):
                    raise refusal
                return octets

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """The octets of every answer to one question, read to the end: the kernel takes no other one before."""
        found: list[bytes] = []
        self._send(self._message(Request(kind, body), _F_DUMP))
        wanted = self._sequence
        while True:
            for answer, sequence, octets in self._receive():
                if sequence != wanted:
                    continue
                if answer == _ERROR and (refusal := _refusal(octets)):
                    raise refusal
                if answer in (_DONE, _ERROR):
                    return found
                found.append(octets)

    def _message(self, request: Request, flags: int) -> bytes:
        self._sequence += 1
        length = _HEADER.size + len(request.body)
        header = _HEADER.pack(length, request.kind, _F_REQUEST | flags | request.flags, self._sequence, 0)
        return header + request.body + bytes(-length % 4)

    def _send(self, octets: bytes) -> None:
        try:
            self._socket.sendto(octets, (0, 0))
        except OSError as error:
            raise NetlinkError(error.errno or 0) from error

    def _receive(self) -> Iterable[tuple[int, int, bytes]]:
        try:
            octets, sender = self._socket.recvfrom(_BUFFER)
        except OSError as error:
            raise NetlinkError(error.errno or 110) from error
        return [] if sender[0] else list(_messages(octets))  # port 0 is the kernel


def _messages(octets: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + _HEADER.size <= len(octets):
        length, kind, _, sequence, _ = _HEADER.unpack_from(octets, at)
        if length < _HEADER.size:
            return
        yield kind, sequence, octets[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _refusal(body: bytes) -> NetlinkError | None:
    (code,) = _ERROR_CODE.unpack_from(body)
    if code == 0:
        return None
    reason = attributes(body[_ERROR_TEXT_AT:]).get(1, b"")  # NLMSGERR_ATTR_MSG
    return NetlinkError(-code, reason.rstrip(b"\0").decode("utf-8", "replace"))


def batch_mark(kind: int, subsystem: int) -> bytes:
    """The message that begins or ends a batch (linux/netfilter/nfnetlink.h); sequence 0."""
    body = struct.pack("!BBH", 0, 0, subsystem)
    return _HEADER.pack(_HEADER.size + len(body), kind, _F_REQUEST, 0, 0) + body
