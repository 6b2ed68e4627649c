"""``inspect``: what a file is and says."""

import json
import sys

import click

from albatross_pki.ca import cli_options as options
from albatross_pki.ca.inspection import inspect_file, lines
from albatross_pki.files import read_file


@click.command()
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(dir_okay=False, allow_dash=True))
@options.json_option
def inspect(files: tuple[str, ...], as_json: bool) -> None:
    """Say what a file holds: certificate, bundle, request, revocation list, key, state dump.

    Of a request or certificate that makes a unikernel run, the digests that --only-image and --only-deployment take
    are shown too. Nothing is judged: that is what verify does.

    \b
        albatross-provision-ca inspect dev.req
    """
    documents = [document for file in files for document in inspect_file(read_file(file), file)]
    if as_json:
        sys.stdout.write(json.dumps(documents, indent=1) + "\n")
        return
    sys.stdout.write("\n\n".join("\n".join(lines(document)) for document in documents) + "\n")
