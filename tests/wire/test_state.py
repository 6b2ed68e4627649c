"""State dumps of every age are read as what they meant; a name stands in them once."""

from dataclasses import replace
from typing import Any

import pytest

from albatross_pki.messages import StateDump
from albatross_pki.names import Name
from albatross_pki.policies import Policy
from albatross_pki.unikernels import (
    QUIT,
    BlockDevice,
    FailBehaviour,
    NetworkInterface,
    Settings,
    UnikernelConfig,
    UnikernelType,
)
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.state import decode_state_dump, encode_state_dump
from albatross_pki.wire.tolerance import Form
from tests.wire import oracle

NAME = b"foo.hello"  # a unikernel's name before 1.5 had no colon
SINCE_V1 = {"kind": ("solo5", None), "compressed": True, "image": b"I", "cpuid": 2, "memory": 32}


def read(kind: str, config: dict[str, Any]) -> tuple[UnikernelConfig, StateDump]:
    """The configuration in a dump of one unikernel, after it was written as the newest and read again."""
    forms: set[Form] = set()
    dump = decode_state_dump(oracle.encode("StateDump", (kind, [{"name": NAME, "config": config}])), forms)
    assert {Form.OLD_STATE, Form.NAME} <= forms
    ((name, found),) = dump.unikernels
    assert (str(name), dump.policies) == (":foo.hello", ())
    again = decode_state_dump(encode_state_dump(dump))
    assert again.version == 6
    interfaces = again.unikernels[0][1].settings.interfaces  # a set since version 3
    assert sorted(map(repr, interfaces)) == sorted(map(repr, found.settings.interfaces))
    settings = replace(found.settings, interfaces=interfaces)
    assert again.unikernels == ((name, replace(found, settings=settings)),)
    return found, dump


@pytest.mark.parametrize(("image", "compressed"), [("amd64", False), ("arm64", False), ("compressed", True)])
def test_version_0_is_read(image: str, compressed: bool) -> None:
    config = {"cpuid": 1, "memory": 16, "block": b"b", "bridges": [b"x", b"a"], "image": (image, b"I")}
    found, dump = read("v0", config | {"arguments": [b"-l", b"\xff"]})
    assert dump.version == 0
    assert found == UnikernelConfig(
        b"I",
        Settings(
            cpuids=frozenset({1}),
            memory_mb=16,
            blocks=(BlockDevice("b"),),
            interfaces=(NetworkInterface("x"), NetworkInterface("a")),
            arguments=("-l", "\udcff"),
        ),
        compressed,
    )


def test_version_0_needs_little() -> None:
    found, _ = read("v0", {"cpuid": 0, "memory": 1, "image": ("amd64", b"")})
    assert found == UnikernelConfig(b"", Settings(memory_mb=1))
    assert (found.settings.add_name, found.settings.fail_behaviour) == (True, QUIT)


def test_version_1_is_read() -> None:
    devices = {"fail": ("restart", [1]), "blocks": [b"b", b"aa"], "bridges": [b"x", b"aa"]}
    found, dump = read("v1", SINCE_V1 | devices)
    assert dump.version == 1
    assert found == UnikernelConfig(
        b"I",
        Settings(
            cpuids=frozenset({2}),
            fail_behaviour=FailBehaviour(frozenset({1})),
            blocks=(BlockDevice("b"), BlockDevice("aa")),
            interfaces=(NetworkInterface("x"), NetworkInterface("aa")),
        ),
        compressed=True,
    )


def test_version_2_is_read_in_its_order() -> None:
    bridges = [{"name": b"zz", "bridge": b"br"}, {"name": b"a"}]
    found, dump = read("v2", SINCE_V1 | {"fail": ("quit", None), "bridges": bridges, "kind": ("bhyve", None)})
    assert dump.version == 2
    assert found.settings.interfaces == (NetworkInterface("zz", "br"), NetworkInterface("a"))
    assert found.typ is UnikernelType.BHYVE


def test_version_3_knows_devices_as_today() -> None:
    blocks = [{"name": b"b", "device": b"d", "sectorSize": 512}]
    bridges = [{"name": b"n", "mac": b"\x02" * 6}]
    found, dump = read("v3", SINCE_V1 | {"fail": ("quit", None), "blocks": blocks, "bridges": bridges})
    assert dump.version == 3
    assert found.settings.blocks == (BlockDevice("b", "d", 512),)
    assert found.settings.interfaces == (NetworkInterface("n", None, b"\x02" * 6),)


ONE = UnikernelConfig(b"", Settings())


def dump(*names: str) -> StateDump:
    return StateDump(tuple((Name.parse(name), ONE) for name in names), ())


def test_a_name_stands_there_once() -> None:
    for octets in (oracle.state(dump("a:b", "c", "a:b")), oracle.state(dump("a", "a"))):
        with pytest.raises(MalformedMessage, match="stands there twice") as refusal:
            decode_state_dump(octets)
        assert refusal.value.place == "state.v5AndPolicies.unikernels".replace("v5And", "unikernelsV5And")
    with pytest.raises(MalformedMessage, match="stands there twice"):
        encode_state_dump(dump("a:b", "a:b"))
    policy = Policy(frozenset({0}), 1, 32)
    twice = StateDump((), ((Name.parse("a:"), policy), (Name.parse("A:"), policy)))
    with pytest.raises(MalformedMessage, match="a stands there twice"):
        decode_state_dump(oracle.state(twice))


def test_p10_the_path_and_the_name_of_the_same_labels_are_two() -> None:
    both = dump("a:b:", "a:b")
    assert decode_state_dump(encode_state_dump(both)) == both


def test_it_is_written_in_the_order_of_the_tree() -> None:
    mixed = dump("b", "a:z", "a:b:c", "a:", "a:b", ":", "a-", "a")
    ordered = [str(name) for name, _ in decode_state_dump(encode_state_dump(mixed)).unikernels]
    assert ordered == [":", "a:", ":a", "a:b", "a:b:c", "a:z", ":a-", ":b"]


def test_the_reserved_tag_is_refused() -> None:
    with pytest.raises(MalformedMessage, match=r"retired alternative \[7\]"):
        decode_state_dump(b"\xa7\x02\x05\x00")
    with pytest.raises(MalformedMessage, match=r"unknown alternative \[8\]"):
        decode_state_dump(b"\xa8\x02\x05\x00")


def test_policies_of_old_dumps_are_read() -> None:
    policies = ((Name.parse(":"), Policy(frozenset({0}), 1, 32)),)
    for kind, version in (("v3AndPolicies", 4), ("v4AndPolicies", 5)):
        old = decode_state_dump(oracle.state(StateDump(((Name.parse("a:x"), ONE),), policies), kind))
        assert (old.version, old.policies, old.unikernels) == (version, policies, ((Name.parse("a:x"), ONE),))
