"""``albatross-client-bistro``: one command, signed in memory and sent through TLS, its answer shown."""

from typing import Any

import click

from albatross_pki import __version__
from albatross_pki.client.options import (
    EXTENDED_WORDS,
    SIGNED_WORDS,
    client_commands,
    destination_option,
    reception_of,
    remote_options,
    server_of,
    signer_of,
)
from albatross_pki.command_line import Commands, TypedCommand
from albatross_pki.console_script import run


def submit(typed: TypedCommand, how: dict[str, Any]) -> None:
    """Sign what was typed, send it to a host, and show the answer."""
    from albatross_pki.client.receive import receive
    from albatross_pki.client.remote import send_one_shot

    receive(
        reception_of(how),
        typed.name,
        typed.command,
        lambda on_success, on_data: send_one_shot(typed, signer_of(how), server_of(how), on_success, on_data),
    )


program = Commands(
    "albatross-client-bistro",
    commands=client_commands(
        submit,
        (*SIGNED_WORDS, *EXTENDED_WORDS),
        lambda: [destination_option(default="localhost:1025"), *remote_options()],
    ),
    help="One command, signed in memory with your delegation and sent to a host through TLS.",
)
click.version_option(__version__, message="version %(version)s protocol version 5")(program)


def main() -> None:
    run(program)
