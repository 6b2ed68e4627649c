"""``list`` and ``needs-renewal``: what was issued, and what is about to end."""

import json
import os
import re
import sys
from datetime import datetime, timedelta

import click

from albatross_pki.ca import cli_options as options
from albatross_pki.ca.finding import shown_name
from albatross_pki.ca.ledger import Issued, LedgerView, read_ledger, write_time
from albatross_pki.console_script import report_command_line, say
from albatross_pki.errors import AlbatrossError
from albatross_pki.text import printable

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
LONGEST = timedelta(days=366 * 1000)
NEEDS, FRESH, MISSING, BROKEN = 0, 1, 2, 255


def parse_duration(text: str) -> timedelta:
    """``30d``, ``12h``, ``2w``, ``90m``, ``45s``; never more than ``LONGEST``, as dates end with the year 9999."""
    match = re.fullmatch(r"(\d{1,9})([smhdw])", text, re.ASCII)
    if match is None:
        raise AlbatrossError(f"{printable(text)!r} is not a time span", hint="30d, 12h, 2w")
    seconds = int(match.group(1)) * _UNITS[match.group(2)]
    return timedelta(seconds=min(seconds, LONGEST.days * 86400))


@click.command("list")
@click.argument("database", metavar="DB", type=click.Path(dir_okay=False))
@click.option("--expiring", metavar="SPAN", help="Only good certificates that end within this span (30d).")
@click.option("--good", is_flag=True, help="Only certificates that are neither revoked nor expired.")
@options.json_option
def list_issued(database: str, expiring: str | None, good: bool, as_json: bool) -> None:
    """What was issued with this database: serial, kind, name, until when, state.

    \b
        albatross-provision-ca list db --expiring 30d
    """
    view = read_ledger(database)
    now = options.utc_now()
    rows = with_states(view, write_time(now))
    if expiring is not None:
        before = write_time(now + parse_duration(expiring))
        rows = [(item, state) for item, state in rows if state == "good" and item.not_after <= before]
    elif good:
        rows = [(item, state) for item, state in rows if state == "good"]
    sys.stdout.write(_as_json(rows) if as_json else _as_table(rows))


def with_states(view: LedgerView, now: str) -> list[tuple[Issued, str]]:
    """Each certificate with ``good``, ``expired`` or ``revoked`` at the time ``now`` (as the ledger writes times)."""
    rows = [(item, "good" if item.not_after > now else "expired") for item in view.issued]
    if not view.revocations:
        return rows
    return [(item, "revoked" if view.is_revoked(item) else state) for item, state in rows]


_MEMBERS = (*Issued._fields, "state")
_ROW = "{" + ", ".join(f'"{member}": "%s"' for member in _MEMBERS) + "}"
_QUOTES = 4 * len(_MEMBERS)


def _as_json(rows: list[tuple[Issued, str]]) -> str:
    return "[" + ",\n ".join([_row_as_json((*item, state)) for item, state in rows]) + "]\n"


def _row_as_json(values: tuple[str, ...]) -> str:
    """One object; text that needs no escape, as nearly all does, is put in as it is."""
    row = _ROW % values
    if row.count('"') == _QUOTES and "\\" not in row and row.isascii() and row.isprintable():
        return row
    return json.dumps(dict(zip(_MEMBERS, values, strict=True)))


def _as_table(rows: list[tuple[Issued, str]]) -> str:
    if not rows:
        return "nothing\n"
    cells = [("SERIAL", "KIND", "NAME", "COMMAND", "UNTIL", "STATE")]
    cells += [(item.serial, item.role, shown_name(item), item.word, item.not_after, state) for item, state in rows]
    widths = [max(map(len, column)) for column in list(zip(*cells, strict=True))[:-1]]
    template = "".join(f"%-{width}s  " for width in widths) + "%s\n"
    return "".join([template % row for row in cells])


class StatusCommand(click.Command):
    """A command whose statuses are answers: what cannot be parsed must not end with one of them, either."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            report_command_line(error)
            ctx.exit(BROKEN)


@click.command("needs-renewal", cls=StatusCommand)
@click.argument("file", metavar="FILE", type=click.Path())
@click.option("--expires-in", metavar="SPAN|PERCENT", default="33%", show_default=True, help="30d, or 33% of its life.")
@click.option("-q", "--quiet", is_flag=True, help="Only the exit status.")
def needs_renewal(file: str, expires_in: str, quiet: bool) -> int:
    """Tell by the exit status whether a certificate, or one above it in its file, is about to end.

    \b
    EXIT STATUS
        0    it needs renewal
        1    it does not
        2    there is no such file
        255  anything else

    \b
        albatross-provision-ca needs-renewal dev.pem --expires-in 30d && echo 'time to renew'
    """
    try:
        return _renewal_status(file, expires_in, quiet)
    except (AlbatrossError, OSError) as error:
        say("error", str(error))
        return BROKEN


def _renewal_status(file: str, expires_in: str, quiet: bool) -> int:
    from albatross_pki.files import read_file
    from albatross_pki.pem import certificates
    from albatross_pki.policy.certificates import read_certificate

    if not os.path.exists(file):
        if not quiet:
            say("error", f"there is no file {file}")
        return MISSING
    now = options.utc_now()
    status = FRESH
    for der in certificates(read_file(file), file):
        certificate = read_certificate(der)
        ends = certificate.not_after
        if ends - _margin(expires_in, certificate.not_before, ends) <= now:
            status = NEEDS
            if not quiet:
                click.echo(f"{certificate.title} ends {write_time(ends)}")
    return status


def _margin(text: str, begins: datetime, ends: datetime) -> timedelta:
    percent = re.fullmatch(r"(\d{1,3})%", text, re.ASCII)
    if percent is not None:
        return (ends - begins) * int(percent.group(1)) / 100
    return parse_duration(text)
