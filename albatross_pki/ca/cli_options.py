"""Parameters and small steps that several verbs share: reading signers, naming output files, asking for a role."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from albatross_pki.console_script import say
from albatross_pki.errors import AlbatrossError
from albatross_pki.files import STANDARD, FileExists, read_file
from albatross_pki.policy.roles import Dialect, Role
from albatross_pki.text import printable

if TYPE_CHECKING:
    from albatross_pki.ca.issuer import Issuer
    from albatross_pki.ca.ledger import Issued, Ledger

F = TypeVar("F", bound=Callable[..., Any])
ROOT_NAME = "cacert.pem"
KEY_TYPES = ("ed25519", "p256", "p384", "p521", "rsa2048", "rsa4096")
_BITS = "albatross_pki.bits"  # in a context's meta
ROLES = ("delegation", "leaf", "server")
MAX_DAYS = 36500
CLOCK_TOLERANCE = timedelta(minutes=5)

existing = click.Path(exists=True, dir_okay=False)
days_type = click.IntRange(1, MAX_DAYS)

dialect_option = click.option(
    "--dialect", type=click.Choice([kind.value for kind in Dialect]), help="What is written; native by default."
)
passphrase_option = click.option(
    "--passphrase-file", type=existing, help="The first line of this file decrypts the key."
)
force_option = click.option("--force", is_flag=True, help="Replace files that exist.")
json_option = click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
root_option = click.option(
    "--root", type=existing, help=f"The root above CACERT; by default a {ROOT_NAME} beside it that fits."
)


def key_type_option(command: F) -> F:
    """``--key-type``, and ``--bits`` for its ``rsa``, as in Albatross 1.x; the value is one of ``KEY_TYPES``."""

    def sized(ctx: click.Context, _: click.Parameter, kind: str) -> str:
        return f"rsa{ctx.meta[_BITS]}" if kind == "rsa" else kind

    def take_bits(ctx: click.Context, _: click.Parameter, bits: str) -> None:
        ctx.meta[_BITS] = bits

    kinds = click.Choice([*KEY_TYPES, "rsa"])
    command = click.option("--key-type", type=kinds, default="ed25519", show_default=True, callback=sized)(command)
    return click.option(
        "--bits",
        type=click.Choice(["2048", "4096"]),
        default="4096",
        help="With --key-type rsa.",
        is_eager=True,
        expose_value=False,
        callback=take_bits,
    )(command)


def signer_arguments(function: F) -> F:
    """CACERT DB KEY, in the order that Albatross 1.x has."""
    for argument in (
        click.argument("key", metavar="KEY"),
        click.argument("database", metavar="DB", type=click.Path(dir_okay=False)),
        click.argument("cacert", metavar="CACERT", type=existing),
    ):
        function = argument(function)
    return function


def utc_now() -> datetime:
    return datetime.now(UTC)


def days(number: int | None) -> timedelta | None:
    return None if number is None else timedelta(days=number)


def read_signer(cacert: str, key: str, root: str | None, passphrase_file: str | None) -> "Issuer":
    """The signer that the files make; the root comes from ``--root`` or from a file beside that fits."""
    from albatross_pki.ca.issuer import assemble
    from albatross_pki.ca.keys import open_key
    from albatross_pki.pem import certificates

    ders = certificates(read_file(cacert), cacert)
    roots: list[bytes] = []
    if root is not None:
        roots = certificates(read_file(root), root)
    else:
        for directory in dict.fromkeys((os.path.dirname(cacert) or ".", ".")):
            candidate = os.path.join(directory, ROOT_NAME)
            if os.path.isfile(candidate):
                roots += certificates(read_file(candidate), candidate)
    issuer = assemble(ders, open_key(key, passphrase_file), cacert, roots)
    if root is not None and issuer.anchor is None:
        raise AlbatrossError(f"{cacert} does not lead to a root in {root}")
    return issuer


def refuse_unwritable(*paths: str, force: bool = False, option: str | None = None) -> None:
    """Refuse early, before anything is recorded, what could not be written later.

    ``option`` is what would replace a file, if the verb has one.
    """
    for path in paths:
        if path == STANDARD:
            continue
        if not force and os.path.lexists(path):
            raise FileExists(path, option)
        directory = os.path.dirname(path) or "."
        if not os.path.isdir(directory):
            raise AlbatrossError(f"{path}: there is no directory {directory}")
        if not os.access(directory, os.W_OK | os.X_OK):
            raise AlbatrossError(f"{path}: no file can be made in {os.path.abspath(directory)}")


@contextmanager
def handing_out(record: "Issued", database: str) -> Iterator[None]:
    """What is said when a recorded certificate cannot be written after all (a full disk)."""
    try:
        yield
    except (OSError, AlbatrossError):
        way_out = f"albatross-provision-ca revoke {database} {record.serial}"
        note(f"serial {record.serial} is recorded and nobody has it: sign again, or {way_out}")
        raise


def note_clock(ledger: "Ledger", now: datetime) -> None:
    """Warn of a clock behind the ledger: of two policies for one path, the one that begins later counts."""
    from albatross_pki.ca.ledger import write_time

    last = ledger.view.last_time
    if write_time(now + CLOCK_TOLERANCE) < last:
        note(f"this machine's clock is at {write_time(now)}, behind the ledger's last entry of {printable(last, 40)}")
        note("servers take the certificate that begins later for the newer one: is the clock right?")


def role_from(word: str | None) -> Role:
    """The role that the operator names, by option or on the terminal; never the request's own idea."""
    if word is None:
        if not sys.stdin.isatty():
            raise AlbatrossError(
                "what is this to become? the operator says it, not the request",
                hint="--as delegation, --as leaf or --as server",
            )
        word = click.prompt("sign it as", type=click.Choice(ROLES), err=True)
    return Role(word)


def tell(lines: list[str]) -> None:
    """Lines for the operator, on standard error: standard output is for what was asked for."""
    for line in lines:
        click.echo(line, err=True)


def note(text: str) -> None:
    say("note", text)
