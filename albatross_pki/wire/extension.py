"""The extensions of certificates: Albatross' own, and ours.

Albatross' (1.3.6.1.4.1.49836.42, never critical):

    CertExtension ::= SEQUENCE { version INTEGER (5), command Command }

Ours (all critical):

    Constraints ::= SEQUENCE { version INTEGER (1), commands [0] SEQUENCE OF UTF8String OPTIONAL,
      images [1] SEQUENCE OF OCTET STRING (SIZE (32)) OPTIONAL, names [2] SEQUENCE OF UTF8String OPTIONAL,
      hosts [3] SEQUENCE OF UTF8String OPTIONAL, deployments [4] SEQUENCE OF OCTET STRING (SIZE (32)) OPTIONAL,
      once [5] NULL OPTIONAL }
    ImageBinding ::= SEQUENCE { digest OCTET STRING (SIZE (32)), size INTEGER (1..MAX) }
    ExtendedCommand ::= SEQUENCE { version INTEGER (1), command CHOICE { crlUpdate [0] NULL,
      events [1] SEQUENCE { since GeneralizedTime OPTIONAL }, rollback [2] NULL, hostInfo [3] NULL, stop [4] NULL,
      start [5] NULL, status [6] NULL } }

Constraints name at least one field; their lists are sets: written in ascending order of their octets, read in any,
without duplicates. Unknown command words are refused.
"""

import re
from collections.abc import Callable
from typing import Any

from albatross_pki.extensions import (
    COMMAND_WORDS,
    AlbatrossExtension,
    Constraints,
    CrlUpdate,
    Events,
    ExtendedCommand,
    HostInfo,
    ImageBinding,
    Rollback,
    Start,
    Status,
    Stop,
)
from albatross_pki.text import printable, to_octets
from albatross_pki.wire import der
from albatross_pki.wire.command import COMMAND
from albatross_pki.wire.composite import (
    Choice,
    Explicit,
    OrderedListOf,
    Record,
    flag,
    nothing,
    optional,
    record,
    required,
    whole,
)
from albatross_pki.wire.der import Codec, Source
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.primitives import AV5, FLAG, INT_MAX, SHA256, TEXT, TIME, Integer, ProtocolVersion
from albatross_pki.wire.tolerance import Form

VERSION = 1
_V1 = ProtocolVersion(VERSION)
_PATTERN = re.compile(r"[\x21-\x29\x2b-\x40\x5b-\x7e]{0,255}\*?")  # visible ASCII but capitals, * at the end
_HOST = re.compile(r"[\x21-\x7e]{1,255}")


class Word(Codec[str]):
    """A UTF8String that follows a rule; ``complaint`` is what is said of one that does not."""

    identifiers = TEXT.identifiers

    def __init__(self, rule: Callable[[str], object], complaint: str) -> None:
        self._rule, self._complaint = rule, complaint

    def read(self, source: Source, identifier: int, start: int, stop: int, /) -> str:
        return self._check(TEXT.read(source, identifier, start, stop))

    def write(self, value: str, pieces: list[bytes], /) -> int:
        return TEXT.write(self._check(value), pieces)

    def _check(self, word: str) -> str:
        if not self._rule(word):
            raise MalformedMessage(f'"{printable(word, 64)}" {self._complaint}')
        return word


_COMMAND_WORD = Word(COMMAND_WORDS.__contains__, "is not a command")
_NAME_PATTERN = Word(
    lambda word: word and _PATTERN.fullmatch(word), "is not a pattern of lower case with * at most at its end"
)
_HOST_NAME = Word(_HOST.fullmatch, "is not the name of a host")


def _words(number: int, codec: Codec[str]) -> Explicit[frozenset[str]]:
    return Explicit(number, OrderedListOf(codec, to_octets))


def _digests(number: int) -> Explicit[frozenset[bytes]]:
    return Explicit(number, OrderedListOf(SHA256, bytes))


def _constraints(_version: int, *parts: Any) -> Constraints:
    return _say_something(Constraints(*parts))


def _constraint_fields(constraints: Constraints) -> tuple[object, ...]:
    _say_something(constraints)
    lists = (constraints.commands, constraints.images, constraints.names, constraints.hosts, constraints.deployments)
    return (VERSION, *lists, constraints.once)


def _say_something(constraints: Constraints) -> Constraints:
    if constraints == Constraints():
        raise MalformedMessage("constrains nothing")
    return constraints


_ALBATROSS = Record(
    lambda version, command: AlbatrossExtension(command, version),
    lambda extension: (extension.version, extension.command),
    required("version", AV5),
    required("command", COMMAND),
)

_CONSTRAINTS = Record(
    _constraints,
    _constraint_fields,
    required("version", _V1),
    optional("commands", _words(0, _COMMAND_WORD)),
    optional("images", _digests(1)),
    optional("names", _words(2, _NAME_PATTERN)),
    optional("hosts", _words(3, _HOST_NAME)),
    optional("deployments", _digests(4)),
    flag("once", Explicit(5, FLAG)),
)

IMAGE_BINDING = record(ImageBinding, required("digest", SHA256), required("size", Integer(1, INT_MAX)))

EXTENDED = Choice[ExtendedCommand](
    nothing(0, "crlUpdate", CrlUpdate()),
    whole(1, "events", record(Events, optional("since", TIME)), Events),
    nothing(2, "rollback", Rollback()),
    nothing(3, "hostInfo", HostInfo()),
    nothing(4, "stop", Stop()),
    nothing(5, "start", Start()),
    nothing(6, "status", Status()),
)
EXTENDED_KEYS = (CrlUpdate, Events, Rollback, HostInfo, Stop, Start, Status)

_EXTENDED_COMMAND: Record[ExtendedCommand] = Record(
    lambda _version, command: command,
    lambda command: (VERSION, command),
    required("version", _V1),
    required("command", EXTENDED),
)

_Input = bytes | bytearray | memoryview


def encode_albatross_extension(extension: AlbatrossExtension) -> bytes:
    """The DER that stands in extension 1.3.6.1.4.1.49836.42; raises ``MalformedMessage`` for values without one."""
    return der.encode(_ALBATROSS, extension, "Albatross extension")


def decode_albatross_extension(octets: _Input, forms: set[Form] | None = None) -> AlbatrossExtension:
    """Read Albatross' extension; raises ``MalformedMessage``. ``forms`` receives the tolerated forms met."""
    return der.decode(_ALBATROSS, octets, "Albatross extension", forms)


def encode_constraints(constraints: Constraints) -> bytes:
    """The DER of constraints; raises ``MalformedMessage`` for words, patterns or digests that are none, or no field."""
    return der.encode(_CONSTRAINTS, constraints, "constraints")


def decode_constraints(octets: _Input, forms: set[Form] | None = None) -> Constraints:
    """Read constraints; raises ``MalformedMessage``. ``forms`` receives the tolerated forms that were met."""
    return der.decode(_CONSTRAINTS, octets, "constraints", forms)


def encode_image_binding(binding: ImageBinding) -> bytes:
    """The DER of an image binding; raises ``MalformedMessage`` for a digest or size that is none."""
    return der.encode(IMAGE_BINDING, binding, "image binding")


def decode_image_binding(octets: _Input, forms: set[Form] | None = None) -> ImageBinding:
    """Read an image binding; raises ``MalformedMessage``."""
    return der.decode(IMAGE_BINDING, octets, "image binding", forms)


def encode_extended_command(command: ExtendedCommand) -> bytes:
    """The DER of a command that AV5 has no place for; raises ``MalformedMessage`` for a time that has none."""
    return der.encode(_EXTENDED_COMMAND, command, "extended command")


def decode_extended_command(octets: _Input, forms: set[Form] | None = None) -> ExtendedCommand:
    """Read an extended command; raises ``MalformedMessage``. ``forms`` receives the tolerated forms that were met."""
    return der.decode(_EXTENDED_COMMAND, octets, "extended command", forms)
