"""What people who know Albatross' programs type beside our own options, so that it works.

* ``-v`` (repeatable), ``--verbose``, ``--verbosity=LEVEL`` and ``--color=WHEN``: ours have no log to be verbose in, but
  ``quiet`` is ``--quiet``, ``debug`` (``-vv``) shows arguments with ``-o upstream``, and ``never`` is ``NO_COLOR``;
* ``--help=FORMAT``: the same text in every format, because a terminal's pager is not ours to start;
* ``--version`` behind a command, too;
* a program without a command shows its help and ends with 0.
"""

import os
from collections.abc import Sequence
from itertools import dropwhile
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


def take_version(command: click.Command) -> None:
    """Let ``command`` answer ``--version`` as its program does."""
    if not any("--version" in parameter.opts for parameter in command.params):
        asked = click.Option(
            ["--version"], is_flag=True, hidden=True, expose_value=False, is_eager=True, callback=_tell_version
        )
        command.params = [*command.params, asked]


def or_help(ctx: click.Context, arguments: Sequence[str]) -> list[str]:
    """The arguments of a program; without any its help is shown, and it ends with 0.

    What all commands have may stand before ``--help`` and ``--version``, and alone; before a command it may not.
    """
    rest = list(dropwhile(_is_common, arguments))
    if not rest or rest[0].partition("=")[0] in ("--help", "--version"):
        arguments = rest
    if not arguments and not ctx.resilient_parsing:
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()
    return [plain_help(arguments[0]), *arguments[1:]] if arguments else []


def everything_wanted() -> bool:
    """Whether the command that runs was told to show everything."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(EVERYTHING))


def _is_common(argument: str) -> bool:
    return argument in ("-v", "-vv", "--verbose", "-q", "--quiet") or argument.startswith(("--color=", "--verbosity="))


def _tell_version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        program = ctx.find_root()
        of_program = next((each for each in program.command.params if "--version" in each.opts), None)
        if of_program is not None and of_program.callback is not None:
            of_program.callback(program, parameter, True)


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
