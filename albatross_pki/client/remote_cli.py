"""``albatross-client-remote-tls``: send a bundle that a CA has signed, and show the answer."""

from typing import TYPE_CHECKING, Any

from albatross_pki.client import version

if TYPE_CHECKING:
    import click


def send(cert: str, key: str, server_ca: str, stream: str | None, how: dict[str, Any]) -> None:
    """Send the command inside ``cert`` and show the answer."""
    from albatross_pki.client.credentials import signed
    from albatross_pki.client.options import reception_of, server_of
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


def program() -> "click.Command":
    """The command line."""
    import click

    from albatross_pki.client.options import (
        DESTINATION,
        Explained,
        as_upstream_says,
        extra_options,
        output_options,
        server_identity_options,
        stream_option,
    )

    def called(ca: str, cert: str, key: str, destination: tuple[str, int], stream: str | None, **how: Any) -> None:
        send(cert, key, ca, stream, how | {"destination": destination})

    file = click.Path(exists=True, dir_okay=False)
    command = Explained(
        "albatross-client-remote-tls",
        callback=as_upstream_says(called),
        params=[
            click.Argument(["ca"], type=click.Path(exists=True), metavar="CA"),
            click.Argument(["cert"], type=file, metavar="CERT"),
            click.Argument(["key"], type=file, metavar="KEY"),
            click.Argument(["destination"], type=DESTINATION, metavar="HOST[:PORT]"),
            stream_option(),
            *server_identity_options(),
            *extra_options(),
            *output_options(),
        ],
        help="Send the command in CERT (leaf first, then those above it) to a host below the root CA. KEY: the leaf's.",
    )
    return click.version_option(message=version.TEXT)(command)


def main() -> None:
    """Entry point of the console script."""
    if not version.asked():
        from albatross_pki.console_script import run

        run(program())
