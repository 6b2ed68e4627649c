"""``generate`` and ``sign``: parse, call, write, say."""

import click

from albatross_pki.ca import cli_options as options
from albatross_pki.ca.certify import certify
from albatross_pki.ca.csr import RequestFacts, read_request
from albatross_pki.ca.issue import NO_ALLOWANCES, Certified, issue_plan, record_of
from albatross_pki.ca.issuer import Issuer, assemble
from albatross_pki.ca.keys import PKCS11, ask_passphrase, open_key, open_or_generate
from albatross_pki.ca.ledger import Ledger, stored_dialect
from albatross_pki.ca.openssl import openssl_refuses
from albatross_pki.ca.plan import Plan, Terms, make_plan
from albatross_pki.ca.reuse import Allowances, enforce_reuse
from albatross_pki.ca.root import make_root
from albatross_pki.ca.words import command_words, constraints_words, moment
from albatross_pki.errors import AlbatrossError
from albatross_pki.files import PRIVATE, PUBLIC, make_file, read_file
from albatross_pki.keys import KeyType, PrivateKey, describe_key, key_pem
from albatross_pki.names import Name, parse_label
from albatross_pki.pem import CERTIFICATE, armour, bundle
from albatross_pki.policy.roles import Dialect, Role
from albatross_pki.text import printable

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@click.command()
@click.argument("name", metavar="NAME")
@click.argument("database", metavar="DB", type=click.Path(dir_okay=False))
@click.option("--days", type=options.days_type, default=3650, show_default=True, help="Validity of the root.")
@click.option("--server", default="server", show_default=True, help="Label of the server: files and common name.")
@click.option("--server-days", type=options.days_type, default=365, show_default=True)
@click.option(
    "--server-name",
    "--server-address",
    "host_names",
    multiple=True,
    metavar="HOST",
    help="A name or address that clients use for the server (repeatable; by default this machine alone).",
)
@options.key_type_option
@options.dialect_option
@click.option("--key", "token", metavar="URI", help="A pkcs11: URI (RFC 7512): the CA's key is there, not in a file.")
@click.option("--passphrase", "encrypted", is_flag=True, help="Encrypt NAME.key with a passphrase that is asked for.")
@options.passphrase_option
@options.force_option
def generate(
    name: str,
    database: str,
    days: int,
    server: str,
    server_days: int,
    host_names: tuple[str, ...],
    key_type: str,
    dialect: str | None,
    token: str | None,
    encrypted: bool,
    passphrase_file: str | None,
    force: bool,
) -> None:
    """Make a root CA and a server certificate in this directory.

    \b
    NAME  the name of the CA; its key is NAME.key, used if it exists
    DB    the database file; its ledger is DB.ledger

    Written are NAME.key, cacert.pem, SERVER.key and SERVER.pem. Example:

    \b
        albatross-provision-ca generate ca db --server-name unikernels.example.org
    """
    if parse_label(name) == parse_label(server):
        raise AlbatrossError(
            f"the CA and its server cannot both be called {name}: each has a key in NAME.key",
            hint="--server LABEL gives the server another name",
        )
    options.refuse_unwritable(options.ROOT_NAME, f"{server}.pem", force=force, option="--force")
    now = options.utc_now()
    chosen = Dialect(dialect or "native")
    if not host_names and chosen is Dialect.NATIVE:
        host_names = LOCAL_NAMES
        options.note("the server certificate is for this machine alone (localhost); --server-name HOST for another")
    files: dict[str, bytes] = {}  # keys that are new
    key = _ca_key(name, key_type, token, encrypted, passphrase_file, files)
    lifetime = options.days(days)
    assert lifetime is not None
    root, record = make_root(name, key, chosen, lifetime, now)
    issuer = assemble([root], key, options.ROOT_NAME)
    server_key, is_new = open_or_generate(f"{server}.key", KeyType(key_type))
    if is_new:
        files[f"{server}.key"] = key_pem(server_key)
    request = RequestFacts(b"", server, server_key.public_key(), host_names=host_names)
    plan = make_plan(request, issuer, Terms(Role.SERVER, chosen, lifetime=options.days(server_days)), now)
    made = certify(plan, issuer, now=now)
    server_record = record_of(plan, issuer, made.bundle[0], made.serial, now)
    with Ledger.open(database, now=now, dialect=chosen) as ledger:
        enforce_reuse(plan, issuer, ledger.view, NO_ALLOWANCES, now)
        for path, pem in files.items():
            make_file(path, pem, PRIVATE)
        ledger.record_issued([record, server_record])
    make_file(options.ROOT_NAME, armour(CERTIFICATE, root), PUBLIC, replace=force)
    make_file(f"{server}.pem", bundle(list(made.bundle)), PUBLIC, replace=force)


def _ca_key(
    name: str,
    key_type: str,
    token: str | None,
    encrypted: bool,
    passphrase_file: str | None,
    files: dict[str, bytes],
) -> PrivateKey:
    """The CA's key; a new one is put into ``files``."""
    if token is not None:
        if not token.startswith(PKCS11):
            raise AlbatrossError("--key takes a pkcs11: URI", hint=f"a key in a file is read from {name}.key")
        return open_key(token)
    where = f"{name}.key"
    key, is_new = open_or_generate(where, KeyType(key_type), passphrase_file)
    if is_new:
        wanted = encrypted or passphrase_file is not None
        files[where] = key_pem(key, ask_passphrase(where, passphrase_file, twice=True) if wanted else None)
    return key


@click.command()
@options.signer_arguments
@click.argument("csr", metavar="CSR", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--as", "role", type=click.Choice(options.ROLES), help="What the request becomes; asked for, if absent.")
@click.option("--days", type=options.days_type, help="Validity: 365 for delegations and servers, 1 for leaves.")
@click.option("--path-length", type=click.IntRange(0, 8), help="So many delegations may follow below this one.")
@click.option("--server-name", "--server-address", "host_names", multiple=True, metavar="HOST", help="For --as server.")
@click.option("--reusable", is_flag=True, help="A leaf that changes something may be used again and again.")
@click.option("--unbound", is_flag=True, help="Sign a leaf that lets any image at all follow on the connection.")
@click.option("--share-label", is_flag=True, help="Give the label of another key's delegation to this one, too.")
@click.option("--reuse-label", is_flag=True, help="Give the label that another key had before to this one.")
@click.option("--revoke-older", is_flag=True, help="Revoke this key's older certificates with other rights.")
@click.option("--accept-plain-intermediates", is_flag=True, help="A CA above may lack policy and constraints.")
@options.dialect_option
@options.root_option
@options.passphrase_option
@click.option("-o", "--output", type=click.Path(dir_okay=False, allow_dash=True), help="Instead of LABEL.pem.")
@options.force_option
def sign(
    cacert: str,
    database: str,
    key: str,
    csr: str,
    role: str | None,
    days: int | None,
    path_length: int | None,
    host_names: tuple[str, ...],
    reusable: bool,
    unbound: bool,
    share_label: bool,
    reuse_label: bool,
    revoke_older: bool,
    accept_plain_intermediates: bool,
    dialect: str | None,
    root: str | None,
    passphrase_file: str | None,
    output: str | None,
    force: bool,
) -> None:
    """Sign a request; the new certificate and the chain above it go to LABEL.pem.

    \b
    CACERT  the certificate that signs, with those above it behind it (a bundle as written by sign)
    DB      the signer's database file; its ledger is DB.ledger
    KEY     the key of the first certificate in CACERT: a file or a pkcs11: URI
    CSR     the request, - for standard input

    What is signed is shown first. The finished certificate is judged with the code of the server; what would be
    refused there is not handed out. Example:

    \b
        albatross-provision-ca sign cacert.pem db ca.key dev.req --as delegation
    """
    now = options.utc_now()
    request = read_request(read_file(csr), csr)
    wanted = options.role_from(role)
    issuer = options.read_signer(cacert, key, root, passphrase_file)
    terms = Terms(
        role=wanted,
        dialect=Dialect(dialect) if dialect is not None else stored_dialect(database),
        lifetime=options.days(days),
        path_length=path_length,
        host_names=host_names,
        reusable=reusable,
        unbound=unbound,
        accept_plain_intermediates=accept_plain_intermediates,
    )
    allowances = Allowances(share_label, reuse_label, revoke_older)
    plan = make_plan(request, issuer, terms, now)
    target = output or output_name(plan)
    options.refuse_unwritable(target, force=force, option="--force")
    options.tell(plan_words(plan, request, issuer))
    with Ledger.open(database, now=now, dialect=terms.dialect) as ledger:
        options.note_clock(ledger, now)
        if ledger.view.issued and not ledger.view.knows(issuer.certificate.spki_sha256.hex()):
            options.note(
                f"{database}.ledger has nothing that {issuer.certificate.title} issued so far: it is another CA's"
            )
        certified = issue_plan(
            plan,
            issuer,
            ledger,
            now=now,
            allowances=allowances,
            accept_plain=accept_plain_intermediates,
            second_judge=openssl_refuses,
        )
    with options.handing_out(certified.record, database):
        make_file(target, bundle(list(certified.bundle)), PUBLIC, replace=force)
    _report(certified, target)


def output_name(plan: Plan) -> str:
    """The file that a certificate goes to: ``LABEL.pem``, or ``path-WORD.pem`` if it is about a path itself."""
    return f"path-{plan.word}.pem" if plan.is_about_path else f"{plan.label}.pem"


def plan_words(plan: Plan, request: RequestFacts, issuer: Issuer) -> list[str]:
    """What is about to be signed, in plain words."""
    lines = [f"signing {plan.role.value} {_about(plan)} below {issuer.certificate.title}"]
    if plan.command is not None:
        lines += [f"  {line}" for line in command_words(plan.command, plan.binding)]
    if plan.constraints is not None:
        lines += [f"  {line}" for line in constraints_words(plan.constraints)]
    if plan.path_length is not None:
        lines.append(f"  {plan.path_length or 'no'} further delegation{'s' if plan.path_length != 1 else ''} below it")
    if plan.host_names:
        lines.append(f"  server for {' '.join(plan.host_names)}")
    if request.ignored:
        lines.append(f"  left out, though asked for: {' '.join(request.ignored)}")
    lines.append(f"  key {describe_key(plan.key)}, valid until {moment(plan.not_after)}")
    return lines


def _about(plan: Plan) -> str:
    """What the certificate is about: ``dev:hello``, ``the path dev:``; of servers and permissions their own name."""
    if plan.role is Role.DELEGATION:
        return str(plan.path)
    if plan.role is not Role.LEAF:
        return printable(plan.label)
    return f"the path {Name(plan.path)}" if plan.is_about_path else str(Name(plan.path, plan.label))


def _report(certified: Certified, target: str) -> None:
    for revoked in certified.revoked:
        options.note(f"revoked {revoked.serial} in the same act: publish a new crl")
    for note in certified.notes:
        options.note(note)
    options.tell([f"signed {certified.record.label} (serial {certified.record.serial}) into {printable(target)}"])
