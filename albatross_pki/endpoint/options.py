"""What the command lines of the endpoint and the authoriser share: their options, and whose rights they have."""

import gc
import logging
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

import click

from albatross_pki.daemon_log import DEFAULT_TMPDIR, logging_options
from albatross_pki.errors import AlbatrossError
from albatross_pki.option_values import FloatRange

_LARGEST_UID = 2**32 - 2  # the next number means "none" to chown(2)
_PR_SET_NO_NEW_PRIVS = 38  # <linux/prctl.h>


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--tmpdir``, ``--user`` and the options for logging that every Albatross daemon has."""
    for option in (
        logging_options,
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
            lowest = FloatRange(min=0.001) if kind is float else click.IntRange(min=1)
            function = click.option(option, name, type=lowest, default=default, show_default=True)(function)
        return function

    return add


def say_listening(where: str, *, quiet: bool) -> None:
    """Whoever started us may go on: the one line that is always there."""
    gc.collect()
    gc.freeze()  # what is loaded stays: the collector need not walk it again for every few requests
    if not quiet:
        click.echo(f"listening on {where}")
        sys.stdout.flush()


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


def user_id(user: str) -> int:
    """The number of a user given by name or number; a number needs no name."""
    import pwd

    if user.isascii() and user.isdigit() and int(user) <= _LARGEST_UID:
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError) as error:
        raise AlbatrossError(f"there is no user {user}") from error
