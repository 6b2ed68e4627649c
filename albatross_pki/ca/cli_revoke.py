"""``revoke`` and ``crl``: parse, call, write, say."""

import hashlib
import os

import click

from albatross_pki.ca import cli_options as options
from albatross_pki.ca.finding import find_certificates, shown_name, to_revoke
from albatross_pki.ca.ledger import REASONS, Ledger, Revoked, serial_text, write_time
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.files import PUBLIC, make_file, read_file
from albatross_pki.names import parse_label
from albatross_pki.pem import CRL, armour, certificates
from albatross_pki.text import printable


@click.command()
@click.argument("database", metavar="DB", type=options.existing)
@click.argument("what", metavar="SERIAL|NAME|FILE")
@click.option("--reason", type=click.Choice(REASONS), default="unspecified", show_default=True)
@click.option("--all", "every", is_flag=True, help="Every good certificate of that name.")
@click.option("--ca", type=options.existing, help="The issuer of a FILE that the ledger does not know.")
def revoke(database: str, what: str, reason: str, every: bool, ca: str | None) -> None:
    """Revoke a certificate: by its serial, by what it is for, or by its file.

    \b
        albatross-provision-ca revoke db dev --reason key-compromise
        albatross-provision-ca crl cacert.pem db ca.key

    Servers know of it when they have the new list. What is below a revoked certificate is revoked with it.
    """
    now = options.utc_now()
    with Ledger.open(database, now=now) as ledger:
        if os.path.isfile(what):
            revoked = _by_file(what, ca, ledger, reason, write_time(now))
        else:
            meant = find_certificates(ledger.view, what)
            if not meant:
                hint = f"albatross-provision-ca list {database}"
                raise Refused([f"the ledger has no certificate {what!r}"], hint=hint)
            found = to_revoke(meant, ledger.view, what, now, every=every)
            revoked = [Revoked(item.serial, item.issuer, reason, write_time(now)) for item in found]
            options.tell([f"revoking {item.role} {shown_name(item)} (serial {item.serial})" for item in found])
        ledger.record_revoked(revoked)
    options.note(f"servers need a new list: albatross-provision-ca crl CACERT {database} KEY")


def _by_file(path: str, ca: str | None, ledger: Ledger, reason: str, time: str) -> list[Revoked]:
    from albatross_pki.ca.issuer import is_signed_by
    from albatross_pki.policy.certificates import read_certificate

    der = certificates(read_file(path), path)[0]
    certificate = read_certificate(der)
    known = ledger.view.issued_where("digest", hashlib.sha256(der).hexdigest())
    if known:
        issuer_key = known[0].issuer
    elif ca is not None:
        issuer = read_certificate(certificates(read_file(ca), ca)[0])
        if not is_signed_by(certificate, issuer):
            raise AlbatrossError(f"{path} was not issued by {issuer.title} of {ca}")
        issuer_key = issuer.spki_sha256.hex()
    else:
        raise Refused(
            [f"{path}: the ledger does not know this certificate"],
            hint="if this CA's key signed it all the same, say --ca CACERT",
        )
    serial = serial_text(certificate.serial)
    if (issuer_key, serial) in ledger.view.revocations:
        raise Refused([f"{path} is revoked already"])
    options.tell([f"revoking {certificate.title} (serial {serial})"])
    return [Revoked(serial, issuer_key, reason, time)]


@click.command()
@options.signer_arguments
@click.option("--days", type=options.days_type, default=30, show_default=True, help="When the next list comes.")
@click.option("--pem", is_flag=True, help="PEM instead of DER.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, allow_dash=True), help="Instead of NAME.crl.")
@click.option("--first", is_flag=True, help="The CA has signed nothing with this database yet.")
@options.root_option
@options.passphrase_option
def crl(
    cacert: str,
    database: str,
    key: str,
    days: int,
    pem: bool,
    output: str | None,
    first: bool,
    root: str | None,
    passphrase_file: str | None,
) -> None:
    """Make the list of everything that KEY revoked, for the servers; an older list is replaced.

    Any CA of a chain has its own list: the root's is about delegations, a delegation's about what it signed itself.
    A ledger that was changed, or that has nothing of this CA (--first), is refused: its list would take back
    revocations.

    \b
        albatross-provision-ca crl cacert.pem db ca.key
    """
    from albatross_pki.ca.revocation import listed, make_crl, next_number

    now = options.utc_now()
    issuer = options.read_signer(cacert, key, root, passphrase_file)
    if now < issuer.certificate.not_before:
        raise AlbatrossError(f"{issuer.certificate.title} is not valid yet: is this machine's clock right?")
    issuer_key = issuer.certificate.spki_sha256.hex()
    lifetime = options.days(days)
    assert lifetime is not None
    target = output or f"{parse_label(issuer.certificate.common_name or 'ca')}.crl"
    options.refuse_unwritable(target, force=True)
    opened = (
        Ledger.open(database, now=now) if first else Ledger.of(issuer_key, issuer.certificate.title, database, now=now)
    )
    with opened as ledger:
        ledger.check()
        number = next_number(ledger.view.crl_numbers.get(issuer_key, 0), now)
        made = make_crl(issuer, listed(ledger.view, issuer_key, now), number, now, lifetime)
        ledger.record(
            {
                "kind": "crl",
                "time": write_time(now),
                "issuer": issuer_key,
                "number": made.number,
                "entries": made.entries,
                "next_update": write_time(made.next_update),
                "digest": hashlib.sha256(made.der).hexdigest(),
            }
        )
    make_file(target, armour(CRL, made.der) if pem else made.der, PUBLIC, replace=True)
    entries = f"{made.entries} certificate{'' if made.entries == 1 else 's'}"
    options.tell([f"list number {made.number} of {issuer.certificate.title} revokes {entries}: {printable(target)}"])
