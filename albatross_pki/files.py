"""How files of ours are read and made: bounded, without following links, whole or not at all.

Making one decides, in this order:

1. the content goes to a new file of a random name in the same directory (``O_EXCL``, ``O_NOFOLLOW``), with its final
   mode from the first moment, and is on disk before it has a name that anybody looks for;
2. without ``replace`` it gets its name by link(2), which fails if something of that name exists; with ``replace`` by
   rename(2);
3. the directory is on disk before the call returns.

A process that is killed in between leaves either nothing, or a file whose name begins with ``.new-``, or the whole
file. Every system call that changes a disk goes through a ``Disk``, so that a test can end the process at each one.
"""

import os
import stat
import sys

from albatross_pki.errors import AlbatrossError

DEFAULT_LIMIT = 64 * 1024 * 1024  # octets; a bundle with an embedded image is the largest thing people hand us
PRIVATE = 0o400  # keys
PUBLIC = 0o644  # certificates and requests
STANDARD = "-"  # standard input or output in place of a file name


class FileExists(AlbatrossError):
    """Something of that name is there already; ``path`` is its name, ``option`` what would replace it."""

    def __init__(self, path: str, option: str | None = None) -> None:
        way_out = "remove it, or choose another name" if option is None else f"remove it, or say {option} to replace it"
        super().__init__(f"{path} exists already", hint=way_out)
        self.path = path


class Disk:
    """The system calls that change a disk."""

    def write(self, descriptor: int, octets: bytes) -> None:
        """Write all octets."""
        view = memoryview(octets)
        while view:
            view = view[os.write(descriptor, view) :]

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def link(self, source: str, target: str) -> None:
        os.link(source, target)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def truncate(self, descriptor: int, length: int) -> None:
        os.ftruncate(descriptor, length)


DISK = Disk()


def read_file(path: str, limit: int = DEFAULT_LIMIT) -> bytes:
    """The octets of a regular file (``-``: of standard input); refuses what is longer than ``limit`` octets."""
    if path == STANDARD:
        octets = sys.stdin.buffer.read(limit + 1)
    else:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise AlbatrossError(f"{path} is a directory")
            os.set_blocking(descriptor, True)  # a pipe, as in <(command), is read until its end
            octets = _read_all(descriptor, limit + 1)
        finally:
            os.close(descriptor)
    if len(octets) > limit:
        raise AlbatrossError(f"{path} is longer than {limit} bytes")
    return octets


def _read_all(descriptor: int, at_most: int) -> bytes:
    pieces: list[bytes] = []
    while at_most > 0 and (piece := os.read(descriptor, min(at_most, 1 << 20))):
        pieces.append(piece)
        at_most -= len(piece)
    return b"".join(pieces)


def make_file(path: str, content: bytes, mode: int, *, replace: bool = False, disk: Disk = DISK) -> None:
    """Make ``path`` with ``content`` and ``mode``, on disk when this returns; raises ``FileExists``.

    ``-`` writes to standard output.
    """
    if path == STANDARD:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    if not replace and os.path.lexists(path):
        raise FileExists(path)
    directory = os.path.dirname(path) or "."
    temporary = os.path.join(directory, f".new-{os.urandom(8).hex()}")
    try:
        _make_beside(temporary, path, content, mode, replace, disk)
        sync_directory(directory, disk)
    except OSError as error:
        # people know the name that they asked for, and a full disk names none
        raise OSError(error.errno, error.strerror, path) from error


def _make_beside(temporary: str, path: str, content: bytes, mode: int, replace: bool, disk: Disk) -> None:
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.fchmod(descriptor, mode)
            disk.write(descriptor, content)
            disk.fsync(descriptor)
        finally:
            os.close(descriptor)
        if replace:
            disk.rename(temporary, path)
        else:
            try:
                disk.link(temporary, path)
            except FileExistsError as error:
                raise FileExists(path) from error
    finally:
        if os.path.lexists(temporary):
            disk.unlink(temporary)


def sync_directory(directory: str, disk: Disk = DISK) -> None:
    """Put the names in ``directory`` on disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        disk.fsync(descriptor)
    finally:
        os.close(descriptor)
