"""Room on the disk for what must always be possible: to destroy, to stop, to record what ended.

Whoever shares the file system may fill it, a unikernel with its own block device for instance. Two things keep
albatrossd able to make room again:

1. ``hold``: the state's write-ahead log keeps blocks of its own, so that a transaction needs no new ones. SQLite writes
   over what is there and takes zeros behind its own frames, or a log of zeros alone, for the end of the log (the
   format of write-ahead logs, section "the WAL file format" of SQLite's file format);
2. ``check_room``: what adds something is refused while the disk is nearly full, so that it does not use that room up.

On file systems that write every block anew (btrfs, zfs) the first promises less: they need a free block for each.
"""

import errno
import os

from albatross_pki.errors import AlbatrossError, ExitCode
from albatross_pki.host.limits import LOG_RESERVE, MEBIBYTE, STATE_ROOM

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(AlbatrossError):
    """There is too little room for something new."""

    exit_code = ExitCode.INTERNAL

    def __init__(self, path: str, room: int) -> None:
        super().__init__(
            f"the file system of {path} is full but for {room // MEBIBYTE} MB",
            hint="make room, or destroy unikernels and remove block devices that are not needed",
        )


def hold(log: str, octets: int = LOG_RESERVE) -> bool:
    """Give the write-ahead log at least so many octets of the disk; whether it has them now. Never raises ``OSError``.

    For a log that nobody has open, or only the caller.
    """
    try:
        descriptor = os.open(log, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, octets)
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


def check_room(directory: str, octets: int = 0, *, reserve: int = STATE_ROOM) -> None:
    """Raise ``DiskFull`` unless ``octets`` can be written there and ``reserve`` stays free for unprivileged users."""
    try:
        status = os.statvfs(directory)
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(directory, 0) from error
        return  # whoever writes there will hear of it
    free = status.f_bavail * status.f_frsize
    if free - octets < reserve:
        raise DiskFull(directory, free)
