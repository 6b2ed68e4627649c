"""Block devices: one sparse file each, named after the device, and who has it at the moment.

A device is a regular file of a whole number of MB in the store's directory, of mode 0600; names that begin with a dot
are ours while something is being made, and are removed by ``scan``. What is changed is made under such a name, whole
and on disk, before it gets the device's name, so that at any moment a device has either all of its old content or all
of its new one (``replace``, ``add``, ``snapshot``).

A device is in use by at most one: a unikernel (``claim``), or whoever changes or reads it here; everybody else is
refused with Albatross' texts. Names become file names as they are: they always have a colon and never a slash. How many
devices and MB a path may have is left to the caller. Calls block on the disk; different devices may be used from
different threads.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import threading
import zlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType, TracebackType

from albatross_pki.errors import AlbatrossError, check_range
from albatross_pki.files import DISK, Disk
from albatross_pki.host import faults
from albatross_pki.host.disk_reserve import DiskFull, check_room
from albatross_pki.host.limits import DISK_RESERVE
from albatross_pki.names import Name
from albatross_pki.wire.compression import Inflater, checked_level
from albatross_pki.wire.errors import InflatedTooLarge, MalformedMessage

MEBIBYTE = 1 << 20
MAX_SIZE_MB = 1 << 24  # 16 TiB, the largest file of ext4
PIECE = 64 * 1024
FICLONE = 0x40049409  # ioctl_ficlone(2)
_TEMPORARY = ".new-"
_NO_REFLINK = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.EPERM}
_MAKE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class BlockRefused(AlbatrossError):
    """A block device cannot be used so; ``device`` is its name."""

    def __init__(self, message: str, device: Name) -> None:
        super().__init__(message)
        self.device = device


class BlockStore:
    """The block devices in ``directory``, which is made by ``scan`` if it is not there."""

    def __init__(self, directory: str, disk: Disk = DISK, *, reserve: int = DISK_RESERVE) -> None:
        self.directory = directory
        self.reserve = reserve
        self._disk = disk
        self._devices: dict[Name, int] = {}
        self._in_use: set[Name] = set()
        self._claiming = threading.Lock()  # dumps claim in threads of their own

    @property
    def devices(self) -> Mapping[Name, int]:
        """Every device and its size in MB."""
        return MappingProxyType(self._devices)

    def scan(self) -> list[str]:
        """Find the devices and remove what an interrupted call left; returns a warning for every other file."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        warnings = []
        for entry in sorted(os.listdir(self.directory)):
            if entry.startswith(_TEMPORARY):
                os.unlink(self._path(entry))
            elif not entry.startswith("."):
                try:
                    name, size_mb = self._examine(entry)
                    self._devices[name] = size_mb
                except AlbatrossError as error:
                    warnings.append(f"file {self._path(entry)} is no block device: {error}")
        return warnings

    def add(self, name: Name, size_mb: int) -> None:
        """Make an empty, sparse device."""
        check_range("size", size_mb, 1, MAX_SIZE_MB)
        if name in self._devices:
            raise BlockRefused("block device with same name already exists", name)
        with self._making("add block", name) as (descriptor, temporary):
            os.ftruncate(descriptor, size_mb * MEBIBYTE)
            self._publish(descriptor, temporary, name)
        self._devices[name] = size_mb

    def remove(self, name: Name) -> None:
        """Remove a device that nobody uses."""
        self.claim(name, "remove block")
        try:
            faults.reach("block.before-unlink")
            with _system_errors("remove block", name), contextlib.suppress(FileNotFoundError):
                self._disk.unlink(self._path(str(name)))
            faults.reach("block.after-unlink")
            del self._devices[name]
        finally:
            self.release(name)
        self._sync_directory()

    def open(self, name: Name) -> int:
        """A descriptor to read and write the device, for whoever has claimed it."""
        return self._open("open block", name, os.O_RDWR)

    def path(self, name: Name) -> str:
        """Where the content is, for those who can only be told by name."""
        return self._path(str(name))

    def claim(self, name: Name, verb: str) -> None:
        """Take the device, so that nobody else does; ``verb`` begins the refusal (``set block: is in use``)."""
        with self._claiming:
            if name not in self._devices:
                raise BlockRefused(f"{verb}: not found", name)
            if name in self._in_use:
                raise BlockRefused(f"{verb}: is in use", name)
            self._in_use.add(name)

    def release(self, name: Name) -> None:
        """Give a claimed device back."""
        self._in_use.discard(name)

    def in_use(self, name: Name) -> bool:
        return name in self._in_use

    def replace(self, name: Name, compressed: bool) -> "Replacement":
        """Begin a new content; the device is in use until the replacement is left."""
        return Replacement(self, name, compressed=compressed)

    def dump(self, name: Name, level: int) -> Iterator[bytes]:
        """The whole content, as it is (level 0) or as one zlib stream; refusals come with the first piece.

        The device is in use until the iterator is exhausted or closed. If it can no longer be read as a whole, this
        raises instead of ending early.
        """
        checked_level(level)
        self.claim(name, "dump block")
        try:
            descriptor = self._open("dump block", name, os.O_RDONLY)
            try:
                content = self._content(name, descriptor)
                yield from content if level == 0 else _deflated(content, level)
            finally:
                os.close(descriptor)
        finally:
            self.release(name)

    def snapshot(self, source: Name, target: Name) -> None:
        """Make ``target`` with the content of ``source``: shared blocks where the file system can, else copied."""
        if target in self._devices:
            raise BlockRefused("block device with same name already exists", target)
        self.claim(source, "snapshot block")
        try:
            original = self._open("snapshot block", source, os.O_RDONLY)
            try:
                with self._making("snapshot block", target) as (descriptor, temporary):
                    if not _reflink(original, descriptor):
                        self.check_room(target, self._allocated(original))
                        _copy_sparse(original, descriptor)
                    os.ftruncate(descriptor, self._devices[source] * MEBIBYTE)
                    self._publish(descriptor, temporary, target)
            finally:
                os.close(original)
            self._devices[target] = self._devices[source]
        finally:
            self.release(source)

    def allocated(self, name: Name) -> int:
        """The octets that the device takes on the disk, which may be fewer than its size."""
        if name not in self._devices:
            raise BlockRefused("block info: not found", name)
        with _system_errors("block info", name):
            return os.lstat(self._path(str(name))).st_blocks * 512

    def check_room(self, name: Name, octets: int) -> None:
        """Raise ``BlockRefused`` unless so many octets can be written and the disk's reserve stays free."""
        try:
            check_room(self.directory, octets, reserve=self.reserve)
        except DiskFull as error:
            raise BlockRefused(error.message, name) from error

    @staticmethod
    def _allocated(descriptor: int) -> int:
        return os.fstat(descriptor).st_blocks * 512

    def _path(self, entry: str) -> str:
        return os.path.join(self.directory, entry)

    def _examine(self, entry: str) -> tuple[Name, int]:
        name = Name.parse(entry)
        if str(name) != entry or name.is_path:
            raise AlbatrossError(f"its name would be {name}")
        status = os.lstat(self._path(entry))
        if not stat.S_ISREG(status.st_mode):
            raise AlbatrossError("it is not a regular file")
        size_mb, rest = divmod(status.st_size, MEBIBYTE)
        if rest or not size_mb:
            raise AlbatrossError("size is either 0 or not MB aligned")
        return name, size_mb

    def _open(self, verb: str, name: Name, mode: int) -> int:
        if name not in self._devices:
            raise BlockRefused(f"{verb}: not found", name)
        with _system_errors(verb, name):
            descriptor = os.open(self._path(str(name)), mode | _OPEN)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != self._devices[name] * MEBIBYTE:
            os.close(descriptor)
            raise BlockRefused(f"{verb}: its file has changed since it was found", name)
        return descriptor

    def _content(self, name: Name, descriptor: int) -> Iterator[bytes]:
        left = self._devices[name] * MEBIBYTE
        while left:
            with _system_errors("dump block", name):
                piece = os.read(descriptor, min(PIECE, left))
            if not piece:
                raise BlockRefused(f"dump block: {left} octets are missing at its end", name)
            left -= len(piece)
            yield piece

    @contextlib.contextmanager
    def _making(self, verb: str, name: Name) -> Iterator[tuple[int, str]]:
        """A new file under a name of ours, gone again unless it was published."""
        temporary = self._path(_TEMPORARY + secrets.token_hex(8))
        with _system_errors(verb, name):
            descriptor = os.open(temporary, _MAKE, 0o600)
            try:
                yield descriptor, temporary
            finally:
                os.close(descriptor)
                with contextlib.suppress(FileNotFoundError):
                    self._disk.unlink(temporary)

    def _publish(self, descriptor: int, temporary: str, name: Name) -> None:
        """Give a new file its device's name, which must be free."""
        self._disk.fsync(descriptor)
        faults.reach("block.before-link")
        try:
            self._disk.link(temporary, self._path(str(name)))
        except FileExistsError as error:
            raise BlockRefused("block device with same name already exists", name) from error
        faults.reach("block.after-link")
        self._disk.unlink(temporary)
        self._sync_directory()

    def _sync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._disk.fsync(descriptor)
        finally:
            os.close(descriptor)


class Replacement:
    """New content on its way: ``write`` its chunks, then ``commit``; leaving without a commit keeps the old content.

    Use as a context manager. The device has its size afterwards whatever was written; what is missing reads as zeros.
    """

    def __init__(self, store: BlockStore, name: Name, *, compressed: bool) -> None:
        self._store = store
        self._name = name
        self._compressed = compressed
        self._resources = contextlib.ExitStack()
        self._descriptor = -1
        self._temporary = ""
        self._room = self._written = 0
        self._inflater: Inflater | None = None
        self._committed = False

    def __enter__(self) -> "Replacement":
        store, name = self._store, self._name
        store.claim(name, "set block")
        self._resources.callback(store.release, name)
        try:
            making = store._making("set block", name)
            self._descriptor, self._temporary = self._resources.enter_context(making)
        except BaseException:
            self._resources.close()
            raise
        self._room = store.devices[name] * MEBIBYTE
        self._inflater = Inflater(self._room) if self._compressed else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resources.close()

    def write(self, chunk: bytes) -> None:
        """Take the next part of the stream; raises ``BlockRefused`` if there is too much or if it is damaged."""
        self._check_open()
        with self._errors():
            for piece in (chunk,) if self._inflater is None else self._inflater.pieces(chunk):
                self._put(piece)

    def commit(self) -> None:
        """The stream has ended as it should: make it the device's content, on disk when this returns."""
        self._check_open()
        with self._errors():
            if self._inflater is not None:
                self._inflater.finish()
            os.ftruncate(self._descriptor, self._room)
            disk = self._store._disk
            disk.fsync(self._descriptor)
            faults.reach("block.before-rename")
            disk.rename(self._temporary, self._store._path(str(self._name)))
            self._committed = True
            faults.reach("block.after-rename")
            self._store._sync_directory()

    def abort(self) -> None:
        """Forget what was written and give the device back; leaving the context does the same."""
        self._resources.close()

    def _check_open(self) -> None:
        if self._descriptor < 0 or self._committed:
            raise RuntimeError("a replacement is written inside its context and committed once")

    def _put(self, piece: bytes) -> None:
        if self._written + len(piece) > self._room:
            raise BlockRefused("stream exceeds size", self._name)
        for begin in range(0, len(piece), PIECE):
            part = memoryview(piece)[begin : begin + PIECE]
            if not _is_zero(part):  # zeros stay a hole
                self._store.check_room(self._name, len(part))
                _write_all(self._descriptor, part, self._written)
            self._written += len(part)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Albatross' texts for what a stream can do wrong."""
        try:
            yield
        except InflatedTooLarge as error:
            raise BlockRefused("stream exceeds size", self._name) from error
        except MalformedMessage as error:
            raise BlockRefused(f"error writing to file descriptor: {error}", self._name) from error
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise BlockRefused(f"error writing to file descriptor: {reason}", self._name) from error


@contextlib.contextmanager
def _system_errors(verb: str, name: Name) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BlockRefused(f"{verb}: {(error.strerror or str(error)).lower()}", name) from error


def _is_zero(octets: memoryview) -> bool:
    return len(octets) > 0 and not octets[0] and bytes(octets).count(0) == len(octets)


def _write_all(descriptor: int, octets: memoryview, offset: int) -> None:
    while octets:
        written = os.pwrite(descriptor, octets, offset)
        octets, offset = octets[written:], offset + written


def _deflated(content: Iterator[bytes], level: int) -> Iterator[bytes]:
    stream = zlib.compressobj(level)
    for piece in content:
        if out := stream.compress(piece):
            yield out
    yield stream.flush()


def _reflink(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno not in _NO_REFLINK:
            raise
        return False
    return True


def _copy_sparse(source: int, target: int) -> None:
    """Copy what is not a hole."""
    end = os.fstat(source).st_size
    offset = 0
    while offset < end:
        try:
            begin = os.lseek(source, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here on
                return
            raise
        offset = os.lseek(source, begin, os.SEEK_HOLE)
        while begin < offset:
            piece = os.pread(source, min(PIECE, offset - begin), begin)
            if not piece:
                return
            _write_all(target, memoryview(piece), begin)
            begin += len(piece)
