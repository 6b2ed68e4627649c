"""The whole state of a daemon in upstream's format: what is in ``state`` below its database directory.

    StateDump ::= CHOICE { unikernelsV1 [0] SEQUENCE OF StateV1, unikernelsV0 [1] SEQUENCE OF StateV0,
      unikernelsV2 [2] SEQUENCE OF StateV2, unikernelsV3 [3] SEQUENCE OF StateV3,
      unikernelsV3AndPolicies [4], unikernelsV4AndPolicies [5], unikernelsV5AndPolicies [6]
        SEQUENCE { unikernels SEQUENCE OF StateVn, policies SEQUENCE OF SEQUENCE { name Name, value Policy } } }
    StateVn ::= SEQUENCE { name Name, value UnikernelConfigVn }

    UnikernelConfigV2 ::= V3 with bridges [1] SEQUENCE OF SEQUENCE { netif Text, bridge Text OPTIONAL } OPTIONAL
                             and blocks [0] SET OF Text OPTIONAL
    UnikernelConfigV1 ::= V2 with bridges [1] SET OF Text OPTIONAL
    UnikernelConfigV0 ::= SEQUENCE { cpu Int, memory Int, block Text OPTIONAL,
      networkInterfaces SEQUENCE OF Text OPTIONAL,
      image CHOICE { hvtAmd64 [0], hvtArm64 [1], hvtAmd64Compressed [2] OCTET STRING },
      arguments SEQUENCE OF Text OPTIONAL }

The tag is the only version in the file, and those of V0 and V1 are swapped. The old ones are read; only [6] is
written. Written unikernels and policies stand in the order of the tree, a parent before what is below it and siblings
by their octets; read ones may stand in any order, but no name twice.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

from albatross_pki.messages import StateDump
from albatross_pki.names import Name
from albatross_pki.unikernels import BlockDevice, NetworkInterface, Settings, UnikernelConfig
from albatross_pki.wire import der
from albatross_pki.wire.composite import (
    MOST_ITEMS,
    Alternative,
    Choice,
    Explicit,
    Field,
    ListOf,
    Record,
    SetOf,
    optional,
    optional_list,
    pair,
    required,
)
from albatross_pki.wire.configuration import CONFIG_V3, CONFIG_V4, CONFIG_V5, CPUID_AND_MEMORY, FAIL, config_of
from albatross_pki.wire.der import Codec, Source
from albatross_pki.wire.elements import ARGUMENTS, POLICY
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.primitives import CPUID, MEGABYTES, NAME, OCTETS, TEXT
from albatross_pki.wire.tolerance import Form

T = TypeVar("T")
Entries = tuple[tuple[Name, T], ...]


class Bare(Codec[T]):
    """A device that is nothing but its name, a Text; only old dumps have it, so it is not written."""

    identifiers = TEXT.identifiers

    def __init__(self, kind: Callable[[str], T]) -> None:
        self._kind = kind

    def read(self, source: Source, identifier: int, start: int, stop: int, /) -> T:
        return self._kind(TEXT.read(source, identifier, start, stop))

    def write(self, value: T, _pieces: list[bytes], /) -> int:
        raise _only_read(value)


class Tree(Codec[Entries[T]]):
    """SEQUENCE OF SEQUENCE { name, value }, in the order of the tree of names."""

    identifiers = frozenset({der.SEQUENCE})

    def __init__(self, codec: Codec[T]) -> None:
        self._entries = ListOf(pair(required("name", NAME), required("value", codec)), MOST_ITEMS)

    def read(self, source: Source, identifier: int, start: int, stop: int, /) -> Entries[T]:
        entries = self._entries.read(source, identifier, start, stop)
        places = [_place(entry) for entry in entries]
        ordered = sorted(places)
        _refuse_twice(ordered)
        if places != ordered:
            source.forms.add(Form.ORDER)
        return entries

    def write(self, value: Entries[T], pieces: list[bytes], /) -> int:
        ordered = tuple(sorted(value, key=_place))
        _refuse_twice([_place(entry) for entry in ordered])
        return self._entries.write(ordered, pieces)


def _place(entry: tuple[Name, Any]) -> tuple[tuple[str, ...], bool]:
    """Where an entry stands in the tree: the path ``a:b:`` just before the name ``a:b``."""
    name = entry[0]
    return (name.path.labels, False) if name.label is None else ((*name.path.labels, name.label), True)


def _refuse_twice(ordered: list[tuple[tuple[str, ...], bool]]) -> None:
    for one, other in pairwise(ordered):
        if one == other:
            raise MalformedMessage(f"{':'.join(one[0])} stands there twice")


_BARE_BLOCK: Bare[BlockDevice] = Bare(BlockDevice)
_BARE_INTERFACE: Bare[NetworkInterface] = Bare(NetworkInterface)
_OLD_BLOCKS = optional_list("blocks", Explicit(0, SetOf(_BARE_BLOCK, tuple)))
_ARGUMENTS = optional("arguments", Explicit(2, ARGUMENTS))
_V2_INTERFACE = Record(
    NetworkInterface, lambda one: (one.name, one.bridge), required("name", TEXT), optional("bridge", TEXT)
)


def _old_config(interfaces: Codec[Any]) -> Record[UnikernelConfig]:
    bridges = optional_list("interfaces", Explicit(1, interfaces))
    return config_of(*FAIL, *CPUID_AND_MEMORY, _OLD_BLOCKS, bridges, _ARGUMENTS)


_CONFIG_V2 = _old_config(ListOf(_V2_INTERFACE))
_CONFIG_V1 = _old_config(SetOf(_BARE_INTERFACE, tuple))


def _config_v0(cpuid: int, memory_mb: int, block: str | None, *rest: Any) -> UnikernelConfig:
    interfaces, (image, compressed), arguments = rest
    blocks = () if block is None else (BlockDevice(block),)
    settings = Settings(frozenset({cpuid}), memory_mb, blocks=blocks, interfaces=interfaces, arguments=arguments)
    return UnikernelConfig(image, settings, compressed)


def _only_read(value: object) -> RuntimeError:
    return RuntimeError(f"{type(value).__name__} has no encoding here: only old dumps have it")


def _not_written(value: object) -> Any:
    raise _only_read(value)


def _image_v0(number: int, name: str, *, compressed: bool) -> Alternative:
    return Alternative(number, name, OCTETS, (name,), lambda image: (image, compressed), _not_written)


_IMAGE_V0 = Choice[tuple[bytes, bool]](
    _image_v0(0, "hvtAmd64", compressed=False),
    _image_v0(1, "hvtArm64", compressed=False),
    _image_v0(2, "hvtAmd64Compressed", compressed=True),
    key=_not_written,
)

_CONFIG_V0 = Record(
    _config_v0,
    _not_written,
    required("cpuid", CPUID),
    required("memory_mb", MEGABYTES),
    optional("block", TEXT),
    optional_list("interfaces", ListOf(_BARE_INTERFACE)),
    required("image", _IMAGE_V0),
    optional("arguments", ARGUMENTS),
)


def _without_policies(number: int, version: int, configuration: Record[UnikernelConfig]) -> Alternative:
    return Alternative(
        number,
        f"unikernelsV{version}",
        Tree(configuration),
        (version,),
        lambda unikernels: StateDump(unikernels, (), version),
        _not_written,
    )


def _with_policies(number: int, name: str, configuration: Record[UnikernelConfig]) -> Alternative:
    fields: tuple[Field, ...] = (required("unikernels", Tree(configuration)), required("policies", Tree(POLICY)))
    return Alternative(
        number,
        name,
        Record(lambda *both: both, lambda both: both, *fields),
        (number,),
        lambda both: StateDump(both[0], both[1], number),
        lambda dump: (dump.unikernels, dump.policies),
    )


NEWEST = 6


def _written_version(_dump: StateDump) -> object:
    return NEWEST


_STATE = Choice[StateDump](
    _without_policies(1, 0, _CONFIG_V0),
    _without_policies(0, 1, _CONFIG_V1),
    _without_policies(2, 2, _CONFIG_V2),
    _without_policies(3, 3, CONFIG_V3),
    _with_policies(4, "unikernelsV3AndPolicies", CONFIG_V3),
    _with_policies(5, "unikernelsV4AndPolicies", CONFIG_V4),
    _with_policies(6, "unikernelsV5AndPolicies", CONFIG_V5),
    key=_written_version,
    retired=(7,),
)


def encode_state_dump(dump: StateDump) -> bytes:
    """The newest form of a dump, whatever version it was read from; raises ``MalformedMessage`` for a name twice."""
    return der.encode(_STATE, dump, "state")


def decode_state_dump(octets: bytes | bytearray | memoryview, forms: set[Form] | None = None) -> StateDump:
    """Read a dump of any version, in the order of the file; raises ``MalformedMessage``.

    ``forms`` receives the tolerated forms that were met.
    """
    dump = der.decode(_STATE, octets, "state", forms)
    if dump.version != NEWEST and forms is not None:
        forms.add(Form.OLD_STATE)
    return dump
