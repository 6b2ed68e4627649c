"""The network interfaces of a host as the kernel lists them, and the changes that taps and bridges need.

Reading is allowed to everybody; changing needs CAP_NET_ADMIN. Sources: rtnetlink(7), linux/if_link.h,
linux/neighbour.h.
"""

import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from albatross_pki.host.network import valid_interface
from albatross_pki.host.network_netlink import (
    F_CREATE,
    F_EXCL,
    F_REPLACE,
    Netlink,
    NetlinkError,
    Request,
    attribute,
    attributes,
    nested,
    text,
    u8,
    u32,
)

_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _GETADDR = 20, 22
_NEWNEIGH, _GETNEIGH = 28, 30
_LINK = struct.Struct("=BxHiII")  # family, kind of device, index, flags, which flags change
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_ADDRESS_MESSAGE = struct.Struct("=BBBBi")  # family, length of the prefix, flags, scope, index
_AF_INET, _AF_BRIDGE, _AF_INET6 = 2, 7, 10
IFF_UP = 1

# attributes of links
_ADDRESS, _IFNAME, _MTU, _STATS64, _MASTER, _PROTINFO, _LINKINFO, _IFALIAS, _AF_SPEC = 1, 3, 4, 23, 10, 12, 18, 20, 26
_KIND = 1
_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, 1

# attributes of bridge ports
_GUARD, _LEARNING, _UNICAST_FLOOD, _ISOLATED, _LOCKED = 5, 8, 9, 33, 39

# attributes, states and flags of a bridge's forwarding entries
_LLADDR, _NEIGHBOUR_MASTER = 2, 9
_NOARP, _REACHABLE = 0x40, 0x02
_MASTER_FLAG = 0x04

# attributes of IP addresses
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4

_COUNTERS = struct.Struct("=10Q")


@dataclass(frozen=True, slots=True)
class Counters:
    """What an interface has carried, from the host's point of view (struct rtnl_link_stats64)."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int
    multicast: int
    collisions: int


@dataclass(frozen=True, slots=True)
class Link:
    """One interface; ``master`` is the index of its bridge or 0, ``kind`` is ``bridge``, ``tun``, ``veth`` or empty."""

    index: int
    name: str
    flags: int
    mtu: int
    address: bytes
    master: int
    kind: str
    alias: str
    counters: Counters | None


def links(netlink: Netlink) -> Iterator[Link]:
    """Every interface of the network namespace."""
    for octets in netlink.dump(_GETLINK, _LINK.pack(0, 0, 0, 0, 0)):
        yield _link(octets)


def find_link(netlink: Netlink, name: str) -> Link | None:
    """The interface of that name; its cost does not depend on how many there are."""
    if not valid_interface(name):
        return None
    try:
        return _link(netlink.ask(_GETLINK, _LINK.pack(0, 0, 0, 0, 0) + text(_IFNAME, name)))
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise
        return None


def _link(octets: bytes) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(octets)
    found = attributes(octets[_LINK.size :])
    counters = found.get(_STATS64)
    return Link(
        index=index,
        name=_text(found.get(_IFNAME, b"")),
        flags=flags,
        mtu=_number(found.get(_MTU)),
        address=found.get(_ADDRESS, b""),
        master=_number(found.get(_MASTER)),
        kind=_text(attributes(found.get(_LINKINFO, b"")).get(_KIND, b"")),
        alias=_text(found.get(_IFALIAS, b"")),
        counters=Counters(*_COUNTERS.unpack_from(counters)) if counters is not None else None,
    )


def _text(octets: bytes) -> str:
    return octets.rstrip(b"\0").decode("utf-8", "surrogateescape")


def _number(octets: bytes | None) -> int:
    return int.from_bytes(octets, "little" if struct.pack("=H", 1)[0] else "big") if octets else 0


def holder(netlink: Netlink, bridge: int, address: bytes) -> int | None:
    """The index of the port that has a MAC address on a bridge, the bridge's own addresses included."""
    question = _NEIGHBOUR.pack(_AF_BRIDGE, 0, 0, 0, 0) + attribute(_LLADDR, address) + u32(_NEIGHBOUR_MASTER, bridge)
    try:
        answer = netlink.ask(_GETNEIGH, question)
    except NetlinkError as error:
        if error.code != errno.ENOENT:
            raise
        return None
    return int(_NEIGHBOUR.unpack_from(answer)[1])


def describe(netlink: Netlink, index: int, *, alias: str, mtu: int, address: bytes) -> None:
    """Set alias, MTU and own address of an interface, and keep IPv6 from giving it one."""
    no_ipv6 = nested(_AF_SPEC, nested(_AF_INET6, u8(_ADDR_GEN_MODE, _ADDR_GEN_NONE)))
    content = text(_IFALIAS, alias) + u32(_MTU, mtu) + attribute(_ADDRESS, address)
    netlink.request(Request(_NEWLINK, _LINK.pack(0, 0, index, 0, 0) + content))
    netlink.request(Request(_NEWLINK, _LINK.pack(0, 0, index, 0, 0) + no_ipv6))


def set_up(netlink: Netlink, index: int) -> None:
    netlink.request(Request(_NEWLINK, _LINK.pack(0, 0, index, IFF_UP, IFF_UP)))


def enslave(netlink: Netlink, index: int, bridge: int, *, isolated: bool) -> None:
    """Make an interface a port that learns no address, takes only known ones, and is not flooded with others'."""
    netlink.request(Request(_NEWLINK, _LINK.pack(0, 0, index, 0, 0) + u32(_MASTER, bridge)))
    port = nested(
        _PROTINFO,
        u8(_LEARNING, 0),
        u8(_UNICAST_FLOOD, 0),
        u8(_ISOLATED, int(isolated)),
        u8(_LOCKED, 1),
        u8(_GUARD, 1),
    )
    netlink.request(Request(_SETLINK, _LINK.pack(_AF_BRIDGE, 0, index, 0, 0) + port))


def forward(netlink: Netlink, index: int, address: bytes) -> None:
    """Bind a MAC address to a port, for as long as the port is there."""
    entry = _NEIGHBOUR.pack(_AF_BRIDGE, index, _NOARP | _REACHABLE, _MASTER_FLAG, 0) + attribute(_LLADDR, address)
    netlink.request(Request(_NEWNEIGH, entry, F_CREATE | F_REPLACE))


def delete(netlink: Netlink, index: int) -> None:
    netlink.request(Request(_DELLINK, _LINK.pack(0, 0, index, 0, 0)))


def add_bridge(netlink: Netlink, name: str, *, address: bytes | None = None, up: bool = True) -> None:
    """Make a bridge without spanning tree, which is the kernel's default; with ``address`` it keeps that one."""
    add_link(netlink, name, "bridge", address=address, up=up)


def add_link(
    netlink: Netlink,
    name: str,
    kind: str,
    *,
    address: bytes | None = None,
    master: int | None = None,
    up: bool = False,
) -> None:
    """Make an interface of a kind that needs no more than a name, at once as a port of ``master``."""
    flags = IFF_UP if up else 0
    content = text(_IFNAME, name) + nested(_LINKINFO, text(_KIND, kind))
    content += b"" if address is None else attribute(_ADDRESS, address)
    content += b"" if master is None else u32(_MASTER, master)
    netlink.request(Request(_NEWLINK, _LINK.pack(0, 0, 0, flags, flags) + content, F_CREATE | F_EXCL))


def rename_alias(netlink: Netlink, index: int, alias: str) -> None:
    netlink.request(Request(_NEWLINK, _LINK.pack(0, 0, index, 0, 0) + text(_IFALIAS, alias)))


def addresses(netlink: Netlink) -> Iterator[tuple[int, bytes, int]]:
    """Every IP address of the network namespace: index of its interface, octets, length of the prefix."""
    for octets in netlink.dump(_GETADDR, _ADDRESS_MESSAGE.pack(0, 0, 0, 0, 0)):
        _, prefix, _, _, index = _ADDRESS_MESSAGE.unpack_from(octets)
        found = attributes(octets[_ADDRESS_MESSAGE.size :])
        local = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS))  # of a point-to-point link the other is the peer's
        if local is not None:
            yield index, local, prefix


def add_address(netlink: Netlink, index: int, address: bytes, prefix: int) -> None:
    """Give an interface an IP address of a network with ``prefix`` bits."""
    family = _AF_INET if len(address) == 4 else _AF_INET6
    content = attribute(_IFA_LOCAL, address) + attribute(_IFA_ADDRESS, address)
    if family == _AF_INET:
        host = (1 << 32 - prefix) - 1
        content += attribute(_IFA_BROADCAST, (int.from_bytes(address, "big") | host).to_bytes(4, "big"))
    netlink.request(Request(_NEWADDR, _ADDRESS_MESSAGE.pack(family, prefix, 0, 0, index) + content, F_CREATE | F_EXCL))
