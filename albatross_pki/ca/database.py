"""The database file that Albatross' users know: one line ``SERIAL NAME`` for every certificate, in order of issue.

It is written for them and their scripts; nothing of ours is decided from it. What is no such file (a certificate in its
place, the ledger itself) is refused before anything is added to it. A process that was killed between ledger
and database left a line out, or half a line: ``mend`` adds what the ledger has more, before the next line is written.
Lines of others (upstream's tools, earlier years) are never touched.
"""

import os
import re
from collections.abc import Sequence

from albatross_pki.errors import AlbatrossError
from albatross_pki.files import Disk

MODE = 0o644
_BEGINNING = 128  # octets
_LINE = re.compile(rb"\s*[0-9A-Fa-f]{1,64}(?: |$)")  # of a crash in the first one there may be a part
_TAIL = 64 * 1024  # octets: what a crash left out is at the end


def serial_octets(serial: int) -> str:
    """A serial as upstream writes it: the octets of the DER integer in hexadecimal, so ``00`` before a top bit."""
    length = serial.bit_length() // 8 + 1
    return serial.to_bytes(length, "big").hex()


def line_for(serial: str, label: str) -> bytes:
    """The line of a certificate; ``serial`` in hexadecimal."""
    return f"{serial_octets(int(serial, 16))} {label}\n".encode()


def check_database(path: str) -> None:
    """Raise ``AlbatrossError`` if there is a file ``path`` that does not begin as a database does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    try:
        beginning = os.read(descriptor, _BEGINNING)
    finally:
        os.close(descriptor)
    if beginning.strip() and not _LINE.match(beginning):
        raise AlbatrossError(
            f"{path} is not a database of certificates: its first line is not SERIAL NAME",
            hint="the order is CACERT DB KEY; a database that is not there yet is made",
        )


def append(path: str, expected: Sequence[bytes], new: Sequence[bytes], disk: Disk) -> None:
    """Append ``new`` lines, after mending the end of the file so that the last of ``expected`` are there."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, MODE)
    try:
        missing = _mend_end(descriptor, expected, disk)
        disk.write(descriptor, b"".join([*missing, *new]))
        disk.fsync(descriptor)
    except OSError as error:  # the system names no file where a descriptor was written
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(descriptor)


def _mend_end(descriptor: int, expected: Sequence[bytes], disk: Disk) -> list[bytes]:
    """Cut off half a line of ours, end a line of others; returns what of ``expected`` is not in the file."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, min(size, _TAIL), max(0, size - _TAIL))
    whole, _, rest = tail.rpartition(b"\n")
    present = {line + b"\n" for line in whole.split(b"\n")}
    missing: list[bytes] = []
    for line in reversed(expected):
        if line in present:
            break
        missing.append(line)
    missing.reverse()
    if not rest:
        return missing
    if any(line.startswith(rest) for line in missing):
        disk.truncate(descriptor, size - len(rest))
        return missing
    return [b"\n", *missing]
