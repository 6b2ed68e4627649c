"""Messages in the words in which upstream's programs print them.

Every vector's header has what upstream's own decoder printed for it. Printing what *we* decoded in the same words, and
comparing, checks each field of several hundred messages against a reader that shares nothing with ours.
"""

from datetime import datetime
from functools import singledispatch

from albatross_pki import commands as c
from albatross_pki import replies as r
from albatross_pki.messages import Message, Payload
from albatross_pki.policies import Policy
from albatross_pki.unikernels import (
    BlockDevice,
    FailBehaviour,
    NetworkInterface,
    Settings,
    UnikernelConfig,
    UnikernelInfo,
    UnikernelType,
)


def message(decoded: Message) -> str:
    """As in a header's ``reads``, with white space folded."""
    header = decoded.header
    body = words(decoded.payload)
    if not isinstance(decoded.payload, r.Data):
        body = f"host [unikernel: {header.name}]: {body}"
    return fold(f"OK v{header.version} seq={header.sequence} name={header.name} | {body}")


def fold(text: str) -> str:
    return " ".join(text.split())


@singledispatch
def words(payload: Payload) -> str:
    """What upstream prints for a command, an answer or a piece of a stream."""
    raise TypeError(f"no words for {payload}")


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _time(value: datetime | None) -> str:
    return "1970-01-01T00:00:00-00:00" if value is None else f"{value:%Y-%m-%dT%H:%M:%S}-00:00"


def _numbers(values: frozenset[int], separator: str) -> str:
    return separator.join(map(str, sorted(values)))


def policy(value: Policy) -> str:
    block = "no block" if value.block_mb is None else f"{value.block_mb} MB block"
    bridges = f", bridges: {', '.join(sorted(value.bridges))}" if value.bridges else ""
    cpuids = _numbers(value.cpuids, ",")
    return f"policy: {value.unikernels} unikernels {cpuids} CPUids {value.memory_mb} MB memory {block}{bridges}"


def config(value: UnikernelConfig) -> str:
    settings = value.settings
    return (
        f"typ {_typ(value.typ)} compression {_truth(value.compressed)} image {len(value.image)} bytes "
        f"{_settings(settings)} #cpus {settings.cpus} linux_boot {_or_not(settings.linux_boot_partition)} "
        f"argv {_arguments(settings.arguments)}"
    )


def _typ(typ: UnikernelType) -> str:
    return {UnikernelType.SOLO5: "solo5", UnikernelType.BHYVE: "BHyve"}[typ]


def _settings(settings: Settings) -> str:
    return (
        f"fail behaviour {_fail(settings.fail_behaviour)} startup at {_or_not(settings.startup)} "
        f"add_name {_truth(settings.add_name)} CPUids {_numbers(settings.cpuids, ', ')} "
        f"{settings.memory_mb} MB memory "
        f"block devices {', '.join(map(_block, settings.blocks))} bridge {', '.join(map(_bridge, settings.interfaces))}"
    )


def _fail(behaviour: FailBehaviour) -> str:
    if behaviour.restart is None:
        return "quit"
    return f"restart {_numbers(behaviour.restart, ', ') or 'all except 1'}"


def _or_not(value: object) -> str:
    return "not specified" if value is None else str(value)


def _arguments(arguments: tuple[str, ...] | None) -> str:
    return "no" if arguments is None else " ".join(arguments)


def _block(block: BlockDevice) -> str:
    sector = "" if block.sector_size is None else f", sector-size: {block.sector_size}"
    return f"{block.name} -> {block.host_device}{sector}"


def _bridge(interface: NetworkInterface) -> str:
    mac = "" if interface.mac is None else f"@{interface.mac.hex(':')}"
    return f"{interface.name} -> {interface.host_bridge}{mac}"


def info(value: UnikernelInfo) -> str:
    blocks = ", ".join(
        f"{one.name} -> {one.host_device} (sector-size: {one.sector_size} bytes, size {one.size_mb} MB)"
        for one in value.blocks
    )
    bridges = ", ".join(f"{one.name} -> {one.host_bridge} (mac {one.mac.hex(':')})" for one in value.interfaces)
    bhyve = value.typ is UnikernelType.BHYVE
    digest = f"bhyve-vmname {value.digest.decode()}" if bhyve else f"digest {value.digest.hex()}"
    return (
        f"typ {_typ(value.typ)} started {_time(value.started)} fail behaviour {_fail(value.fail_behaviour)} "
        f"startup at {_or_not(value.startup)} CPUids {_numbers(value.cpuids, ', ')} {value.memory_mb} MB memory "
        f"block devices {blocks} bridge {bridges} {digest} #cpus {value.cpus} "
        f"linux_boot_partition {_or_not(value.linux_boot_partition)} argv {_arguments(value.arguments)}"
    )


@words.register
def _(command: c.ConsoleAdd) -> str:
    return f"console add (max unikernels {command.rings})"


@words.register
def _(command: c.ConsoleSubscribe) -> str:
    if command.since is None:
        return f"console subscribe number {command.count}"
    return f"console subscribe since {_time(command.since)}"


@words.register
def _(_command: c.ConsoleInactive) -> str:
    return "console list inactive available ringbuffers"


@words.register
def _(command: c.StatsAdd) -> str:
    taps = ", ".join(f"{bridge}: {tap}" for bridge, tap in command.network)
    return f"stats add: vmm device {command.vmmdev} pid {command.pid} taps {taps}"


@words.register
def _(_command: c.StatsRemove) -> str:
    return "stat remove"


@words.register
def _(_command: c.StatsSubscribe) -> str:
    return "stat subscribe"


@words.register
def _(_command: c.StatsInitial) -> str:
    return "stat initial"


@words.register
def _(command: c.UnikernelInfoRequest) -> str:
    kinds = {c.Version.OLD4: "old unikernel info4", c.Version.OLD5: "old unikernel info5"}
    return kinds.get(command.version, "unikernel info")


@words.register
def _(command: c.UnikernelCreate) -> str:
    return f"unikernel {'force ' if command.force else ''}create {config(command.config)}"


@words.register
def _(command: c.UnikernelRestart) -> str:
    settings = command.settings
    if settings is None:
        return "unikernel restart"
    return (
        f"unikernel restart {_settings(settings)} #cpus {settings.cpus} "
        f"linux_boot_partition {_or_not(settings.linux_boot_partition)} argv {_arguments(settings.arguments)}"
    )


@words.register
def _(_command: c.UnikernelDestroy) -> str:
    return "unikernel destroy"


@words.register
def _(command: c.UnikernelGet) -> str:
    return f"unikernel get compress level {command.level}"


@words.register
def _(_command: c.PolicyInfo) -> str:
    return "policy info"


@words.register
def _(command: c.PolicyAdd) -> str:
    return f"policy add {policy(command.policy)}"


@words.register
def _(_command: c.PolicyRemove) -> str:
    return "policy remove"


@words.register
def _(_command: c.BlockInfoRequest) -> str:
    return "block info"


@words.register
def _(command: c.BlockAdd) -> str:
    return f"block add {command.size_mb}"


@words.register
def _(command: c.BlockAddOld) -> str:
    content = "no data" if command.content is None else str(len(command.content))
    return f"old block add {command.size_mb} (compressed {_truth(command.compressed)} data {content})"


@words.register
def _(_command: c.BlockRemove) -> str:
    return "block remove"


@words.register
def _(command: c.BlockSet) -> str:
    return f"block set compressed {_truth(command.compressed)}"


@words.register
def _(command: c.BlockSetOld) -> str:
    return f"old block set compressed {_truth(command.compressed)} {len(command.content)} bytes"


@words.register
def _(command: c.BlockDump) -> str:
    return f"block dump, compress level {command.level}"


@words.register
def _(command: c.BlockDumpOld) -> str:
    return f"old block dump, compress level {command.level}"


@words.register
def _(_answer: r.Empty) -> str:
    return "success"


@words.register
def _(answer: r.Text) -> str:
    return f"success: {answer.text}"


@words.register
def _(answer: r.Policies) -> str:
    return " ".join(f"[unikernel: {name}]: {policy(one)}" for name, one in answer.policies) or "no policies"


@words.register
def _(answer: r.BlockDevices) -> str:
    devices = (
        f"block [unikernel: {one.name}] size {one.size_mb} MB active {_truth(one.active)}" for one in answer.devices
    )
    return " ".join(devices) or "no block devices"


@words.register
def _(answer: r.UnikernelImage) -> str:
    return f"image (compression {_truth(answer.compressed)}) {len(answer.image)} bytes"


@words.register
def _(answer: r.BlockImageOld) -> str:
    return f"old block device compressed {_truth(answer.compressed)}, {len(answer.content)} bytes"


@words.register
def _(answer: r.BlockImage) -> str:
    return f"block device compressed {_truth(answer.compressed)}"


@words.register
def _(answer: r.Consoles) -> str:
    return " ".join(f"[unikernel: {name}]" for name in answer.names) or "no consoles"


@words.register
def _(answer: r.Unikernels) -> str:
    return " ".join(f"[unikernel: {name}]: {info(one)}" for name, one in answer.unikernels) or "no unikernels"


@words.register
def _(answer: r.Failure) -> str:
    return f"command failed {answer.text}"


@words.register
def _(line: r.ConsoleLine) -> str:
    shown = "".join(chr(octet) if 0x20 <= octet < 0x7F else f"\\{octet:03}" for octet in line.line)
    return f"console {_time(line.timestamp)}: {shown}"


@words.register
def _(chunk: r.BlockChunk) -> str:
    return "block data eof" if chunk.content is None else f"block data {len(chunk.content)} bytes"


_USAGE = {"nsignals": "signals"}
_MEMORY = {"vsize": "virtual-size", "tsize": "text-size", "dsize": "data-size", "ssize": "stack-size"}


@words.register
def _(statistics: r.Statistics) -> str:
    usage = _attributes(statistics.usage, _USAGE)
    memory = "no kinfo_mem stats" if statistics.memory is None else _attributes(statistics.memory, _MEMORY)
    vmm = "no vmm stats" if statistics.vmm is None else " ".join(f"{key}: {value}" for key, value in statistics.vmm)
    interfaces = " ".join(_attributes(one, {"name": "bridge"}) for one in statistics.interfaces)
    return f"stats: {usage} {memory} {vmm} {interfaces}"


def _attributes(value: object, called: dict[str, str]) -> str:
    shown = []
    for name in value.__slots__:  # type: ignore[attr-defined]
        one = getattr(value, name)
        figure = f"{one.seconds}.{one.microseconds:06}" if isinstance(one, r.Timeval) else one
        shown.append(f"{called.get(name, name)} {figure}")
    return " ".join(shown)


def state_unikernel(name: object, value: UnikernelConfig) -> str:
    return fold(f"{name} {config(value)}")


def state_policy(name: object, value: Policy) -> str:
    return fold(f"{name} {policy(value)}")
