"""``top``: what unikernels use right now. Parses, calls, prints, returns."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from albatross_pki.client.usage import ORDERS
from albatross_pki.command_line import NAME, TypedCommand
from albatross_pki.names import Name
from albatross_pki.option_values import FloatRange

if TYPE_CHECKING:
    from albatross_pki.client.consoles import Send
    from albatross_pki.client.show import Screen


def top_command(sender: Callable[[dict[str, Any]], "Send"], options: list[click.Parameter]) -> click.Command:
    """The command; ``sender`` makes what sends from the values of ``options``."""

    def top(name: Name | None, order: str, at_once: bool, wait_seconds: float, **how: Any) -> None:
        from albatross_pki.client import top as view
        from albatross_pki.client.show import Screen, short
        from albatross_pki.commands import StatsSubscribe

        typed = TypedCommand(name or Name(), StatsSubscribe())
        send = sender(how)
        screen = Screen.standard(how["form"], how["quiet"])
        label = short(typed.name)
        if not at_once and view.can_be_live(screen):
            view.live(label, lambda *take: send(typed, *take), order, whole_screen=True)
            return
        if not at_once and screen.width is not None and screen.form == "table":
            from albatross_pki.console_script import say

            say("note", f"a table that is kept up to date needs rich: {view.INSTALL}")
        _print(view.once(label, lambda *take: send(typed, *take), order, quiet=wait_seconds), screen)

    return click.Command(
        "top",
        callback=top,
        params=[
            click.Argument(["name"], type=NAME, metavar="[NAME]", required=False),
            click.Option(["--sort", "order"], type=click.Choice(ORDERS), default="cpu", show_default=True),
            click.Option(["--once", "at_once"], is_flag=True, help="One table, as where nobody looks."),
            click.Option(
                ["--wait-seconds"],
                type=FloatRange(0.01, 86400),
                default=30.0,
                show_default=True,
                help="With --once: as long without a sample are enough.",
            ),
            *options,
        ],
        help="Show what unikernels use right now, of a path or of all: a live table, or one where nobody looks.",
    )


def _print(rows: list[Any], screen: "Screen") -> None:
    from albatross_pki.client.table import layout
    from albatross_pki.client.usage import HEADING, use_cells, use_document

    if screen.quiet:
        return
    if screen.form == "json":
        import json

        click.echo(json.dumps([use_document(use) for use in rows], indent=2))
    elif screen.form == "name":
        for use in rows:
            click.echo(use_cells(use)[0])
    else:
        text = layout(HEADING, [use_cells(use) for use in rows], screen.width)
        click.echo(text if rows else "no unikernels")
