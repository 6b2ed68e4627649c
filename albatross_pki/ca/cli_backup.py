"""``backup`` and ``restore``."""

import click

from albatross_pki.ca import cli_options as options
from albatross_pki.ca.backup import make_backup, restore_backup
from albatross_pki.ca.keys import PKCS11


@click.command()
@options.signer_arguments
@click.argument("archive", metavar="ARCHIVE", type=click.Path(dir_okay=False))
def backup(cacert: str, database: str, key: str, archive: str) -> None:
    """Put a CA into one file: certificate, database, ledger, and the key if it is a file.

    The key is copied as it is, encrypted or not; one on a token stays there. Keep the head that is printed elsewhere:
    it shows later that the backup is the one that was made.

    \b
        albatross-provision-ca backup cacert.pem db ca.key ca.backup
    """
    in_file = None if key.startswith(PKCS11) else key
    head = make_backup(cacert, database, in_file, archive, options.utc_now())
    if in_file is None:
        options.note("the key is on a token and not in the backup")
    click.echo(f"head {head}")


@click.command()
@click.argument("archive", metavar="ARCHIVE", type=options.existing)
@click.argument("directory", metavar="DIRECTORY", type=click.Path(file_okay=False))
@click.option("--db", "database", default="db", show_default=True, help="Name of the database file.")
def restore(archive: str, directory: str, database: str) -> None:
    """Bring a CA back from a backup into an empty directory.

    What was issued after the backup is not in it: compare with the servers (ledger reconcile), and revoke what is not
    known. CRL numbers go on rising.

    \b
        albatross-provision-ca restore ca.backup new-laptop
    """
    head = restore_backup(archive, directory, database, options.utc_now())
    click.echo(f"head {head}")
    options.note("certificates issued since this backup are not in it: albatross-provision-ca ledger reconcile")
