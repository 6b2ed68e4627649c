"""Answers and data as JSON documents: the schema that scripts rely on.

Pure. ``docs/output.md`` describes each document; a test holds the two together. Times are RFC 3339 in UTC, digests
and MAC addresses hexadecimal, memory and block sizes in MB (2**20 octets). Octets that are not UTF-8 appear as
``\\xNN`` in text, as everywhere else where people look.
"""

from datetime import UTC, datetime
from math import isfinite
from typing import Any

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
    ResourceUsage,
    Statistics,
    Success,
    Text,
    UnikernelImage,
    Unikernels,
)
from albatross_pki.text import printable
from albatross_pki.unikernels import BlockInfo, FailBehaviour, UnikernelInfo

Document = Any  # what json.dumps takes


def success_document(name: Name, reply: Success) -> Document:
    """What ``-o json`` prints for an answer about ``name``."""
    match reply:
        case Empty():
            return {"name": str(name), "result": ""}
        case Text(text):
            return text_document(name, text)
        case Unikernels(unikernels):
            return [unikernel_document(each, info) for each, info in unikernels]
        case Policies(policies):
            return [policy_document(each, policy) for each, policy in policies]
        case BlockDevices(devices):
            return [block_document(device) for device in devices]
        case Consoles(names):
            return [{"name": str(each)} for each in names]
        case UnikernelImage() | BlockImage() | BlockImageOld():
            return {"name": str(name), "compressed": reply.compressed}


def text_document(name: Name, text: str) -> Document:
    """A text answer; extended commands answer with a JSON document in that text, which is then the answer."""
    if text.startswith(("{", "[")):
        try:
            return host_document(text)
        except ValueError:
            pass  # some other text that begins with a brace
    return {"name": str(name), "result": printable(text)}


def host_document(text: str | bytes) -> Document:
    """The JSON document in a host's text; raises ``ValueError`` for everything that could not be printed as JSON again.

    Python's own reader takes ``NaN``, and numbers that are infinite, which are no JSON (RFC 8259, 6).
    """
    import json  # an answer that is no text needs none

    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text} is no number")
    return number


def unikernel_document(name: Name, info: UnikernelInfo) -> Document:
    return {
        "name": str(name),
        "type": info.typ.value,
        "digest": info.digest.hex() if info.typ.value == "solo5" else printable(info.digest),
        "started": timestamp(info.started) if info.started else None,
        "cpus": info.cpus,
        "cpuids": sorted(info.cpuids),
        "memory_mb": info.memory_mb,
        "restart": restart_document(info.fail_behaviour),
        "startup": info.startup,
        "blocks": [
            {
                "name": printable(block.name),
                "device": printable(block.host_device),
                "sector_size": block.sector_size,
                "size_mb": block.size_mb,
            }
            for block in info.blocks
        ],
        "networks": [
            {"name": printable(network.name), "bridge": printable(network.host_bridge), "mac": mac_text(network.mac)}
            for network in info.interfaces
        ],
        "arguments": None if info.arguments is None else [printable(text) for text in info.arguments],
        "linux_boot_partition": None if info.linux_boot_partition is None else printable(info.linux_boot_partition),
    }


def restart_document(behaviour: FailBehaviour) -> Document:
    """``None``: never; an empty list: on every failure; else the exit codes."""
    return None if behaviour.restart is None else sorted(behaviour.restart)


def policy_document(name: Name, policy: Policy) -> Document:
    return {
        "path": str(name.path if name.is_path else name.path.child(str(name.label))),
        "unikernels": policy.unikernels,
        "cpuids": sorted(policy.cpuids),
        "memory_mb": policy.memory_mb,
        "block_mb": policy.block_mb,
        "bridges": sorted(printable(bridge) for bridge in policy.bridges),
    }


def block_document(device: BlockInfo) -> Document:
    return {"name": str(device.name), "size_mb": device.size_mb, "active": device.active}


def data_document(name: Name, data: Data) -> Document:
    """What ``-o json`` prints, on one line, for one piece of a stream."""
    match data:
        case ConsoleLine(moment, line):
            return {"name": str(name), "time": timestamp(moment), "line": printable(line, 2**20)}
        case Statistics():
            return statistics_document(name, data)
        case BlockChunk(content):
            return {"name": str(name), "octets": len(content or b"")}


def statistics_document(name: Name, statistics: Statistics) -> Document:
    memory = statistics.memory
    return {
        "name": str(name),
        "usage": _usage_document(statistics.usage),
        "memory": None
        if memory is None
        else {
            "virtual_octets": memory.vsize,
            "resident_pages": memory.rss,
            "runtime_microseconds": memory.runtime,
            "started": memory.start.seconds + memory.start.microseconds / 1e6,
        },
        "vmm": None if statistics.vmm is None else {printable(key): value for key, value in statistics.vmm},
        "networks": [_interface_document(interface) for interface in statistics.interfaces],
    }


def _usage_document(usage: ResourceUsage) -> Document:
    return {
        "user_seconds": usage.utime.seconds + usage.utime.microseconds / 1e6,
        "system_seconds": usage.stime.seconds + usage.stime.microseconds / 1e6,
        "max_resident": usage.maxrss,
        "minor_faults": usage.minflt,
        "major_faults": usage.majflt,
        "voluntary_switches": usage.nvcsw,
        "involuntary_switches": usage.nivcsw,
    }


def _interface_document(interface: InterfaceStats) -> Document:
    return {
        "name": printable(interface.name),
        "mtu": interface.mtu,
        "input": {
            "packets": interface.input_packets,
            "octets": interface.input_bytes,
            "errors": interface.input_errors,
            "dropped": interface.input_dropped,
        },
        "output": {
            "packets": interface.output_packets,
            "octets": interface.output_bytes,
            "errors": interface.output_errors,
            "dropped": interface.output_dropped,
        },
    }


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds: ``2026-11-21T02:31:10.123Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def mac_text(mac: bytes) -> str:
    return mac.hex(":")
