"""The types that have parts, as tables: SEQUENCE, SEQUENCE OF, SET OF, CHOICE and explicit tags.

A table names every field and alternative; errors name the place in these words. Nothing is extensible: an element or
alternative that a table does not know is refused.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Generic, TypeVar

from albatross_pki.wire import der
from albatross_pki.wire.der import Codec, Source, read_header, unexpected, write_header
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.primitives import NOTHING
from albatross_pki.wire.tolerance import Form

T = TypeVar("T")
U = TypeVar("U")

MOST_ITEMS = 2**20  # in a list of answers or of a state dump
MOST_PARTS = 2**14  # in a list within one of them


class Explicit(Codec[T]):
    """``[number] EXPLICIT``: exactly one element of ``codec`` inside."""

    def __init__(self, number: int, codec: Codec[T]) -> None:
        self._identifier = der.CONTEXT + number
        self.identifiers = frozenset({self._identifier})
        self._codec = codec

    def read(self, source: Source, identifier: int, start: int, stop: int, /) -> T:
        inner, inner_start, inner_stop = read_header(source.octets, start, stop)
        if inner_stop != stop:
            raise MalformedMessage(f"{stop - inner_stop} octets more than one element in tag [{identifier & 0x1F}]")
        if inner not in self._codec.identifiers:
            raise unexpected(inner, self._codec)
        return self._codec.read(source, inner, inner_start, inner_stop)

    def write(self, value: T, pieces: list[bytes], /) -> int:
        return write_header(self._identifier, self._codec.write(value, pieces), pieces)


@dataclass(frozen=True, slots=True)
class Field:
    """One element of a SEQUENCE.

    ``optional``: may be left out, and reads as ``absent`` then. ``absent_form``: the form to note then, if we would
    not leave it out. ``omitted``: what is left out when written; read though present, it is ``present_form``.
    """

    name: str
    codec: Codec[Any]
    optional: bool = False
    absent: object = None
    absent_form: Form | None = None
    omitted: object = object()
    present_form: Form | None = None


def required(name: str, codec: Codec[Any]) -> Field:
    return Field(name, codec)


def optional(name: str, codec: Codec[Any]) -> Field:
    """``None`` if and only if the element is left out."""
    return Field(name, codec, optional=True, omitted=None)


def optional_list(name: str, codec: Codec[Any]) -> Field:
    """A list that is left out when it is empty; an empty one is tolerated."""
    return Field(name, codec, optional=True, absent=(), omitted=(), present_form=Form.EMPTY)


def defaulted(name: str, codec: Codec[Any], absent: object, form: Form) -> Field:
    """Always written; the element left out is tolerated as ``form`` and means ``absent``."""
    return Field(name, codec, optional=True, absent=absent, absent_form=form)


def flag(name: str, codec: Codec[bool]) -> Field:
    """A NULL that stands there for ``True`` and is left out for ``False``."""
    return Field(name, codec, optional=True, absent=False, omitted=False)


class Record(Codec[T]):
    """SEQUENCE: ``build`` takes the fields' values in order, ``take`` gives them back.

    ``identifier`` is another one than SEQUENCE's where the type is tagged implicitly.
    """

    def __init__(
        self,
        build: Callable[..., T],
        take: Callable[[T], Sequence[Any]],
        *fields: Field,
        identifier: int = der.SEQUENCE,
    ) -> None:
        self.identifiers = frozenset({identifier})
        self._identifier = identifier
        self.build, self.take = build, take
        self._fields = fields
        self._backwards = fields[::-1]

    def read(self, source: Source, _identifier: int, start: int, stop: int, /) -> T:
        octets = source.octets
        position = start
        values: list[Any] = []
        for field in self._fields:
            try:
                if position == stop or octets[position] not in field.codec.identifiers:
                    values.append(self._absent(field, source, position, stop))
                    continue
                inner, inner_start, position = read_header(octets, position, stop)
                value = field.codec.read(source, inner, inner_start, position)
            except MalformedMessage as error:
                error.within(field.name)
                raise
            if field.present_form is not None and value == field.omitted:
                source.forms.add(field.present_form)
            values.append(value)
        if position != stop:
            raise MalformedMessage(f"unexpected tag {octets[position]:02x} after the last element")
        return self.build(*values)

    @staticmethod
    def _absent(field: Field, source: Source, position: int, stop: int) -> object:
        if not field.optional:
            if position == stop:
                raise MalformedMessage("missing")
            raise unexpected(source.octets[position], field.codec)
        if field.absent_form is not None:
            source.forms.add(field.absent_form)
        return field.absent

    def write(self, value: T, pieces: list[bytes], /) -> int:
        length = 0
        for field, part in zip(self._backwards, reversed(self.take(value)), strict=True):
            if field.optional and part == field.omitted:
                continue
            try:
                length += field.codec.write(part, pieces)
            except MalformedMessage as error:
                error.within(field.name)
                raise
        return write_header(self._identifier, length, pieces)


def record(kind: Callable[..., T], *fields: Field, identifier: int = der.SEQUENCE) -> Record[T]:
    """The SEQUENCE whose elements are the attributes of a dataclass, with the same names in the same order."""
    if len(fields) == 1:
        name = fields[0].name
        return Record(kind, lambda value: (getattr(value, name),), *fields, identifier=identifier)
    return Record(kind, attrgetter(*(field.name for field in fields)), *fields, identifier=identifier)


def pair(first: Field, second: Field) -> Record[tuple[Any, Any]]:
    """The SEQUENCE of two elements that is a tuple here."""
    return Record(lambda one, two: (one, two), lambda value: value, first, second)


class _Many(Codec[U], Generic[T, U]):
    """What SEQUENCE OF and SET OF have in common: elements of one type, at most ``most``."""

    def __init__(self, identifier: int, codec: Codec[T], most: int) -> None:
        self.identifiers = frozenset({identifier})
        self._identifier = identifier
        self._codec = codec
        self._most = most

    def _read_all(self, source: Source, start: int, stop: int) -> tuple[list[T], list[int]]:
        """The elements, and where each starts in the buffer."""
        octets, codec = source.octets, self._codec
        items: list[T] = []
        starts: list[int] = []
        position = start
        try:
            while position < stop:
                starts.append(position)
                if len(starts) > self._most:
                    raise MalformedMessage(f"more than {self._most} elements")
                identifier, inner_start, position = read_header(octets, position, stop)
                if identifier not in codec.identifiers:
                    raise unexpected(identifier, codec)
                items.append(codec.read(source, identifier, inner_start, position))
        except MalformedMessage as error:
            error.within(f"[{len(items)}]")
            raise
        return items, starts

    def _write_all(self, items: Sequence[T], pieces: list[bytes]) -> int:
        if len(items) > self._most:
            raise MalformedMessage(f"more than {self._most} elements")
        index = len(items)
        length = 0
        try:
            while index:
                index -= 1
                length += self._codec.write(items[index], pieces)
        except MalformedMessage as error:
            error.within(f"[{index}]")
            raise
        return write_header(self._identifier, length, pieces)


class ListOf(_Many[T, tuple[T, ...]]):
    """SEQUENCE OF, in the order in which it stands there."""

    def __init__(self, codec: Codec[T], most: int = MOST_PARTS) -> None:
        super().__init__(der.SEQUENCE, codec, most)

    def read(self, source: Source, _identifier: int, start: int, stop: int, /) -> tuple[T, ...]:
        return tuple(self._read_all(source, start, stop)[0])

    def write(self, value: tuple[T, ...], pieces: list[bytes], /) -> int:
        return self._write_all(value, pieces)


class OrderedListOf(_Many[T, frozenset[T]]):
    """SEQUENCE OF that stands for a set: written in ascending order of ``key``, without duplicates.

    Another order is tolerated, a duplicate is not.
    """

    def __init__(self, codec: Codec[T], key: Callable[[T], Any], most: int = MOST_PARTS) -> None:
        super().__init__(der.SEQUENCE, codec, most)
        self._key = key

    def read(self, source: Source, _identifier: int, start: int, stop: int, /) -> frozenset[T]:
        items, _ = self._read_all(source, start, stop)
        value = _without_duplicates(items)
        if items != sorted(items, key=self._key):
            source.forms.add(Form.ORDER)
        return value

    def write(self, value: frozenset[T], pieces: list[bytes], /) -> int:
        return self._write_all(sorted(value, key=self._key), pieces)


class SetOf(_Many[T, U], Generic[T, U]):
    """SET OF: sorted by the octets of the elements (X.690 11.6), and read in any order.

    ``collect`` makes the value of the sorted elements; it is ``tuple`` where equal elements may stand side by side and
    ``frozenset`` where they may not.
    """

    def __init__(self, codec: Codec[T], collect: Callable[[Iterable[T]], U], most: int = MOST_PARTS) -> None:
        super().__init__(der.SET, codec, most)
        self._collect = collect

    def read(self, source: Source, _identifier: int, start: int, stop: int, /) -> U:
        items, starts = self._read_all(source, start, stop)
        if len(items) > 1:
            ends = [*starts[1:], stop]
            encodings = [bytes(source.octets[one:other]) for one, other in zip(starts, ends, strict=True)]
            order = sorted(range(len(items)), key=encodings.__getitem__)
            if order != list(range(len(items))):
                source.forms.add(Form.ORDER)
                items = [items[index] for index in order]
        if self._collect is frozenset:
            _without_duplicates(items)
        return self._collect(items)

    def write(self, value: Any, pieces: list[bytes], /) -> int:
        if len(value) > self._most:
            raise MalformedMessage(f"more than {self._most} elements")
        encodings = sorted(self._encode_one(item) for item in value)
        encodings.reverse()
        pieces.extend(encodings)
        return write_header(self._identifier, sum(map(len, encodings)), pieces)

    def _encode_one(self, item: T) -> bytes:
        parts: list[bytes] = []
        self._codec.write(item, parts)
        parts.reverse()
        return b"".join(parts)


def _without_duplicates(items: list[T]) -> frozenset[T]:
    value = frozenset(items)
    if len(value) != len(items):
        raise MalformedMessage("an element stands there twice")
    return value


@dataclass(frozen=True, slots=True)
class Alternative:
    """``[number]`` of a CHOICE, for the values whose key is one of ``keys``; ``build`` and ``take`` as in a record."""

    number: int
    name: str
    codec: Codec[Any]
    keys: tuple[object, ...]
    build: Callable[[Any], Any]
    take: Callable[[Any], Any]


def type_key(value: object) -> object:
    """The key of a value where every dataclass has one alternative."""
    return type(value)


def _same(value: Any) -> Any:
    return value


def nothing(number: int, name: str, value: Any, *keys: object) -> Alternative:
    """An alternative that is NULL: it has the one ``value``, whose key is its type unless given."""
    return Alternative(number, name, NOTHING, keys or (type(value),), lambda _: value, lambda _: None)


def whole(number: int, name: str, codec: Codec[Any], *keys: object) -> Alternative:
    """An alternative whose element is the value."""
    return Alternative(number, name, codec, keys, _same, _same)


def single(number: int, name: str, codec: Codec[Any], kind: type, attribute: str) -> Alternative:
    """An alternative whose element is the only attribute of a dataclass."""
    return Alternative(number, name, codec, (kind,), kind, attrgetter(attribute))


class Choice(Codec[T]):
    """CHOICE of explicitly tagged alternatives; ``key`` tells which one a value belongs to.

    ``retired`` numbers had a meaning once: they are refused like unknown ones, in other words.
    """

    def __init__(
        self,
        *alternatives: Alternative,
        key: Callable[[T], object] = type_key,
        retired: Iterable[int] = (),
    ) -> None:
        self.identifiers = frozenset(range(der.CONTEXT, der.CONTEXT + 31))  # so that an unknown one is named
        self._key = key
        self._retired = frozenset(retired)
        self._by_identifier = {der.CONTEXT + one.number: (one, Explicit(one.number, one.codec)) for one in alternatives}
        self._by_key = {key: (one, explicit) for one, explicit in self._by_identifier.values() for key in one.keys}

    @property
    def keys(self) -> tuple[object, ...]:
        """What the alternatives' values are told by, for a CHOICE that contains this one."""
        return tuple(self._by_key)

    def read(self, source: Source, identifier: int, start: int, stop: int, /) -> T:
        found = self._by_identifier.get(identifier)
        if found is None:
            number = identifier - der.CONTEXT
            raise MalformedMessage(f"{'retired' if number in self._retired else 'unknown'} alternative [{number}]")
        alternative, explicit = found
        try:
            value: T = alternative.build(explicit.read(source, identifier, start, stop))
        except MalformedMessage as error:
            error.within(alternative.name)
            raise
        return value

    def write(self, value: T, pieces: list[bytes], /) -> int:
        found = self._by_key.get(self._key(value))
        if found is None:
            raise TypeError(f"{type(value).__name__} is none of the alternatives")
        alternative, explicit = found
        try:
            return explicit.write(alternative.take(value), pieces)
        except MalformedMessage as error:
            error.within(alternative.name)
            raise
