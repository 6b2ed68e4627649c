"""Descriptors of strangers: only files that can be read without waiting for whoever sent them."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatross_pki.transport import descriptors
from albatross_pki.transport.descriptors import NoFile, refuse_unless_file


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR, 0o600)
    yield descriptor
    os.close(descriptor)


def test_a_spool_file_is_one(spool: int, tmp_path: Path) -> None:
    refuse_unless_file(spool, str(tmp_path))


def test_p37_what_is_no_file_or_cannot_be_read_is_refused(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    ours, theirs = socket.socketpair()
    write_only = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT, 0o600)
    directory, path_only = os.open(tmp_path, os.O_RDONLY), os.open(tmp_path / "file", os.O_PATH)
    zeros = os.open("/dev/zero", os.O_RDONLY)
    with ours, theirs:
        for one in (reading, writing, ours.fileno(), write_only, directory, zeros, path_only):
            with pytest.raises(NoFile):
                refuse_unless_file(one, str(tmp_path))
    for one in (reading, writing, write_only, directory, zeros, path_only):
        os.close(one)
    with pytest.raises(NoFile, match="bad file descriptor"):
        refuse_unless_file(zeros, str(tmp_path))


def test_p05_a_file_that_a_process_answers_for_is_refused_unless_we_live_on_it_ourselves(
    spool: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptors, "_type", lambda _: 0x65735546)
    refuse_unless_file(spool, str(tmp_path))
    with pytest.raises(NoFile, match="a process answers for"):
        refuse_unless_file(spool, "/proc")


def test_the_type_of_a_file_system_is_what_the_kernel_says(spool: int) -> None:
    assert descriptors._type(spool) not in (None, 0)
    proc = os.open("/proc/self/status", os.O_RDONLY)
    try:
        assert descriptors._type(proc) == 0x9FA0  # PROC_SUPER_MAGIC
    finally:
        os.close(proc)
