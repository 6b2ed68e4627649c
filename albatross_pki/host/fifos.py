"""Fifos for console output, below ``TMPDIR/fifo``, one per unikernel, named like it.

A fifo is made under a name of its own and renamed when its unikernel starts, so that a successor can be prepared
while its predecessor still writes. It is opened for reading and writing, by albatrossd and for the unikernel itself:
there always is a reader, and no writer meets a broken pipe. Links are never followed; the directory belongs to root
and the console.
"""

import contextlib
import os
import stat

from albatross_pki.errors import AlbatrossError
from albatross_pki.names import Name
from albatross_pki.text import printable

MODE = 0o640  # the console's group reads


class FifoError(AlbatrossError):
    """A fifo cannot be made."""


class Fifo:
    """One fifo. ``descriptor`` reads and writes, non-blocking; ``output`` is the unikernel's blocking end."""

    def __init__(self, directory: str, name: Name, token: str) -> None:
        self.path = os.path.join(directory, str(name))
        self._temporary: str | None = os.path.join(directory, f"new-{token}")  # no name: names have a colon
        _refuse_foreign(self.path)
        try:
            os.mkfifo(self._temporary, MODE)
            self.descriptor = _open(self._temporary)
        except OSError as error:
            self._unlink_temporary()
            raise FifoError(f"file {printable(self.path)} error in mkfifo: {_reason(error)}") from error
        self.identity = _identity(self.descriptor)
        try:
            # the unikernel is a reader too: with everybody else gone, it blocks on a full pipe and meets no broken one
            self.output = os.open(f"/proc/self/fd/{self.descriptor}", os.O_RDWR | os.O_CLOEXEC)
        except BaseException:
            os.close(self.descriptor)
            self._unlink_temporary()
            raise

    def take_place(self) -> None:
        """Get the unikernel's name, in place of whatever fifo had it."""
        if self._temporary is not None:
            try:
                os.rename(self._temporary, self.path)
            except OSError as error:
                raise FifoError(f"file {printable(self.path)} error in rename: {_reason(error)}") from error
            self._temporary = None

    def close_output(self) -> None:
        """The unikernel has its end; ours is closed."""
        if self.output >= 0:
            os.close(self.output)
            self.output = -1

    def close(self) -> None:
        """Close everything and remove the fifo, unless its name has become somebody else's."""
        self.close_output()
        os.close(self.descriptor)
        self._unlink_temporary()
        remove(self.path, self.identity)

    def _unlink_temporary(self) -> None:
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)


def reopen(path: str) -> tuple[int, tuple[int, int]] | None:
    """The descriptor and identity of the fifo of a unikernel that outlived its daemon; ``None`` if it is gone."""
    try:
        descriptor = _open(path)
    except (OSError, FifoError):
        return None
    return descriptor, _identity(descriptor)


def remove(path: str, identity: tuple[int, int]) -> None:
    """Remove ``path`` if it is that very fifo."""
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        if (status.st_dev, status.st_ino) == identity:
            os.unlink(path)


def identity_of(path: str) -> tuple[int, int] | None:
    """Device and inode of the fifo at ``path``, ``None`` if there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISFIFO(status.st_mode) else None


def reclaim(directory: str, kept: frozenset[str]) -> list[str]:
    """Remove the fifos in ``directory`` that belong to nobody; their names."""
    removed = []
    for entry in os.scandir(directory):
        if entry.name not in kept and stat.S_ISFIFO(entry.stat(follow_symlinks=False).st_mode):
            with contextlib.suppress(OSError):
                os.unlink(entry.path)
                removed.append(entry.name)
    return removed


def _refuse_foreign(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise FifoError(f"file {printable(path)} error in lstat: {_reason(error)}") from error
    if not stat.S_ISFIFO(mode):
        raise FifoError(f"file {printable(path)} exists and is not a fifo")


def _open(path: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FifoError(f"file {printable(path)} exists and is not a fifo")
    return descriptor


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or 0).lower()
