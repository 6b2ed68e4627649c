"""``albatross-client-local``: commands for the daemons of this host, over their unix sockets."""

from typing import TYPE_CHECKING, Any

from albatross_pki.client import version
from albatross_pki.errors import AlbatrossError

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

    from albatross_pki.client.consoles import Send
    from albatross_pki.command_line import TypedCommand


def submit(typed: "TypedCommand", how: dict[str, Any]) -> None:
    """Send what was typed to a daemon of this host and show the answer."""
    from albatross_pki.client.local import send_locally
    from albatross_pki.client.options import reception_of
    from albatross_pki.client.receive import receive

    wait = _waiting(typed, how)
    receive(
        reception_of(how),
        typed.name,
        typed.command,
        lambda on_success, on_data: send_locally(typed, how["tmpdir"], how["socket"], on_success, on_data),
    )
    wait()


def _waiting(typed: "TypedCommand", how: dict[str, Any]) -> "Callable[[], None]":
    """What comes after the answer; options that do not fit are refused before anything is sent."""
    if not (how.get("wait") or how.get("wait_for") or how.get("rollback_on_failure")):
        return lambda: None
    from albatross_pki.client.local import send_locally
    from albatross_pki.client.wait import Waiting, patience_of

    patience = patience_of(how)
    if how["socket"] is not None:
        raise AlbatrossError("--wait asks another socket than --socket", hint="name the directory with --tmpdir")

    def wait() -> None:
        if patience is not None:
            Waiting(
                lambda asked, *take: send_locally(asked, how["tmpdir"], None, *take), typed.name, "localhost", patience
            ).wait()

    return wait


def sender(how: dict[str, Any]) -> "Send":
    """What sends a command to the daemons that the options name."""
    from albatross_pki.client.local import send_locally

    return lambda typed, on_success, on_data: send_locally(typed, how["tmpdir"], how["socket"], on_success, on_data)


def update_command() -> "click.Command":
    """``update`` over the sockets of this host."""
    from albatross_pki.client.options import local_options, output_options
    from albatross_pki.client.update_cli import update_command

    return update_command(sender, [*local_options(), *output_options()])


def console_command() -> "click.Command":
    """``console`` over the console's socket."""
    from albatross_pki.client.console_cli import console_command
    from albatross_pki.client.options import local_options, output_options

    return console_command(sender, [*local_options(), *output_options()])


def top_command() -> "click.Command":
    """``top`` over the socket of the statistics."""
    from albatross_pki.client.options import local_options, output_options
    from albatross_pki.client.top_cli import top_command

    return top_command(sender, [*local_options(), *output_options()])


def apply_commands() -> "dict[str, Callable[[], click.Command]]":
    """``plan`` and ``apply`` over the sockets of this host."""

    def make(word: str) -> "click.Command":
        from albatross_pki.client import apply_cli
        from albatross_pki.client.apply import local_target
        from albatross_pki.client.options import local_options, output_options

        options = [*local_options(), *output_options()]
        return apply_cli.COMMANDS[word](local_target, options, local=True)

    return {word: lambda word=word: make(word) for word in ("plan", "apply")}  # type: ignore[misc]  # a default binds it


def program() -> "click.Command":
    """The command line."""
    import click

    from albatross_pki.client.options import (
        EXTENDED_WORDS,
        LOCAL_WORDS,
        SIGNED_WORDS,
        ClientProgram,
        client_commands,
        local_options,
    )

    group = ClientProgram(
        "albatross-client-local",
        {
            **client_commands(submit, (*SIGNED_WORDS, *LOCAL_WORDS, *EXTENDED_WORDS), local_options),
            "console": console_command,
            "top": top_command,
            "update": update_command,
            **apply_commands(),
        },
        help="Commands for the daemons of this host, over their unix sockets.",
    )
    return click.version_option(message=version.TEXT)(group)


def main() -> None:
    """Entry point of the console script."""
    if not version.asked():
        from albatross_pki.console_script import run

        run(program())
