"""Block devices: old content or new content, never something between, and never somebody else's."""

import errno
import os
import stat
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path as FilePath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from albatross_pki.errors import AlbatrossError, OutOfRange
from albatross_pki.files import Disk
from albatross_pki.host.blocks import MEBIBYTE, BlockRefused, BlockStore
from albatross_pki.names import Name

VOLUME = Name.parse("dev:volume")
OTHER = Name.parse("dev:other")


@pytest.fixture
def store(tmp_path: FilePath) -> BlockStore:
    store = BlockStore(str(tmp_path / "block"))
    assert store.scan() == []
    store.add(VOLUME, 2)
    return store


def content(store: BlockStore, name: Name = VOLUME) -> bytes:
    return b"".join(store.dump(name, 0))


def fill(store: BlockStore, octets: bytes, name: Name = VOLUME) -> None:
    with store.replace(name, compressed=False) as replacement:
        replacement.write(octets)
        replacement.commit()


def files(store: BlockStore) -> list[str]:
    return sorted(os.listdir(store.directory))


def refusal(action: object) -> str:
    assert callable(action)
    with pytest.raises(BlockRefused) as caught:
        action()
    return str(caught.value)


def test_a_new_device_is_sparse_private_and_reads_as_zeros(store: BlockStore) -> None:
    status = os.stat(os.path.join(store.directory, "dev:volume"))
    assert (status.st_size, stat.S_IMODE(status.st_mode)) == (2 * MEBIBYTE, 0o600)
    assert store.allocated(VOLUME) < MEBIBYTE
    assert content(store) == bytes(2 * MEBIBYTE)
    assert stat.S_IMODE(os.stat(store.directory).st_mode) == 0o700


def test_devices_are_found_again(store: BlockStore) -> None:
    store.add(Name.parse("top"), 1)
    again = BlockStore(store.directory)
    assert again.scan() == []
    assert dict(again.devices) == {VOLUME: 2, Name.parse("top"): 1} == dict(store.devices)


def test_p20_what_is_no_device_is_named_in_a_warning_and_not_touched(store: BlockStore, tmp_path: FilePath) -> None:
    directory = FilePath(store.directory)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(MEBIBYTE))
    (directory / ":linked").symlink_to(secret)
    (directory / ":sub").mkdir()
    (directory / ":empty").touch()
    (directory / ":odd").write_bytes(b"x")
    (directory / "UPPER").write_bytes(bytes(MEBIBYTE))
    (directory / "bad name").write_bytes(bytes(MEBIBYTE))
    (directory / "path:").write_bytes(bytes(MEBIBYTE))
    (directory / ".hidden").write_bytes(b"theirs")
    again = BlockStore(store.directory)
    warnings = again.scan()
    assert list(again.devices) == [VOLUME]
    assert len(warnings) == 7
    assert any(":odd is no block device: size is either 0 or not MB aligned" in warning for warning in warnings)
    assert (directory / ".hidden").exists()


def test_p20_a_link_put_in_the_place_of_a_device_is_not_followed(store: BlockStore, tmp_path: FilePath) -> None:
    path = FilePath(store.directory) / "dev:volume"
    path.unlink()
    target = tmp_path / "target"
    target.write_bytes(bytes(2 * MEBIBYTE))
    path.symlink_to(target)
    assert "symbolic link" in refusal(lambda: store.open(VOLUME))
    assert "symbolic link" in refusal(lambda: content(store))
    fill(store, b"x")
    assert target.read_bytes() == bytes(2 * MEBIBYTE)


def test_a_name_that_exists_is_refused(store: BlockStore) -> None:
    fill(store, b"mine")
    assert refusal(lambda: store.add(VOLUME, 1)) == "block device with same name already exists"
    unaware = BlockStore(store.directory)
    assert refusal(lambda: unaware.add(VOLUME, 1)) == "block device with same name already exists"
    assert content(store)[:4] == b"mine"
    assert files(store) == ["dev:volume"]


@pytest.mark.parametrize("size_mb", [0, -1, 2**24 + 1, 2**62])
def test_p01_sizes_have_a_range(store: BlockStore, size_mb: int) -> None:
    with pytest.raises(OutOfRange):
        store.add(OTHER, size_mb)
    assert OTHER not in store.devices


@pytest.mark.parametrize("level", [-1, 10, 2**62])
def test_p01_levels_have_a_range(store: BlockStore, level: int) -> None:
    with pytest.raises(AlbatrossError, match="must be between 0 and 9"):
        next(store.dump(VOLUME, level))
    assert not store.in_use(VOLUME)


def test_what_does_not_exist_is_not_found(store: BlockStore) -> None:
    assert refusal(lambda: store.remove(OTHER)) == "remove block: not found"
    assert refusal(lambda: list(store.dump(OTHER, 0))) == "dump block: not found"
    assert refusal(lambda: fill(store, b"", OTHER)) == "set block: not found"
    assert refusal(lambda: store.claim(OTHER, "start")) == "start: not found"
    assert refusal(lambda: store.snapshot(OTHER, VOLUME)) == "block device with same name already exists"
    assert refusal(lambda: store.allocated(OTHER)) == "block info: not found"


def test_removed_is_removed(store: BlockStore) -> None:
    store.remove(VOLUME)
    assert (dict(store.devices), files(store)) == ({}, [])
    store.add(VOLUME, 1)


def test_p25_a_device_in_use_is_busy_for_everybody_else(store: BlockStore) -> None:
    store.claim(VOLUME, "start")
    for action, text in (
        (lambda: store.remove(VOLUME), "remove block: is in use"),
        (lambda: list(store.dump(VOLUME, 0)), "dump block: is in use"),
        (lambda: fill(store, b""), "set block: is in use"),
        (lambda: store.snapshot(VOLUME, OTHER), "snapshot block: is in use"),
        (lambda: store.claim(VOLUME, "start"), "start: is in use"),
    ):
        assert refusal(action) == text
    assert store.in_use(VOLUME)
    store.release(VOLUME)
    store.remove(VOLUME)


def test_p25_a_device_is_busy_while_it_is_set_or_dumped(store: BlockStore) -> None:
    with store.replace(VOLUME, compressed=False):
        assert refusal(lambda: store.claim(VOLUME, "start")) == "start: is in use"
    pieces = store.dump(VOLUME, 0)
    next(pieces)
    assert store.in_use(VOLUME)
    pieces.close()  # type: ignore[attr-defined]
    assert not store.in_use(VOLUME)


def test_p24_new_content_replaces_the_old_entirely(store: BlockStore) -> None:
    fill(store, b"a" * 2 * MEBIBYTE)
    fill(store, b"short")
    assert content(store) == b"short" + bytes(2 * MEBIBYTE - 5)
    assert files(store) == ["dev:volume"]
    assert stat.S_IMODE(os.stat(os.path.join(store.directory, "dev:volume")).st_mode) == 0o600


def test_p24_without_a_commit_the_old_content_stays(store: BlockStore) -> None:
    fill(store, b"old")
    with store.replace(VOLUME, compressed=False) as replacement:
        replacement.write(b"new, but the connection broke")
    assert content(store)[:3] == b"old"
    assert files(store) == ["dev:volume"]
    assert not store.in_use(VOLUME)


@pytest.mark.parametrize("compressed", [False, True])
def test_p24_too_much_content_is_refused_and_the_old_one_stays(store: BlockStore, compressed: bool) -> None:
    fill(store, b"old")
    octets = b"n" * (2 * MEBIBYTE + 1)

    def upload() -> None:
        with store.replace(VOLUME, compressed=compressed) as replacement:
            replacement.write(zlib.compress(octets) if compressed else octets)
            replacement.commit()

    assert refusal(upload) == "stream exceeds size"
    assert content(store)[:4] == b"old\0"


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (b"this is no zlib stream", "damaged"),
        (zlib.compress(b"x" * 100_000)[:-1], "ends in the middle"),
        (zlib.compress(b"x") + b"more", "octets after its end"),
        (b"", "ends in the middle"),
    ],
)
def test_p24_a_damaged_stream_is_refused_and_the_old_content_stays(
    store: BlockStore, stream: bytes, reason: str
) -> None:
    fill(store, b"old")

    def upload() -> None:
        with store.replace(VOLUME, compressed=True) as replacement:
            replacement.write(stream)
            replacement.commit()

    text = refusal(upload)
    assert text.startswith("error writing to file descriptor")
    assert reason in text
    assert content(store)[:4] == b"old\0"
    assert files(store) == ["dev:volume"]


def test_p24_a_compressed_bomb_costs_nothing(store: BlockStore) -> None:
    bomb = zlib.compress(bytes(64 * MEBIBYTE), 9)
    with store.replace(VOLUME, compressed=True) as replacement:
        assert refusal(lambda: replacement.write(bomb)) == "stream exceeds size"


class FailingDisk(Disk):
    """Fails at the n-th call that changes the disk, as a full or broken one would."""

    def __init__(self, left: int) -> None:
        self.left = left

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    def fsync(self, descriptor: int) -> None:
        self._count()
        super().fsync(descriptor)

    def link(self, source: str, target: str) -> None:
        self._count()
        super().link(source, target)

    def rename(self, source: str, target: str) -> None:
        self._count()
        super().rename(source, target)


@pytest.mark.parametrize("failing_call", range(1, 4))
def test_p24_whenever_the_disk_fails_the_content_is_whole(tmp_path: FilePath, failing_call: int) -> None:
    disk = FailingDisk(0)
    store = BlockStore(str(tmp_path / "block"), disk)
    store.scan()
    store.add(VOLUME, 1)
    fill(store, b"old" * 1000)
    disk.left = failing_call
    assert "no space left on device" in refusal(lambda: fill(store, b"new" * 1000))
    found = content(BlockStoreAfterCrash(store.directory))
    assert found[:3000] in (b"old" * 1000, b"new" * 1000)
    if failing_call < 3:  # before the new content had its name
        assert found[:3] == b"old"
    assert files(store) == ["dev:volume"]
    assert not store.in_use(VOLUME)


@pytest.mark.parametrize("failing_call", range(1, 3))
def test_a_device_that_could_not_be_made_is_not_there(tmp_path: FilePath, failing_call: int) -> None:
    store = BlockStore(str(tmp_path / "block"), FailingDisk(failing_call))
    store.scan()
    assert "no space left on device" in refusal(lambda: store.add(VOLUME, 1))
    assert (dict(store.devices), files(store)) == ({}, [])


class BlockStoreAfterCrash(BlockStore):
    """The same directory, looked at by a daemon that starts."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        assert self.scan() == []


def test_p21_what_an_interrupted_upload_left_is_removed_at_the_next_start(store: BlockStore) -> None:
    fill(store, b"old")
    replacement = store.replace(VOLUME, compressed=False)
    replacement.__enter__()
    replacement.write(b"new")
    assert len(files(store)) == 2
    again = BlockStoreAfterCrash(store.directory)
    assert files(again) == ["dev:volume"]
    assert content(again)[:3] == b"old"
    replacement.abort()


def test_p24_a_dump_of_a_file_that_became_shorter_says_so(store: BlockStore) -> None:
    pieces = store.dump(VOLUME, 0)
    next(pieces)
    os.truncate(os.path.join(store.directory, "dev:volume"), MEBIBYTE)
    assert "octets are missing" in refusal(lambda: list(pieces))
    assert "has changed" in refusal(lambda: store.open(VOLUME))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(octets=st.binary(max_size=4000), cuts=st.lists(st.integers(0, 4000), max_size=5), level=st.integers(0, 9))
def test_what_is_set_in_any_chunks_is_dumped_at_any_level(
    store: BlockStore, octets: bytes, cuts: list[int], level: int
) -> None:
    stream = zlib.compress(octets, level) if level else octets
    with store.replace(VOLUME, compressed=level != 0) as replacement:
        for chunk in chopped(stream, cuts):
            replacement.write(chunk)
        replacement.commit()
    dumped = b"".join(store.dump(VOLUME, level))
    assert (zlib.decompress(dumped) if level else dumped) == octets + bytes(2 * MEBIBYTE - len(octets))


def chopped(octets: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    for begin, end in pairwise(edges):
        yield octets[begin:end]


def test_zeros_stay_holes(store: BlockStore) -> None:
    fill(store, bytes(MEBIBYTE) + b"x")
    assert store.allocated(VOLUME) <= 128 * 1024
    assert content(store)[MEBIBYTE : MEBIBYTE + 2] == b"x\0"


def test_a_snapshot_has_the_content_of_its_moment(store: BlockStore) -> None:
    fill(store, bytes(MEBIBYTE) + b"then")
    store.snapshot(VOLUME, OTHER)
    fill(store, b"now")
    assert content(store, OTHER) == bytes(MEBIBYTE) + b"then" + bytes(MEBIBYTE - 4)
    assert store.devices[OTHER] == 2
    assert store.allocated(OTHER) <= 128 * 1024
    assert files(store) == ["dev:other", "dev:volume"]


def test_the_unikernel_gets_a_descriptor_that_it_can_write_to(store: BlockStore) -> None:
    descriptor = store.open(VOLUME)
    os.pwrite(descriptor, b"sector", 512)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    assert content(store)[512:518] == b"sector"


def test_misuse_is_the_programmers_error(store: BlockStore) -> None:
    with pytest.raises(RuntimeError):
        store.replace(VOLUME, compressed=False).write(b"")
    with store.replace(VOLUME, compressed=False) as replacement:
        replacement.commit()
        with pytest.raises(RuntimeError):
            replacement.commit()


def test_a_name_too_long_for_the_file_system_is_refused(store: BlockStore) -> None:
    name = Name.parse(":".join(["a" * 63] * 5))
    assert refusal(lambda: store.add(name, 1)) == "add block: file name too long"
    assert name not in store.devices


def test_p25_of_many_threads_that_claim_a_device_at_once_one_has_it(tmp_path: FilePath) -> None:
    store = BlockStore(str(tmp_path))
    name = Name.parse("dev:disk")
    store.scan()
    store.add(name, 1)
    store.claim(name, "set block")
    together = threading.Barrier(8)

    def claim() -> bool:
        together.wait()
        try:
            store.claim(name, "dump block")
        except BlockRefused:
            return False
        return True

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            for _ in range(300):
                store.release(name)
                assert [each.result() for each in [threads.submit(claim) for _ in range(8)]].count(True) == 1
    finally:
        sys.setswitchinterval(interval)
