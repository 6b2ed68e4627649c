"""``albatross-quickstart``: the whole story in one command, on this machine, cleaned up afterwards."""

import os

import click

from albatross_pki import __version__
from albatross_pki.console_script import run


@click.command(help="From a certificate authority to a running unikernel on this machine, cleaned up afterwards.")
@click.option("--keep", type=click.Path(), metavar="DIR", help="Do it in DIR, and leave everything running there.")
@click.option("--unikernels", type=click.Path(exists=True, file_okay=False), help="Where the example images are.")
@click.version_option(__version__, message="version %(version)s protocol version 5")
def program(keep: str | None, unikernels: str | None) -> None:
    from albatross_pki.client.quickstart import tell

    if os.environ.get("NO_COLOR"):
        click.get_current_context().color = False
    tell(unikernels, keep)


def main() -> None:
    run(program)
