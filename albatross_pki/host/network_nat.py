"""Address translation for a bridge, as a table of nftables of its own (family ``ip``).

What the bridge's IPv4 networks send to other networks leaves with the host's address there. The table's comment names
the networks, so that it can be read back without understanding rules.
"""

import struct
from ipaddress import IPv4Network

from albatross_pki.host.network_netlink import (
    F_APPEND,
    F_CREATE,
    Netlink,
    Request,
    attribute,
    attributes,
    be32,
    nested,
    text,
)
from albatross_pki.host.network_rules import (
    DELTABLE,
    GETTABLE,
    NETWORK,
    NEWCHAIN,
    NEWRULE,
    NEWTABLE,
    NOT_EQUAL,
    OUT_INTERFACE_NAME,
    Rule,
    expression,
    family,
    meta,
    payload,
    rule_body,
    send_batch,
)

_IPV4 = family(2)  # NFPROTO_IPV4
_PREFIX = "albatross-nat-"
_CHAIN = "postrouting"
_POST_ROUTING, _SOURCE_NAT = 4, 100  # hook and priority: linux/netfilter.h, linux/netfilter_ipv4.h
_SOURCE_AT = 12  # octets: RFC 791 3.1
_INTERFACE_OCTETS = 16
_COMMENT = 0  # kind of a piece of a table's user data, as nft writes it: kind, length, text with NUL
_MARK = "albatross-pki "


def install(netlink: Netlink, bridge: str, networks: tuple[IPv4Network, ...]) -> None:
    """Translate ``networks``, in place of what was translated for that bridge; raises ``NetlinkError``."""
    table = text(1, _PREFIX + bridge)
    comment = (_MARK + " ".join(map(str, networks))).encode("ascii") + b"\0"
    marked = table + attribute(6, struct.pack("BB", _COMMENT, len(comment)) + comment)
    hook = nested(4, be32(1, _POST_ROUTING), be32(2, _SOURCE_NAT))
    chain = table + text(3, _CHAIN) + hook + be32(5, 1) + text(7, "nat")
    rules = [_rule(bridge, network) for network in networks]
    send_batch(
        netlink,
        Request(NEWTABLE, _IPV4 + table, F_CREATE),
        Request(DELTABLE, _IPV4 + table),
        Request(NEWTABLE, _IPV4 + marked, F_CREATE),
        Request(NEWCHAIN, _IPV4 + chain, F_CREATE),
        *(Request(NEWRULE, _IPV4 + rule_body(table, _CHAIN, rule), F_CREATE | F_APPEND) for rule in rules),
    )


def remove(netlink: Netlink, bridge: str) -> None:
    """Take the table of ``bridge`` away, if there is one; raises ``NetlinkError``."""
    table = text(1, _PREFIX + bridge)
    send_batch(netlink, Request(NEWTABLE, _IPV4 + table, F_CREATE), Request(DELTABLE, _IPV4 + table))


def translated(netlink: Netlink) -> dict[str, tuple[IPv4Network, ...]]:
    """The networks that are translated, by bridge; raises ``NetlinkError``."""
    found = {}
    for octets in netlink.dump(GETTABLE, _IPV4):
        table = attributes(octets[len(_IPV4) :])
        name = table.get(1, b"").rstrip(b"\0").decode("utf-8", "surrogateescape")
        if name.startswith(_PREFIX):
            found[name.removeprefix(_PREFIX)] = _networks(table.get(6, b""))
    return found


def _networks(comment: bytes) -> tuple[IPv4Network, ...]:
    """What a comment of ours names; nothing for one that is not ours."""
    words = comment[2:].rstrip(b"\0").decode("ascii", "replace")
    if not words.startswith(_MARK):
        return ()
    try:
        return tuple(IPv4Network(word) for word in words.removeprefix(_MARK).split())
    except ValueError:
        return ()


def _rule(bridge: str, network: IPv4Network) -> Rule:
    outside = bridge.encode("ascii").ljust(_INTERFACE_OCTETS, b"\0")
    return [
        *payload(NETWORK, _SOURCE_AT, network.network_address.packed, mask=network.netmask.packed),
        *meta(OUT_INTERFACE_NAME, outside, NOT_EQUAL),
        expression("masq"),
    ]
