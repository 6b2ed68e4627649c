"""Files are read within bounds and made whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from albatross_pki.errors import AlbatrossError
from albatross_pki.files import Disk, FileExists, make_file, read_file


def test_a_file_is_made_with_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        make_file(str(tmp_path / "a"), b"content", 0o644)
    finally:
        os.umask(before)
    assert (tmp_path / "a").read_bytes() == b"content"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["a"]


def test_p20_what_exists_stays_be_it_a_link_into_nothing(tmp_path: Path) -> None:
    for name in ("file", "dangling", "directory"):
        path = tmp_path / name
        if name == "file":
            path.write_bytes(b"old")
        elif name == "directory":
            path.mkdir()
        else:
            path.symlink_to("nowhere")
        with pytest.raises(FileExists):
            make_file(str(path), b"new", 0o600)
    assert sorted(os.listdir(tmp_path)) == ["dangling", "directory", "file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_replacing_a_link_replaces_the_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("target")
    make_file(str(tmp_path / "link"), b"new", 0o600, replace=True)
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert (tmp_path / "link").read_bytes() == b"new"


class Race(Disk):
    """Somebody makes the file just before we give ours its name."""

    def link(self, source: str, target: str) -> None:
        Path(target).write_bytes(b"theirs")
        super().link(source, target)


class Broken(Disk):
    def write(self, descriptor: int, octets: bytes) -> None:
        os.write(descriptor, octets[:3])
        raise OSError(28, "No space left on device")


def test_who_comes_second_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(FileExists):
        make_file(str(tmp_path / "a"), b"ours", 0o600, disk=Race())
    assert (tmp_path / "a").read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["a"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OSError, match="No space"):
        make_file(str(tmp_path / "a"), b"new content", 0o600, replace=True, disk=Broken())
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(100))
    assert read_file(str(tmp_path / "a"), 100) == bytes(100)
    with pytest.raises(AlbatrossError, match="longer than 99"):
        read_file(str(tmp_path / "a"), 99)
    with pytest.raises(AlbatrossError, match="longer than 1000"):
        read_file("/dev/zero", 1000)
    with pytest.raises(AlbatrossError, match="is a directory"):
        read_file(str(tmp_path))


def test_a_pipe_is_read_until_its_end(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"through a pipe")
    os.close(writer)
    assert read_file(f"/dev/fd/{reader}") == b"through a pipe"
    os.close(reader)
