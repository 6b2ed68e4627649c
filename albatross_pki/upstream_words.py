"""What people who know Albatross' programs type beside our own options, so that it works.

* ``-v`` (repeatable), ``--verbose``, ``--verbosity=LEVEL`` and ``--color=WHEN``: ours have no log to be verbose in, but
  ``quiet`` is ``--quiet``, ``debug`` (``-vv``) shows arguments with ``-o upstream``, and ``never`` is ``NO_COLOR``;
* ``--help=FORMAT``: the same text in every format, because a terminal's pager is not ours to start;
* a program without a command shows its help and ends with 0.
"""

import os
from collections.abc import Sequence
from typing import Any

import click

LEVELS = ("quiet", "error", "warning", "app", "info", "debug")
HELP_FORMATS = ("auto", "pager", "groff", "plain")
EVERYTHING = "albatross_pki.everything"  # in a context's meta: whether it is to be shown
_DEBUGGING = 2  # so many -v


def take_common_options(command: click.Command) -> None:
    """Let ``command`` take the options that all of Albatross' programs have; a second time does nothing."""
    if any(parameter.name == "verbosity" for parameter in command.params):
        return
    # eager: they say what others are by default
    common: dict[str, Any] = {"hidden": True, "expose_value": False, "is_eager": True}
    command.params = [
        *command.params,
        click.Option(["-v", "--verbose", "verbose"], count=True, callback=_take_count, **common),
        click.Option(["--verbosity"], type=click.Choice(LEVELS), callback=_take_level, **common),
        click.Option(["--color"], type=click.Choice(["auto", "always", "never"]), callback=_take_color, **common),
    ]


def plain_help(argument: str) -> str:
    """``--help`` for any ``--help=FORMAT``; every other argument as it is."""
    spelling, _, value = argument.partition("=")
    return spelling if spelling == "--help" and value in HELP_FORMATS else argument


def or_help(ctx: click.Context, arguments: Sequence[str]) -> list[str]:
    """The arguments of a program; without any its help is shown, and it ends with 0."""
    if not arguments and not ctx.resilient_parsing:
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()
    return [plain_help(arguments[0]), *arguments[1:]] if arguments else []


def everything_wanted() -> bool:
    """Whether the command that runs was told to show everything."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(EVERYTHING))


def _take_count(ctx: click.Context, _: click.Parameter, count: int) -> None:
    if count >= _DEBUGGING:
        ctx.meta[EVERYTHING] = True


def _take_level(ctx: click.Context, _: click.Parameter, level: str | None) -> None:
    if level == "debug":
        ctx.meta[EVERYTHING] = True
    if level == "quiet":
        ctx.default_map = {**(ctx.default_map or {}), "quiet": True}


def _take_color(_ctx: click.Context, _: click.Parameter, when: str | None) -> None:
    if when == "never":
        os.environ["NO_COLOR"] = "1"
