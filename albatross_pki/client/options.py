"""The options that the programs for people have in common, and what they mean together."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from albatross_pki.client.variables import give_variables
from albatross_pki.command_line import HOST_PATH, Commands, Parsed, Submit, protocol_commands
from albatross_pki.errors import AlbatrossError
from albatross_pki.option_prefixes import PrefixCommand
from albatross_pki.option_values import FloatRange
from albatross_pki.syntax import parse_destination

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from albatross_pki.client.credentials import Signer
    from albatross_pki.client.receive import Reception
    from albatross_pki.client.remote import Server
    from albatross_pki.client.wait import Sign

DIRECTORY = click.Path(exists=True, file_okay=False)
DEFAULT_TMPDIR = "/run/albatross"
FORMATS = ("table", "json", "name", "upstream")
KEY_TYPES = ("ed25519", "p256", "p384", "p521", "rsa2048", "rsa4096", "rsa")
DIALECTS = ("native", "upstream")


class _Pin(click.ParamType[bytes]):
    """A SHA-256 in hexadecimal, with or without colons."""

    name = "sha256"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        if isinstance(value, bytes):
            return value
        try:
            digest = bytes.fromhex(value.replace(":", ""))
        except ValueError:
            digest = b""
        if len(digest) != 32:
            self.fail("expected 64 hexadecimal digits", param, ctx)
        return digest


PIN = _Pin()
DESTINATION = Parsed("host[:port]", parse_destination)

# words that only a local daemon obeys: no certificate can carry them
LOCAL_WORDS = ("add-policy", "replace-policy", "remove-policy", "stats-add", "stats-remove")
# words that a leaf can carry in both dialects
SIGNED_WORDS = (
    *("info", "get", "create", "destroy", "restart", "policy"),
    *("block", "create-block", "set-block", "dump-block", "destroy-block"),
    *("console", "inactive-consoles", "stats"),
)
# words of albatross-provision-ca, whose options are its own
ACTS_OF_A_CA = ("generate", "sign")
# words whose names stand in a file
ABOUT_A_FILE = ("plan", "apply")
# words of our own, which need our own host
EXTENDED_WORDS = ("status", "stop", "start", "rollback", "host-info", "events")


def output_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["-o", "--output", "form"], type=click.Choice(FORMATS), default="table", help="How to show answers."
        ),
        click.Option(["-q", "--quiet", "quiet"], is_flag=True, help="Show nothing but errors."),
    ]


def local_options() -> list[click.Parameter]:
    return [
        click.Option(["--socket"], type=click.Path(), help="The daemon's socket itself."),
        click.Option(
            ["--tmpdir"],
            type=click.Path(),
            default=DEFAULT_TMPDIR,
            envvar="ALBATROSS_TMPDIR",
            show_default=True,
            help="Where the daemons' sockets are.",
        ),
    ]


def remote_options() -> list[click.Parameter]:
    return [
        *host_options(),
        _file("--ca", "ca.pem", "Your certificate and those above it."),
        _file("--ca-key", "ca.key", "Its private key."),
        click.Option(["--key-type"], type=click.Choice(KEY_TYPES), default="ed25519", help="Of the one-time key."),
        click.Option(["--bits"], type=click.Choice(["2048", "4096"]), default="4096", help="With --key-type rsa."),
        click.Option(["--dialect"], type=click.Choice(DIALECTS), default="native", help="Whom the server is."),
        click.Option(["--reusable"], is_flag=True, help="Do not limit the command to one effect."),
        *server_options(),
    ]


def _file(option: str, default: str, what: str) -> click.Option:
    variable = "ALBATROSS_" + option.removeprefix("--").replace("-", "_").upper()
    return click.Option([option], default=default, envvar=variable, show_default=True, show_envvar=True, help=what)


def destination_option(default: str | None = None) -> click.Option:
    return click.Option(
        ["-d", "--destination"],
        type=DESTINATION,
        default=default,
        envvar="ALBATROSS_DESTINATION",
        show_default=True,
        help="The host's TLS endpoint.",
    )


class SeveralHosts(Exception):
    """More than one host was named: no error, but the way out of parsing a command for one."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(*names)
        self.names = tuple(dict.fromkeys(names))


ABOUT_ONE_SERVER = ("server_name", "pin")


def host_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--host", "hosts"],
            multiple=True,
            is_eager=True,  # it says what the others are
            expose_value=False,
            callback=_take_hosts,
            help="A host by its name in hosts.toml; what is typed beside it comes first. Repeatable, to ask several.",
        ),
        click.Option(
            ["--all-hosts"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_take_all_hosts,
            help="Ask every host in hosts.toml.",
        ),
    ]


def _take_hosts(ctx: click.Context, _: click.Parameter, names: tuple[str, ...]) -> None:
    if names:
        _take(ctx, names, several=len(names) > 1)


def _take_all_hosts(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from albatross_pki.client.hosts import hosts_path, read_hosts

        names = tuple(read_hosts(hosts_path()))
        if not names:
            raise AlbatrossError(f"no host is named in {hosts_path()}")
        _take(ctx, names, several=True)


def _take(ctx: click.Context, names: tuple[str, ...], *, several: bool) -> None:
    """Make what the file says about a host the defaults of the other options, before their environment variables."""
    from albatross_pki.client.hosts import named_host

    program = ctx.find_root().command
    only = program.only_host if isinstance(program, ClientProgram) else None
    if several and only is None:
        raise SeveralHosts(names)
    host = named_host(only or names[0])
    options = host.options
    if host.path is not None:
        ctx.meta[HOST_PATH] = host.path
    ctx.default_map = {**(ctx.default_map or {}), **options}
    for parameter in ctx.command.params:
        if parameter.name in options or parameter.name in ABOUT_ONE_SERVER:
            parameter.envvar = None  # a host that was named is not mixed with another one's surroundings


def server_options() -> list[click.Parameter]:
    return [
        _file("--server-ca", "cacert.pem", "Root that the server must be below."),
        *server_identity_options(),
    ]


def server_identity_options() -> list[click.Parameter]:
    return [
        click.Option(["--server-name"], help="Name that the server's certificate must have (default: the host)."),
        click.Option(["--pin"], type=PIN, help="SHA-256 of the server's certificate, for one without a name."),
        click.Option(
            ["--crl", "crls"],
            type=click.Path(exists=True, dir_okay=False),
            multiple=True,
            help="Revocation list that the server must not be on (PEM or DER; repeatable).",
        ),
    ]


EXTRA: Mapping[str, Callable[[], list[click.Parameter]]] = {
    "create": lambda: [*_waiting(), _dbdir()],
    "stats": lambda: [_lines()],
    "events": lambda: [_lines(), _follow(), _json()],
    "get": lambda: [_target()],
    "dump-block": lambda: [_target()],
}


def _lines() -> click.Option:
    return click.Option(["--lines"], type=click.IntRange(1), help="End after so many lines.")


def _waiting() -> list[click.Parameter]:
    def sign(text: str) -> "Sign":
        from albatross_pki.client.wait import parse_sign

        return parse_sign(text)

    return [
        click.Option(["--wait"], is_flag=True, help="Wait until it runs, and has not ended a second later."),
        click.Option(["--wait-for"], type=Parsed("tcp:port|http:url", sign), help="Wait until this answers, too."),
        click.Option(
            ["--wait-seconds"], type=FloatRange(0, 86400), default=60.0, show_default=True, help="Wait no longer."
        ),
        click.Option(["--rollback-on-failure"], is_flag=True, help="Else back to what ran before (implies --wait)."),
    ]


def _dbdir() -> click.Option:
    """Of the 1.x programs, which looked there for tenders: albatrossd does that."""
    return click.Option(["--dbdir"], type=DIRECTORY, hidden=True, expose_value=False)


def _follow() -> click.Option:
    return click.Option(["-f", "--follow", "follow"], is_flag=True, help="Go on with what happens.")


def _json() -> click.Option:
    return click.Option(["--json", "as_json"], is_flag=True, help="The same as -o json.")


def _target() -> click.Option:
    return click.Option(["--to"], type=click.Path(), help="The file to make.")


def stream_option() -> click.Option:
    return click.Option(["--stream"], type=click.Path(exists=True, dir_okay=False), help="Image or content to send.")


def extra_options() -> list[click.Parameter]:
    """All options that belong to some command's answers, for a program that learns the command later."""
    from albatross_pki.client.console_cli import grep_option

    return [_lines(), _target(), _follow(), grep_option()]


Factories = Mapping[str, Callable[[], click.Command]]


class _Lazy(click.Group):
    """A group whose commands are made when they are asked for."""

    def __init__(self, name: str, factories: Factories, **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self._factories = factories

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        return sorted(self._factories)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's
        make = self._factories.get(cmd_name)
        return make() if make is not None else None


class ClientProgram(Commands, _Lazy):
    """A program for people: its commands are made when they are asked for, ``_`` and prefixes are understood.

    Every option can be set in the environment (``client.variables``), and several hosts can be asked at once
    (``client.several_hosts``); ``only_host`` is the one of these that this process asks.
    """

    only_host: str | None = None
    _rest: Sequence[str] = ()

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SeveralHosts as several:
            return self._ask(ctx, several.names)

    def _ask(self, ctx: click.Context, names: Sequence[str]) -> int:
        from albatross_pki.client.several_hosts import ask_hosts
        from albatross_pki.console_script import execute

        word = str(ctx.invoked_subcommand)
        self.only_host = names[0]
        command = self.get_command(ctx, word)
        assert command is not None
        with command.make_context(word, list(self._rest), parent=ctx) as whole:
            if whole.get_parameter_source("destination") is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError("--destination and several hosts exclude each other", whole)

        def ask(name: str) -> int:
            self.only_host = name
            return execute(self, [word, *self._rest], ctx.info_name)

        return ask_hosts(names, word, whole.params, ask)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is not None and command.callback is not None:
            command.callback = as_upstream_says(_as_the_delegation_says(command.callback))
        if command is not None and command.name not in ACTS_OF_A_CA:
            give_variables(command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word, command, rest = super().resolve_command(ctx, args)
        self._rest = tuple(rest)
        if command is not None and "--help" in rest:
            explain(self.name or "", command)
        return word, command, rest

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from albatross_pki.client.explaining import program_explanation

        self.epilog = program_explanation(self.name or "")
        super().format_epilog(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list["CompletionItem"]:
        """The words that begin so, without making their commands, and the program's own options."""
        from click.shell_completion import CompletionItem

        words = [CompletionItem(word) for word in self.list_commands(ctx) if word.startswith(incomplete)]
        return [*words, *click.Command.shell_complete(self, ctx, incomplete)]


class Explained(PrefixCommand):
    """A program that is one command: it has what ``ClientProgram`` gives to each of its own."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        give_variables(self)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        explain(self.name or "", self)
        super().format_epilog(ctx, formatter)


def explain(program: str, command: click.Command) -> None:
    """Add arguments, exit codes and examples to the help of a command that does not bring its own."""
    from albatross_pki.client.explaining import EXAMPLES, explanation

    if command.name in EXAMPLES:
        command.epilog = explanation(program, command)


def as_upstream_says(callback: Callable[..., Any]) -> Callable[..., Any]:
    """A command's ``callback``; with ``-o upstream`` a host's failure is told as Albatross' own client does."""

    def called(**values: Any) -> Any:
        if values.get("form") != "upstream":
            return callback(**values)
        from albatross_pki.client.conversation import CommandFailed
        from albatross_pki.client.upstream import failure_text

        try:
            return callback(**values)
        except CommandFailed as failure:
            if not values.get("quiet"):
                program = click.get_current_context().find_root().info_name or ""
                click.echo(failure_text(program, failure.name, failure.message))
            return int(failure.exit_code)

    return called


def _as_the_delegation_says(callback: Callable[..., Any]) -> Callable[..., Any]:
    """A command's ``callback``; names below a host's path become what a leaf carries (``client.host_path``)."""

    def called(**values: Any) -> Any:
        context = click.get_current_context()
        if HOST_PATH in context.meta and context.command.name not in ABOUT_A_FILE:
            from albatross_pki.client.host_path import carried

            values = carried(values, context.meta[HOST_PATH])
        return callback(**values)

    return called


def client_commands(submit: Submit, words: tuple[str, ...], options: Callable[[], list[click.Parameter]]) -> Factories:
    """The commands called ``words`` with the program's options, output's, and those that belong to their answers."""

    def make(word: str) -> click.Command:
        (command,) = protocol_commands(submit, [word], lambda: [*options(), *output_options()])
        command.params += EXTRA.get(word, list)()
        return command

    return {word: lambda word=word: make(word) for word in words}  # type: ignore[misc]  # a default binds it


def reception_of(how: Mapping[str, Any]) -> "Reception":
    """What the output options say."""
    from albatross_pki.client.receive import Reception
    from albatross_pki.client.show import Screen

    form = "json" if how.get("as_json") else how["form"]
    return Reception(
        Screen.standard(form, how["quiet"]),
        to=how.get("to"),
        lines=how.get("lines"),
        follow=how.get("follow", False),
        pattern=how.get("pattern"),
    )


def signer_of(how: Mapping[str, Any]) -> "Signer":
    """What the options about a delegation say."""
    from albatross_pki.client.credentials import Signer

    key_type = f"rsa{how['bits']}" if how["key_type"] == "rsa" else how["key_type"]
    return Signer(how["ca"], how["ca_key"], how["server_ca"], key_type, how["dialect"], how["reusable"])


def server_of(how: Mapping[str, Any]) -> "Server":
    """What the options about a server say."""
    from albatross_pki.client.remote import Server

    host, port = how["destination"]
    return Server(host, port, how["server_ca"], how["server_name"], how["pin"], tuple(how["crls"]))
