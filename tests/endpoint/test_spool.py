"""The spool's bounds, one file at a time and all together."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from albatross_pki.endpoint.spool import Spool
from albatross_pki.errors import Refused

MIB = 1 << 20


def test_what_is_written_is_hashed_and_has_no_name(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), most=10 * MIB, reserve=0)
    with spool.file(100) as file:
        file.write(memoryview(b"one"))
        file.write(memoryview(b"two"))
        assert (file.size, file.digest) == (6, hashlib.sha256(b"onetwo").digest())
        assert os.pread(file.descriptor, 100, 0) == b"onetwo"
        assert os.listdir(tmp_path) == []
    assert spool.used == 0


def test_p04_the_limit_is_exact(tmp_path: Path) -> None:
    with Spool(str(tmp_path), most=10 * MIB, reserve=0).file(5) as file:
        file.write(memoryview(b"12345"))
        with pytest.raises(Refused, match="longer than the 5 octets"):
            file.write(memoryview(b"6"))


def test_p40_all_files_count_together_and_give_back(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), most=3 * MIB, reserve=0)
    with spool.file(9 * MIB) as first:
        first.write(memoryview(bytes(2 * MIB)))
        with spool.file(9 * MIB) as second, pytest.raises(Refused, match="spool is full"):
            second.write(memoryview(bytes(2 * MIB)))
    with spool.file(9 * MIB) as third:
        third.write(memoryview(bytes(2 * MIB)))
    assert spool.used == 0


def test_a_write_that_fails_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Spool(str(tmp_path), most=3 * MIB, reserve=0).file(MIB) as file:
        monkeypatch.setattr(os, "writev", full)
        with pytest.raises(Refused, match="disk is full"):
            file.write(memoryview(b"x"))


def test_pieces_of_any_number_arrive_where_the_disk_takes_a_few_octets_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(descriptor: int, pieces: list[memoryview]) -> int:
        assert len(pieces) <= os.sysconf("SC_IOV_MAX")
        return os.write(descriptor, b"".join(pieces)[:700])

    octets = bytes(range(256)) * 20
    pieces = [memoryview(octets)[start : start + 1 + start % 7] for start in range(len(octets))]
    expected = b"".join(pieces)
    with Spool(str(tmp_path), most=3 * MIB, reserve=0).file(MIB) as file:
        monkeypatch.setattr(os, "writev", slowly)
        file.admit(len(expected))
        file.store(pieces)
        assert os.pread(file.descriptor, len(expected) + 1, 0) == expected
        assert file.digest == hashlib.sha256(expected).digest()


def test_a_directory_that_is_gone_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot spool"):
        Spool(str(tmp_path / "absent"), most=MIB, reserve=0).file(1)
