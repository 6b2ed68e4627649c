"""Answers and data in the words of Albatross 2.7's own client, for scripts that read those (``-o upstream``). Pure.

Each function gives the text of one message as that client prints it, except that a unikernel's fields are never
broken over lines (it does so at 80 columns, so whoever reads them takes any white space alike), and that octets which
could move a terminal's cursor are escaped. What Albatross has no words for is not shown by this module.
"""

from datetime import UTC, datetime

from albatross_pki.names import Name
from albatross_pki.policies import Policy
from albatross_pki.replies import (
    BlockChunk,
    BlockDevices,
    BlockImage,
    BlockImageOld,
    ConsoleLine,
    Consoles,
    Data,
    Empty,
    InterfaceStats,
    Policies,
    ProcessMemory,
    ResourceUsage,
    Statistics,
    Success,
    Text,
    Timeval,
    UnikernelImage,
    Unikernels,
)
from albatross_pki.text import printable
from albatross_pki.unikernels import FailBehaviour, UnikernelInfo, UnikernelType

_EPOCH = datetime.fromtimestamp(0, UTC)
_ESCAPES = {0x5C: "\\\\", 0x22: '\\"', 0x0A: "\\n", 0x09: "\\t", 0x0D: "\\r", 0x08: "\\b"}
_NOTHING = "not specified"


def answer_text(name: Name, reply: Success, *, everything: bool = False) -> str:
    """``host [unikernel: :hello]: success: created unikernel``, and its like for every answer.

    ``everything``: as with that client's ``--verbosity=debug``, which shows the arguments of unikernels.
    """
    return f"host {name_text(name)}: {_content(reply, everything)}"


def failure_text(program: str, name: Name, text: str) -> str:
    """How a client called ``program`` prints a failure, on standard output."""
    return f"{program}: [WARNING] host {name_text(name)}: command failed {printable(text, 8192)}"


def name_text(name: Name) -> str:
    return f"[unikernel: {name}]"


def data_text(data: Data) -> str:
    """One piece of a stream; a chunk of a block device has no text."""
    match data:
        case ConsoleLine(moment, line):
            return f"console {time_text(moment)}: {_escaped(line)}"
        case Statistics():
            return _statistics(data)
        case BlockChunk():
            return ""


def time_text(moment: datetime) -> str:
    """RFC 3339 in UTC, whole seconds, with the offset of a place that is not known."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S-00:00")


def _content(reply: Success, everything: bool) -> str:
    match reply:
        case Empty():
            return "success"
        case Text(text):
            return f"success: {printable(text, 1 << 20)}"
        case Unikernels(unikernels):
            lines = [
                f"{name_text(name)}: {_info(info)}{_arguments(info) if everything else ''}" for name, info in unikernels
            ]
            return "\n".join(lines) or "no unikernels"
        case Policies(policies):
            lines = [f"{name_text(name)}: {policy_text(policy)}" for name, policy in policies]
            return "\n".join(lines) or "no policies"
        case BlockDevices(devices):
            lines = [
                f"block {name_text(each.name)} size {each.size_mb} MB active {_truth(each.active)}" for each in devices
            ]
            return "\n".join(lines) or "no block devices"
        case Consoles(names):
            return "\n".join(map(name_text, names)) or "no consoles"
        case UnikernelImage(compressed, image):
            return f"image (compression {_truth(compressed)}) {len(image)} bytes"
        case BlockImage(compressed):
            return f"block device compressed {_truth(compressed)}"
        case BlockImageOld(compressed, content):
            return f"old block device compressed {_truth(compressed)}, {len(content)} bytes"


def _info(info: UnikernelInfo) -> str:
    blocks = ", ".join(
        f"{printable(each.name)} -> {printable(each.host_device)} "
        f"(sector-size: {each.sector_size} bytes, size {each.size_mb} MB)"
        for each in info.blocks
    )
    bridges = ", ".join(
        f"{printable(each.name)} -> {printable(each.host_bridge)} (mac {each.mac.hex(':')})" for each in info.interfaces
    )
    solo5 = info.typ is UnikernelType.SOLO5
    return " ".join(
        (
            f"typ {'solo5' if solo5 else 'BHyve'}",
            f"started {time_text(info.started or _EPOCH)}",
            f"fail behaviour {fail_text(info.fail_behaviour)}",
            f"startup at {startup_text(info.startup)}",
            f"CPUids {', '.join(map(str, sorted(info.cpuids)))}",
            f"{info.memory_mb} MB memory",
            f"block devices {blocks}",
            f"bridge {bridges}",
            f"digest {info.digest.hex()}" if solo5 else f"bhyve-vmname {printable(info.digest)}",
            f"#cpus {info.cpus}",
            f"linux_boot_partition {partition_text(info.linux_boot_partition)}",
        )
    )


def _arguments(info: UnikernelInfo) -> str:
    return f" argv {' '.join(map(printable, info.arguments or ('no',)))}"


def fail_text(behaviour: FailBehaviour) -> str:
    """``quit``, ``restart all except 1``, or ``restart 3, 5``."""
    if behaviour.restart is None:
        return "quit"
    return f"restart {', '.join(map(str, sorted(behaviour.restart))) or 'all except 1'}"


def startup_text(startup: int | None) -> str:
    return _NOTHING if startup is None else str(startup)


def partition_text(partition: str | None) -> str:
    return _NOTHING if partition is None else printable(partition)


def policy_text(policy: Policy) -> str:
    block = "no block" if policy.block_mb is None else f"{policy.block_mb} MB block"
    bridges = ", ".join(printable(bridge) for bridge in sorted(policy.bridges))
    return (
        f"policy: {policy.unikernels} unikernels {','.join(map(str, sorted(policy.cpuids)))} CPUids "
        f"{policy.memory_mb} MB memory {block}" + (f", bridges: {bridges}" if bridges else "")
    )


def _statistics(statistics: Statistics) -> str:
    vmm = "no vmm stats"
    if statistics.vmm is not None:
        vmm = "\n".join(f"{printable(key)}: {value}" for key, value in statistics.vmm)
    interfaces = "\n\n".join(map(_interface, statistics.interfaces))
    return f"stats: {_usage(statistics.usage)}\n{_memory(statistics.memory)}\n{vmm}\n{interfaces}"


def _usage(usage: ResourceUsage) -> str:
    counters = ("maxrss", "ixrss", "idrss", "isrss", "minflt", "majflt", "nswap", "inblock", "outblock", "msgsnd")
    shown = " ".join(f"{counter} {getattr(usage, counter)}" for counter in counters)
    return (
        f"utime {_seconds(usage.utime)} stime {_seconds(usage.stime)} {shown} msgrcv {usage.msgrcv} "
        f"signals {usage.nsignals} nvcsw {usage.nvcsw} nivcsw {usage.nivcsw}"
    )


def _memory(memory: ProcessMemory | None) -> str:
    if memory is None:
        return "no kinfo_mem stats"
    return (
        f"virtual-size {memory.vsize} rss {memory.rss} text-size {memory.tsize} data-size {memory.dsize} "
        f"stack-size {memory.ssize} runtime {memory.runtime} cow {memory.cow} start {_seconds(memory.start)}"
    )


_COUNTERS = (
    *("send_length", "max_send_length", "send_drops", "mtu", "baudrate", "input_packets", "input_errors"),
    *("output_packets", "output_errors", "collisions", "input_bytes", "output_bytes", "input_mcast", "output_mcast"),
    *("input_dropped", "output_dropped"),
)


def _interface(interface: InterfaceStats) -> str:
    counters = " ".join(f"{counter} {getattr(interface, counter)}" for counter in _COUNTERS)
    return f"bridge {printable(interface.name)} flags {interface.flags:x} {counters}"


def _seconds(value: Timeval) -> str:
    return f"{value.seconds}.{value.microseconds:06d}"


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _escaped(octets: bytes) -> str:
    """Octets as in a string literal of OCaml: what is not printable ASCII has three decimal digits."""
    return "".join(_ESCAPES.get(each) or (chr(each) if 0x20 <= each < 0x7F else f"\\{each:03d}") for each in octets)
