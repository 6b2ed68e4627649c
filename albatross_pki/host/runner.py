"""Programs of the operating system that are its interface, where there is no other: run, and what they said.

Only FreeBSD's part of the host uses it; on Linux no helper process is started for a request. Arguments are never read
by a shell, the environment is ours and not the caller's.
"""

import os
import subprocess
from collections.abc import Sequence
from typing import Protocol

from albatross_pki.errors import AlbatrossError
from albatross_pki.text import printable

PATH = "/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C"}
TIMEOUT = 10.0  # seconds; what is run here takes milliseconds
_OUTPUT = 1 << 20  # octets that are looked at


class CommandFailed(AlbatrossError):
    """A program ended with ``status`` (``None``: it did not run, or did not end)."""

    def __init__(self, command: Sequence[str], status: int | None, said: str) -> None:
        detail = f": {printable(said.strip(), 300)}" if said.strip() else ""
        how = "did not run" if status is None else f"ended with {status}"
        super().__init__(f"{printable(' '.join(command), 300)} {how}{detail}")
        self.command, self.status = tuple(command), status


class Runner(Protocol):
    """What starts programs; tests record it."""

    def run(self, *command: str) -> str:
        """Run ``command`` to its end and return what it wrote; raises ``CommandFailed``."""

    def spawn(self, command: Sequence[str], console: int) -> int:
        """Start ``command`` with ``console`` as its output and return its pid; raises ``CommandFailed``."""


class SystemRunner:
    """The programs of this machine."""

    def run(self, *command: str) -> str:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=TIMEOUT,
                check=False,
                env=ENVIRONMENT,
                cwd="/",
            )
        except OSError as error:
            raise CommandFailed(command, None, os.strerror(error.errno or 0).lower()) from error
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(command, None, f"no end after {TIMEOUT:g} seconds") from error
        said = done.stdout[:_OUTPUT].decode("utf-8", "replace")
        if done.returncode:
            raise CommandFailed(command, done.returncode, said)
        return said

    def spawn(self, command: Sequence[str], console: int) -> int:
        try:
            made = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise CommandFailed(command, None, os.strerror(error.errno or 0).lower()) from error
        pid = made.pid
        made.returncode = 0  # the pid is the caller's from here on: this object must not wait for it
        return pid
