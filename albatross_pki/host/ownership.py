"""Whether files that a privileged daemon relies on can be changed by somebody else."""

import contextlib
import os
import stat
from collections.abc import Collection

from albatross_pki.errors import AlbatrossError, ExitCode


class ForeignFile(AlbatrossError):
    """Somebody else could change ``path``."""

    exit_code = ExitCode.INTERNAL

    def __init__(self, path: str, why: str, hint: str) -> None:
        super().__init__(f"{path} {why}", hint=hint)
        self.path = path


def check_owned(path: str) -> None:
    """Raise ``ForeignFile`` if anybody but root and this daemon's user could change ``path`` itself."""
    status = os.stat(path)
    if status.st_uid not in (0, os.geteuid()):
        raise ForeignFile(path, f"belongs to user {status.st_uid}", f"chown {os.geteuid()} {path}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ForeignFile(path, "can be written by others", f"chmod go-w {path}")


def own_directory(path: str, *, owners: Collection[int] = (), named: bool = False) -> None:
    """Make the directory ``path``, mode 0700, or refuse one that is not ours and what a link leads to.

    ``owners`` are users that it may belong to beside our own. ``named``: a person has named it, so that a link is
    meant, and what others could write to is taken from them; all else is safe if the directory above it is, which
    thus comes first. Raises ``AlbatrossError``.
    """
    with contextlib.suppress(FileExistsError):
        os.makedirs(path, 0o700) if named else os.mkdir(path, 0o700)
    status = os.stat(path) if named else os.lstat(path)
    other = "choose another directory"
    if not stat.S_ISDIR(status.st_mode):
        raise AlbatrossError(f"{path} is no directory", hint=f"remove it, or {other}")
    if status.st_uid not in {os.geteuid(), *owners}:
        raise AlbatrossError(f"{path} belongs to user {status.st_uid}, who could change what is in it", hint=other)
    if writers := status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        if not named:
            raise AlbatrossError(f"{path} can be written by others", hint=other)
        os.chmod(path, stat.S_IMODE(status.st_mode) & ~writers)
