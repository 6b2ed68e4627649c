"""Snapshots on file systems that can share blocks: a real btrfs and a real xfs, each in a file of the test's own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path as FilePath

import pytest

from albatross_pki.host.blocks import MEBIBYTE, BlockStore
from albatross_pki.names import Name
from tests.host.test_full_disk import fill

VOLUME, COPY = Name.parse("dev:volume"), Name.parse("dev:copy")
SIZE_MB = 40
MAKE = {"btrfs": ["mkfs.btrfs", "-q"], "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"]}


@pytest.fixture(params=sorted(MAKE))
def disk(request: pytest.FixtureRequest, tmp_path: FilePath) -> Iterator[FilePath]:
    """A mounted file system that can reflink."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    program, *options = MAKE[request.param]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    image, mounted = tmp_path / "image", tmp_path / "disk"
    with open(image, "wb") as file:
        file.truncate(512 * MEBIBYTE)
    subprocess.run([program, *options, str(image)], check=True, capture_output=True)
    mounted.mkdir()
    made = subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no {request.param} can be mounted here: {made.stderr.strip()}")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def used(disk: FilePath) -> int:
    """Octets that are in use, when everything has been written."""
    subprocess.run(["sync", "-f", str(disk)], check=True)
    status = os.statvfs(disk)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def test_a_snapshot_shares_its_blocks_until_one_is_written(disk: FilePath) -> None:
    store = BlockStore(str(disk / "block"))
    store.scan()
    store.add(VOLUME, SIZE_MB)
    then = os.urandom(SIZE_MB * MEBIBYTE)
    with store.replace(VOLUME, compressed=False) as replacement:
        replacement.write(then)
        replacement.commit()
    before = used(disk)
    store.snapshot(VOLUME, COPY)
    assert used(disk) - before < SIZE_MB * MEBIBYTE // 4, "no second copy was made"
    descriptor = store.open(VOLUME)
    os.pwrite(descriptor, b"now" * 1000, MEBIBYTE)
    os.close(descriptor)
    assert b"".join(store.dump(COPY, 0)) == then, "what is written to one is not in the other"
    assert b"".join(store.dump(VOLUME, 0)) == then[:MEBIBYTE] + b"now" * 1000 + then[MEBIBYTE + 3000 :]
    store.remove(VOLUME)
    assert b"".join(store.dump(COPY, 0)) == then


def test_a_snapshot_needs_no_room_where_a_copy_would(disk: FilePath) -> None:
    store = BlockStore(str(disk / "block"), reserve=MEBIBYTE)
    store.scan()
    store.add(VOLUME, SIZE_MB)
    with store.replace(VOLUME, compressed=False) as replacement:
        replacement.write(os.urandom(SIZE_MB * MEBIBYTE))
        replacement.commit()
    subprocess.run(["sync", "-f", str(disk)], check=True)
    fill(disk)
    os.truncate(disk / "somebody-else", (disk / "somebody-else").stat().st_size - 16 * MEBIBYTE)
    subprocess.run(["sync", "-f", str(disk)], check=True)
    store.snapshot(VOLUME, COPY)
    assert store.devices[COPY] == SIZE_MB
