"""A second reader and writer of every format, made of the grammar in docs/asn1 by asn1tools.

It shares nothing with ``albatross_pki.wire``: values become asn1tools' structures here, and the sorting of sets, the
form of times and the width of integers are spelled out once more. Text and times are octets to it, because asn1tools
takes neither text that is not UTF-8 nor the fractions of a second that Albatross writes; and it does not sort sets.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import asn1tools

from albatross_pki import authorised as a
from albatross_pki import commands as c
from albatross_pki import extensions as e
from albatross_pki import replies as r
from albatross_pki.commands import Version
from albatross_pki.messages import Message, Payload, StateDump
from albatross_pki.names import Name
from albatross_pki.policies import Policy
from albatross_pki.unikernels import (
    BlockDevice,
    FailBehaviour,
    NetworkInterface,
    Settings,
    UnikernelConfig,
    UnikernelInfo,
)

GRAMMAR = Path(__file__).parents[2] / "docs" / "asn1"


@cache
def grammar() -> Any:
    """The compiled modules; text and times are octets under their own tags."""
    modules = asn1tools.parse_string("".join(file.read_text() for file in sorted(GRAMMAR.glob("*.asn1"))))
    types = modules["Albatross-AV5"]["types"]
    for name, tag in (("Text", 12), ("Name", 12), ("Time", 24)):
        implicit = {"number": tag, "class": "UNIVERSAL", "kind": "IMPLICIT"}
        types[name] = {"type": "OCTET STRING", "tag": implicit}
    return asn1tools.compile_dict(modules, "ber")


def encode(kind: str, structure: Any) -> bytes:
    return bytes(grammar().encode(kind, structure))


def decode(kind: str, octets: bytes) -> Any:
    """The structure; everything in ``octets`` must be used up, which asn1tools does not look at."""
    structure, length = grammar().decode_with_length(kind, octets)
    assert length == len(octets)
    return structure


def _without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


# elements


def text(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def name(value: Name) -> bytes:
    return f"{':'.join(value.path.labels)}:{value.label or ''}".encode("ascii")


def time(value: datetime) -> bytes:
    fraction = f".{value.microsecond // 1000:03d}" if value.microsecond >= 1000 else ""
    date = f"{value.year:04d}{value.month:02d}{value.day:02d}"
    return f"{date}{value.hour:02d}{value.minute:02d}{value.second:02d}{fraction}Z".encode("ascii")


def int64(value: int) -> bytes:
    return (value % 2**64).to_bytes(8, "big")


def int32(value: int) -> int:
    return value - 2**32 if value >= 2**31 else value


def integer_set(values: Iterable[int]) -> list[int]:
    """In the order of their encodings: by number of octets, then by octets."""

    def octets(value: int) -> tuple[int, bytes]:
        count = next(count for count in range(1, 20) if -(1 << 8 * count - 1) <= value < 1 << 8 * count - 1)
        return count, value.to_bytes(count, "big", signed=True)

    return sorted(values, key=octets)


def _sorted_set(kind: str, structures: Iterable[Any]) -> list[Any]:
    return sorted(structures, key=lambda structure: encode(kind, structure))


def _texts(values: tuple[str, ...] | None) -> list[bytes] | None:
    return None if values is None else [text(value) for value in values]


def _text_or_none(value: str | None) -> bytes | None:
    return None if value is None else text(value)


def policy(value: Policy) -> dict[str, Any]:
    return _without_none(
        cpuids=sorted(value.cpuids),
        unikernels=value.unikernels,
        memory=value.memory_mb,
        block=value.block_mb,
        bridges=sorted(text(bridge) for bridge in value.bridges),
    )


def _named_policies(policies: Iterable[tuple[Name, Policy]]) -> list[dict[str, Any]]:
    return [{"name": name(one), "policy": policy(other)} for one, other in policies]


# unikernels


def _fail(value: FailBehaviour) -> tuple[str, Any]:
    return ("quit", None) if value.restart is None else ("restart", integer_set(value.restart))


def _blocks(blocks: tuple[BlockDevice, ...]) -> list[Any] | None:
    structures = (
        _without_none(name=text(one.name), device=_text_or_none(one.device), sectorSize=one.sector_size)
        for one in blocks
    )
    return _sorted_set("Block", structures) or None


def _bridges(interfaces: tuple[NetworkInterface, ...]) -> list[Any] | None:
    structures = (
        _without_none(name=text(one.name), bridge=_text_or_none(one.bridge), mac=one.mac) for one in interfaces
    )
    return _sorted_set("Bridge", structures) or None


def _smallest(cpuids: frozenset[int]) -> int:
    return sorted(cpuids)[0] if cpuids else 0


def settings(value: Settings) -> dict[str, Any]:
    """The fields of every version: asn1tools leaves out those that a version does not have."""
    return _without_none(
        fail=_fail(value.fail_behaviour),
        startup=value.startup,
        addName=value.add_name,
        cpuids=integer_set(value.cpuids),
        cpuid=_smallest(value.cpuids),
        memory=value.memory_mb,
        blocks=_blocks(value.blocks),
        bridges=_bridges(value.interfaces),
        arguments=_texts(value.arguments),
        cpus=value.cpus,
        bootPartition=_text_or_none(value.linux_boot_partition),
    )


def config(value: UnikernelConfig) -> dict[str, Any]:
    return {
        "kind": (value.typ.value, None),
        "compressed": value.compressed,
        "image": value.image,
        **settings(value.settings),
    }


def info(value: UnikernelInfo) -> dict[str, Any]:
    blocks = (
        {"name": text(one.name), "device": text(one.host_device), "sectorSize": one.sector_size, "size": one.size_mb}
        for one in value.blocks
    )
    bridges = ({"name": text(one.name), "bridge": text(one.host_bridge), "mac": one.mac} for one in value.interfaces)
    return _without_none(
        kind=(value.typ.value, None),
        startup=value.startup,
        fail=_fail(value.fail_behaviour),
        cpuids=integer_set(value.cpuids),
        cpuid=_smallest(value.cpuids),
        memory=value.memory_mb,
        digest=value.digest,
        blocks=_sorted_set("InfoBlock", blocks) or None,
        bridges=_sorted_set("InfoBridge", bridges) or None,
        arguments=_texts(value.arguments),
        started=None if value.started is None else time(value.started),
        cpus=value.cpus,
        bootPartition=_text_or_none(value.linux_boot_partition),
    )


# commands


def _since_or_count(value: c.ConsoleSubscribe) -> tuple[str, Any]:
    return ("count", value.count) if value.since is None else ("since", time(value.since))


def _restart(value: c.UnikernelRestart) -> tuple[str, Any]:
    if value.settings is None:
        return "nothing", None
    versions = {Version.V0: "v0", Version.V1: "v1", Version.CURRENT: "v2"}
    return versions[value.version], settings(value.settings)


def _create(value: c.UnikernelCreate) -> tuple[str, Any]:
    version = {Version.V3: "V3", Version.V4: "V4", Version.CURRENT: ""}[value.version]
    return ("forceCreate" if value.force else "create") + version, config(value.config)


def _stats_add(value: c.StatsAdd) -> dict[str, Any]:
    network = [{"device": text(device), "tap": text(tap)} for device, tap in value.network]
    return {"vmmdev": text(value.vmmdev), "pid": value.pid, "network": network}


def _block_add_old(value: c.BlockAddOld) -> dict[str, Any]:
    return _without_none(size=value.size_mb, compressed=value.compressed, content=value.content)


_INFO_REQUESTS = {Version.CURRENT: "info", Version.OLD4: "infoOld4", Version.OLD5: "infoOld5"}

_COMMANDS: dict[type, tuple[str, Callable[[Any], tuple[str, Any]]]] = {
    c.ConsoleAdd: ("console", lambda one: ("add", one.rings)),
    c.ConsoleSubscribe: ("console", lambda one: ("subscribe", _since_or_count(one))),
    c.ConsoleInactive: ("console", lambda _: ("inactive", None)),
    c.StatsAdd: ("statistics", lambda one: ("add", _stats_add(one))),
    c.StatsRemove: ("statistics", lambda _: ("remove", None)),
    c.StatsSubscribe: ("statistics", lambda _: ("subscribe", None)),
    c.StatsInitial: ("statistics", lambda _: ("initial", None)),
    c.UnikernelInfoRequest: ("unikernel", lambda one: (_INFO_REQUESTS[one.version], None)),
    c.UnikernelCreate: ("unikernel", _create),
    c.UnikernelRestart: ("unikernel", lambda one: ("restart", _restart(one))),
    c.UnikernelDestroy: ("unikernel", lambda _: ("destroy", None)),
    c.UnikernelGet: ("unikernel", lambda one: ("get", one.level)),
    c.PolicyInfo: ("policy", lambda _: ("info", None)),
    c.PolicyAdd: ("policy", lambda one: ("add", policy(one.policy))),
    c.PolicyRemove: ("policy", lambda _: ("remove", None)),
    c.BlockInfoRequest: ("block", lambda _: ("info", None)),
    c.BlockAdd: ("block", lambda one: ("add", one.size_mb)),
    c.BlockAddOld: ("block", lambda one: ("addOld", _block_add_old(one))),
    c.BlockRemove: ("block", lambda _: ("remove", None)),
    c.BlockSet: ("block", lambda one: ("set", one.compressed)),
    c.BlockSetOld: ("block", lambda one: ("setOld", {"compressed": one.compressed, "content": one.content})),
    c.BlockDump: ("block", lambda one: ("dump", one.level)),
    c.BlockDumpOld: ("block", lambda one: ("dumpOld", one.level)),
}


def command(value: c.Command) -> tuple[str, Any]:
    group, inside = _COMMANDS[type(value)]
    return group, inside(value)


# answers


def _unikernels(value: r.Unikernels) -> tuple[str, Any]:
    infos = [{"name": name(one), "info": info(other)} for one, other in value.unikernels]
    return _INFO_REQUESTS[value.version], infos


def _image(compressed: bool, image: bytes) -> dict[str, Any]:
    return {"compressed": compressed, "image": image}


def _devices(value: r.BlockDevices) -> list[dict[str, Any]]:
    return [{"name": name(one.name), "size": one.size_mb, "active": one.active} for one in value.devices]


def _timeval(value: r.Timeval) -> dict[str, Any]:
    return {"seconds": int64(value.seconds), "microseconds": value.microseconds}


def _statistics(value: r.Statistics) -> dict[str, Any]:
    vmm = None if value.vmm is None else [{"key": text(key), "value": int64(number)} for key, number in value.vmm]
    usage = {
        field: _timeval(number) if isinstance(number, r.Timeval) else int64(number)
        for field, number in _fields(value.usage)
    }
    return _without_none(
        usage=usage,
        interfaces=[_interface(one) for one in value.interfaces],
        vmm=vmm,
        memory=None if value.memory is None else _memory(value.memory),
    )


def _memory(value: r.ProcessMemory) -> dict[str, Any]:
    fields = {field: number for field, number in _fields(value) if field not in ("cow", "start")}
    counters = {field: int64(number) for field, number in fields.items()}
    return {**counters, "cow": value.cow, "start": _timeval(value.start)}


def _interface(value: r.InterfaceStats) -> dict[str, Any]:
    narrow = ("flags", "send_length", "max_send_length", "send_drops", "mtu")
    structure: dict[str, Any] = {"name": text(value.name)}
    for field, number in _fields(value):
        if field != "name":
            first, *rest = field.split("_")
            called = first + "".join(word.title() for word in rest)
            structure[called] = int32(number) if field in narrow else int64(number)
    return structure


def _fields(value: Any) -> list[tuple[str, Any]]:
    return [(field, getattr(value, field)) for field in value.__slots__]


_ANSWERS: dict[type, Callable[[Any], tuple[str, Any]]] = {
    r.Empty: lambda _: ("empty", None),
    r.Text: lambda one: ("string", text(one.text)),
    r.Policies: lambda one: ("policies", _named_policies(one.policies)),
    r.BlockDevices: lambda one: ("devices", _devices(one)),
    r.UnikernelImage: lambda one: ("image", _image(one.compressed, one.image)),
    r.BlockImageOld: lambda one: ("imageOld", _image(one.compressed, one.content)),
    r.BlockImage: lambda one: ("dump", one.compressed),
    r.Consoles: lambda one: ("consoles", [name(each) for each in one.names]),
    r.Unikernels: _unikernels,
}
_STREAMED: dict[type, Callable[[Any], tuple[str, Any]]] = {
    r.Statistics: lambda one: ("statistics", _statistics(one)),
    r.ConsoleLine: lambda one: ("console", {"timestamp": time(one.timestamp), "line": one.line}),
    r.BlockChunk: lambda one: ("block", ("none", None) if one.content is None else ("some", one.content)),
}


def payload(value: Payload) -> tuple[str, Any]:
    if type(value) in _COMMANDS:
        return "command", command(value)  # type: ignore[arg-type]
    if type(value) in _ANSWERS:
        return "reply", _ANSWERS[type(value)](value)
    if isinstance(value, r.Failure):
        return "failure", text(value.text)
    return "data", _STREAMED[type(value)](value)


# what stands on its own


def message(value: Message) -> bytes:
    header = {
        "version": value.header.version,
        "sequence": int64(value.header.sequence),
        "name": name(value.header.name),
    }
    return encode("WireMessage", {"header": header, "payload": payload(value.payload)})


def extension(value: e.AlbatrossExtension) -> bytes:
    return encode("CertExtension", {"version": value.version, "command": command(value.command)})


def configuration(value: UnikernelConfig) -> bytes:
    return encode("ConfigV5", config(value))


def state(value: StateDump, kind: str = "v5AndPolicies") -> bytes:
    """The dump in any version that has the configurations of V3 or newer; entries in the order given."""
    unikernels = [{"name": name(one), "config": config(other)} for one, other in value.unikernels]
    if kind == "v3":
        return encode("StateDump", (kind, unikernels))
    return encode("StateDump", (kind, {"unikernels": unikernels, "policies": _named_policies(value.policies)}))


# ours


_EXTENDED = {
    e.CrlUpdate: "crlUpdate",
    e.Rollback: "rollback",
    e.HostInfo: "hostInfo",
    e.Stop: "stop",
    e.Start: "start",
    e.Status: "status",
}


def extended(value: e.ExtendedCommand) -> tuple[str, Any]:
    if isinstance(value, e.Events):
        return "events", {} if value.since is None else {"since": time(value.since)}
    return _EXTENDED[type(value)], None


def extended_command(value: e.ExtendedCommand) -> bytes:
    return encode("ExtendedCommand", {"version": 1, "command": extended(value)})


def _sorted_texts(values: frozenset[str] | None) -> list[bytes] | None:
    return None if values is None else sorted(text(value) for value in values)


def _sorted_digests(values: frozenset[bytes] | None) -> list[bytes] | None:
    return None if values is None else sorted(values)


def constraints(value: e.Constraints) -> bytes:
    structure = _without_none(
        version=1,
        commands=_sorted_texts(value.commands),
        images=_sorted_digests(value.images),
        names=_sorted_texts(value.names),
        hosts=_sorted_texts(value.hosts),
        deployments=_sorted_digests(value.deployments),
    )
    return encode("Constraints", structure | ({"once": None} if value.once else {}))


def image_binding(value: e.ImageBinding) -> bytes:
    return encode("ImageBinding", _binding(value))


def _binding(value: e.ImageBinding) -> dict[str, Any]:
    return {"digest": value.digest, "size": value.size}


def _certificate(value: a.CertificateId) -> dict[str, Any]:
    return {"issuerKey": value.issuer_key, "serial": value.serial}


def _chain_policy(value: a.ChainPolicy) -> dict[str, Any]:
    return {
        "path": name(Name(value.path)),
        "policy": policy(value.policy),
        "certificate": _certificate(value.certificate),
        "notBefore": time(value.not_before),
        "notAfter": time(value.not_after),
    }


def _any_command(value: e.AnyCommand) -> tuple[str, Any]:
    if type(value) in _COMMANDS:
        return "albatross", command(value)  # type: ignore[arg-type]
    return "extended", extended(value)  # type: ignore[arg-type]


def _authorised(value: a.AuthorisedRequest) -> dict[str, Any]:
    structure = _without_none(
        name=name(value.name),
        command=_any_command(value.command),
        policies=[_chain_policy(one) for one in value.policies],
        leaf=_certificate(value.leaf),
        notAfter=time(value.not_after),
        images=_sorted_digests(value.images),
        deployments=_sorted_digests(value.deployments),
        binding=None if value.binding is None else _binding(value.binding),
    )
    return structure | ({"mayGet": None} if value.may_get else {})


def _outcome(value: a.Outcome) -> dict[str, Any]:
    return {"succeeded": value.succeeded, "effect": value.effect.value, "text": text(value.text)}


def _verdict(value: a.Verdict) -> dict[str, Any]:
    return {
        "name": name(value.name),
        "reasons": _texts(value.reasons),
        "stream": value.stream.value,
        "streamLimit": value.stream_limit,
        "answers": value.answers,
    }


_SIDE: dict[type, Callable[[Any], tuple[str, Any]]] = {
    a.AuthorisedRequest: lambda one: ("authorised", _authorised(one)),
    a.Outcome: lambda one: ("outcome", _outcome(one)),
    a.JudgeRequest: lambda one: ("judge", {"peer": text(one.peer), "certificates": list(one.certificates)}),
    a.Verdict: lambda one: ("verdict", _verdict(one)),
    a.ExecuteRequest: lambda one: ("execute", {"spooled": one.spooled, "digest": one.digest}),
    a.Executing: lambda _: ("executing", None),
    a.LocalRequest: lambda one: ("local", {"name": name(one.name), "command": extended(one.command)}),
    a.AskRemembered: lambda one: ("askRemembered", {} if one.after is None else {"after": _certificate(one.after)}),
    a.Remembered: lambda one: ("remembered", {"certificates": [_certificate(each) for each in one.certificates]}),
    a.Revoked: lambda one: (
        "revoked",
        {"certificates": [_certificate(each) for each in one.certificates], "stop": one.stop},
    ),
}


def side(value: a.SideMessage) -> bytes:
    return encode("SideMessage", _SIDE[type(value)](value))
