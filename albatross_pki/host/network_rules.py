"""How nftables writes rules: batches, and the expressions of which a rule is a list.

A register holds what an expression loads; a rule goes on as long as its comparisons hold, and its last expression is
what happens then. What the rules of a tap and of a bridge are is in ``network_filter`` and ``network_nat``.

Source: linux/netfilter/nf_tables.h.
"""

import struct

from albatross_pki.host.network_netlink import Netlink, Request, attribute, batch_mark, be32, nested, text

_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, NEWRULE = ((_SUBSYSTEM << 8) | kind for kind in (0, 1, 2, 3, 6))
_BATCH_BEGIN, _BATCH_END = 16, 17
_REGISTER = 1
_VERDICT_REGISTER = 0
_DROP = 0

# bases of payload expressions
FRAME, NETWORK, TRANSPORT = 0, 1, 2
# keys of meta expressions
PROTOCOL, OUT_INTERFACE_NAME, L4PROTO = 1, 7, 16
EQUAL, NOT_EQUAL = 0, 1

Rule = list[bytes]


def family(number: int) -> bytes:
    """The header of a message about tables of a protocol family (linux/netfilter.h)."""
    return struct.pack("!BBH", number, 0, 0)


def send_batch(netlink: Netlink, *requests: Request) -> None:
    """Do all of ``requests`` or none; raises ``NetlinkError``."""
    begin, end = batch_mark(_BATCH_BEGIN, _SUBSYSTEM), batch_mark(_BATCH_END, _SUBSYSTEM)
    netlink.request(*requests, before=begin, after=end)


def rule_body(table: bytes, chain: str, rule: Rule) -> bytes:
    """The content of a message that adds ``rule``; ``table`` is the attribute with the table's name."""
    return table + text(2, chain) + nested(4, *rule)


def expression(name: str, *content: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *content))


def meta(key: int, value: bytes, operation: int = EQUAL) -> Rule:
    """Packets of which what ``key`` stands for is ``value``."""
    return [expression("meta", be32(2, key), be32(1, _REGISTER)), _compare(value, operation)]


def payload(base: int, offset: int, value: bytes, operation: int = EQUAL, mask: bytes | None = None) -> Rule:
    """Packets with ``value`` at an offset from the beginning of a header, under ``mask``."""
    load = expression("payload", be32(1, _REGISTER), be32(2, base), be32(3, offset), be32(4, len(value)))
    masked = [] if mask is None else [_masked(mask)]
    return [load, *masked, _compare(value, operation)]


def drop() -> bytes:
    verdict = nested(2, nested(2, be32(1, _DROP)))
    return expression("immediate", be32(1, _VERDICT_REGISTER), verdict)


def _value(kind: int, octets: bytes) -> bytes:
    return nested(kind, attribute(1, octets))


def _compare(value: bytes, operation: int) -> bytes:
    return expression("cmp", be32(1, _REGISTER), be32(2, operation), _value(3, value))


def _masked(mask: bytes) -> bytes:
    zero = bytes(len(mask))
    registers = be32(1, _REGISTER) + be32(2, _REGISTER)
    return expression("bitwise", registers, be32(3, len(mask)), _value(4, mask), _value(5, zero))
