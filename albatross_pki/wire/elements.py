"""The parts that several AV5 messages share: policies, devices, what happens at an exit, images.

Policy        ::= SEQUENCE { cpuids SEQUENCE OF Int, unikernels Int, memory Int, block Int OPTIONAL,
                             bridges SEQUENCE OF Text }
FailBehaviour ::= CHOICE { quit [0] NULL, restartExitCodes [1] SET OF Int }
BlockDevices  ::= SET OF SEQUENCE { blockName Text, blockDeviceName Text OPTIONAL, sectorSize Int OPTIONAL }
Bridges       ::= SET OF SEQUENCE { netif Text, bridge Text OPTIONAL, mac MacAddress OPTIONAL }
Arguments     ::= SEQUENCE OF Text
UnikernelType ::= CHOICE { solo5 [0] NULL, bhyve [1] NULL }
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar

from albatross_pki.policies import Policy
from albatross_pki.text import to_octets
from albatross_pki.unikernels import QUIT, BlockDevice, FailBehaviour, NetworkInterface, UnikernelType
from albatross_pki.wire.composite import (
    Alternative,
    Choice,
    Field,
    ListOf,
    OrderedListOf,
    Record,
    SetOf,
    nothing,
    optional,
    record,
    required,
)
from albatross_pki.wire.primitives import CPUID, INT, MAC, NATURAL, TEXT, Integer

T = TypeVar("T")

SECTOR_SIZE = Integer(1, 2**31 - 1)
VIRTUAL_CPUS = Integer(1, 2**31 - 1)

POLICY = record(
    Policy,
    required("cpuids", OrderedListOf(CPUID, int)),
    required("unikernels", NATURAL),
    required("memory_mb", NATURAL),
    optional("block_mb", NATURAL),
    required("bridges", OrderedListOf(TEXT, to_octets)),
)

CPUIDS = SetOf[int, frozenset[int]](CPUID, frozenset)

FAIL_BEHAVIOUR = Choice[FailBehaviour](
    nothing(0, "quit", QUIT, False),
    Alternative(
        1,
        "restartExitCodes",
        SetOf[int, frozenset[int]](INT, frozenset),
        (True,),
        FailBehaviour,
        lambda value: value.restart,
    ),
    key=lambda value: value.restart is not None,
)

BLOCK_DEVICES = SetOf[BlockDevice, tuple[BlockDevice, ...]](
    record(BlockDevice, required("name", TEXT), optional("device", TEXT), optional("sector_size", SECTOR_SIZE)), tuple
)

BRIDGES = SetOf[NetworkInterface, tuple[NetworkInterface, ...]](
    record(NetworkInterface, required("name", TEXT), optional("bridge", TEXT), optional("mac", MAC)), tuple
)

ARGUMENTS = ListOf(TEXT)

UNIKERNEL_TYPE = Choice[UnikernelType](
    nothing(0, "solo5", UnikernelType.SOLO5, UnikernelType.SOLO5),
    nothing(1, "bhyve", UnikernelType.BHYVE, UnikernelType.BHYVE),
    key=lambda value: value,
)


def by_name(kind: Callable[..., T], *fields: Field) -> Record[T]:
    """The SEQUENCE whose elements are attributes of a dataclass in any order; the others keep their defaults.

    An element called ``cpuid`` is the attribute ``cpuids`` in an encoding that has room for one CPU only: it reads as
    the set of this one, and of several CPUs the smallest is written (0 if there is none).
    """
    names = tuple("cpuids" if field.name == "cpuid" else field.name for field in fields)
    lone = next((index for index, field in enumerate(fields) if field.name == "cpuid"), None)
    attributes = attrgetter(*names)

    def build(*values: Any) -> T:
        parts = dict(zip(names, values, strict=True))
        if lone is not None:
            parts["cpuids"] = frozenset({values[lone]})
        return kind(**parts)

    def take(value: T) -> tuple[Any, ...]:
        values: tuple[Any, ...] = attributes(value)
        if lone is None:
            return values
        return (*values[:lone], min(values[lone], default=0), *values[lone + 1 :])

    return Record(build, take, *fields)
