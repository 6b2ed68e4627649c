"""Tag, length, value: the shell of every element, strictly as DER (X.690 section 10) has it.

What is read here has definite, minimal lengths, tag numbers up to 30, and lies within what contains it. Elements are
read in place: positions into one buffer, no slices of slices. They are written from the end to the beginning, into a
list of pieces, so that every length is known when it is written and a large octet string is copied once, when the
pieces are joined.
"""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.tolerance import Form

T = TypeVar("T")

BOOLEAN, INTEGER, OCTET_STRING, NULL, ENUMERATED, UTF8_STRING = 0x01, 0x02, 0x04, 0x05, 0x0A, 0x0C
GENERALIZED_TIME, SEQUENCE, SET = 0x18, 0x30, 0x31
CONTEXT = 0xA0  # context-specific and constructed: the identifier of tag [0]

_HIGH_TAG = 0x1F
_LONG_LENGTH = 0x80
_MOST_LENGTH_OCTETS = 8

Octets = bytes | memoryview


class Source:
    """The buffer that is read, and the tolerated forms that were met in it."""

    __slots__ = ("forms", "octets")

    def __init__(self, octets: Octets, forms: set[Form]) -> None:
        self.octets = octets
        self.forms = forms


class Codec(ABC, Generic[T]):
    """One ASN.1 type and the Python value that it stands for.

    ``identifiers`` are the identifier octets that an element of the type can start with.
    """

    identifiers: frozenset[int]

    @abstractmethod
    def read(self, source: Source, identifier: int, start: int, stop: int, /) -> T:
        """The value of the element whose content is ``source.octets[start:stop]``; raises ``MalformedMessage``."""

    @abstractmethod
    def write(self, value: T, pieces: list[bytes], /) -> int:
        """Append the element's pieces, last first, and return how many octets they are; raises ``MalformedMessage``."""


def read_header(octets: Octets, position: int, stop: int) -> tuple[int, int, int]:
    """The identifier at ``position`` and where its content starts and stops; nothing lies beyond ``stop``."""
    start = position + 2
    if start > stop:
        raise MalformedMessage("ends within an element's header")
    identifier, length = octets[position], octets[position + 1]
    if identifier & _HIGH_TAG == _HIGH_TAG:
        raise MalformedMessage("tag number over 30")
    if length >= _LONG_LENGTH:
        start, length = _read_long_length(octets, start, length & ~_LONG_LENGTH, stop)
    if length > stop - start:
        raise MalformedMessage(f"element of {length} octets where {stop - start} are left")
    return identifier, start, start + length


def _read_long_length(octets: Octets, start: int, count: int, stop: int) -> tuple[int, int]:
    if count == 0:
        raise MalformedMessage("indefinite length")
    if count > _MOST_LENGTH_OCTETS or count > stop - start:
        raise MalformedMessage(f"length of {count} octets")
    length = int.from_bytes(octets[start : start + count], "big")
    if octets[start] == 0 or length < _LONG_LENGTH:
        raise MalformedMessage("length not in its shortest form")
    return start + count, length


def header(identifier: int, length: int) -> bytes:
    """Identifier and length octets, the length in its shortest form."""
    if length < _LONG_LENGTH:
        return bytes((identifier, length))
    count = (length.bit_length() + 7) // 8
    return bytes((identifier, _LONG_LENGTH | count)) + length.to_bytes(count, "big")


def write_header(identifier: int, length: int, pieces: list[bytes]) -> int:
    """Close an element whose content of ``length`` octets is already in ``pieces``; returns the element's octets."""
    shell = header(identifier, length)
    pieces.append(shell)
    return len(shell) + length


def unexpected(identifier: int, codec: Codec[T]) -> MalformedMessage:
    """The error for an element of another type than ``codec`` stands for."""
    wanted = " or ".join(f"{known:02x}" for known in sorted(codec.identifiers)[:4])
    more = " or others" if len(codec.identifiers) > 4 else ""
    return MalformedMessage(f"unexpected tag {identifier:02x} where {wanted}{more} belongs")


def decode(codec: Codec[T], octets: bytes | bytearray | memoryview, place: str, forms: set[Form] | None = None) -> T:
    """The value of the one element that ``octets`` are; ``forms`` receives the tolerated forms that were met.

    Raises ``MalformedMessage`` and nothing else; ``place`` is what the error calls the whole.
    """
    if not isinstance(octets, bytes):
        octets = memoryview(octets).cast("B")
    source = Source(octets, set() if forms is None else forms)
    try:
        identifier, start, stop = read_header(octets, 0, len(octets))
        if stop != len(octets):
            raise MalformedMessage(f"{len(octets) - stop} octets after the end")
        if identifier not in codec.identifiers:
            raise unexpected(identifier, codec)
        return codec.read(source, identifier, start, stop)
    except MalformedMessage as error:
        error.within(place)
        raise


def encode(codec: Codec[T], value: T, place: str) -> bytes:
    """The DER of ``value``; raises ``MalformedMessage`` if it holds something that has no encoding."""
    pieces: list[bytes] = []
    try:
        codec.write(value, pieces)
    except MalformedMessage as error:
        error.within(place)
        raise
    pieces.reverse()
    return b"".join(pieces)
