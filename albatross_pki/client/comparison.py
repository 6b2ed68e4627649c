"""Whether what a host shows is what is wanted, field by field. Pure.

A host shows how a unikernel runs, not how it was asked for: a device without a host's name has the manifest's, a MAC
address that nobody gave is derived from the names, an absent startup priority is the default one. So both sides are
brought to one form before they are compared. What a host does not show is not compared: whether it adds ``--name=…`` to
the arguments, and, to a delegation that may not fetch images, the arguments themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from albatross_pki.client.documents import mac_text, restart_document
from albatross_pki.client.wanted import WantedUnikernel
from albatross_pki.names import Name, Path, derived_mac
from albatross_pki.policies import Policy
from albatross_pki.text import printable
from albatross_pki.unikernels import DEFAULT_SECTOR_SIZE, DEFAULT_STARTUP, NetworkInterface, UnikernelInfo


@dataclass(frozen=True, slots=True)
class Present:
    """What a host has at and below a path; names and paths are relative to it.

    ``policies`` are those that its operator set; what delegations brought goes with them. ``dormant`` are unikernels
    that the host knows and does not run, with the state that they are in. ``full`` is the path as the host knows it,
    for MAC addresses; ``None`` if that is not known.
    """

    policies: Mapping[Path, Policy] = field(default_factory=dict)
    blocks: Mapping[Name, int] = field(default_factory=dict)  # size in MB
    unikernels: Mapping[Name, UnikernelInfo] = field(default_factory=dict)
    dormant: Mapping[Name, str] = field(default_factory=dict)
    arguments_shown: bool = True
    full: Path | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One field that is to become another one; both values as in the documents of ``-o json``."""

    field: str
    present: Any
    wanted: Any


def policy_changes(present: Policy | None, wanted: Policy) -> tuple[Change, ...]:
    """Every field of a policy that differs; all of them where there is none."""
    return _changes({} if present is None else policy_fields(present), policy_fields(wanted))


def policy_fields(policy: Policy) -> dict[str, Any]:
    return {
        "unikernels": policy.unikernels,
        "cpuids": sorted(policy.cpuids),
        "memory_mb": policy.memory_mb,
        "block_mb": policy.block_mb,
        "bridges": sorted(printable(bridge) for bridge in policy.bridges),
    }


def unikernel_changes(name: Name, info: UnikernelInfo, wanted: WantedUnikernel, present: Present) -> tuple[Change, ...]:
    """Every field of a unikernel that is not as it is wanted."""
    shown, asked = shown_fields(info), wanted_fields(wanted)
    if not present.arguments_shown:
        asked["arguments"] = shown["arguments"]
    macs = {each.name: each.mac for each in info.interfaces}
    for each, document in zip(_sorted(wanted.settings.interfaces), asked["networks"], strict=True):
        mac = each.mac or _derived(each, name, present.full) or macs.get(each.name)
        document["mac"] = None if mac is None else mac_text(mac)
    return _changes(shown, asked)


def new_unikernel(wanted: WantedUnikernel) -> tuple[Change, ...]:
    """Every field of a unikernel that is not there."""
    return _changes({}, wanted_fields(wanted))


def _derived(interface: NetworkInterface, name: Name, full: Path | None) -> bytes | None:
    return None if full is None else derived_mac(interface.name, name.below(full))


def wanted_fields(wanted: WantedUnikernel) -> dict[str, Any]:
    """A unikernel as it is wanted, in the form that it is compared in."""
    settings = wanted.settings
    return {
        "type": "solo5",
        "digest": wanted.digest.hex(),
        "memory_mb": settings.memory_mb,
        "cpuids": sorted(settings.cpuids),
        "restart": restart_document(settings.fail_behaviour),
        "startup": DEFAULT_STARTUP if settings.startup is None else settings.startup,
        "networks": [
            {"name": each.name, "bridge": each.host_bridge, "mac": None if each.mac is None else mac_text(each.mac)}
            for each in _sorted(settings.interfaces)
        ],
        "blocks": [
            {
                "name": each.name,
                "device": each.host_device.lower(),
                "sector_size": each.sector_size or DEFAULT_SECTOR_SIZE,
            }
            for each in _sorted(settings.blocks)
        ],
        "arguments": [printable(each) for each in settings.arguments or ()],
    }


def shown_fields(info: UnikernelInfo) -> dict[str, Any]:
    """A unikernel as a host shows it, in the form that it is compared in."""
    return {
        "type": info.typ.value,
        "digest": info.digest.hex() if info.typ.value == "solo5" else printable(info.digest),
        "memory_mb": info.memory_mb,
        "cpuids": sorted(info.cpuids),
        "restart": restart_document(info.fail_behaviour),
        "startup": DEFAULT_STARTUP if info.startup is None else info.startup,
        "networks": [
            {"name": printable(each.name), "bridge": printable(each.host_bridge), "mac": mac_text(each.mac)}
            for each in _sorted(info.interfaces)
        ],
        "blocks": [
            {
                "name": printable(each.name),
                "device": printable(each.host_device).lower(),
                "sector_size": each.sector_size,
            }
            for each in _sorted(info.blocks)
        ],
        "arguments": [printable(each) for each in info.arguments or ()],
    }


def _sorted(devices: Any) -> list[Any]:
    return sorted(devices, key=lambda each: str(each.name))


def _changes(present: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[Change, ...]:
    return tuple(
        Change(key, present.get(key), value)
        for key, value in wanted.items()
        if key not in present or present[key] != value
    )
