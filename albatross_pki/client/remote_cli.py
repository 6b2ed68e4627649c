"""``albatross-client-remote-tls``: send a bundle that a CA has signed, and show the answer."""

from typing import Any

import click

from albatross_pki import __version__
from albatross_pki.client.options import (
    DESTINATION,
    extra_options,
    output_options,
    reception_of,
    server_identity_options,
    server_of,
)
from albatross_pki.console_script import run


def send(cert: str, key: str, server_ca: str, stream: str | None, how: dict[str, Any]) -> None:
    """Send the command inside ``cert`` and show the answer."""
    from albatross_pki.client.credentials import signed
    from albatross_pki.client.receive import receive
    from albatross_pki.client.remote import send_signed

    credentials = signed(cert, key, server_ca)
    receive(
        reception_of(how),
        credentials.name,
        credentials.command,
        lambda on_success, on_data: send_signed(
            credentials, server_of(how | {"server_ca": server_ca}), stream, on_success, on_data
        ),
    )


def _called(ca: str, cert: str, key: str, destination: tuple[str, int], stream: str | None, **how: Any) -> None:
    send(cert, key, ca, stream, how | {"destination": destination})


def stream_option() -> click.Option:
    return click.Option(["--stream"], type=click.Path(exists=True, dir_okay=False), help="Image or content to send.")


_FILE = click.Path(exists=True, dir_okay=False)

program = click.Command(
    "albatross-client-remote-tls",
    callback=_called,
    params=[
        click.Argument(["ca"], type=_FILE, metavar="CA"),
        click.Argument(["cert"], type=_FILE, metavar="CERT"),
        click.Argument(["key"], type=_FILE, metavar="KEY"),
        click.Argument(["destination"], type=DESTINATION, metavar="HOST[:PORT]"),
        stream_option(),
        *server_identity_options(),
        *extra_options(),
        *output_options(),
    ],
    help="Send the command in CERT (leaf first, then those above it), whose key is KEY, to a host below the root CA.",
)
click.version_option(__version__, message="version %(version)s protocol version 5")(program)


def main() -> None:
    run(program)
