"""The entry stub: machine code that makes a list of system calls and jumps into the unikernel.

The code is assembled from ``stub_x86_64.S`` and ``stub_aarch64.S`` (a test assembles them again and compares). It is
the same for every unikernel; everything that varies stands in the table of calls, which is read-only memory beside it.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from albatross_pki.host.spt.architecture import Architecture
from albatross_pki.image.elf import EM_AARCH64, EM_X86_64

CODE = 0x20000  # one page, read and execute
TABLE = 0x21000  # read only: the rows, then what they point to, the seccomp program included
TABLE_ROOM = 0x8000  # for everything in it but the instructions of that program
FAILED = 125  # the exit status when a call did not give what it should; the reason stands on the console

MACHINE_CODE: Mapping[int, bytes] = {
    EM_X86_64: bytes.fromhex(
        "bb00100200488b034885c0784d488b7b08488b7310488b53184c8b53204c8b43284c8b4b300f0548837b38007406483b"
        "434075064883c358ebcbbf02000000488b7348488b5350b8010000000f05bf7d000000b8e70000000f05488b6308488b"
        "7b10488b431831db31c931d231f631ed4531c04531c94531d24531db4531e44531ed4531f64531ffffe0"
    ),
    EM_AARCH64: bytes.fromhex(
        "130082d25300a0f2680240f94802f8b7608640a9628e41a9649642a9010000d469aa43a9690000b41f000aeb61000054"
        "73620191f5ffff17400080d2618a44a9080880d2010000d4a00f80d2c80b80d2010000d4698240a93f010091700e40f9"
        "e1031faae2031faae3031faae4031faae5031faae8031faae9031faaea031faaf3031faa00021fd6"
    ),
}

_ROW_OCTETS = 88
_INSTRUCTION_OCTETS = 8
_FILTER_PROGRAM = struct.Struct("<H6xQ")
_NO_ARGUMENTS = (0,) * 6
_ANY_RESULT = (0, 0)
_LAST = (1 << 64) - 1  # a negative number of a call


@dataclass(frozen=True, slots=True)
class Program:
    """A seccomp filter as an argument: the address of a ``struct sock_fprog`` that describes these instructions."""

    instructions: bytes


class Call(NamedTuple):
    """One system call; numbers are unsigned 64-bit words, ``bytes`` stand for the address of these octets.

    If ``expected`` is not ``None`` and the result is anything else, the process says ``failure`` on its console and
    ends with status 125.
    """

    name: str
    arguments: tuple[int | bytes | Program, ...]
    expected: int | None = None
    failure: str = ""


def assemble_table(architecture: Architecture, calls: Sequence[Call], stack: int, boot: int, entry: int) -> bytes:
    """The octets at ``TABLE``: all rows, the last one, and what they point to.

    Raises ``RuntimeError`` if they do not fit, which the largest manifest and the longest list of segments do.
    """
    pool = _Pool(TABLE + _ROW_OCTETS * (len(calls) + 1))
    words: list[int] = []
    for name, arguments, expected, failure in calls:
        message = b"tender: %b\n" % failure.encode() if failure else b""
        words.append(architecture.calls[name])
        words += [each if isinstance(each, int) else pool.address(each) for each in arguments]
        words += _NO_ARGUMENTS[len(arguments) :]
        words += _ANY_RESULT if expected is None else (1, expected)
        words += (pool.address(message), len(message))
    words += (_LAST, stack, boot, entry, *_NO_ARGUMENTS, 0)
    table = struct.pack(f"<{len(words)}Q", *words) + b"".join(pool.octets)
    programs = (each.instructions for call in calls for each in call.arguments if isinstance(each, Program))
    if len(table) > TABLE_ROOM + sum(map(len, programs)):
        raise RuntimeError(f"a table of {len(table)} octets")
    return table


class _Pool:
    """Octets behind the rows, each at a multiple of eight, equal ones once."""

    def __init__(self, base: int) -> None:
        self.octets: list[bytes] = []
        self._end = base
        self._known: dict[bytes, int] = {}

    def address(self, argument: bytes | Program) -> int:
        """Where the octets for an argument stand from now on."""
        if isinstance(argument, Program):
            start = self.address(argument.instructions)
            argument = _FILTER_PROGRAM.pack(len(argument.instructions) // _INSTRUCTION_OCTETS, start)
        place = self._known.get(argument)
        if place is None:
            place = self._known[argument] = self._end
            padded = argument + bytes(-len(argument) % 8)
            self.octets.append(padded)
            self._end += len(padded)
        return place
