"""The image store: what is stored is what was signed, whatever its giver does meanwhile, and nothing else stays."""

import hashlib
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatross_pki.extensions import ImageBinding
from albatross_pki.host.images import ImageRefused, ImageStore, Source, StoreError
from albatross_pki.host.limits import COPY_PIECE

CONTENT = os.urandom(3 * COPY_PIECE // 2)
DIGEST = hashlib.sha256(CONTENT).digest()
BINDING = ImageBinding(DIGEST, len(CONTENT))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    store = ImageStore(str(tmp_path / "images"), reserve=0)
    yield store
    store.close()


def files(store: ImageStore) -> set[str]:
    return set(os.listdir(store.directory))


def spooled(tmp_path: Path, content: bytes) -> int:
    path = tmp_path / "spool"
    path.write_bytes(content)
    return os.open(path, os.O_RDONLY)


def read(store: ImageStore, digest: bytes) -> bytes:
    with open(store.open(digest), "rb") as source:
        return source.read()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("by_descriptor", [False, True])
def test_an_image_is_stored_under_its_digest(
    store: ImageStore, tmp_path: Path, compressed: bool, by_descriptor: bool
) -> None:
    octets = zlib.compress(CONTENT) if compressed else CONTENT
    source = Source(octets, compressed=compressed)
    if by_descriptor:
        source = Source(descriptor=spooled(tmp_path, octets), compressed=compressed)
    image = store.take(source, binding=BINDING)
    assert (image.digest, image.size) == (DIGEST, len(CONTENT))
    assert read(store, DIGEST) == CONTENT
    assert files(store) == {DIGEST.hex()}
    assert os.stat(os.path.join(store.directory, DIGEST.hex())).st_mode & 0o777 == 0o400


def test_p18_a_writer_who_keeps_the_spooled_file_open_changes_nothing(store: ImageStore, tmp_path: Path) -> None:
    descriptor = spooled(tmp_path, CONTENT)
    writer = os.open(tmp_path / "spool", os.O_WRONLY)
    store.take(Source(descriptor=descriptor), binding=BINDING)
    os.pwrite(writer, b"changed", 100)
    os.ftruncate(writer, 10)
    assert read(store, DIGEST) == CONTENT
    os.close(writer)


def test_p18_a_writer_who_is_faster_than_the_copy_is_caught_by_the_digest(store: ImageStore, tmp_path: Path) -> None:
    """Either the copy is what was signed, or it is refused: never anything in between."""
    descriptor = spooled(tmp_path, CONTENT)
    writer = os.open(tmp_path / "spool", os.O_WRONLY)
    stop = threading.Event()

    def scribble() -> None:
        while not stop.is_set():
            os.pwrite(writer, b"\0" * 64, COPY_PIECE)
            os.pwrite(writer, CONTENT[COPY_PIECE : COPY_PIECE + 64], COPY_PIECE)

    scribbler = threading.Thread(target=scribble)
    scribbler.start()
    try:
        for _ in range(20):
            try:
                store.take(Source(descriptor=descriptor), binding=BINDING)
            except ImageRefused:
                assert files(store) == set()
            else:
                assert read(store, DIGEST) == CONTENT
                store.unpin(DIGEST)
    finally:
        stop.set()
        scribbler.join()
        os.close(writer)


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"\xff" + CONTENT[1:], "was signed"),
        (CONTENT[:-1], "were signed"),
        (CONTENT + b"\0", "longer than"),
        (b"", "were signed"),
    ],
    ids=["tampered", "short", "long", "empty"],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_p18_what_was_not_signed_is_refused_and_leaves_nothing(
    store: ImageStore, octets: bytes, reason: str, compressed: bool
) -> None:
    sent = zlib.compress(octets) if compressed else octets
    with pytest.raises(ImageRefused, match=reason):
        store.take(Source(sent, compressed=compressed), binding=BINDING)
    assert files(store) == set()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda octets: octets[:-5], "cut short"),
        (lambda octets: octets + b"x", "octets follow"),
        (lambda octets: b"no zlib" + octets, "failed to uncompress"),
    ],
)
def test_a_damaged_stream_is_refused(store: ImageStore, damage: object, reason: str) -> None:
    assert callable(damage)
    with pytest.raises(ImageRefused, match=reason):
        store.take(Source(damage(zlib.compress(CONTENT)), compressed=True))
    assert files(store) == set()


def test_p04_a_bomb_is_refused_as_soon_as_it_exceeds_the_limit(store: ImageStore) -> None:
    bomb = zlib.compress(bytes(64 * COPY_PIECE), 9)
    with pytest.raises(ImageRefused, match="longer than the 1048576 octets"):
        store.take(Source(bomb, compressed=True), limit=COPY_PIECE)
    assert files(store) == set()


def test_the_same_image_is_stored_once_and_stays_while_anything_needs_it(store: ImageStore) -> None:
    store.take(Source(CONTENT))
    store.take(Source(CONTENT))
    store.unpin(DIGEST)
    assert files(store) == {DIGEST.hex()}
    store.record(DIGEST)
    store.unpin(DIGEST)
    assert files(store) == {DIGEST.hex()}
    store.dropped([DIGEST])
    assert files(store) == set()


def test_an_image_that_is_there_is_not_written_again_but_must_be_shown(store: ImageStore, tmp_path: Path) -> None:
    store.take(Source(CONTENT))
    inode = os.stat(os.path.join(store.directory, DIGEST.hex())).st_ino
    store.take(Source(descriptor=spooled(tmp_path, CONTENT)), binding=BINDING)
    assert os.stat(os.path.join(store.directory, DIGEST.hex())).st_ino == inode
    with pytest.raises(ImageRefused):
        store.take(Source(descriptor=spooled(tmp_path, b"not it")), binding=BINDING)
    store.unpin(DIGEST)
    store.unpin(DIGEST)
    assert files(store) == set()


def test_at_start_strays_go_and_missing_images_are_told(store: ImageStore) -> None:
    store.take(Source(CONTENT))
    Path(store.directory, ".new-0123").write_bytes(b"left by a crash")
    missing = hashlib.sha256(b"gone").digest()
    assert store.settle({missing}) == [missing]
    assert files(store) == set()


def test_p40_a_reserve_of_the_file_system_stays_free(tmp_path: Path) -> None:
    store = ImageStore(str(tmp_path / "images"), reserve=1 << 62)
    with pytest.raises(StoreError, match="full but for its reserve"):
        store.take(Source(CONTENT))
    assert files(store) == set()
    store.close()


def test_a_store_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file")
    with pytest.raises(StoreError, match="images"):
        ImageStore(str(tmp_path / "images"))


def test_without_files_that_have_no_name_it_works_as_well(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_WRONLY)  # what an old file system makes of it: refused
    store.take(Source(CONTENT))
    assert read(store, DIGEST) == CONTENT
    with pytest.raises(ImageRefused):
        store.take(Source(b"other"), binding=BINDING)
    assert files(store) == {DIGEST.hex()}
