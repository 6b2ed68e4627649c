"""The entry stub: machine code that makes a list of system calls and jumps into the unikernel.

The code is assembled from ``stub_x86_64.S`` and ``stub_aarch64.S`` (a test assembles them again and compares). It is
the same for every unikernel; everything that varies stands in the table of calls, which is read-only memory beside it.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from albatross_pki.host.spt.architecture import Architecture
from albatross_pki.image.elf import EM_AARCH64, EM_X86_64

CODE = 0x20000  # one page, read and execute
TABLE = 0x21000  # read only: the rows, then what they point to
TABLE_END = 0x30000
FILTER = 0x30000  # read only: the seccomp program, at most 4,096 instructions of 8 octets
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

_ROW = struct.Struct("<11Q")
_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Call:
    """One system call; an argument that is ``bytes`` stands for the address of these octets.

    If ``expected`` is not ``None`` and the result is anything else, the process says ``failure`` on its console and
    ends with status 125.
    """

    name: str
    arguments: tuple[int | bytes, ...]
    expected: int | None = None
    failure: str = ""


def assemble_table(architecture: Architecture, calls: Sequence[Call], stack: int, boot: int, entry: int) -> bytes:
    """The octets at ``TABLE``: all rows, the last one, and what they point to.

    Raises ``RuntimeError`` if they do not fit, which the largest manifest and the longest list of segments do.
    """
    pool = _Pool(TABLE + _ROW.size * (len(calls) + 1))
    rows = [_row(architecture, call, pool) for call in calls]
    rows.append(_ROW.pack(_WORD, stack, boot, entry, *[0] * 7))
    table = b"".join(rows) + bytes(pool.octets)
    if len(table) > TABLE_END - TABLE:
        raise RuntimeError(f"a table of {len(table)} octets")
    return table


def _row(architecture: Architecture, call: Call, pool: "_Pool") -> bytes:
    words = [pool.address(word) if isinstance(word, bytes) else word & _WORD for word in call.arguments]
    message = f"tender: {call.failure}\n".encode() if call.failure else b""
    return _ROW.pack(
        architecture.calls[call.name],
        *words,
        *[0] * (6 - len(words)),
        call.expected is not None,
        (call.expected or 0) & _WORD,
        pool.address(message),
        len(message),
    )


class _Pool:
    """Octets behind the rows, each at a multiple of eight."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.octets = bytearray()
        self._known: dict[bytes, int] = {}

    def address(self, octets: bytes) -> int:
        if octets not in self._known:
            self._known[octets] = self.base + len(self.octets)
            self.octets += octets + bytes(-len(octets) % 8)
        return self._known[octets]
