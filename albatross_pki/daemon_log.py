"""Where the log of a daemon goes, and the options that say so: the same for all of them.

A record is one line ``PROGRAM: [LEVEL] text``, as Albatross' daemons write, to standard output or, with ``--syslog``,
to ``/dev/log``. Of ``--quiet``, ``--verbosity`` and ``-v`` the first that is given counts, in this order.
"""

import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from albatross_pki import PROTOCOL_VERSION, __version__
from albatross_pki.errors import AlbatrossError

DEFAULT_TMPDIR = "/run/albatross" if sys.platform == "linux" else "/var/run/albatross"
LEVELS = {
    "quiet": logging.CRITICAL + 1,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
LOGGING_OPTIONS = ("verbose", "verbosity", "quiet", "color", "syslog")  # as ``configure_logging`` takes them
_COLOURS = {"ERROR": "31", "WARNING": "33", "INFO": "34", "DEBUG": "2"}


class SyslogUnavailable(AlbatrossError):
    """Nobody answers at ``/dev/log``."""


def logging_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``-v``, ``--verbosity``, ``-q``, ``--color``, ``--syslog`` and ``--version``; see ``configure_logging``."""
    version = f"version v{__version__} protocol version {PROTOCOL_VERSION}"
    for option in (
        click.version_option(__version__, message=version),
        click.option("--syslog", is_flag=True, help="Log to the local syslog instead of standard output."),
        click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True),
        click.option("-q", "--quiet", is_flag=True, help="Log nothing."),
        click.option("--verbosity", type=click.Choice(list(LEVELS)), help="How much to log.  [default: warning]"),
        click.option("-v", "--verbose", count=True, help="Log more: once for information, twice for debugging."),
    ):
        function = option(function)
    return function


def configure_logging(
    program: str, *, verbose: int, verbosity: str | None, quiet: bool, color: str, syslog: bool
) -> None:
    """Send the log where the options say; raises ``SyslogUnavailable``."""
    level = LEVELS["quiet" if quiet else verbosity or ("warning", "info", "debug")[min(verbose, 2)]]
    handler: logging.Handler = _syslog() if syslog else logging.StreamHandler(sys.stdout)
    coloured = not syslog and (color == "always" or (color == "auto" and sys.stdout.isatty()))
    handler.setFormatter(_Formatter(program, coloured=coloured))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _syslog() -> logging.Handler:
    from logging.handlers import SysLogHandler

    try:
        return SysLogHandler("/dev/log", SysLogHandler.LOG_DAEMON)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise SyslogUnavailable(f"cannot log to /dev/log: {reason}", hint="leave out --syslog") from error


class _Formatter(logging.Formatter):
    def __init__(self, program: str, *, coloured: bool) -> None:
        super().__init__()
        self._program = program
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        level = record.levelname
        if self._coloured and level in _COLOURS:
            level = f"\x1b[{_COLOURS[level]}m{level}\x1b[0m"
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return "\n".join(f"{self._program}: [{level}] {line}" for line in text.split("\n"))
