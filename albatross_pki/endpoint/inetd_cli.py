"""``albatross-tls-inetd``: the endpoint for one connection on standard input, started by inetd for each."""

from typing import Any

import click

from albatross_pki.console_script import run
from albatross_pki.endpoint import cli


@click.command(context_settings={"help_option_names": ["--help"]}, params=list(cli.command.params))
def command(**options: Any) -> int:
    """Serve the connection on standard input; logs to the syslog unless told otherwise.

    The bounds on all connections together are inetd's to hold: this program sees one.

    \b
    EXAMPLES (inetd.conf)
      1025 stream tcp6 nowait.60 albatross-tls /usr/bin/albatross-tls-inetd albatross-tls-inetd
        --quiet cacert.pem server.pem server.key
    """
    options["inetd"] = True
    if not options["syslog"] and options["verbosity"] is None:
        options["quiet"] = True  # standard output is the client
    return cli.serve(options)


def main() -> None:
    run(command)
