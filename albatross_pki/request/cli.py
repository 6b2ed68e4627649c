"""``albatross-provision-request``: a key and a signing request that holds one command, a policy or constraints.

Parses, calls, writes, says. Libraries that take their time are imported when a request is made.
"""

from typing import Any

import click

from albatross_pki.command_line import Commands, TypedCommand, protocol_commands
from albatross_pki.commands import UnikernelCreate
from albatross_pki.console_script import run
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.extensions import AnyCommand, Constraints, CrlUpdate, Events, ImageBinding
from albatross_pki.names import Name, parse_label
from albatross_pki.policy.roles import is_host
from albatross_pki.request.constraints import OPTION_NAMES, constraint_options, typed_constraints
from albatross_pki.syntax import parse_time

WORDS = (
    *("info", "get", "destroy", "restart", "policy", "block", "create-block", "set-block", "dump-block"),
    *("destroy-block", "console", "inactive-consoles", "stats", "status", "stop", "start", "rollback", "host-info"),
)
NEVER_IN_A_LEAF = ("remove-policy", "stats-add", "stats-remove")  # typed all the same: they are told what does it
KEY_TYPES = ("ed25519", "p256", "p384", "p521", "rsa2048", "rsa4096", "rsa")


# what follows a verb's word in the example of its help; every verb of the protocol has one
EXAMPLES = {
    "info": "--name web",
    "get": "web",
    "create": "web web.spt --mem 32 --net service --arg=--ipv4=10.0.0.2/24",
    "destroy": "web",
    "restart": "web --replace-arguments --mem 32 --arg=--ipv4=10.0.0.3/24",
    "policy": "",
    "add-policy": "dev 2 --mem 64 --cpu 0 --bridge service",
    "replace-policy": "dev 2 --mem 64 --cpu 0 --bridge service",
    "delegation": "dev 2 --mem 64 --cpu 0 --bridge service",
    "block": "--name storage",
    "create-block": "storage 16",
    "set-block": "storage disk.img",
    "dump-block": "storage",
    "destroy-block": "storage",
    "console": "web --count 50",
    "inactive-consoles": "",
    "stats": "--name web",
    "status": "--name web",
    "stop": "web",
    "start": "web",
    "rollback": "web",
    "host-info": "",
    "remove-policy": "--path dev",
    "stats-add": "4711 --name web",
    "stats-remove": "--name web",
}
_DELEGATION = "A delegation: a CA certificate with this policy."


def _with_example(command: click.Command) -> click.Command:
    """``command``, with a line to type in its help; those that no leaf carries say where they belong instead."""
    word = command.name or ""
    if word in NEVER_IN_A_LEAF:
        command.hidden = True
        command.help, program = "Nothing that a certificate carries; on the host it is", "albatross-client-local"
    else:
        program = "albatross-provision-request"
    line = f"{program} {word} {EXAMPLES[word]}".rstrip()
    command.help = f"{command.help}\n\n\b\n    {line}\n"
    return command


def file_options(*replace: str) -> list[click.Parameter]:
    """What every verb has: which key, which files, which dialect. ``replace`` spells the option to replace files."""
    spellings = [*(replace or ("--overwrite", "--force")), "overwrite"]
    return [
        click.Option(["--key"], type=click.Path(dir_okay=False), help="Use the key in this file instead of NAME.key."),
        click.Option(["--key-type"], type=click.Choice(KEY_TYPES), default="ed25519", show_default=True),
        click.Option(["--bits"], type=click.Choice(["2048", "4096"]), default="4096", help="With --key-type rsa."),
        click.Option(["--dialect"], type=click.Choice(["native", "upstream"]), default="native", show_default=True),
        click.Option(
            ["-o", "--output"], type=click.Path(dir_okay=False, allow_dash=True), help="Instead of NAME.req; - prints."
        ),
        click.Option(spellings, is_flag=True, help="Replace a request that exists (a key is never replaced)."),
    ]


def _command_options() -> list[click.Parameter]:
    return [*constraint_options(), *file_options()]


def _create_options() -> list[click.Parameter]:
    embed = click.Option(["--embed"], is_flag=True, help="Put the image into the request instead of its digest.")
    return [embed, *constraint_options(), *file_options("--overwrite")]  # its --force is about unikernels


def _delegation_options() -> list[click.Parameter]:
    length = click.Option(
        ["--path-length"], type=click.IntRange(0, 8), help="So many delegations may follow below this one."
    )
    return [length, *constraint_options(), *file_options()]


def _submit(typed: TypedCommand, values: dict[str, Any]) -> None:
    """Make the request that a command of the protocol becomes."""
    from albatross_pki.request.csr import Wanted, refuse_what_no_leaf_carries, subject_label
    from albatross_pki.request.make import write_request

    constraints = _take_constraints(values)
    embed = bool(values.pop("embed", False)) or values["dialect"] == "upstream"
    path_length = values.pop("path_length", None)
    refuse_what_no_leaf_carries(typed.name, typed.command, filled=typed.content is not None)
    label = subject_label(typed.name, typed.command)
    command, binding = _command_with_image(typed, embed)
    write_request(Wanted(label, command, constraints, binding, path_length), **values)


def _take_constraints(values: dict[str, Any]) -> Constraints | None:
    return typed_constraints(**{name: values.pop(name) for name in OPTION_NAMES})


def _command_with_image(typed: TypedCommand, embed: bool) -> tuple[AnyCommand, ImageBinding | None]:
    if not isinstance(typed.command, UnikernelCreate) or typed.image is None:
        return typed.command, None
    from dataclasses import replace

    from albatross_pki.request.image import DEFAULT_LEVEL, with_image

    level = DEFAULT_LEVEL if typed.level is None else typed.level
    config, binding = with_image(typed.command.config, typed.image, embed=embed, level=level)
    return replace(typed.command, config=config), binding


@click.command(params=[click.Option(["--since"], help="From this time on (RFC 3339)."), *_command_options()])
def events(since: str | None, **values: Any) -> None:
    """Follow what happens to the unikernels of the path.

    \b
        albatross-provision-request events --since 2026-01-31T12:00:00Z
    """
    _submit(TypedCommand(Name(), Events(None if since is None else parse_time(since))), values)


@click.command("crl-update", params=_command_options())
def crl_update(**values: Any) -> None:
    """Hand a new revocation list to a server; the list follows on the connection.

    \b
        albatross-provision-request crl-update
    """
    _submit(TypedCommand(Name(), CrlUpdate()), values)


@click.command(params=[click.Argument(["name"], metavar="NAME"), *constraint_options("-p"), *file_options()])
def permissions(name: str, **values: Any) -> None:
    """A certificate without a policy that may only sign leaves with the commands of --permission.

    \b
        albatross-provision-request permissions ci --permission force-create --only-image web.spt
    """
    from albatross_pki.request.csr import Wanted
    from albatross_pki.request.make import write_request

    constraints = _take_constraints(values)
    if constraints is None or constraints.commands is None:
        raise AlbatrossError("which commands? say them, or all", hint="--permission info,console or --permission all")
    write_request(Wanted(parse_label(name), constraints=constraints, path_length=0), **values)


@click.command(
    params=[
        click.Argument(["name"], metavar="NAME"),
        click.Option(["--server-name", "--server-address", "host_names"], multiple=True, metavar="HOST"),
        *file_options(),
    ]
)
def server(name: str, host_names: tuple[str, ...], **values: Any) -> None:
    """The certificate of a server, for the names and addresses that clients use.

    \b
        albatross-provision-request server server --server-name unikernels.example.org
    """
    from albatross_pki.request.csr import Wanted
    from albatross_pki.request.make import write_request

    strange = [host for host in host_names if not is_host(host)]
    if strange:
        raise Refused([f"'{host}' is neither a host's name nor an address" for host in strange])
    write_request(Wanted(parse_label(name), host_names=host_names), **values)


def _program() -> click.Group:
    group = Commands(
        "albatross-provision-request",
        help="Make a key and a signing request; a CA signs it with albatross-provision-ca sign.",
        epilog="Written are NAME.key (mode 0400; an existing one is used) and NAME.req, NAME being the label asked "
        "about, or path-COMMAND for a whole path. Exit status: 0 done; 124 refused or not understood.",
        context_settings={
            "help_option_names": ["-h", "--help"],
            "max_content_width": 110,
            "default_map": {word: {"level": 9} for word in ("get", "create", "set-block", "dump-block")},
        },
    )
    delegations = protocol_commands(_submit, ("add-policy", "replace-policy", "add-policy"), _delegation_options)
    delegations[-1].name, delegations[-1].params[0].metavar = "delegation", "LABEL"
    for command in delegations:
        command.help = _DELEGATION
    for command in (
        *protocol_commands(_submit, (*WORDS, *NEVER_IN_A_LEAF), _command_options),
        *protocol_commands(_submit, ("create",), _create_options),
        *delegations,
    ):
        group.add_command(_with_example(command))
    for command in (permissions, server, events, crl_update):
        group.add_command(command)
    return click.version_option(package_name="albatross-pki", prog_name="albatross-provision-request")(group)


program = _program()


def main() -> None:
    """Entry point of the console script."""
    run(program)
