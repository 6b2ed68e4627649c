"""What may not come out of a unikernel's tap, as nftables rules on the tap itself.

A tap's frames are dropped, before any bridge sees them, if they

1. have another source than the unikernel's MAC address, in the frame or as the sender of an ARP packet;
2. are for the bridge's own protocols: spanning tree and its relatives (IEEE 802.1D reserved addresses, Cisco's);
3. carry a VLAN tag: nobody gave the unikernel another network than its bridge;
4. speak as a router: router advertisement or redirect (ICMPv6 134 and 137, RFC 4861 4.2 and 4.5; ICMP 9 and 5,
   RFC 1256 and RFC 792);
5. speak as a DHCP server: UDP from a server's or to a client's port (67 and 68, RFC 2131 4.1; 547 and 546,
   RFC 8415 7.2).

Everything else passes. A rule is a list of expressions; the kernel skips IPv6 extension headers where a rule asks for
the transport header. Hosts drop fragmented neighbour discovery themselves (RFC 6980 5).

Each tap has a table of its own, so that it is put up, replaced and taken away in one step.
"""

import struct

from albatross_pki.host.network_netlink import F_APPEND, F_CREATE, Netlink, Request, attributes, be32, nested, text
from albatross_pki.host.network_rules import (
    DELTABLE,
    FRAME,
    GETTABLE,
    L4PROTO,
    NETWORK,
    NEWCHAIN,
    NEWRULE,
    NEWTABLE,
    NOT_EQUAL,
    PROTOCOL,
    TRANSPORT,
    Rule,
    drop,
    family,
    meta,
    payload,
    rule_body,
    send_batch,
)

_PREFIX = "albatross-"
_NETDEV = family(5)  # NFPROTO_NETDEV
_CHAIN = "from-unikernel"
_PRIORITY = -500  # before everything else of the host

_ARP, _IPV4, _IPV6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"
_VLAN_TAGS = (b"\x81\x00", b"\x88\xa8", b"\x91\x00")
_UDP, _ICMP, _ICMPV6 = b"\x11", b"\x01", b"\x3a"
_BRIDGE_GROUPS = (
    (b"\x01\x80\xc2\x00\x00\x00", b"\xff\xff\xff\xff\xff\xf0"),  # IEEE 802.1D table 7-10
    (b"\x01\x80\xc2\x00\x00\x20", b"\xff\xff\xff\xff\xff\xf0"),  # GARP and MRP
    (b"\x01\x00\x0c\xcc\xcc\xcc", b"\xff\xff\xff\xff\xff\xfe"),  # Cisco's discovery and spanning tree
)


def table_name(tap: str) -> str:
    """The name of the table that filters ``tap``."""
    return _PREFIX + tap


def install(netlink: Netlink, tap: str, mac: bytes) -> None:
    """Filter what comes out of ``tap``, in place of an earlier filter of that name; raises ``NetlinkError``."""
    table = text(1, table_name(tap))
    hook = nested(4, be32(1, 0), be32(2, _PRIORITY), text(3, tap))  # ingress of one device
    chain = table + text(3, _CHAIN) + hook + be32(5, 1) + text(7, "filter")  # what no rule drops is accepted
    send_batch(
        netlink,
        Request(NEWTABLE, _NETDEV + table, F_CREATE),
        Request(DELTABLE, _NETDEV + table),
        Request(NEWTABLE, _NETDEV + table, F_CREATE),
        Request(NEWCHAIN, _NETDEV + chain, F_CREATE),
        *(Request(NEWRULE, _NETDEV + rule_body(table, _CHAIN, rule), F_CREATE | F_APPEND) for rule in rules(mac)),
    )


def remove(netlink: Netlink, tap: str) -> None:
    """Take the filter of ``tap`` away, if there is one; raises ``NetlinkError``."""
    table = text(1, table_name(tap))
    send_batch(netlink, Request(NEWTABLE, _NETDEV + table, F_CREATE), Request(DELTABLE, _NETDEV + table))


def filtered(netlink: Netlink) -> list[str]:
    """The taps for which there is a filter, whether they are still there or not; raises ``NetlinkError``."""
    tables = (attributes(octets[len(_NETDEV) :]).get(1, b"") for octets in netlink.dump(GETTABLE, _NETDEV))
    names = (table.rstrip(b"\0").decode("utf-8", "surrogateescape") for table in tables)
    return [name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX)]


def rules(mac: bytes) -> list[Rule]:
    """What is dropped, each rule ending in its verdict."""
    arp, ipv4, ipv6 = (meta(PROTOCOL, protocol) for protocol in (_ARP, _IPV4, _IPV6))
    udp, icmp, icmpv6 = (meta(L4PROTO, protocol) for protocol in (_UDP, _ICMP, _ICMPV6))
    conditions: list[Rule] = [
        payload(FRAME, 6, mac, NOT_EQUAL),  # 1
        arp + payload(NETWORK, 8, mac, NOT_EQUAL),
        *(payload(FRAME, 0, group, mask=mask) for group, mask in _BRIDGE_GROUPS),  # 2
        *(payload(FRAME, 12, tag) for tag in _VLAN_TAGS),  # 3
        *(ipv6 + icmpv6 + payload(TRANSPORT, 0, kind) for kind in (b"\x86", b"\x89")),  # 4
        *(ipv4 + icmp + payload(TRANSPORT, 0, kind) for kind in (b"\x09", b"\x05")),
        ipv4 + udp + payload(TRANSPORT, 0, struct.pack("!H", 67)),  # 5
        ipv4 + udp + payload(TRANSPORT, 2, struct.pack("!H", 68)),
        ipv6 + udp + payload(TRANSPORT, 0, struct.pack("!H", 547)),
        ipv6 + udp + payload(TRANSPORT, 2, struct.pack("!H", 546)),
    ]
    return [[*condition, drop()] for condition in conditions]
