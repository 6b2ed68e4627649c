"""``console``: what unikernels print, one or several at once. Parses, calls, says what failed, returns a status."""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from albatross_pki.command_line import NAME, Parsed, TypedCommand, history_options, subscription
from albatross_pki.errors import AlbatrossError
from albatross_pki.names import Name

if TYPE_CHECKING:
    from albatross_pki.client.consoles import Send
    from albatross_pki.client.line_filter import LineFilter

Request = Callable[[TypedCommand, dict[str, Any]], None]


def console_command(
    sender: Callable[[dict[str, Any]], "Send"], options: list[click.Parameter], request: Request | None = None
) -> click.Command:
    """The command; ``sender`` makes what sends from the values of ``options``, ``request`` serves ``--csr``."""

    def console(
        names: tuple[Name, ...],
        count: int,
        since: datetime | None,
        follow: bool,
        pattern: "LineFilter | None",
        lines: int | None,
        **how: Any,
    ) -> int:
        from albatross_pki.client.consoles import Wish, names_meant, show_consoles
        from albatross_pki.client.show import Screen

        wish = Wish(subscription(count, since), follow, pattern, lines)
        if how.get("csr"):
            _write(names, wish.subscription, request, how)
            return 0
        send = sender(how)
        meant = names_meant(names, send, remote=how.get("destination") is not None)
        failures = show_consoles(meant, wish, send, Screen.standard(how["form"], how["quiet"]))
        if failures and len(meant) == 1:
            raise failures[0].error
        return _reported([(each.label, each.error) for each in failures])

    return click.Command(
        "console",
        callback=console,
        params=[
            click.Argument(["names"], type=NAME, nargs=-1, required=True, metavar="UNIKERNEL..."),
            *history_options(),
            click.Option(["-f", "--follow/--no-follow", "follow"], default=True, help="Go on, or end after the last."),
            grep_option(),
            click.Option(["--lines"], type=click.IntRange(1), help="End after so many lines."),
            *options,
        ],
        help="Show what unikernels print, and go on. A path (dev:, or : for all) stands for those that run in it.",
    )


def grep_option() -> click.Option:
    return click.Option(["--grep", "pattern"], type=PATTERN, help="Only lines with this regular expression in them.")


def _filter(text: str) -> "LineFilter":
    from albatross_pki.client.line_filter import LineFilter

    return LineFilter(text)


PATTERN = Parsed("pattern", _filter)


def _write(names: tuple[Name, ...], command: Any, request: Request | None, how: dict[str, Any]) -> None:
    if len(names) != 1 or names[0].is_path or request is None:
        raise AlbatrossError("a signing request is about one unikernel", hint="console NAME --csr")
    request(TypedCommand(names[0], command), how)


def _reported(failures: list[tuple[str, AlbatrossError]]) -> int:
    """Say what failed, by name; the exit status is that of the first."""
    from albatross_pki.console_script import report

    for label, error in failures:
        report(AlbatrossError(f"{label}: {error.message}", hint=error.hint))
    return int(failures[0][1].exit_code) if failures else 0
