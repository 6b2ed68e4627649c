"""``albatross-client-local``: commands for the daemons of this host, over their unix sockets."""

from typing import Any

import click

from albatross_pki import __version__
from albatross_pki.client.options import (
    LOCAL_WORDS,
    SIGNED_WORDS,
    client_commands,
    local_options,
    reception_of,
)
from albatross_pki.command_line import Commands, TypedCommand
from albatross_pki.console_script import run


def submit(typed: TypedCommand, how: dict[str, Any]) -> None:
    """Send what was typed to a daemon of this host and show the answer."""
    from albatross_pki.client.local import send_locally
    from albatross_pki.client.receive import receive

    where = how["socket"] or how["tmpdir"]
    receive(
        reception_of(how),
        typed.name,
        typed.command,
        lambda on_success, on_data: send_locally(typed, where, on_success, on_data),
    )


program = Commands(
    "albatross-client-local",
    commands=client_commands(submit, (*SIGNED_WORDS, *LOCAL_WORDS), local_options),
    help="Commands for the daemons of this host, over their unix sockets.",
)
click.version_option(__version__, message="version %(version)s protocol version 5")(program)


def main() -> None:
    run(program)
