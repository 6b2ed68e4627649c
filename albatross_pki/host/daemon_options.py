"""The options that every daemon has, and where its log goes.

A log record is one line ``PROGRAM: [LEVEL] text``, as Albatross' daemons write, to standard output or, with
``--syslog``, to ``/dev/log``. Of ``--quiet``, ``--verbosity`` and ``-v`` the first that is given counts, in this order.
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
_LARGEST_UID = 2**32 - 2  # the next number means "none" to chown(2)
_COLOURS = {"ERROR": "31", "WARNING": "33", "INFO": "34", "DEBUG": "2"}


class SyslogUnavailable(AlbatrossError):
    """Nobody answers at ``/dev/log``."""


def tmpdir_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--tmpdir DIR``: where the sockets and fifos are."""
    return click.option(
        "--tmpdir",
        type=click.Path(),
        callback=_directory,
        default=DEFAULT_TMPDIR,
        show_default=True,
        help="Run-time directory; its sockets are in util/.",
    )(function)


def _directory(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """An explicit directory must exist; the default is looked at when it is used."""
    given = context.get_parameter_source(str(parameter.name)) is not click.core.ParameterSource.DEFAULT
    if given and not os.path.isdir(value):
        raise click.BadParameter(f"no '{value}' directory", context, parameter)
    return value


def users(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    """The callback of a repeatable option that takes users by number or name."""
    return tuple(_user(value, context, parameter) for value in values)


def _user(value: str, context: click.Context, parameter: click.Parameter) -> int:
    import pwd

    number = value.removeprefix("-")
    if number.isascii() and number.isdigit():
        if 0 <= int(value) <= _LARGEST_UID:
            return int(value)
        raise click.BadParameter(f"{value} is not in the range 0<=x<={_LARGEST_UID}", context, parameter)
    try:
        return pwd.getpwnam(value).pw_uid
    except (KeyError, ValueError) as error:
        raise click.BadParameter(f"there is no user '{value}'", context, parameter) from error


Address = tuple[str, int]


def address_option(default_port: int) -> Callable[[click.Context, click.Parameter, str | None], Address | None]:
    """The callback of an option ``IP[:PORT]``; an IPv6 address stands in brackets if a port follows."""

    def parse(context: click.Context, parameter: click.Parameter, value: str | None) -> Address | None:
        import ipaddress

        if value is None:
            return None
        split = value.count(":") == 1 or "]:" in value
        host, separator, port = value.rpartition(":") if split else (value, "", "")
        try:
            address = str(ipaddress.ip_address(host.strip("[]")))
            number = int(port) if separator else default_port
        except ValueError as error:
            text = f"'{value}' is not a numeric address with an optional port"
            raise click.BadParameter(text, context, parameter) from error
        if not 0 < number < 65536:
            raise click.BadParameter(f"port {number} is not between 1 and 65535", context, parameter)
        return address, number

    return parse


INFLUX_PORT = 8094  # Telegraf's, by convention


def own_metrics_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--influx IP[:PORT]``: where a daemon sends what it uses itself."""
    return click.option(
        "--influx",
        "influx",
        callback=address_option(INFLUX_PORT),
        metavar="IP[:PORT]",
        help=f"Send metrics of this program to a TCP listener for lines, port {INFLUX_PORT} by default.",
    )(function)


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
