"""Whether files that a privileged daemon relies on can be changed by somebody else."""

import os
import stat

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
