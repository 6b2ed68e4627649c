"""Bridges for unikernels: what is to be done so that one is as it is wanted, and when that is refused.

Everything here is pure: from what is wanted and what the machine has (``Present``) follow steps, each of which can say
itself as commands that a person knows. Doing them is for ``bridges_linux``; the commands are for reading alone.

A bridge of ours is

1. a bridge with a MAC address that depends on its name and the machine alone: without one it takes the lowest address
   of its ports, and changes it as unikernels come and go;
2. with a dummy interface of that address as its first port, so that it has a carrier before any unikernel runs;
3. up, with the IP addresses that were asked for: the gateway of its unikernels;
4. if asked for, with a table of nftables that translates what its IPv4 networks send to other networks (NAT), and with
   forwarding switched on.

It has an alias that says so; only bridges with that alias are ever removed. What is there already stays: planning for
a bridge that is as wanted gives no step. The kernel sets the alias of a bridge only when it is there; whoever was
ended in between has left one with our MAC address and nothing else (``is_unfinished``), which is ours as well.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from albatross_pki.errors import AlbatrossError
from albatross_pki.host.network import mac_text, read_alias, valid_interface
from albatross_pki.text import printable

DUMMY_SUFFIX = "-0"
MAX_TRANSLATED = 12  # networks; their names are kept in a comment of at most 254 octets
MAX_BRIDGE_NAME = 15 - len(DUMMY_SUFFIX)  # IFNAMSIZ without its NUL, and the name of the dummy
ALIAS = "albatross-pki-bridge"
ALIAS_WITHOUT_DUMMY = "albatross-pki-bridge no-dummy"  # this kernel has no dummy interfaces: not missed again

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network


class BridgeRefused(AlbatrossError):
    """A bridge cannot be had, or not removed."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A bridge as it should be. ``machine`` are octets that tell this machine from others."""

    name: str
    addresses: tuple[Interface, ...] = ()
    nat: bool = False
    machine: bytes = b""

    @property
    def mac(self) -> bytes:
        """Locally administered, of one station (IEEE 802: second and lowest bit of the first octet)."""
        return (
            b"\x02" + hashlib.sha256(b"albatross-pki bridge\0" + self.name.encode() + b"\0" + self.machine).digest()[:5]
        )

    @property
    def dummy(self) -> str:
        return self.name + DUMMY_SUFFIX

    @property
    def translated(self) -> tuple[IPv4Network, ...]:
        """The networks whose packets get the host's address on their way to other networks."""
        if not self.nat:
            return ()
        return tuple(dict.fromkeys(each.network for each in self.addresses if isinstance(each, IPv4Interface)))


@dataclass(frozen=True, slots=True)
class PresentLink:
    """An interface as it was found; ``bridge`` is the name of the bridge that it is a port of."""

    name: str
    kind: str
    mac: bytes
    up: bool
    alias: str = ""
    bridge: str | None = None
    addresses: tuple[Interface, ...] = ()

    @property
    def is_ours(self) -> bool:
        return self.kind == "bridge" and self.alias in (ALIAS, ALIAS_WITHOUT_DUMMY)


@dataclass(frozen=True, slots=True)
class Present:
    """What the machine has: interfaces, the translated networks by bridge, and whether IPv4 is forwarded."""

    links: tuple[PresentLink, ...] = ()
    nat: tuple[tuple[str, tuple[IPv4Network, ...]], ...] = ()
    forwarding: bool = False

    def link(self, name: str) -> PresentLink | None:
        return next((each for each in self.links if each.name == name), None)

    def ports(self, bridge: str) -> tuple[PresentLink, ...]:
        return tuple(each for each in self.links if each.bridge == bridge)

    def is_unfinished(self, wanted: "Wanted") -> bool:
        """Whether the bridge is one that we began to make: without alias, and so far without all else."""
        link = self.link(wanted.name)
        return (
            link is not None
            and (link.kind, link.mac, link.alias, link.up, link.addresses) == ("bridge", wanted.mac, "", False, ())
            and not self.ports(wanted.name)
        )

    def translated(self, bridge: str) -> tuple[IPv4Network, ...] | None:
        """``None`` if there is no table for this bridge."""
        return dict(self.nat).get(bridge)


# steps


@dataclass(frozen=True, slots=True)
class MakeBridge:
    name: str
    mac: bytes

    @property
    def commands(self) -> tuple[str, ...]:
        return (f"ip link add name {self.name} address {mac_text(self.mac)} type bridge",)


@dataclass(frozen=True, slots=True)
class MarkBridge:
    name: str

    @property
    def commands(self) -> tuple[str, ...]:
        return (f"ip link set dev {self.name} alias {ALIAS}",)


@dataclass(frozen=True, slots=True)
class MakeDummy:
    name: str
    mac: bytes
    bridge: str

    @property
    def commands(self) -> tuple[str, ...]:
        return (
            f"ip link add name {self.name} address {mac_text(self.mac)} type dummy",
            f"ip link set dev {self.name} master {self.bridge} up",
        )  # one message to the kernel: it is never without its bridge


@dataclass(frozen=True, slots=True)
class SetUp:
    name: str

    @property
    def commands(self) -> tuple[str, ...]:
        return (f"ip link set dev {self.name} up",)


@dataclass(frozen=True, slots=True)
class AddAddress:
    bridge: str
    address: Interface

    @property
    def commands(self) -> tuple[str, ...]:
        return (f"ip address add {self.address} dev {self.bridge}",)


@dataclass(frozen=True, slots=True)
class Forward:
    @property
    def commands(self) -> tuple[str, ...]:
        return ("sysctl -w net.ipv4.ip_forward=1",)


@dataclass(frozen=True, slots=True)
class Translate:
    """Replaces a table that is there already."""

    bridge: str
    networks: tuple[IPv4Network, ...]

    @property
    def commands(self) -> tuple[str, ...]:
        table = f"ip {nat_table(self.bridge)}"
        return (
            f"nft 'add table {table}; delete table {table}; add table {table}'",
            f"nft 'add chain {table} postrouting {{ type nat hook postrouting priority srcnat; }}'",
            *(
                f"nft 'add rule {table} postrouting ip saddr {network} oifname != \"{self.bridge}\" masquerade'"
                for network in self.networks
            ),
        )


@dataclass(frozen=True, slots=True)
class StopTranslating:
    bridge: str

    @property
    def commands(self) -> tuple[str, ...]:
        return (f"nft delete table ip {nat_table(self.bridge)}",)


@dataclass(frozen=True, slots=True)
class RemoveLink:
    name: str

    @property
    def commands(self) -> tuple[str, ...]:
        return (f"ip link delete dev {self.name}",)


Step = MakeBridge | MarkBridge | MakeDummy | SetUp | AddAddress | Forward | Translate | StopTranslating | RemoveLink


def nat_table(bridge: str) -> str:
    return f"albatross-nat-{bridge}"


# plans


def plan_add(wanted: Wanted, present: Present) -> tuple[Step, ...]:
    """What makes the bridge as it is wanted; nothing if it is. Raises ``BridgeRefused``."""
    check_wanted(wanted)
    bridge, dummy = present.link(wanted.name), present.link(wanted.dummy)
    if bridge is not None and bridge.kind != "bridge":
        raise BridgeRefused(
            f"{wanted.name} exists and is no bridge{f' but {bridge.kind}' if bridge.kind else ''}",
            hint="choose another name",
        )
    if dummy is not None and dummy.bridge != wanted.name and not _is_stray(wanted, dummy):
        raise BridgeRefused(
            f"{wanted.dummy} exists and is no port of {wanted.name}",
            hint="choose another name, or remove that interface",
        )
    for address in wanted.addresses:
        _check_free(wanted.name, address, present)
    steps = _plan_links(wanted, present, bridge, dummy)
    known = () if bridge is None else bridge.addresses
    steps += [AddAddress(wanted.name, address) for address in wanted.addresses if address not in known]
    if wanted.nat and set(present.translated(wanted.name) or ()) != set(wanted.translated):
        steps.append(Translate(wanted.name, wanted.translated))
    if wanted.nat and not present.forwarding:  # last: if all else fails, it is not switched on
        steps.append(Forward())
    return tuple(steps)


def _plan_links(wanted: Wanted, present: Present, bridge: PresentLink | None, dummy: PresentLink | None) -> list[Step]:
    """The two interfaces, and that they are up."""
    steps: list[Step] = []
    if bridge is None:
        steps.append(MakeBridge(wanted.name, wanted.mac))
    begins = bridge is None or present.is_unfinished(wanted)
    if begins:
        steps.append(MarkBridge(wanted.name))
    if dummy is not None and dummy.bridge is None:
        steps.append(RemoveLink(dummy.name))
        dummy = None
    # a bridge of somebody else may have ports and addresses of its own, on purpose
    if dummy is None and (begins or (bridge is not None and bridge.alias == ALIAS)):
        steps.append(MakeDummy(wanted.dummy, wanted.mac, wanted.name))
    if dummy is not None and not dummy.up:
        steps.append(SetUp(dummy.name))
    if bridge is None or not bridge.up:
        steps.append(SetUp(wanted.name))
    return steps


def plan_remove(name: str, present: Present, machine: bytes = b"") -> tuple[Step, ...]:
    """What takes a bridge of ours away; nothing if it is gone. Raises ``BridgeRefused``.

    Forwarding stays as it is: others may need it.
    """
    _check_name(name)
    wanted = Wanted(name, machine=machine)
    bridge, dummy = present.link(name), present.link(wanted.dummy)
    if bridge is not None and not bridge.is_ours and not present.is_unfinished(wanted):
        hint = f"if nobody needs it: ip link delete dev {name}" if bridge.kind == "bridge" else None
        raise BridgeRefused(f"{name} was not made by albatross-host", hint=hint)
    ports = [each for each in present.ports(name) if each.name != name + DUMMY_SUFFIX]
    if ports:
        raise BridgeRefused(
            f"bridge {name} is in use by {', '.join(map(_port_text, ports))}",
            hint="destroy these unikernels, or take these interfaces off the bridge",
        )
    steps: list[Step] = []
    if present.translated(name) is not None:
        steps.append(StopTranslating(name))
    if dummy is not None and (dummy.bridge == name or _is_stray(wanted, dummy)):
        steps.append(RemoveLink(dummy.name))
    if bridge is not None:
        steps.append(RemoveLink(name))
    return tuple(steps)


def check_wanted(wanted: Wanted) -> None:
    """Refuse what no machine could have."""
    _check_name(wanted.name)
    if wanted.nat and not wanted.translated:
        raise BridgeRefused(
            "address translation needs an IPv4 network to translate",
            hint=f"albatross-host bridge add {wanted.name} --address 10.0.0.1/24 --nat",
        )
    if len(wanted.translated) > MAX_TRANSLATED:
        raise BridgeRefused(
            f"{len(wanted.translated)} networks are too many to translate for one bridge, {MAX_TRANSLATED} can be",
            hint="give it a larger network instead, as in 10.0.0.1/16",
        )
    for address in wanted.addresses:
        network = address.network
        if isinstance(address, IPv6Interface) and address.scope_id is not None:
            raise BridgeRefused(
                f"{address} belongs to another interface, {address.scope_id}",
                hint=f"--address {str(address).replace(f'%{address.scope_id}', '')}",
            )
        single = network.prefixlen >= network.max_prefixlen - 1
        if single or address.ip.is_multicast or address.ip.is_loopback or address.ip.is_unspecified:
            raise BridgeRefused(
                f"{address} leaves no address for unikernels", hint="give the bridge's address as in 10.0.0.1/24"
            )
        if isinstance(address, IPv4Interface) and address.ip in (network.network_address, network.broadcast_address):
            raise BridgeRefused(
                f"{address.ip} is the network {network} itself or its broadcast address",
                hint=f"--address {network.network_address + 1}/{network.prefixlen}",
            )
    if clash := _overlapping(wanted.addresses):
        raise BridgeRefused(f"{clash[0]} and {clash[1]} are in one network", hint="give one address for each network")


def _check_name(name: str) -> None:
    if not valid_interface(name) or name.startswith("-"):
        raise BridgeRefused(
            f"{printable(name) or 'an empty text'} cannot be the name of a bridge",
            hint=f"use letters, digits, dot, dash and underscore, at most {MAX_BRIDGE_NAME} of them",
        )
    if len(name) > MAX_BRIDGE_NAME:
        raise BridgeRefused(
            f"{name} is too long for a bridge: its dummy interface is called like it, with {DUMMY_SUFFIX}",
            hint=f"use at most {MAX_BRIDGE_NAME} characters",
        )


def _is_stray(wanted: Wanted, dummy: PresentLink) -> bool:
    """Whether it is ours, and its bridge is gone: somebody has removed that alone."""
    return dummy.mac == wanted.mac and dummy.bridge is None


def _check_free(bridge: str, address: Interface, present: Present) -> None:
    for link in present.links:
        for taken in link.addresses:
            if taken == address and link.name == bridge:
                continue
            if taken.network.is_link_local and taken.version == 6:
                continue  # the same on every interface
            if _overlap(taken.network, address.network):
                raise BridgeRefused(
                    f"the network {address.network} is in use: {link.name} has {taken}",
                    hint=f"albatross-host bridge remove {bridge}" if link.name == bridge else "choose another network",
                )


def _overlapping(addresses: tuple[Interface, ...]) -> tuple[Interface, Interface] | None:
    for number, first in enumerate(addresses):
        for second in addresses[number + 1 :]:
            if _overlap(first.network, second.network):
                return first, second
    return None


def _overlap(first: Network, second: Network) -> bool:
    if isinstance(first, IPv4Network):
        return isinstance(second, IPv4Network) and first.overlaps(second)
    return isinstance(second, IPv6Network) and first.overlaps(second)


def _port_text(port: PresentLink) -> str:
    mark = read_alias(port.alias)
    return port.name if mark is None or mark[2] is None else f"{port.name} ({mark[2]})"


def lines(steps: Iterable[Step]) -> list[str]:
    """The steps as commands that a person knows."""
    return [command for step in steps for command in step.commands]
