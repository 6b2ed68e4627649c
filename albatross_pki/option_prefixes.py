"""Long options shortened to a unique prefix, and options that may be given once: the rules of Albatross' programs.

``spelled_out`` looks at a command's arguments before click does, in this order for each:

1. what follows ``--`` is not looked at, nor is the value of an option; ``--help=FORMAT`` is ``--help``;
2. ``--dest`` becomes ``--destination`` if nothing else begins so; an exact name wins over longer ones;
3. a prefix of several options is refused, and so is an option that comes twice and may not.

What is unknown is left to click, which refuses it.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import click

from albatross_pki.upstream_words import plain_help, take_common_options


def spelled_out(command: click.Command, arguments: Sequence[str], parent: click.Context | None = None) -> list[str]:
    """``arguments`` with every long option at its whole length; raises ``click.UsageError``."""
    context = click.Context(command, info_name=command.name, parent=parent)
    try:
        return list(_spelled_out(_options(command, context), arguments))
    except click.UsageError as error:
        error.ctx = context
        raise


class PrefixCommand(click.Command):
    """A command that is a program of its own, whose long options may be shortened."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        take_common_options(self)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spelled_out(self, args))


def _options(command: click.Command, context: click.Context) -> dict[str, click.Option]:
    """Every spelling of every option; ``--help`` among them."""
    return {
        spelling: parameter
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
        for spelling in (*parameter.opts, *parameter.secondary_opts)
    }


def _spelled_out(options: dict[str, click.Option], arguments: Sequence[str]) -> Iterator[str]:
    seen: set[str] = set()
    rest = iter(arguments)
    for argument in map(plain_help, rest):
        if argument == "--":
            yield from (argument, *rest)
            return
        spelling, equals, value = _split(argument)
        spelling = _whole(options, spelling)
        yield spelling + equals + value
        option = options.get(spelling)
        if option is None:
            continue
        if str(option.name) in seen:
            raise click.UsageError(f"option '{spelling}' cannot be repeated")
        if not (option.multiple or option.count or option.is_flag):
            seen.add(str(option.name))
        if not (option.is_flag or option.count or equals):
            yield from islice(rest, option.nargs)


def _split(argument: str) -> tuple[str, str, str]:
    """An argument as option, ``=`` and value; what is no option comes back as it is."""
    if argument.startswith("--"):
        return argument.partition("=")
    return argument, "", ""


def _whole(options: dict[str, click.Option], spelling: str) -> str:
    if not spelling.startswith("--") or spelling in options:
        return spelling
    longer = {options[each].name: each for each in options if each.startswith(spelling)}
    if len(longer) > 1:
        choices = " or ".join(f"'{each}'" for each in longer.values())
        raise click.UsageError(f"option '{spelling}' ambiguous and could be either {choices}")
    return next(iter(longer.values()), spelling)
