"""Streams on their way to disk: a file without a name, hashed while it is written, stopped at the smallest limit.

The files are made with ``O_TMPFILE`` (or made and unlinked at once where the file system cannot), so that nothing is
left of them when the process dies. ``Spool`` keeps the sum of all of them below ``most`` octets, what one owner (a
top-level delegation) has of it below its own bound, and ``reserve`` octets of the file system free; what does not fit
is refused with the bound that it met.
"""

import contextlib
import errno
import hashlib
import os
import secrets
from collections import Counter
from collections.abc import Sequence

from albatross_pki.errors import Refused
from albatross_pki.transport.channel import without_first

_RESERVE_STEP = 1 << 20  # octets that are asked for at once
_WRITTEN_AT_ONCE = 512  # pieces; Linux takes 1024 (IOV_MAX)


class Spool:
    """The spool in ``directory``; its files count together."""

    def __init__(self, directory: str, *, most: int, reserve: int, most_per_owner: int | None = None) -> None:
        self._directory = directory
        self._most = most
        self._most_per_owner = most if most_per_owner is None else most_per_owner
        self._reserve = reserve
        self._of_owner: Counter[str] = Counter()
        self.used = 0

    def file(self, limit: int, owner: str = "", *, hashed: bool = True) -> "SpoolFile":
        """A new empty file for at most ``limit`` octets, counted for ``owner`` as well; raises ``Refused``."""
        try:
            return SpoolFile(self, _nameless(self._directory), limit, owner, hashed=hashed)
        except OSError as error:
            raise Refused([f"the endpoint cannot spool: {os.strerror(error.errno or 0).lower()}"]) from error

    def take(self, octets: int, owner: str) -> None:
        """Count ``octets`` more; raises ``Refused``."""
        if self.used + octets > self._most:
            raise Refused([f"the endpoint's spool is full ({self._most} octets for all clients together)"])
        if self._of_owner[owner] + octets > self._most_per_owner:
            most = self._most_per_owner
            raise Refused([f"the endpoint's spool has {most} octets for {owner or 'the root'}, and they are in use"])
        free = os.statvfs(self._directory)
        if free.f_bavail * free.f_frsize < octets + self._reserve:
            raise Refused([f"the endpoint's disk is full ({self._reserve} octets stay free)"])
        self.used += octets
        self._of_owner[owner] += octets

    def give_back(self, octets: int, owner: str) -> None:
        self.used -= octets
        self._of_owner[owner] -= octets
        if not self._of_owner[owner]:
            del self._of_owner[owner]


class SpoolFile:
    """One stream. ``size`` octets came so far; ``descriptor`` is the file. Its digest is known if it is ``hashed``."""

    def __init__(self, spool: Spool, descriptor: int, limit: int, owner: str, *, hashed: bool = True) -> None:
        self.descriptor = descriptor
        self.size = 0
        self._spool = spool
        self._limit = limit
        self._owner = owner
        self._digest = hashlib.sha256() if hashed else None
        self._taken = 0

    def expect(self, octets: int) -> None:
        """The stream says that it has at least ``octets``; raises ``Refused`` for what is over the limit."""
        if octets > self._limit:
            raise Refused([f"the stream is longer than the {self._limit} octets that the certificate allows for it"])

    def admit(self, octets: int) -> None:
        """Make room for ``octets`` more; raises ``Refused`` for what is over the limit or does not fit the disk."""
        self.size += octets
        self.expect(self.size)
        if self.size > self._taken:
            more = max(_RESERVE_STEP, self.size - self._taken)
            self._spool.take(more, self._owner)
            self._taken += more

    def store(self, pieces: Sequence[memoryview]) -> None:
        """Append ``pieces``, which were admitted; may run in another thread. Raises ``Refused`` if the disk does."""
        try:
            if self._digest is not None:
                for piece in pieces:
                    self._digest.update(piece)
            for begin in range(0, len(pieces), _WRITTEN_AT_ONCE):
                rest = list(pieces[begin : begin + _WRITTEN_AT_ONCE])
                while rest:
                    rest = without_first(rest, os.writev(self.descriptor, rest))
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            reason = "the endpoint's disk is full" if full else f"the endpoint cannot spool: {error.strerror}"
            raise Refused([reason]) from error

    def write(self, octets: memoryview) -> None:
        """``admit`` and ``store``."""
        self.admit(len(octets))
        self.store([octets])

    @property
    def digest(self) -> bytes:
        """SHA-256 of what came."""
        if self._digest is None:
            raise RuntimeError("this file is not hashed")
        return self._digest.digest()

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
            self._spool.give_back(self._taken, self._owner)

    def __enter__(self) -> "SpoolFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _nameless(directory: str) -> int:
    with contextlib.suppress(OSError, AttributeError):
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    path = os.path.join(directory, f".spool-{secrets.token_hex(8)}")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return descriptor
