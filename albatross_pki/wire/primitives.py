"""The types without parts: booleans, integers with a range, octets, text, names and times.

Albatross' own habits, which a library for DER would not know: integers have 63 bits; counters are octet strings of
eight octets; 32-bit values travel signed and mean unsigned; text is any octets under the tag of a UTF8String; times
have no fraction or exactly three digits.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeVar

from albatross_pki import PROTOCOL_VERSION
from albatross_pki.errors import InvalidName
from albatross_pki.names import Name
from albatross_pki.text import printable
from albatross_pki.wire import der
from albatross_pki.wire.der import Codec, Source
from albatross_pki.wire.errors import MalformedMessage, shown_number
from albatross_pki.wire.tolerance import Form

E = TypeVar("E")

INT_MIN, INT_MAX = -(2**62), 2**62 - 1  # an OCaml int: 63 bits
MOST_MEGABYTES = 2**42 - 1  # so that the number of octets has at most 62 bits


class Null(Codec[None]):
    """NULL: 05 00."""

    identifiers = frozenset({der.NULL})

    def read(self, _source: Source, _identifier: int, start: int, stop: int, /) -> None:
        if start != stop:
            raise MalformedMessage("NULL with content")

    def write(self, _value: None, pieces: list[bytes], /) -> int:
        pieces.append(b"\x05\x00")
        return 2


class Flag(Codec[bool]):
    """NULL that may be left out: it stands there or it does not."""

    identifiers = frozenset({der.NULL})

    def read(self, source: Source, identifier: int, start: int, stop: int, /) -> bool:
        NOTHING.read(source, identifier, start, stop)
        return True

    def write(self, _value: bool, pieces: list[bytes], /) -> int:
        return NOTHING.write(None, pieces)


class Boolean(Codec[bool]):
    """BOOLEAN: 00 or FF, nothing in between."""

    identifiers = frozenset({der.BOOLEAN})

    def read(self, source: Source, _identifier: int, start: int, stop: int, /) -> bool:
        content = bytes(source.octets[start:stop])
        if content == b"\xff":
            return True
        if content == b"\x00":
            return False
        raise MalformedMessage("boolean other than 00 or ff")

    def write(self, value: bool, pieces: list[bytes], /) -> int:
        pieces.append(b"\x01\x01\xff" if value else b"\x01\x01\x00")
        return 3


class Integer(Codec[int]):
    """INTEGER between ``low`` and ``high``, in the fewest octets (X.690 8.3.2)."""

    identifiers = frozenset({der.INTEGER})

    def __init__(self, low: int = INT_MIN, high: int = INT_MAX) -> None:
        self.low, self.high = low, high
        self._most_octets = max(low.bit_length(), high.bit_length()) // 8 + 1

    def read(self, source: Source, _identifier: int, start: int, stop: int, /) -> int:
        octets = source.octets
        if stop - start == 1:
            value = octets[start]
            if value >= 0x80:
                value -= 0x100
        else:
            value = self._read_long(octets, start, stop)
        if not self.low <= value <= self.high:
            raise self._out_of_range(value)
        return value

    def _read_long(self, octets: der.Octets, start: int, stop: int) -> int:
        if start == stop:
            raise MalformedMessage("integer without octets")
        first, second = octets[start], octets[start + 1]
        if (first == 0 and second < 0x80) or (first == 0xFF and second >= 0x80):
            raise MalformedMessage("integer not in its shortest form")
        if stop - start > self._most_octets:
            raise MalformedMessage(f"integer of {stop - start} octets, it must be between {self.low} and {self.high}")
        return int.from_bytes(octets[start:stop], "big", signed=True)

    def write(self, value: int, pieces: list[bytes], /) -> int:
        if not self.low <= value <= self.high:
            raise self._out_of_range(value)
        count = (value if value >= 0 else ~value).bit_length() // 8 + 1
        pieces.append(der.header(der.INTEGER, count) + value.to_bytes(count, "big", signed=True))
        return count + 2

    def _out_of_range(self, value: int) -> MalformedMessage:
        return MalformedMessage(f"must be between {self.low} and {self.high}, not {shown_number(value)}")


class ProtocolVersion(Codec[int]):
    """The one version that there is; every other one is refused by its number."""

    identifiers = frozenset({der.INTEGER})

    def __init__(self, version: int) -> None:
        self._version = version

    def read(self, source: Source, identifier: int, start: int, stop: int, /) -> int:
        return self._check(INT.read(source, identifier, start, stop))

    def write(self, value: int, pieces: list[bytes], /) -> int:
        return INT.write(self._check(value), pieces)

    def _check(self, version: int) -> int:
        if version != self._version:
            raise MalformedMessage(f"unknown version {shown_number(version)}, only {self._version} is spoken here")
        return version


class Unsigned32(Codec[int]):
    """An unsigned 32-bit number, written as the signed one of the same bits: 2**32 - 1 is ``02 01 ff``."""

    identifiers = frozenset({der.INTEGER})
    _signed = Integer(-(2**31), 2**31 - 1)

    def read(self, source: Source, identifier: int, start: int, stop: int, /) -> int:
        return self._signed.read(source, identifier, start, stop) & 0xFFFFFFFF

    def write(self, value: int, pieces: list[bytes], /) -> int:
        if not 0 <= value < 2**32:
            raise MalformedMessage(f"must be between 0 and {2**32 - 1}, not {shown_number(value)}")
        return self._signed.write(value - 2**32 if value >= 2**31 else value, pieces)


class Integer64(Codec[int]):
    """A 64-bit number as an octet string of exactly eight octets, big endian."""

    identifiers = frozenset({der.OCTET_STRING})

    def __init__(self, *, signed: bool) -> None:
        self._signed = signed

    def read(self, source: Source, _identifier: int, start: int, stop: int, /) -> int:
        if stop - start != 8:
            raise MalformedMessage(f"64-bit number of {stop - start} octets")
        return int.from_bytes(source.octets[start:stop], "big", signed=self._signed)

    def write(self, value: int, pieces: list[bytes], /) -> int:
        try:
            pieces.append(b"\x04\x08" + value.to_bytes(8, "big", signed=self._signed))
        except OverflowError:
            kind = "a signed" if self._signed else "an unsigned"
            raise MalformedMessage(f"{shown_number(value)} is not {kind} 64-bit number") from None
        return 10


class OctetString(Codec[bytes]):
    """OCTET STRING of one of the ``sizes``, or of any number of octets if none is given."""

    identifiers = frozenset({der.OCTET_STRING})

    def __init__(self, *sizes: int) -> None:
        self._sizes = sizes

    def read(self, source: Source, _identifier: int, start: int, stop: int, /) -> bytes:
        self._check(stop - start)
        return bytes(source.octets[start:stop])

    def write(self, value: bytes, pieces: list[bytes], /) -> int:
        self._check(len(value))
        pieces.append(value)
        return der.write_header(der.OCTET_STRING, len(value), pieces)

    def _check(self, size: int) -> None:
        if self._sizes and size not in self._sizes:
            raise MalformedMessage(f"must have {' or '.join(map(str, self._sizes))} octets, not {size}")


class TextOctets(Codec[bytes]):
    """UTF8String whose octets are taken as they are: what a unikernel printed."""

    identifiers = frozenset({der.UTF8_STRING})

    def read(self, source: Source, _identifier: int, start: int, stop: int, /) -> bytes:
        return bytes(source.octets[start:stop])

    def write(self, value: bytes, pieces: list[bytes], /) -> int:
        pieces.append(value)
        return der.write_header(der.UTF8_STRING, len(value), pieces)


class Text(Codec[str]):
    """UTF8String that may hold any octets; those that are not UTF-8 are kept by ``surrogateescape``."""

    identifiers = frozenset({der.UTF8_STRING})

    def read(self, source: Source, _identifier: int, start: int, stop: int, /) -> str:
        return str(source.octets[start:stop], "utf-8", "surrogateescape")

    def write(self, value: str, pieces: list[bytes], /) -> int:
        try:
            octets = str.encode(value, "utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise MalformedMessage(f'"{printable(value, 64)}" has no encoding in UTF-8') from None
        pieces.append(octets)
        return der.write_header(der.UTF8_STRING, len(octets), pieces)


class NameText(Codec[Name]):
    """UTF8String holding a name; other spellings of it than the canonical one are tolerated."""

    identifiers = frozenset({der.UTF8_STRING})

    def read(self, source: Source, identifier: int, start: int, stop: int, /) -> Name:
        text = TEXT.read(source, identifier, start, stop)
        try:
            name = Name.parse(text)
        except InvalidName as error:
            raise MalformedMessage(f'{error}: "{printable(text, 64)}"') from None
        if str(name) != text:
            source.forms.add(Form.NAME)
        return name

    def write(self, value: Name, pieces: list[bytes], /) -> int:
        return TEXT.write(str(value), pieces)


class Time(Codec[datetime]):
    """GeneralizedTime in UTC, written without a fraction or with exactly three digits, truncated to milliseconds.

    Albatross reads the fraction as a number of milliseconds, so three digits are the only fraction that everybody
    understands; other ones are read as the decimal fractions that X.680 says they are.
    """

    identifiers = frozenset({der.GENERALIZED_TIME})
    _FORM = re.compile(rb"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(?:\.(\d{1,9}))?Z")

    def read(self, source: Source, _identifier: int, start: int, stop: int, /) -> datetime:
        text = bytes(source.octets[start : min(stop, start + 32)])
        parts = self._FORM.fullmatch(text)
        if parts is None:
            raise MalformedMessage(f'"{printable(text)}" is not a time like 20260131235959.123Z')
        *fields, fraction = parts.groups()
        milliseconds = 0
        if fraction is not None:
            milliseconds = int((fraction + b"00")[:3])
            if len(fraction) != 3 or fraction == b"000":
                source.forms.add(Form.TIME)
        year, month, day, hour, minute, second = map(int, fields)
        try:
            return datetime(year, month, day, hour, minute, second, milliseconds * 1000, UTC)
        except ValueError:
            raise MalformedMessage(f'"{printable(text)}" is a time that does not exist') from None

    def write(self, value: datetime, pieces: list[bytes], /) -> int:
        if value.tzinfo is None:
            raise TypeError("a time without a time zone")
        try:
            value = value.astimezone(UTC)
        except OverflowError:
            raise MalformedMessage("a time outside the years 1 to 9999") from None
        milliseconds = value.microsecond // 1000
        fraction = f".{milliseconds:03}" if milliseconds else ""
        text = f"{value.year:04}{value:%m%d%H%M%S}{fraction}Z".encode("ascii")
        pieces.append(der.header(der.GENERALIZED_TIME, len(text)) + text)
        return len(text) + 2


class Enumerated(Codec[E]):
    """ENUMERATED: one value for each number."""

    identifiers = frozenset({der.ENUMERATED})

    def __init__(self, values: Mapping[int, E]) -> None:
        self._values = dict(values)
        self._numbers = {value: number for number, value in values.items()}

    def read(self, source: Source, identifier: int, start: int, stop: int, /) -> E:
        number = Integer(0, 127).read(source, identifier, start, stop)
        if number not in self._values:
            raise MalformedMessage(f"unknown value {number}")
        return self._values[number]

    def write(self, value: E, pieces: list[bytes], /) -> int:
        number = self._numbers.get(value)
        if number is None:
            raise MalformedMessage("not one of the values that there are")
        pieces.append(bytes((der.ENUMERATED, 1, number)))
        return 3


NOTHING = Null()
FLAG = Flag()
TRUTH = Boolean()
INT = Integer()
AV5 = ProtocolVersion(PROTOCOL_VERSION)
NATURAL = Integer(0, INT_MAX)
MEGABYTES = Integer(0, MOST_MEGABYTES)
LEVEL = Integer(0, 9)  # zlib
CPUID = Integer(0, 2**31 - 1)
UNSIGNED32 = Unsigned32()
SIGNED64 = Integer64(signed=True)
UNSIGNED64 = Integer64(signed=False)
OCTETS = OctetString()
SHA256 = OctetString(32)
MAC = OctetString(6)
LINE = TextOctets()
TEXT = Text()
NAME = NameText()
TIME = Time()
