"""``albatross-client-bistro``: one command, signed in memory and sent through TLS, its answer shown."""

from typing import TYPE_CHECKING, Any

from albatross_pki.client import version

if TYPE_CHECKING:
    from collections.abc import Callable

    import click

    from albatross_pki.client.consoles import Send
    from albatross_pki.command_line import TypedCommand


def submit(typed: "TypedCommand", how: dict[str, Any]) -> None:
    """Sign what was typed, send it to a host, and show the answer."""
    from albatross_pki.client.options import reception_of, server_of, signer_of
    from albatross_pki.client.receive import receive
    from albatross_pki.client.remote import send_one_shot, warn_of_arguments

    wait = _waiting(typed, how)
    warn_of_arguments([typed.command], quiet=how["quiet"])
    receive(
        reception_of(how),
        typed.name,
        typed.command,
        lambda on_success, on_data: send_one_shot(typed, signer_of(how), server_of(how), on_success, on_data),
    )
    wait()


def _waiting(typed: "TypedCommand", how: dict[str, Any]) -> "Callable[[], None]":
    """What comes after the answer; options that do not fit are refused before anything is sent."""
    if not (how.get("wait") or how.get("wait_for") or how.get("rollback_on_failure")):
        return lambda: None
    from albatross_pki.client.options import server_of, signer_of
    from albatross_pki.client.remote import send_one_shot
    from albatross_pki.client.wait import Waiting, patience_of

    patience, signer, server = patience_of(how), signer_of(how), server_of(how)

    def wait() -> None:
        if patience is not None:
            Waiting(
                lambda asked, *take: send_one_shot(asked, signer, server, *take), typed.name, server.host, patience
            ).wait()

    return wait


def sender(how: dict[str, Any]) -> "Send":
    """What signs a command and sends it to the host that the options name."""
    from albatross_pki.client.options import server_of, signer_of
    from albatross_pki.client.remote import send_one_shot

    signer, server = signer_of(how), server_of(how)
    return lambda typed, on_success, on_data: send_one_shot(typed, signer, server, on_success, on_data)


def _options() -> "list[click.Parameter]":
    from albatross_pki.client.options import destination_option, output_options, remote_options

    return [destination_option(default="localhost:1025"), *remote_options(), *output_options()]


def update_command() -> "click.Command":
    """``update`` through TLS: two certificates are signed, one to ask and one to create."""
    from albatross_pki.client.update_cli import update_command

    return update_command(sender, _options())


def console_command() -> "click.Command":
    """``console`` through TLS: a certificate is signed for each unikernel."""
    from albatross_pki.client.console_cli import console_command

    return console_command(sender, _options())


def top_command() -> "click.Command":
    """``top`` through TLS."""
    from albatross_pki.client.top_cli import top_command

    return top_command(sender, _options())


def apply_commands() -> "dict[str, Callable[[], click.Command]]":
    """``plan`` and ``apply`` through TLS, every command signed with the delegation."""

    def make(word: str) -> "click.Command":
        from albatross_pki.client import apply_cli
        from albatross_pki.client.apply import remote_target

        return apply_cli.COMMANDS[word](lambda how, _: remote_target(how), _options(), local=False)

    return {word: lambda word=word: make(word) for word in ("plan", "apply")}  # type: ignore[misc]  # a default binds it


def program() -> "click.Command":
    """The command line."""
    import click

    from albatross_pki.client.options import (
        EXTENDED_WORDS,
        SIGNED_WORDS,
        ClientProgram,
        client_commands,
        destination_option,
        remote_options,
    )

    commands = client_commands(
        submit,
        (*SIGNED_WORDS, *EXTENDED_WORDS),
        lambda: [destination_option(default="localhost:1025"), *remote_options()],
    )
    group = ClientProgram(
        "albatross-client-bistro",
        {
            **commands,
            "console": console_command,
            "top": top_command,
            "update": update_command,
            **apply_commands(),
        },
        help="One command, signed in memory with your delegation and sent to a host through TLS.",
    )
    return click.version_option(message=version.TEXT)(group)


def main() -> None:
    """Entry point of the console script."""
    if not version.asked():
        from albatross_pki.console_script import run

        run(program())
