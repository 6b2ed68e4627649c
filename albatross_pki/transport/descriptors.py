"""Descriptors that come from a process which may have been taken over: may they be read as files?

``refuse_unless_file`` looks, in this order: 1. a regular file, because reading anything else may wait or never end;
2. open for reading; 3. not on a file system that is a process of somebody's (FUSE), which any user can mount for
themselves and whose reads can be made to wait for ever, unless the reader's own directory is on that very one (the
whole system of a container without root may be).
"""

import ctypes
import fcntl
import os
import stat
import sys

from albatross_pki.transport.errors import TransportError

_FUSE = 0x65735546  # <linux/magic.h>: FUSE_SUPER_MAGIC
_STATFS_OCTETS = 256  # struct statfs has 120 on Linux with 64 bits; its first word is the type


class NoFile(TransportError):
    """A descriptor that cannot be read as a file."""


def refuse_unless_file(descriptor: int, own_directory: str) -> None:
    """Raise ``NoFile`` unless ``descriptor`` is a file that can be read without waiting for whoever sent it."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NoFile("the descriptor that came is not one of a file")
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        if flags & os.O_ACCMODE == os.O_WRONLY or flags & getattr(os, "O_PATH", 0):
            raise NoFile("the descriptor that came cannot be read")
        if _type(descriptor) == _FUSE and os.stat(own_directory).st_dev != status.st_dev:
            raise NoFile("the descriptor that came is of a file that a process answers for")
    except OSError as error:
        raise NoFile(f"the descriptor that came cannot be used: {os.strerror(error.errno or 0).lower()}") from error


def _type(descriptor: int) -> int | None:
    """The type of the file system, as fstatfs(2) gives it on Linux with 64 bits; elsewhere it is not known."""
    if sys.platform != "linux" or sys.maxsize < 2**32:
        return None
    buffer = ctypes.create_string_buffer(_STATFS_OCTETS)
    if ctypes.CDLL(None, use_errno=True).fstatfs(descriptor, buffer):
        raise OSError(ctypes.get_errno(), "fstatfs")
    return int.from_bytes(buffer.raw[:8], sys.byteorder)
