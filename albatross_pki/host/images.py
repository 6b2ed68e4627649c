"""The images of a host, as files named by their SHA-256 in a directory that only albatrossd writes to.

An image is taken in this order: 1. the octets are hashed while they are copied into a new inode of ours, which has
no name yet; 2. more octets than allowed end it at once; 3. size and digest are compared with what was signed; 4. the
inode is made durable and gets its name. Whatever fails before that leaves nothing. The giver's file is read once, by
descriptor: what its writer changes later changes nothing here.

Where the expected digest is known to be in the store already, the octets are only hashed: whoever deploys must have
them (a digest alone is no right), but nothing is written.

A file stays as long as it is *recorded* (the state refers to it) or *pinned* (a deployment in progress needs it).
Who may use which image is decided by the caller.
"""

import contextlib
import hashlib
import os
import secrets
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from albatross_pki.errors import AlbatrossError
from albatross_pki.extensions import ImageBinding
from albatross_pki.host import faults
from albatross_pki.host.disk_reserve import DiskFull, check_room
from albatross_pki.host.limits import COPY_PIECE, DISK_RESERVE, MAX_IMAGE

_TEMPORARY = ".new-"


class ImageRefused(AlbatrossError):
    """The octets are not what was signed, too many, or cannot be uncompressed."""


class StoreError(AlbatrossError):
    """The store cannot be read or written."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the octets of an image come from: octets, or a descriptor that is read from its start.

    ``compressed``: they are one zlib stream.
    """

    octets: bytes | None = None
    descriptor: int | None = None
    compressed: bool = False

    @property
    def length(self) -> int:
        """Octets as they come; of a descriptor, at this moment."""
        if self.octets is not None:
            return len(self.octets)
        return 0 if self.descriptor is None else os.fstat(self.descriptor).st_size

    def pieces(self) -> Iterator[bytes | memoryview]:
        """The octets as they come, a piece at a time."""
        if self.octets is not None:
            view = memoryview(self.octets)
            for start in range(0, len(view), COPY_PIECE):
                yield view[start : start + COPY_PIECE]
        elif self.descriptor is not None:
            offset = 0
            while piece := os.pread(self.descriptor, COPY_PIECE, offset):
                offset += len(piece)
                yield piece


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in the store: its SHA-256 and its octets, uncompressed."""

    digest: bytes
    size: int


class ImageStore:
    """The store in ``directory``, which is made if it is not there. May be used from several threads."""

    def __init__(self, directory: str, *, reserve: int = DISK_RESERVE) -> None:
        self.directory = directory
        self.reserve = reserve
        self._guard = threading.Lock()
        self._pins: Counter[bytes] = Counter()
        self._recorded: set[bytes] = set()
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError(f"{directory}: {_reason(error)}", hint="the image store must be a directory") from error

    def close(self) -> None:
        os.close(self._descriptor)

    def adopt(self, recorded: Iterable[bytes]) -> None:
        """The state refers to these; nothing is removed."""
        self._recorded = set(recorded)

    def settle(self, recorded: Iterable[bytes]) -> list[bytes]:
        """At start: remember what the state refers to, remove everything else, return what is missing."""
        self._recorded = set(recorded)
        try:
            present = set(os.listdir(self._descriptor))
        except OSError as error:
            raise StoreError(f"{self.directory}: {_reason(error)}") from error
        wanted = {digest.hex() for digest in self._recorded}
        for stray in present - wanted:
            self._unlink(stray)
        return sorted(bytes.fromhex(name) for name in wanted - present)

    def take(self, source: Source, *, limit: int = MAX_IMAGE, binding: ImageBinding | None = None) -> StoredImage:
        """Copy an image into the store and pin it; ``limit`` bounds its octets, uncompressed.

        Raises ``ImageRefused`` if it is too long or not what ``binding`` says, ``StoreError`` if it cannot be written.
        """
        if binding is not None and binding.size > limit:
            raise ImageRefused(f"the image has {binding.size} octets, {limit} are allowed")
        bound = limit if binding is None else binding.size
        try:
            if binding is not None and self._pin_present(binding.digest):
                return self._hash_only(source, bound, binding)
            if source.octets is not None:
                measured = measure(source, bound)
                if self._pin_present(measured.digest):
                    return self._checked(measured, binding)
            return self._copy(source, bound, binding)
        except OSError as error:
            raise StoreError(f"the image could not be stored: {_reason(error)}", hint=_hint(error)) from error

    def pin(self, digest: bytes) -> None:
        """Keep an image that is in the store; raises ``StoreError`` if it is not there."""
        if not self._pin_present(digest):
            raise StoreError(f"the image {digest.hex()} is not in the store", hint="deploy the unikernel again")

    def unpin(self, digest: bytes) -> None:
        """Let an image go; it is removed if nothing else keeps it."""
        with self._guard:
            self._pins[digest] -= 1
            if self._pins[digest] <= 0:
                del self._pins[digest]
                if digest not in self._recorded:
                    self._collect(digest)

    def record(self, digest: bytes) -> None:
        """The state refers to ``digest`` from now on."""
        with self._guard:
            self._recorded.add(digest)

    def dropped(self, digests: Iterable[bytes]) -> None:
        """The state does not refer to ``digests`` any more."""
        with self._guard:
            for digest in digests:
                self._recorded.discard(digest)
                if digest not in self._pins:
                    self._collect(digest)

    def open(self, digest: bytes) -> int:
        """A descriptor to read an image from; raises ``StoreError``."""
        try:
            return os.open(digest.hex(), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._descriptor)
        except OSError as error:
            raise StoreError(
                f"the image {digest.hex()} cannot be read: {_reason(error)}", hint="deploy the unikernel again"
            ) from error

    def _pin_present(self, digest: bytes) -> bool:
        with self._guard:
            if digest not in self._pins and digest not in self._recorded:
                return False
            if not os.access(digest.hex(), os.R_OK, dir_fd=self._descriptor, follow_symlinks=False):
                return False
            self._pins[digest] += 1
            return True

    def _hash_only(self, source: Source, bound: int, binding: ImageBinding) -> StoredImage:
        try:
            return self._checked(measure(source, bound), binding)
        except BaseException:
            self.unpin(binding.digest)
            raise

    def _checked(self, image: StoredImage, binding: ImageBinding | None) -> StoredImage:
        if binding is not None:
            check_binding(image, binding)
        return image

    def _copy(self, source: Source, bound: int, binding: ImageBinding | None) -> StoredImage:
        with self._new_inode() as (descriptor, give_name):
            image = measure(source, bound, lambda piece: self._write(descriptor, piece))
            self._checked(image, binding)
            os.fchmod(descriptor, 0o400)
            os.fsync(descriptor)
            with self._guard:
                faults.reach("image.before-link")
                give_name(image.digest.hex())
                os.fsync(self._descriptor)
                self._pins[image.digest] += 1
            faults.reach("image.after-link")
            return image

    @contextlib.contextmanager
    def _new_inode(self) -> Iterator[tuple[int, Callable[[str], None]]]:
        """A new file without a name, and the function that gives it one; it is gone if that is not called."""
        flags = os.O_WRONLY | os.O_CLOEXEC
        try:
            descriptor = os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=self._descriptor)
        except OSError:  # not every file system has files without a name: open(2)
            with self._named_inode(flags) as made:
                yield made
            return

        def give_name(name: str) -> None:
            # the directory descriptor makes Python use linkat(2), which alone follows the link in /proc
            with contextlib.suppress(FileExistsError):
                os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=self._descriptor, follow_symlinks=True)

        try:
            yield descriptor, give_name
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _named_inode(self, flags: int) -> Iterator[tuple[int, Callable[[str], None]]]:
        temporary = _TEMPORARY + secrets.token_hex(8)
        descriptor = os.open(temporary, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._descriptor)
        try:
            yield (
                descriptor,
                lambda name: os.rename(temporary, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor),
            )
        finally:
            os.close(descriptor)
            self._unlink(temporary)

    def _write(self, descriptor: int, piece: bytes | memoryview) -> None:
        try:
            check_room(self.directory, len(piece), reserve=self.reserve)
        except DiskFull as error:
            raise StoreError(
                f"the file system of {self.directory} is full but for its reserve of {self.reserve >> 20} MB",
                hint=error.hint,
            ) from error
        view = memoryview(piece)
        while view:
            view = view[os.write(descriptor, view) :]

    def _collect(self, digest: bytes) -> None:
        faults.reach("image.before-unlink")
        self._unlink(digest.hex())

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._descriptor)


def measure(source: Source, bound: int, write: Callable[[bytes | memoryview], None] | None = None) -> StoredImage:
    """Hash the uncompressed octets of ``source``, giving each piece to ``write``.

    Raises ``ImageRefused`` as soon as there are more than ``bound`` octets, or if the zlib stream is no such thing.
    """
    digest = hashlib.sha256()
    size = 0
    for piece in _inflated(source.pieces(), bound) if source.compressed else source.pieces():
        size += len(piece)
        if size > bound:
            raise ImageRefused(f"the image is longer than the {bound} octets that are allowed")
        digest.update(piece)
        if write is not None:
            write(piece)
    return StoredImage(digest.digest(), size)


def check_binding(image: StoredImage, binding: ImageBinding) -> None:
    """Refuse an image that is not the one that was signed."""
    if image.size != binding.size:
        raise ImageRefused(f"the image has {image.size} octets, {binding.size} were signed")
    if image.digest != binding.digest:
        raise ImageRefused(
            f"the image has the digest {image.digest.hex()}, {binding.digest.hex()} was signed",
            hint="the image was changed after it was signed, or another file was sent",
        )


def _inflated(pieces: Iterator[bytes | memoryview], bound: int) -> Iterator[bytes]:
    """Uncompress one zlib stream, at most a piece at a time; what follows its end is refused."""
    inflater = zlib.decompressobj()
    produced = 0
    try:
        for piece in pieces:
            if inflater.eof:
                raise ImageRefused("failed to uncompress: octets follow the end of the stream")
            given: bytes | memoryview = piece
            while True:
                octets = inflater.decompress(given, COPY_PIECE)
                produced += len(octets)
                yield octets
                given = inflater.unconsumed_tail
                if produced > bound or not (given or len(octets) == COPY_PIECE):
                    break
    except zlib.error as error:
        raise ImageRefused(f"failed to uncompress: {error}") from error
    if not inflater.eof:
        raise ImageRefused("failed to uncompress: the stream is cut short")
    if inflater.unused_data:
        raise ImageRefused("failed to uncompress: octets follow the end of the stream")


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)


def _hint(error: OSError) -> str | None:
    import errno

    return "make room on the file system of --dbdir" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
