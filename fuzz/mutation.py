"""Mutations that keep DER well formed, so that fuzzing gets past the lengths of the outer elements.

A message is taken apart into its tree, one node is changed, moved, doubled or dropped, and the tree is put together
again with lengths that fit. Octets that are no DER are left to the fuzzer's own mutations.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from albatross_pki.wire import der
from albatross_pki.wire.errors import MalformedMessage

_CONSTRUCTED = 0x20
_TAGS = (0x01, 0x02, 0x04, 0x05, 0x0A, 0x0C, 0x18, 0x30, 0x31, *range(0xA0, 0xB8))
_CONTENTS = (b"", b"\x00", b"\xff", b"\x80", b"\x00\x80", b"\x00\x00", b"\x3f" + b"\xff" * 7, b"\x40" + bytes(7))


@dataclass
class Node:
    """One element: its content is ``parts`` if it is constructed, ``content`` otherwise."""

    identifier: int
    content: bytes = b""
    parts: "list[Node]" = field(default_factory=list)

    def encoded(self) -> bytes:
        content = b"".join(part.encoded() for part in self.parts) or self.content
        return der.header(self.identifier, len(content)) + content

    def everything(self) -> "list[Node]":
        return [self, *(below for part in self.parts for below in part.everything())]


def parse(octets: bytes) -> Node:
    """The tree of one element; raises ``MalformedMessage``."""
    nodes = _parse(octets, 0, len(octets))
    if len(nodes) != 1:
        raise MalformedMessage("not one element")
    return nodes[0]


def _parse(octets: bytes, start: int, stop: int) -> list[Node]:
    nodes = []
    while start < stop:
        identifier, inside, start = der.read_header(octets, start, stop)
        if identifier & _CONSTRUCTED:
            nodes.append(Node(identifier, parts=_parse(octets, inside, start)))
        else:
            nodes.append(Node(identifier, octets[inside:start]))
    return nodes


def mutate(octets: bytes, most: int, seed: int, plain: Callable[[bytes, int], bytes]) -> bytes:
    """``octets`` changed, at most ``most`` of them; ``plain`` is the fuzzer's own mutation."""
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    if chance.random() < 0.3:
        return plain(octets, most)
    try:
        tree = parse(octets)
    except (MalformedMessage, RecursionError):
        return plain(octets, most)
    for _ in range(chance.randint(1, 3)):
        _change(tree, chance, lambda content: plain(content, len(content) + 8))
    changed = tree.encoded()
    return changed if len(changed) <= most else plain(octets, most)


def _change(tree: Node, chance: random.Random, plain: Callable[[bytes], bytes]) -> None:
    nodes = tree.everything()
    node = chance.choice(nodes)
    kind = chance.randrange(8)
    if kind == 0:
        node.identifier = chance.choice(_TAGS)
    elif kind == 1 and node.parts:
        node.parts.insert(chance.randint(0, len(node.parts)), chance.choice(node.parts))
    elif kind == 2 and node.parts:
        node.parts.pop(chance.randrange(len(node.parts)))
    elif kind == 3 and node.parts:
        chance.shuffle(node.parts)
    elif kind == 4:
        other = chance.choice(nodes)
        if other not in node.everything() and node not in other.everything():
            node.identifier, node.content, node.parts = other.identifier, other.content, other.parts
    elif kind == 5 and not node.parts:
        node.content = chance.choice(_CONTENTS)
    elif not node.parts:
        node.content = plain(node.content)
