"""Commands, policies, constraints and certificates in plain words, for those who sign and those who audit.

Pure text; everything that a stranger could have put there is escaped. Arguments of unikernels are shown: whoever signs
them must see them.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from albatross_pki import commands as av5
from albatross_pki.extensions import AnyCommand, Constraints, CrlUpdate, Events, ImageBinding
from albatross_pki.policies import Policy
from albatross_pki.policy.constraints import command_word
from albatross_pki.text import printable
from albatross_pki.unikernels import Settings, UnikernelConfig

MOST_SHOWN = 100  # items of a list


def policy_words(policy: Policy) -> str:
    """``2 unikernels, cpu 0 1, 64 MB memory, no block storage, no network``."""
    block = "no block storage" if policy.block_mb is None else f"{policy.block_mb} MB block storage"
    bridges = f"bridges {_several(sorted(policy.bridges))}" if policy.bridges else "no network"
    cpus = f"cpu {_several(sorted(policy.cpuids))}" if policy.cpuids else "no cpu"
    plural = "" if policy.unikernels == 1 else "s"
    return f"{policy.unikernels} unikernel{plural}, {cpus}, {policy.memory_mb} MB memory, {block}, {bridges}"


def constraints_words(constraints: Constraints) -> list[str]:
    """One line per field that says something."""
    lines = []
    if constraints.commands is not None:
        lines.append(f"only the commands {_several(sorted(constraints.commands)) or '(none)'}")
    if constraints.images is not None:
        lines.append(f"only the images {_several(digest.hex() for digest in sorted(constraints.images)) or '(none)'}")
    if constraints.names is not None:
        lines.append(f"only the names {_several(sorted(constraints.names)) or '(none)'}")
    if constraints.hosts is not None:
        lines.append(f"only on the hosts {_several(sorted(constraints.hosts)) or '(none)'}")
    if constraints.deployments is not None:
        digests = _several(digest.hex() for digest in sorted(constraints.deployments))
        lines.append(f"only the deployments {digests or '(none)'}")
    if constraints.once:
        lines.append("each command takes effect at most once")
    return lines


def command_words(command: AnyCommand, binding: ImageBinding | None = None) -> list[str]:
    """The command in a line, and what belongs to it in further ones."""
    word = command_word(command)
    match command:
        case av5.PolicyAdd(policy=policy):
            return [f"delegation of {policy_words(policy)}"]
        case av5.UnikernelCreate(config=config):
            return [f"command {word}", image_words(config, binding), *settings_words(config.settings)]
        case av5.UnikernelRestart(settings=Settings() as settings):
            return [f"command {word}", *settings_words(settings)]
        case av5.UnikernelGet(level=level) | av5.BlockDump(level=level) | av5.BlockDumpOld(level=level):
            return [f"command {word}, compression level {level}"]
        case av5.BlockAdd(size_mb=size) | av5.BlockAddOld(size_mb=size):
            return [f"command {word}, {size} MB"]
        case av5.BlockSet():
            return [f"command {word}, the content follows on the connection"]
        case av5.ConsoleSubscribe(since=since, count=count):
            return [f"command {word}, " + (f"the last {count} lines" if since is None else f"since {moment(since)}")]
        case Events(since=datetime() as since):
            return [f"command {word}, since {moment(since)}"]
        case CrlUpdate():
            return [f"command {word}, the list follows on the connection"]
    return [f"command {word}"]


def image_words(config: UnikernelConfig, binding: ImageBinding | None) -> str:
    """Which image a create is about."""
    if config.image:
        form = "compressed, " if config.compressed else ""
        return f"image embedded ({form}{len(config.image)} bytes)" + (
            f", bound to sha256 {binding.digest.hex()}" if binding is not None else ""
        )
    if binding is not None:
        return f"image sha256 {binding.digest.hex()}, {binding.size} bytes"
    return "any image at all: none is named, one follows on the connection"


def settings_words(settings: Settings) -> list[str]:
    """What a unikernel is given."""
    lines = [f"{settings.memory_mb} MB memory, cpu {_several(sorted(settings.cpuids)) or '(none)'}"]
    for interface in settings.interfaces:
        mac = f", mac {interface.mac.hex(':')}" if interface.mac is not None else ""
        lines.append(f"network {printable(interface.name)} on bridge {printable(interface.host_bridge)}{mac}")
    for block in settings.blocks:
        sector = f", sectors of {block.sector_size} bytes" if block.sector_size is not None else ""
        lines.append(f"block device {printable(block.name)} from {printable(block.host_device)}{sector}")
    restart = settings.fail_behaviour.restart
    if restart is not None:
        lines.append(f"restarted on exit code {_several(sorted(restart))}" if restart else "restarted when it fails")
    if settings.startup is not None:
        lines.append(f"number {settings.startup} in the order of starts")
    if not settings.add_name:
        lines.append("its name is not added to its arguments")
    if settings.arguments:
        lines.append("arguments " + _several(settings.arguments, _quoted))
    if settings.cpus != 1:
        lines.append(f"{settings.cpus} virtual CPUs")
    if settings.linux_boot_partition is not None:
        lines.append(f"boots from {printable(settings.linux_boot_partition)}")
    return lines


def moment(time: datetime) -> str:
    """``2026-11-21 02:31:10 UTC``."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _several(items: Iterable[object], show: Callable[[str], str] = printable) -> str:
    """The items in a line; a stranger's request cannot push the lines around it out of sight."""
    listed = list(items)
    shown = " ".join(show(str(item)) for item in listed[:MOST_SHOWN])
    return shown if len(listed) <= MOST_SHOWN else f"{shown} … and {len(listed) - MOST_SHOWN} more"


def _quoted(argument: str) -> str:
    """An argument between quotes that it cannot end."""
    return "'" + printable(argument).replace("'", "\\'") + "'"
