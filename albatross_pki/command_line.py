"""The commands of the protocol as people type them: one table for every program that has them.

``albatross-client``, its siblings of the 1.x names and ``albatross-provision-request`` share these shapes; what they
do with a command once it is typed (send it locally, sign and send it, put it into a signing request) is theirs.

1. ``protocol_commands`` turns the table's rows into click commands, adds the program's own options to each;
2. when one is called, its row's ``make`` turns the arguments into a ``TypedCommand``, pure;
3. the program's ``submit`` gets that and its own options.

Images and block contents are named here, not read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

import click

from albatross_pki.commands import (
    BlockAdd,
    BlockDump,
    BlockInfoRequest,
    BlockRemove,
    BlockSet,
    ConsoleInactive,
    ConsoleSubscribe,
    PolicyAdd,
    PolicyInfo,
    PolicyRemove,
    StatsAdd,
    StatsRemove,
    StatsSubscribe,
    UnikernelCreate,
    UnikernelDestroy,
    UnikernelGet,
    UnikernelInfoRequest,
    UnikernelRestart,
)
from albatross_pki.errors import AlbatrossError, Refused, check_range
from albatross_pki.extensions import AnyCommand, Events, HostInfo, Rollback, Start, Status, Stop
from albatross_pki.names import SEPARATOR, Name, Path
from albatross_pki.option_prefixes import spelled_out
from albatross_pki.policies import Policy
from albatross_pki.syntax import BadValue, parse_block, parse_count, parse_network, parse_since
from albatross_pki.unikernels import QUIT, FailBehaviour, Settings, UnikernelConfig, UnikernelType
from albatross_pki.upstream_words import or_help, take_common_options, take_version

MAX_NUMBER = 2**31 - 1
_ROOT = Name()


@dataclass(frozen=True, slots=True)
class TypedCommand:
    """What a person typed: a command about a name, and the files that go with it.

    A create's configuration has an empty image here; ``image`` is the file that holds it. ``content`` is the file of
    a ``set-block``, or of a ``create-block`` that is to be filled. ``level`` is the zlib level for what is sent, or
    ``None`` for the program's default. ``digest`` is the SHA-256 of the only image that is meant, if one is.
    """

    name: Name
    command: AnyCommand
    image: str | None = None
    content: str | None = None
    level: int | None = None
    digest: bytes | None = None


Submit = Callable[[TypedCommand, dict[str, Any]], int | None]
Make = Callable[..., TypedCommand]


@dataclass(frozen=True, slots=True)
class Shape:
    """One row of the table: a command's word, its parameters, what they mean, and its help."""

    word: str
    help: str
    make: Make
    parameters: Callable[[], list[click.Parameter]]


class Commands(click.Group):
    """A group whose commands may be spelled with ``_`` or ``-``; they and their options may be shortened."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, or_help(ctx, args))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = self._find(ctx, cmd_name)
        if command is not None and not isinstance(command, click.Group):
            take_common_options(command)
            take_version(command)
        return command

    def _find(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        wanted = cmd_name.replace("_", "-")
        exact = super().get_command(ctx, wanted)
        if exact is not None:
            return exact
        matches = [word for word in self.list_commands(ctx) if word.startswith(wanted)]
        if len(matches) > 1 and not ctx.resilient_parsing:  # a shell that asks for completions wants no complaint
            choices = " or ".join(f"'{word}'" for word in matches)
            ctx.fail(f"command '{cmd_name}' ambiguous and could be either {choices}")
        return super().get_command(ctx, matches[0]) if len(matches) == 1 else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        _, command, rest = super().resolve_command(ctx, args)
        if command is None:
            return None, None, rest
        if isinstance(command, click.Group) or ctx.resilient_parsing:
            return command.name, command, rest
        return command.name, command, spelled_out(command, rest, ctx)


def protocol_commands(
    submit: Submit, words: Sequence[str], options: Callable[[], list[click.Parameter]]
) -> list[click.Command]:
    """The commands called ``words``, each with its own parameters and the program's ``options``."""
    return [_command(SHAPES[word], submit, options) for word in words]


def _command(shape: Shape, submit: Submit, options: Callable[[], list[click.Parameter]]) -> click.Command:
    own = shape.parameters()
    names = [str(parameter.name) for parameter in own]

    def called(**values: Any) -> int | None:
        typed = shape.make(**{name: values.pop(name) for name in names})
        return submit(typed, values)

    return click.Command(shape.word, params=[*own, *options()], callback=called, help=shape.help)


# kinds of values


class Parsed(click.ParamType[Any]):
    """A value that one of our own parsers turns into vocabulary; its refusal becomes click's, naming the option."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except AlbatrossError as error:
            self.fail(error.message, param, ctx)

    def fail(self, message: str, param: click.Parameter | None = None, ctx: click.Context | None = None) -> NoReturn:
        super().fail(message, param, ctx)


HOST_PATH = "albatross_pki.host_path"  # in a context's meta: the path that names lie below, if a host has one


class _Below(Parsed):
    """A name or a path; what has no colon in front lies below the path of the host that was named."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        above: Path | None = None if ctx is None else ctx.meta.get(HOST_PATH)
        if above is None or not isinstance(value, str) or value.startswith(SEPARATOR):
            return found
        return found.below(above)


NAME = _Below("name", Name.parse)
PATH = _Below("path", Path.parse)
NETWORK = Parsed("[name:]bridge[@mac]", parse_network)
BLOCK = Parsed("name[:device][@sector]", parse_block)
SINCE = Parsed("time", lambda text: parse_since(text, datetime.now(UTC)))
COUNT = Parsed("lines", parse_count)
LEVEL = click.IntRange(0, 9)
FILE = click.Path(exists=True, dir_okay=False, readable=True)


def _named(*spellings: str) -> click.Option:
    return click.Option([*spellings, "name"], type=NAME, default=None, help="The name asked about; all, if not given.")


def _path(default_text: str) -> click.Option:
    return click.Option(["-p", "--path", "path"], type=PATH, default=None, help=f"The path; {default_text}.")


def _unikernel() -> click.Argument:
    return click.Argument(["name"], type=NAME, metavar="UNIKERNEL")


def _block_name() -> click.Argument:
    return click.Argument(["name"], type=NAME, metavar="BLOCK")


def _level() -> click.Option:
    return click.Option(["--compression-level", "level"], type=LEVEL, help="Compression on the way: 0 is none, 9 most.")


def _settings_parameters() -> list[click.Parameter]:
    several: dict[str, Any] = {"multiple": True}
    return [
        click.Option(["--cpu"], type=int, help="A CPU it may run on (repeatable; 0, if not given).", **several),
        click.Option(["--mem", "memory_mb"], type=int, default=32, show_default=True, help="Its memory in MB."),
        click.Option(["--arg", "arguments"], help="One argument for the unikernel (repeatable).", **several),
        click.Option(["--net", "networks"], type=NETWORK, help="A network device and its bridge.", **several),
        click.Option(["--block", "blocks"], type=BLOCK, help="A block device and the host's name of it.", **several),
        click.Option(["--restart", "--restart-on-fail", "restart"], is_flag=True, help="Run it again when it fails."),
        click.Option(["--exit-code", "exit_codes"], type=int, help="With --restart: only on this code.", **several),
        click.Option(["--startup"], type=int, help="Its place in the order of starts at boot, 0 first."),
        click.Option(["--no-add-name"], is_flag=True, help="Do not add --name=… to its arguments."),
        click.Option(["--cpus"], type=int, default=1, help="Virtual CPUs (bhyve)."),
        click.Option(["--linux-boot"], default=None, help="Boot partition (bhyve)."),
    ]


def make_settings(
    cpu: Sequence[int],
    memory_mb: int,
    arguments: Sequence[str],
    networks: Sequence[Any],
    blocks: Sequence[Any],
    restart: bool,
    exit_codes: Sequence[int],
    startup: int | None,
    no_add_name: bool,
    cpus: int,
    linux_boot: str | None,
) -> Settings:
    """The settings that the options of ``create`` ask for; raises ``Refused`` with everything that is wrong."""
    wrong = []
    if len({network.name for network in networks}) != len(networks):
        wrong.append("bridge names must be a set: each --net names another device of the image")
    if len({block.name for block in blocks}) != len(blocks):
        wrong.append("block devices must be a set: each --block names another device of the image")
    ranges = [("--mem", memory_mb, 1), ("--cpus", cpus, 1), *(("--cpu", number, 0) for number in cpu)]
    ranges += [("--startup", startup, 0)] if startup is not None else []
    ranges += [("--exit-code", code, 0) for code in exit_codes]
    for option, number, low in ranges:
        try:
            check_range(option, number, low, MAX_NUMBER)
        except AlbatrossError as error:
            wrong.append(error.message)
    if exit_codes and not restart:
        wrong.append("--exit-code has an effect only together with --restart")
    if wrong:
        raise Refused(wrong)
    return Settings(
        cpuids=frozenset(cpu) or frozenset({0}),
        memory_mb=memory_mb,
        fail_behaviour=FailBehaviour(frozenset(exit_codes)) if restart else QUIT,
        startup=startup,
        add_name=not no_add_name,
        blocks=tuple(blocks),
        interfaces=tuple(networks),
        arguments=tuple(arguments) or None,
        cpus=cpus,
        linux_boot_partition=linux_boot,
    )


# what each command's arguments mean


def _info(name: Name | None) -> TypedCommand:
    return TypedCommand(name or _ROOT, UnikernelInfoRequest())


def _get(name: Name, level: int | None) -> TypedCommand:
    return TypedCommand(_labelled(name), UnikernelGet(level or 0))


def _create(name: Name, image: str, force: bool, typ: str, level: int | None, **settings: Any) -> TypedCommand:
    config = UnikernelConfig(image=b"", settings=make_settings(**settings), typ=UnikernelType(typ))
    return TypedCommand(_labelled(name), UnikernelCreate(config, force=force), image=image, level=level)


def _restart(name: Name, replace_arguments: bool, **settings: Any) -> TypedCommand:
    new = make_settings(**settings) if replace_arguments else None
    if new is None and make_settings(**settings) != Settings():
        raise Refused(
            ["options for the new start are used only with --replace-arguments"],
            hint=f"restart {str(name).removeprefix(':')} --replace-arguments … (what is not given becomes the default)",
        )
    return TypedCommand(_labelled(name), UnikernelRestart(new))


def _add_policy(
    path: Path, unikernels: int, memory_mb: int, cpu: Sequence[int], block_mb: int | None, bridges: Sequence[str]
) -> TypedCommand:
    numbers = [("UNIKERNELS", unikernels), ("--mem", memory_mb), ("--block", block_mb or 0)]
    numbers += [("--cpu", number) for number in cpu]
    wrong: list[str] = []
    for option, number in numbers:
        try:
            check_range(option, number, 0, MAX_NUMBER)
        except AlbatrossError as error:
            wrong.append(error.message)
    if wrong:
        raise Refused(wrong)
    policy = Policy(frozenset(cpu) or frozenset({0}), unikernels, memory_mb, block_mb, frozenset(bridges))
    return TypedCommand(Name.of_path(path), PolicyAdd(policy))


def _create_block(name: Name, size_mb: int, content: str | None, level: int | None) -> TypedCommand:
    return TypedCommand(
        _labelled(name), BlockAdd(check_range("BLOCK-SIZE", size_mb, 1, MAX_NUMBER)), content=content, level=level
    )


def _set_block(name: Name, content: str, level: int | None) -> TypedCommand:
    return TypedCommand(_labelled(name), BlockSet(compressed=bool(level)), content=content, level=level)


def _console(name: Name, count: int, since: datetime | None) -> TypedCommand:
    return TypedCommand(_labelled(name), subscription(count, since))


def subscription(count: int, since: datetime | None) -> ConsoleSubscribe:
    """What ``history_options`` ask for."""
    if since is not None:
        return ConsoleSubscribe(since=since)
    return ConsoleSubscribe(count=check_range("--count", count, 0, MAX_NUMBER))


def _events(name: Name | None, since: datetime | None) -> TypedCommand:
    return TypedCommand(name or _ROOT, Events(since or datetime.fromtimestamp(0, UTC)))


def _stats_add(name: Name | None, process: Sequence[str], vmmdev: str, bridges: Sequence[str]) -> TypedCommand:
    *first, number = process
    if len(first) > 1 or (first and vmmdev):
        raise BadValue("expected PID, with --vmmdev or a VMM device before it", " ".join(process))
    vmmdev = first[0] if first else vmmdev
    network = []
    for text in bridges:
        bridge, colon, tap = text.partition(":")
        if not (bridge and colon and tap):
            raise BadValue("broken, format is bridge:tap", text)
        network.append((bridge, tap))
    return TypedCommand(
        name or _ROOT, StatsAdd(vmmdev, check_range("PID", click.INT(number), 1, MAX_NUMBER), tuple(network))
    )


def _on_path(command: AnyCommand) -> Make:
    return lambda path: TypedCommand(Name.of_path(path or Path()), command)


def _on_name(command: AnyCommand) -> Make:
    return lambda name: TypedCommand(_labelled(name), command)


def _on_any(command: AnyCommand) -> Make:
    return lambda name: TypedCommand(name or _ROOT, command)


def _labelled(name: Name) -> Name:
    if name.is_path:
        raise BadValue(f"'{name}' is a path, and this command is about one name below it", str(name))
    return name


def _policy_parameters() -> list[click.Parameter]:
    return [
        click.Argument(["path"], type=PATH, metavar="PATH"),
        click.Argument(["unikernels"], type=int, metavar="UNIKERNELS"),
        click.Option(["--mem", "memory_mb"], type=int, default=512, show_default=True, help="Memory in MB, together."),
        click.Option(["--cpu"], type=int, multiple=True, help="A CPU that may be used (repeatable; 0, if not given)."),
        click.Option(["--block", "--size", "block_mb"], type=int, help="Block storage in MB, together."),
        click.Option(["--bridge", "--network", "bridges"], multiple=True, help="A bridge that may be used."),
    ]


def _create_parameters() -> list[click.Parameter]:
    return [
        _unikernel(),
        click.Argument(["image"], type=FILE, metavar="IMAGE"),
        click.Option(["-f", "--force", "force"], is_flag=True, help="Replace a running unikernel of this name."),
        click.Option(["--typ"], type=click.Choice(["solo5", "bhyve"]), default="solo5", help="Kind of the image."),
        _level(),
        *_settings_parameters(),
    ]


def _create_block_parameters() -> list[click.Parameter]:
    return [
        _block_name(),
        click.Argument(["size_mb"], type=int, metavar="SIZE-MB"),
        click.Option(["--data", "content"], type=FILE, help="Fill it from this file."),
        _level(),
    ]


def _console_parameters() -> list[click.Parameter]:
    return [
        _unikernel(),
        *history_options(),
    ]


def history_options() -> list[click.Parameter]:
    """From where on a console is shown: a number of lines, or a time, which wins."""
    since = "Instead of --count: everything since this time (RFC 3339), since 10m, 2h or 3d ago, or now."
    return [
        click.Option(["-n", "--count", "count"], type=COUNT, default=20, show_default=True, help="So many last lines."),
        click.Option(["--since"], type=SINCE, help=since),
    ]


def _events_parameters() -> list[click.Parameter]:
    since = "From this time on: RFC 3339, 10m, 2h or 3d ago, or now (everything that is kept, if not given)."
    return [_named("-n", "--name"), click.Option(["--since"], type=SINCE, help=since)]


def _stats_add_parameters() -> list[click.Parameter]:
    return [
        click.Argument(["process"], nargs=-1, required=True, metavar="PID"),  # before it, in 1.x, the VMM device
        _named("-n", "--name"),
        click.Option(["--vmmdev"], default="", help="The VMM device (FreeBSD)."),
        click.Option(["--bridge", "bridges"], multiple=True, metavar="BRIDGE:TAP"),
    ]


_TABLE = (
    Shape("info", "Show unikernels.", _info, lambda: [_named("-n", "--name")]),
    Shape("get", "Fetch the image of a unikernel into a file.", _get, lambda: [_unikernel(), _level()]),
    Shape("create", "Run an image as a unikernel.", _create, _create_parameters),
    Shape("destroy", "Stop a unikernel and forget it.", _on_name(UnikernelDestroy()), lambda: [_unikernel()]),
    Shape(
        "restart",
        "Stop a unikernel and run it again.",
        _restart,
        lambda: [
            _unikernel(),
            click.Option(["--replace-arguments"], is_flag=True, help="With new settings, as for create."),
            *_settings_parameters(),
        ],
    ),
    Shape("policy", "Show policies.", _on_path(PolicyInfo()), lambda: [_path("all policies, if not given")]),
    Shape("add-policy", "Set the policy of a path.", _add_policy, _policy_parameters),
    Shape("replace-policy", "Set the policy of a path.", _add_policy, _policy_parameters),
    Shape("remove-policy", "Remove a policy.", _on_path(PolicyRemove()), lambda: [_path("the root's, if not given")]),
    Shape("block", "Show block devices.", _on_any(BlockInfoRequest()), lambda: [_named("--name")]),
    Shape("create-block", "Make a block device.", _create_block, _create_block_parameters),
    Shape(
        "set-block",
        "Replace the content of a block device.",
        _set_block,
        lambda: [_block_name(), click.Argument(["content"], type=FILE, metavar="FILE"), _level()],
    ),
    Shape(
        "dump-block",
        "Fetch the content of a block device into a file.",
        lambda name, level: TypedCommand(_labelled(name), BlockDump(level or 0)),
        lambda: [_block_name(), _level()],
    ),
    Shape("destroy-block", "Remove a block device.", _on_name(BlockRemove()), lambda: [_block_name()]),
    Shape("console", "Show what a unikernel prints, and go on.", _console, _console_parameters),
    Shape(
        "inactive-consoles",
        "Show consoles nobody writes to.",
        _on_path(ConsoleInactive()),
        lambda: [_path("all, if not given")],
    ),
    Shape("stats", "Show statistics, and go on.", _on_any(StatsSubscribe()), lambda: [_named("-n", "--name")]),
    Shape("stats-add", "Collect statistics of a process.", _stats_add, _stats_add_parameters),
    Shape("stats-remove", "Collect no more.", _on_any(StatsRemove()), lambda: [_named("-n", "--name")]),
    Shape("status", "Show wanted and actual state.", _on_any(Status()), lambda: [_named("-n", "--name")]),
    Shape("stop", "Stop a unikernel and keep it.", _on_name(Stop()), lambda: [_unikernel()]),
    Shape("start", "Run a stopped unikernel.", _on_name(Start()), lambda: [_unikernel()]),
    Shape("rollback", "Back to the previous image and settings.", _on_name(Rollback()), lambda: [_unikernel()]),
    Shape("events", "Show what happened, and with --follow what happens.", _events, _events_parameters),
    Shape("host-info", "Show what the host offers.", _on_path(HostInfo()), lambda: [_path("the whole, if not given")]),
)
SHAPES = {shape.word: shape for shape in _TABLE}
