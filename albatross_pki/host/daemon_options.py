"""The options that the daemons of a host share; those for their log are in ``daemon_log``."""

import os
from collections.abc import Callable
from typing import Any

import click

from albatross_pki.daemon_log import DEFAULT_TMPDIR

_LARGEST_UID = 2**32 - 2  # the next number means "none" to chown(2)


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
