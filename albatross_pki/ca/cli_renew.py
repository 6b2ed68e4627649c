"""``renew``: parse, call, write, say."""

import click

from albatross_pki.ca import cli_options as options
from albatross_pki.ca.cli_sign import plan_words
from albatross_pki.ca.csr import read_request
from albatross_pki.ca.issue import issue_plan
from albatross_pki.ca.issuer import Issuer, is_self_signed
from albatross_pki.ca.keys import ask_passphrase, is_encrypted
from albatross_pki.ca.ledger import Ledger, stored_dialect
from albatross_pki.ca.openssl import openssl_refuses
from albatross_pki.ca.plan import make_plan
from albatross_pki.ca.renewal import as_request, check_renewable, lifetime_of, renewal_terms
from albatross_pki.ca.reuse import Allowances
from albatross_pki.ca.root import make_root
from albatross_pki.errors import AlbatrossError
from albatross_pki.files import PRIVATE, PUBLIC, make_file, read_file
from albatross_pki.keys import KeyType, PrivateKey, PublicKey, generate_key, key_pem
from albatross_pki.pem import CERTIFICATE, armour, bundle, certificates
from albatross_pki.policy.certificates import CertificateFacts, read_certificate
from albatross_pki.policy.roles import Dialect
from albatross_pki.text import printable


@click.command()
@options.signer_arguments
@click.argument("certificate", metavar="CERT", type=options.existing)
@click.option("--days", type=options.days_type, help="Validity; by default as long as before.")
@click.option("--new-key", metavar="FILE", type=click.Path(dir_okay=False), help="With a new key, made in this file.")
@click.option("--request", metavar="CSR", type=options.existing, help="With the key of this request.")
@options.key_type_option
@options.dialect_option
@options.root_option
@options.passphrase_option
@click.option("-o", "--output", type=click.Path(dir_okay=False, allow_dash=True), help="Instead of replacing CERT.")
def renew(
    cacert: str,
    database: str,
    key: str,
    certificate: str,
    days: int | None,
    new_key: str | None,
    request: str | None,
    key_type: str,
    dialect: str | None,
    root: str | None,
    passphrase_file: str | None,
    output: str | None,
) -> None:
    """Issue CERT once more: same rights and place, new serial and validity.

    The root renews itself: CERT is CACERT. With a new key a root needs a place among the servers' roots beside the
    old one until everything below it is renewed; the file then holds both.

    \b
        albatross-provision-ca renew cacert.pem db ca.key dev.pem --days 365
        albatross-provision-ca renew cacert.pem db ca.key cacert.pem --new-key ca-2.key -o cacert-2.pem
    """
    if new_key is not None and request is not None:
        raise AlbatrossError("--new-key and --request exclude each other")
    now = options.utc_now()
    issuer = options.read_signer(cacert, key, root, passphrase_file)
    old = read_certificate(certificates(read_file(certificate), certificate)[0])
    if new_key is not None:
        options.refuse_unwritable(new_key)
    made = generate_key(KeyType(key_type)) if new_key is not None else None
    root_protected = new_key is not None and is_self_signed(old) and is_encrypted(key)
    passphrase = ask_passphrase(new_key or "", passphrase_file, twice=True) if root_protected else None
    target = output or certificate
    options.refuse_unwritable(target, force=output is None)
    with Ledger.open(database, now=now) as ledger:
        options.note_clock(ledger, now)
        check_renewable(old, issuer, ledger.view)
        chosen = Dialect(dialect) if dialect is not None else stored_dialect(database)
        if is_self_signed(old):
            content = _new_root(old, issuer, made, chosen, ledger, days)
        else:
            public = made.public_key() if made is not None else _requested_key(request)
            terms = renewal_terms(old, chosen, options.days(days))
            facts = as_request(old, public, certificate)
            plan = make_plan(facts, issuer, terms, now)
            options.tell(plan_words(plan, facts, issuer))
            allowances = Allowances(share_label=public is not None)
            judge = openssl_refuses
            renewed = issue_plan(plan, issuer, ledger, now=now, allowances=allowances, second_judge=judge)
            content = bundle(list(renewed.bundle))
    if new_key is not None and made is not None:
        make_file(new_key, key_pem(made, passphrase), PRIVATE)
    make_file(target, content, PUBLIC, replace=output is None)
    options.tell([f"renewed {old.title} in {printable(target)}"])
    if made is not None and is_self_signed(old):
        options.note("servers need both roots until everything below the old one is renewed")
    elif made is not None or request is not None:
        options.note(f"the old key stays good: revoke {old.serial:x} when the new one is in use")


def _requested_key(request: str | None) -> PublicKey | None:
    return None if request is None else read_request(read_file(request), request).public_key


def _new_root(
    old: CertificateFacts, issuer: Issuer, made: PrivateKey | None, dialect: Dialect, ledger: Ledger, days: int | None
) -> bytes:
    if not is_self_signed(issuer.certificate):
        raise AlbatrossError(f"{old.title} is a root, and only its own key renews it")
    der, record = make_root(
        old.common_name or "",
        made if made is not None else issuer.key,
        dialect,
        options.days(days) or lifetime_of(old),
        options.utc_now(),
    )
    ledger.record(record.entry())
    return armour(CERTIFICATE, der)
