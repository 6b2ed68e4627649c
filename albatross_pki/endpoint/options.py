"""What the command lines of the endpoint and the authoriser share: where the log goes, and whose rights they have."""

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

import click

from albatross_pki import PROTOCOL_VERSION, __version__
from albatross_pki.errors import AlbatrossError

DEFAULT_TMPDIR = "/run/albatross"
_LARGEST_UID = 2**32 - 2  # the next number means "none" to chown(2)
LEVELS = {
    "quiet": logging.CRITICAL + 1,
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
_PR_SET_NO_NEW_PRIVS = 38  # <linux/prctl.h>


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--tmpdir``, ``--user`` and the options for logging that every Albatross daemon has."""
    version = f"version v{__version__} protocol version {PROTOCOL_VERSION}"
    for option in (
        click.version_option(__version__, message=version),
        click.option("--syslog", is_flag=True, help="Log to the local syslog instead of standard output."),
        click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", hidden=True),
        click.option("-q", "--quiet", is_flag=True, help="Log nothing."),
        click.option("--verbosity", type=click.Choice(list(LEVELS)), help="How much to log.  [default: warning]"),
        click.option("-v", "--verbose", count=True, help="Log more: once for information, twice for debugging."),
        click.option("--user", metavar="NAME", help="The user to become, if started as root."),
        click.option(
            "--tmpdir",
            default=DEFAULT_TMPDIR,
            show_default=True,
            type=click.Path(file_okay=False),
            help="Run-time directory; sockets are in util/.",
        ),
    ):
        function = option(function)
    return function


def bounds_options(bounds: type[Any], names: Iterable[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option ``--a-b N`` for each of these fields of a class of bounds."""
    kinds = {field.name: (type(field.default), field.default) for field in fields(bounds)}

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            kind, default = kinds[name]
            option = f"--{name.replace('_', '-')}"
            lowest = click.FloatRange(min=0.001) if kind is float else click.IntRange(min=1)
            function = click.option(option, name, type=lowest, default=default, show_default=True)(function)
        return function

    return add


def start_logging(
    program: str, *, verbose: int, verbosity: str | None, quiet: bool, syslog: bool, stream: Any = None
) -> None:
    """Records are lines ``PROGRAM: [LEVEL] text`` on standard output (or ``stream``) or in the syslog."""
    level = LEVELS["quiet" if quiet else verbosity or ("warning", "info", "debug")[min(verbose, 2)]]
    handler: logging.Handler = _syslog() if syslog else logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(logging.Formatter(f"{program}: [%(levelname)s] %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def say_listening(where: str, *, quiet: bool) -> None:
    """Whoever started us may go on: the one line that is always there."""
    gc.collect()
    gc.freeze()  # what is loaded stays: the collector need not walk it again for every few requests
    if not quiet:
        click.echo(f"listening on {where}")
        sys.stdout.flush()


def _syslog() -> logging.Handler:
    from logging.handlers import SysLogHandler

    try:
        return SysLogHandler("/dev/log", SysLogHandler.LOG_DAEMON)
    except OSError as error:
        raise AlbatrossError("nobody listens at /dev/log", hint="leave out --syslog") from error


def become(user: str | None) -> None:
    """Give up root for ``user``; without one a program that runs as root says so and goes on."""
    if os.geteuid() != 0:
        if user is not None and user_id(user) != os.geteuid():
            raise AlbatrossError(f"only root can become the user {user}")
        return
    if user is None:
        logging.getLogger(__name__).warning("running as root; --user NAME gives that up")
        return
    import pwd

    try:
        entry = pwd.getpwuid(user_id(user))
    except KeyError as error:
        raise AlbatrossError(f"there is no user {user}") from error
    os.initgroups(entry.pw_name, entry.pw_gid)
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)  # capabilities go with it: capabilities(7)
    _gain_nothing()


def _gain_nothing() -> None:
    """No program that we could execute has more rights than we do, set-user-ID ones included (prctl(2))."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def raise_descriptor_limit() -> None:
    """As many descriptors as the system lets us have: each client costs some."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def user_id(user: str) -> int:
    """The number of a user given by name or number; a number needs no name."""
    import pwd

    if user.isascii() and user.isdigit() and int(user) <= _LARGEST_UID:
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError) as error:
        raise AlbatrossError(f"there is no user {user}") from error
