"""``ledger show``, ``ledger verify``, ``ledger reconcile``."""

import json
import sys

import click

from albatross_pki.ca import cli_options as options
from albatross_pki.ca.database import serial_octets
from albatross_pki.ca.issuer import is_self_signed
from albatross_pki.ca.ledger import ledger_path, read_ledger
from albatross_pki.ca.reconciling import reconcile
from albatross_pki.errors import AlbatrossError, ExitCode, Refused
from albatross_pki.files import read_file
from albatross_pki.journal.log import read_entries
from albatross_pki.journal.log import verify as verify_journal
from albatross_pki.pem import certificates
from albatross_pki.policy.certificates import read_certificate
from albatross_pki.text import printable


@click.group()
def ledger() -> None:
    """Everything that was decided with a database, in order."""


@ledger.command()
@click.argument("database", metavar="DB", type=click.Path(dir_okay=False))
@options.json_option
def show(database: str, as_json: bool) -> None:
    """Every entry of DB.ledger, oldest first.

    \b
        albatross-provision-ca ledger show db
    """
    path = ledger_path(database)
    try:
        for entry in read_entries(path):
            sys.stdout.write((json.dumps(entry) if as_json else _line(entry)) + "\n")
    except FileNotFoundError as error:
        raise AlbatrossError(f"there is no ledger {path}") from error


def _line(entry: dict[str, object]) -> str:
    told = {name: value for name, value in entry.items() if name not in ("n", "previous", "kind", "time") and value}
    said = " ".join(f"{name}={printable(str(value), 80)}" for name, value in told.items())
    return f"{entry.get('n')} {entry.get('time', '')} {printable(str(entry.get('kind')))} {said}"


@ledger.command()
@click.argument("database", metavar="DB", type=click.Path(dir_okay=False))
@click.option("--head", metavar="HEX", help="A head that was kept: what stood before it must be there unchanged.")
def verify(database: str, head: str | None) -> None:
    """Check the chain of hashes, and that the database has every certificate of the ledger.

    Prints the head: keep it elsewhere, and nobody can change what stands before it unnoticed.

    \b
        albatross-provision-ca ledger verify db
    """
    path = ledger_path(database)
    try:
        found = verify_journal(path, known_head=head)
    except FileNotFoundError as error:
        raise AlbatrossError(f"there is no ledger {path}") from error
    problems = list(found.problems)
    if found.torn:
        options.note(f"its last line is cut off ({found.torn} bytes): a crash left it, the next act says so")
    if not problems:
        problems += _database_problems(database)
    if problems:
        raise Refused([f"{path}: {problem}" for problem in problems])
    click.echo(f"{found.entries} entries, head {found.head}")


def _database_problems(database: str) -> list[str]:
    """Serials that only one of ledger and database has. Lines from before there was a ledger are not counted."""
    view = read_ledger(database)
    ours = {serial_octets(int(item.serial, 16)) for item in view.issued if item.role != "root"}
    try:
        lines = read_file(database).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        lines = []
    theirs = {line.split(" ", 1)[0] for line in lines}
    for serial in sorted(ours - theirs):
        options.note(f"the database lacks {serial}, which the ledger has (a crash between the two, or a lost line)")
    first = next((position for position, line in enumerate(lines) if line.split(" ", 1)[0] in ours), len(lines))
    strange = [line.split(" ", 1)[0] for line in lines[first:]]
    return [f"the database has {printable(serial)}, which the ledger lacks" for serial in strange if serial not in ours]


@ledger.command("reconcile")
@click.argument("cacert", metavar="CACERT", type=options.existing)
@click.argument("database", metavar="DB", type=click.Path(dir_okay=False))
@click.argument("audits", metavar="AUDIT…", nargs=-1, required=True, type=options.existing)
def reconcile_audits(cacert: str, database: str, audits: tuple[str, ...]) -> int:
    """Compare what servers saw (their audit logs) with what was issued: what the ledger lacks was made by a thief.

    A root that was renewed with a new key is given with all its certificates in one file.

    \b
    EXIT STATUS
        0    every certificate of this CA that was used is in the ledger
        116  some is not, or was used after its revocation
        124  an audit log does not verify

    \b
        albatross-provision-ca ledger reconcile cacert.pem db audit.log
    """
    facts = [read_certificate(der) for der in certificates(read_file(cacert), cacert)]
    signer = facts[0]
    view = read_ledger(database)
    is_root = is_self_signed(signer)
    own = [item for item in facts if item.spki_sha256 == signer.spki_sha256 or (is_root and is_self_signed(item))]
    entries = []
    for audit in audits:
        checked = verify_journal(audit)
        if not checked.good:
            raise Refused([f"{audit}: {problem}" for problem in checked.problems])
        held = list(read_entries(audit))
        if held and held[0].get("kind") == "opened":
            raise AlbatrossError(
                f"{audit}: is the ledger of a CA, not an audit log",
                hint="servers have audit.log in the state directory of albatross-authorise",
            )
        entries += held
    keys = frozenset(item.spki_sha256.hex() for item in own)
    digests = frozenset(item.digest.hex() for item in own)  # a renewed certificate of the same key counts as well
    seen, findings = reconcile(view, keys, digests, entries, is_root=is_root)
    others = sum(entry.get("anchor") not in digests for entry in entries if entry.get("anchor")) if is_root else 0
    if others:
        options.note(f"{others} entries are of chains that end at other roots, and were not looked at")
    for finding in findings:
        subject = printable(finding.subject, 64)
        click.echo(f"{finding.serial} ({subject}) {finding.problem}; first seen {printable(finding.first_seen, 40)}")
    click.echo(f"{seen} certificates of {signer.title} were used, {len(findings)} to look into")
    return int(ExitCode.CHAIN if findings else ExitCode.OK)
