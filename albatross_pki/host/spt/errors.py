"""What goes wrong with the host, and not with the image: it refuses to make or to execute a composed unikernel."""

import errno
import os

from albatross_pki.errors import AlbatrossError

_HINTS = {
    errno.EACCES: "memory files must be executable on this host: sysctl vm.memfd_noexec must not be 2",
    errno.ENOENT: "/proc must be mounted",
    errno.ENOEXEC: "the image is for another processor than this host has",
}


class CannotStart(AlbatrossError):
    """The host refuses; ``errno`` is its reason."""

    def __init__(self, error: OSError) -> None:
        self.errno = error.errno or errno.EIO
        reason = os.strerror(self.errno).lower()
        super().__init__(f"cannot start the unikernel: {reason}", hint=_HINTS.get(self.errno))
