"""``albatross-client``: the command line of Albatross 2.x, everything in one program.

Where a command goes: to a daemon of this host (``--socket``, or the sockets below ``--tmpdir``), through TLS
(``--destination``), or into a signing request (``--csr``); one of them. ``certificate`` sends what was signed before;
``generate`` and ``sign`` are those of ``albatross-provision-ca``.
"""

from typing import TYPE_CHECKING, Any

from albatross_pki.client import version
from albatross_pki.errors import AlbatrossError

if TYPE_CHECKING:
    import click

    from albatross_pki.client.consoles import Send
    from albatross_pki.command_line import TypedCommand
    from albatross_pki.names import Path


def submit(typed: "TypedCommand", how: dict[str, Any]) -> None:
    """Do with what was typed what the options say."""
    match _way(how):
        case "csr":
            _write_request(typed, how)
        case "destination":
            _refuse_local_word(typed)
            from albatross_pki.client.bistro_cli import submit as submit_remotely

            submit_remotely(typed, how)
        case _:
            from albatross_pki.client.local_cli import submit as submit_locally

            submit_locally(typed, how)


def _way(how: dict[str, Any]) -> str | None:
    """The one way that was chosen, ``None`` for none: what was typed comes before a host's file and the environment."""
    from click import get_current_context
    from click.core import ParameterSource

    chosen = [way for way in ("csr", "destination", "socket") if how.get(way) not in (None, False)]
    source = get_current_context().get_parameter_source
    origins = {"destination": ("destination", "hosts", "all_hosts")}  # a host that was named is a destination
    typed = [
        way
        for way in chosen
        if any(source(origin) is ParameterSource.COMMANDLINE for origin in origins.get(way, (way,)))
    ]
    ways = typed or chosen
    if len(ways) > 1:
        raise AlbatrossError("the options --csr, --destination, and --socket are mutually exclusive")
    return ways[0] if ways else None


def _refuse_local_word(typed: "TypedCommand") -> None:
    from albatross_pki.commands import PolicyAdd, PolicyRemove, StatsAdd, StatsRemove

    if isinstance(typed.command, PolicyAdd | PolicyRemove):
        other = ", or say --csr for a delegation" if isinstance(typed.command, PolicyAdd) else ""
        raise AlbatrossError(
            "no host obeys this command through TLS: policies come from delegations, and from its operator",
            hint=f"leave --destination away on the host itself{other}",
        )
    if isinstance(typed.command, StatsAdd | StatsRemove):
        raise AlbatrossError(
            "no host obeys this command through TLS: processes are its operator's",
            hint="leave --destination away on the host itself",
        )


def _write_request(typed: "TypedCommand", how: dict[str, Any]) -> None:
    """Write NAME.key and NAME.req as albatross-provision-request does."""
    from dataclasses import replace

    from albatross_pki.commands import UnikernelCreate
    from albatross_pki.request.csr import Wanted, refuse_what_no_leaf_carries, subject_label
    from albatross_pki.request.image import DEFAULT_LEVEL, with_image
    from albatross_pki.request.make import write_request

    if how.get("wait") or how.get("wait_for") or how.get("rollback_on_failure"):
        raise AlbatrossError("nothing is sent with --csr, so there is nothing to wait for")
    refuse_what_no_leaf_carries(typed.name, typed.command, filled=typed.content is not None)
    command, binding = typed.command, None
    if isinstance(command, UnikernelCreate) and typed.image is not None:
        config, binding = with_image(
            command.config,
            typed.image,
            embed=how["dialect"] == "upstream",
            level=DEFAULT_LEVEL if typed.level is None else typed.level,
        )
        command = replace(command, config=config)
    write_request(
        Wanted(subject_label(typed.name, command), command, binding=binding),
        key=None,
        key_type=how["key_type"],
        bits=how["bits"],
        dialect=how["dialect"],
        output=None,
        quiet=how["quiet"],
        overwrite=True,  # as Albatross 2.x does: requests are made again, keys are not
    )


def _certificate(cert: str, key: str, destination: tuple[str, int] | None, server_ca: str, **how: Any) -> None:
    if destination is None:
        raise AlbatrossError("no destination provided", hint="-d HOST[:PORT]")
    from albatross_pki.client.remote_cli import send

    send(cert, key, server_ca, how.pop("stream"), how | {"destination": destination})


def _certificate_command() -> "click.Command":
    import click

    from albatross_pki.client.options import (
        destination_option,
        extra_options,
        output_options,
        server_options,
        stream_option,
    )

    file = click.Path(exists=True, dir_okay=False)
    return click.Command(
        "certificate",
        callback=_certificate,
        params=[
            click.Argument(["cert"], type=file, metavar="CERT"),
            click.Argument(["key"], type=file, metavar="KEY"),
            destination_option(),
            stream_option(),
            *server_options(),
            *extra_options(),
            *output_options(),
        ],
        help="Send the command in a certificate that was signed before (leaf first, then those above it).",
    )


def sender(how: dict[str, Any]) -> "Send":
    """What sends a command where the options say."""
    if _way(how) != "destination":
        from albatross_pki.client.local_cli import sender as local_sender

        return local_sender(how)
    from albatross_pki.client.bistro_cli import sender as remote_sender

    return remote_sender(how)


def _options(*, csr: bool) -> "list[click.Parameter]":
    import click

    from albatross_pki.client.options import destination_option, local_options, remote_options

    if csr:
        request = click.Option(["--csr"], is_flag=True, help="Send nothing; write NAME.key and NAME.req.")
    else:
        request = click.Option(["--csr"], is_flag=True, hidden=True, expose_value=False, callback=_refuse_request)
    return [*local_options(), destination_option(), request, *remote_options()]


def _refuse_request(ctx: "click.Context", _: "click.Parameter", wanted: bool) -> None:
    if wanted:
        instead = "stats --csr" if ctx.info_name == "top" else "create NAME IMAGE --force --csr, for one image"
        raise AlbatrossError(
            f"{ctx.info_name} with CSR not supported: it is more than the one command of a request", hint=instead
        )


def _update_command() -> "click.Command":
    from albatross_pki.client.options import output_options
    from albatross_pki.client.update_cli import update_command

    return update_command(sender, [*_options(csr=False), *output_options()])


def _console_command() -> "click.Command":
    from albatross_pki.client.console_cli import console_command
    from albatross_pki.client.options import output_options

    return console_command(sender, [*_options(csr=True), *output_options()], _write_request)


def _top_command() -> "click.Command":
    from albatross_pki.client.options import output_options
    from albatross_pki.client.top_cli import top_command

    return top_command(sender, [*_options(csr=False), *output_options()])


def _apply_command(word: str) -> "click.Command":
    from albatross_pki.client import apply_cli
    from albatross_pki.client.apply import Target, local_target, remote_target
    from albatross_pki.client.options import output_options

    def target_of(how: dict[str, Any], base: "Path") -> Target:
        return remote_target(how) if _way(how) == "destination" else local_target(how, base)

    return apply_cli.COMMANDS[word](target_of, [*_options(csr=False), *output_options()], local=True)


def _inspect_command() -> "click.Command":
    import click

    from albatross_pki.client.options import output_options

    def inspect(image: str, form: str, quiet: bool) -> None:
        from albatross_pki.client.inspect import image_document, image_lines

        document = image_document(image)
        if quiet:
            return
        if form == "json":
            import json

            click.echo(json.dumps(document, indent=2))
        else:
            click.echo(document["digest"] if form == "name" else "\n".join(image_lines(document)))

    return click.Command(
        "inspect",
        callback=inspect,
        params=[
            click.Argument(["image"], type=click.Path(exists=True, dir_okay=False), metavar="IMAGE"),
            *output_options(),
        ],
        help="Show what an image is made for, its digest, and the devices that it wants.",
    )


def _dump_command(word: str) -> "click.Command":
    from albatross_pki.client.dump_cli import COMMANDS

    command: click.Command = COMMANDS[word]()
    return command


def _provision(word: str) -> "click.Command":
    import copy

    from albatross_pki.ca import cli_sign

    command: click.Command = copy.copy(getattr(cli_sign, word))  # it belongs to the other program, too
    return command


def program() -> "click.Command":
    """The command line."""
    import click

    from albatross_pki.client.options import (
        EXTENDED_WORDS,
        LOCAL_WORDS,
        SIGNED_WORDS,
        ClientProgram,
        client_commands,
    )

    words = (*SIGNED_WORDS, *LOCAL_WORDS, *EXTENDED_WORDS)
    commands = client_commands(submit, words, lambda: _options(csr=True))
    others = {
        "certificate": _certificate_command,
        "console": _console_command,
        "inspect": _inspect_command,
        "top": _top_command,
        "update": _update_command,
        "plan": lambda: _apply_command("plan"),
        "apply": lambda: _apply_command("apply"),
        "inspect-dump": lambda: _dump_command("inspect-dump"),
        "extract-dump": lambda: _dump_command("extract-dump"),
        "export-dump": lambda: _dump_command("export-dump"),
        "generate": lambda: _provision("generate"),
        "sign": lambda: _provision("sign"),
    }
    group = ClientProgram(
        "albatross-client",
        {**commands, **others},
        help="Commands for hosts of unikernels: here, through TLS, or as signing requests.",
    )
    return click.version_option(message=version.TEXT)(group)


def main() -> None:
    """Entry point of the console script."""
    if not version.asked():
        from albatross_pki.console_script import run

        run(program())
