"""The machine code is what its source says, and the table is what the machine code expects."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from albatross_pki.host.spt import stub
from albatross_pki.host.spt.architecture import AARCH64, X86_64, Architecture
from albatross_pki.host.spt.stub import MACHINE_CODE, TABLE, Call, assemble_table

SOURCES = Path(stub.__file__).parent
ASSEMBLERS = {X86_64: ("x86_64-linux-gnu", ("--64",)), AARCH64: ("aarch64-linux-gnu", ())}


@pytest.mark.parametrize("architecture", ASSEMBLERS, ids=lambda each: each.name)
def test_the_committed_octets_are_those_of_the_source(architecture: Architecture, tmp_path: Path) -> None:
    prefix, flags = ASSEMBLERS[architecture]
    if shutil.which(f"{prefix}-as") is None:
        pytest.skip(f"{prefix}-as is not installed: the octets cannot be compared with the source")
    source = SOURCES / f"stub_{architecture.name}.S"
    assembled, octets = tmp_path / "stub.o", tmp_path / "stub.bin"
    subprocess.run([f"{prefix}-as", *flags, "-o", assembled, source], check=True)
    subprocess.run([f"{prefix}-objcopy", "-O", "binary", "-j", ".text", assembled, octets], check=True)
    assert octets.read_bytes() == MACHINE_CODE[architecture.machine]


def test_a_row_has_number_arguments_expectation_and_words_for_a_failure() -> None:
    calls = [
        Call("close_range", (3, 0xFFFFFFFF, 0), 0, "no"),
        Call("prctl", (15, b"name\0")),
        Call("munmap", (2**64 - 1, 2)),
    ]
    table = assemble_table(X86_64, calls, 0x1FFFF8, 0x11000, 0x100000)
    rows = [struct.unpack_from("<11Q", table, 88 * index) for index in range(4)]

    def at(address: int, size: int) -> bytes:
        return table[address - TABLE : address - TABLE + size]

    assert rows[0][:9] == (436, 3, 0xFFFFFFFF, 0, 0, 0, 0, 1, 0)
    assert at(*rows[0][9:]) == b"tender: no\n"
    assert rows[1][:2] == (157, 15)
    assert at(rows[1][2], 5) == b"name\0"
    assert rows[1][7] == 0
    assert rows[2][1] == 2**64 - 1
    assert rows[3][:4] == (2**64 - 1, 0x1FFFF8, 0x11000, 0x100000)


def test_equal_octets_stand_in_the_table_once_and_aligned() -> None:
    calls = [Call("prctl", (15, b"abc")), Call("prctl", (15, b"other")), Call("prctl", (15, b"abc"))]
    table = assemble_table(X86_64, calls, 0, 0, 0)
    addresses = [struct.unpack_from("<11Q", table, 88 * index)[2] for index in range(3)]
    assert addresses[0] == addresses[2] != addresses[1]
    assert all(address % 8 == 0 for address in addresses)


def test_a_table_that_is_too_long_is_a_mistake_of_ours() -> None:
    with pytest.raises(RuntimeError, match="a table of"):
        assemble_table(X86_64, [Call("close", (3,))] * 1000, 0, 0, 0)
