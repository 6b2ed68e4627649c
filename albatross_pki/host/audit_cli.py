"""``albatross-host audit show`` and ``audit verify``: what the authoriser of a directory decided, for people.

Entries are shown as they stand; nothing is decided here. ``docs/endpoint.md`` has their schema.
"""

import json
import os

import click

from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.text import printable

_OWN = frozenset({"n", "previous", "kind", "time"})


def _log_of(place: str) -> str:
    """The audit log that ``place`` means: a file, or the directory of a host or of an authoriser's state."""
    if not os.path.isdir(place):
        return place
    for inside in ("authorise/audit.log", "audit.log"):
        found = os.path.join(place, inside)
        if os.path.exists(found):
            return found
    raise AlbatrossError(
        f"there is no audit log in {printable(place)}",
        hint="name the file: albatross-host audit show STATEDIR/audit.log",
    )


def _line(entry: dict[str, object]) -> str:
    told = (
        f"{word}={_value(value)}" for word, value in entry.items() if word not in _OWN and value not in (None, [], "")
    )
    return " ".join(
        (str(entry.get("n")), printable(str(entry.get("time", "-"))), printable(str(entry.get("kind"))), *told)
    )


def _value(value: object) -> str:
    if isinstance(value, str):
        return printable(value, 200)
    if isinstance(value, list):
        subjects = [each["subject"] for each in value if isinstance(each, dict) and "subject" in each]
        if subjects:  # a chain: its common names say enough for a person
            return "<-".join(printable(str(subject), 64) for subject in subjects)
    return printable(json.dumps(value), 400)


@click.group(help="What the authoriser decided, and whether its log is whole.")
def audit() -> None:
    pass


@audit.command()
@click.argument("place", metavar="DIR|FILE", type=click.Path(exists=True), default=".")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, as they stand in the log.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only these: refused, intent, outcome …")
def show(place: str, as_json: bool, kinds: tuple[str, ...]) -> None:
    """Every entry, oldest first.

    \b
        albatross-host audit show host
        albatross-host audit show host --kind refused
        albatross-host audit show /var/lib/albatross-authorise/audit.log --json
    """
    from albatross_pki.journal.log import read_entries

    for entry in read_entries(_log_of(place)):
        if not kinds or entry.get("kind") in kinds:
            click.echo(json.dumps(entry) if as_json else _line(entry))


@audit.command()
@click.argument("places", metavar="[DIR|FILE]…", type=click.Path(exists=True), nargs=-1)
@click.option("--head", metavar="HEX", help="A head that was kept: what stood before it must be there unchanged.")
def verify(places: tuple[str, ...], head: str | None) -> None:
    """Check the chain of hashes; prints the head, which is worth keeping elsewhere. Status 124 if it is broken.

    Logs that were moved away are named with the one that continues them, oldest first.

    \b
        albatross-host audit verify host
        albatross-host audit verify host --head 3f…
        albatross-host audit verify audit.log.2 audit.log.1 audit.log
    """
    from albatross_pki.journal.log import verify_series

    found = verify_series([_log_of(place) for place in places or (".",)], known_head=head)
    if found.problems:
        raise Refused([printable(problem, 1024) for problem in found.problems])
    if found.torn:
        click.echo(
            f"note: the last line is cut off ({found.torn} octets): it is being written, or a crash left it", err=True
        )
    click.echo(f"{found.entries} entries, head {found.head}")
