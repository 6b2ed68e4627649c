"""Each form on the closed list is read, noted, and written in our form; what is not on the list is refused."""

from datetime import UTC, datetime
from typing import Any

import pytest

from albatross_pki.commands import ConsoleSubscribe, PolicyAdd, UnikernelCreate, Version
from albatross_pki.messages import Header, Message, Payload, StateDump
from albatross_pki.names import Name
from albatross_pki.policies import Policy
from albatross_pki.replies import ConsoleLine, Statistics
from albatross_pki.unikernels import BlockDevice, NetworkInterface, Settings, UnikernelConfig
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.extension import decode_constraints
from albatross_pki.wire.message import decode_message, encode_message
from albatross_pki.wire.state import decode_state_dump, encode_state_dump
from albatross_pki.wire.tolerance import Form
from tests.wire import oracle
from tests.wire.facts import usage

HEADER = {"version": 5, "sequence": bytes(8), "name": b":"}


def wire(*path: Any) -> bytes:
    """A message made by the second writer, of alternatives from the outside in and what stands in the last one."""
    *alternatives, content = path
    for alternative in reversed(alternatives):
        content = (alternative, content)
    return oracle.encode("WireMessage", {"header": HEADER, "payload": content})


def read(octets: bytes) -> tuple[Payload, set[Form]]:
    """The payload and the tolerated forms; what is written again reads the same without any."""
    forms: set[Form] = set()
    message = decode_message(octets, forms)
    again: set[Form] = set()
    assert decode_message(encode_message(message), again) == message
    assert again == set()
    assert (encode_message(message) == octets) == (not forms)
    return message.payload, forms


def config(**changes: Any) -> dict[str, Any]:
    return oracle.config(UnikernelConfig(b"", Settings())) | changes


@pytest.mark.parametrize("text", ["A:B:Hello", ":a:b:hello", "a:B:hello"])
def test_a_name_before_normalisation_is_read(text: str) -> None:
    octets = oracle.encode("WireMessage", {"header": HEADER | {"name": text.encode()}, "payload": ("failure", b"")})
    forms: set[Form] = set()
    assert decode_message(octets, forms).header.name == Name.parse("a:b:hello")
    assert forms == {Form.NAME}


def test_a_name_without_a_colon_is_at_the_root() -> None:
    forms: set[Form] = set()
    old = oracle.encode("StateDump", ("v3", [{"name": b"foo.hello", "config": config()}]))
    ((name, _),) = decode_state_dump(old, forms).unikernels
    assert str(name) == ":foo.hello"
    assert forms == {Form.NAME, Form.OLD_STATE}


@pytest.mark.parametrize("text", ["", "::", "a::b", "-a", "a_b", "a:b::", "a" * 64, "ä", "a\x00", "a:" * 3000])
def test_what_is_no_name_is_refused(text: str) -> None:
    octets = oracle.encode("WireMessage", {"header": HEADER | {"name": text.encode()}, "payload": ("failure", b"")})
    with pytest.raises(MalformedMessage) as refusal:
        decode_message(octets)
    assert refusal.value.place == "message.header.name"
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize(
    ("text", "milliseconds", "forms"),
    [
        ("20230312234215Z", 0, set()),
        ("20230312234215.500Z", 500, set()),
        ("20230312234215.120Z", 120, set()),
        ("20230312234215.001Z", 1, set()),
        ("20230312234215.000Z", 0, {Form.TIME}),  # Albatross below a millisecond
        ("20230312234215.5Z", 500, {Form.TIME}),  # DER
        ("20230312234215.05Z", 50, {Form.TIME}),
        ("20230312234215.123456Z", 123, {Form.TIME}),
        ("20230312234215.999999999Z", 999, {Form.TIME}),
    ],
)
def test_fractions_of_a_second(text: str, milliseconds: int, forms: set[Form]) -> None:
    payload, met = read(wire("data", "console", {"timestamp": text.encode(), "line": b"x"}))
    assert payload == ConsoleLine(datetime(2023, 3, 12, 23, 42, 15, milliseconds * 1000, UTC), b"x")
    assert met == forms


@pytest.mark.parametrize(
    "text",
    [
        *("202303122342Z", "2023031223Z", "20230312234215", "20230312234215+0000", "20230312234215.Z"),
        *("20230312234215,5Z", "20230312234215.1234567890Z", "20230312234260Z", "20230229000000Z", "00000101000000Z"),
        *(
            "230312234215Z",
            "20230312234215z",
            " 20230312234215Z",
            "20230312234215.-1Z",
            "",
            "\uff12\uff10\uff12\uff130312234215Z",
        ),
        "20230312234215Z" + "0" * 1000,
    ],
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(MalformedMessage, match="time") as refusal:
        read(wire("command", "console", "subscribe", "since", text.encode()))
    assert refusal.value.place == "message.payload.command.console.subscribe.since"
    assert len(str(refusal.value)) < 300


def test_times_keep_their_milliseconds() -> None:
    payload, _ = read(wire("command", "console", "subscribe", "since", b"20230312234215.5Z"))
    assert payload == ConsoleSubscribe(since=datetime(2023, 3, 12, 23, 42, 15, 500_000, UTC))


def created(**changes: Any) -> tuple[UnikernelCreate, set[Form]]:
    payload, forms = read(wire("command", "unikernel", "create", config(**changes)))
    assert isinstance(payload, UnikernelCreate)
    return payload, forms


def test_sets_are_read_in_any_order() -> None:
    blocks = [{"name": b"long"}, {"name": b"b"}]
    create, forms = created(cpuids=[128, 1, 127], fail=("restart", [128, -1, 127]), blocks=blocks)
    assert forms == {Form.ORDER}
    settings = create.config.settings
    assert settings.cpuids == {1, 127, 128}
    assert settings.fail_behaviour.restart == frozenset({-1, 127, 128})
    assert settings.blocks == (BlockDevice("b"), BlockDevice("long"))


def test_sets_are_written_in_the_order_of_their_octets() -> None:
    create, forms = created(fail=("restart", [127, -1, 128]), bridges=[{"name": b"x"}, {"name": b"aa"}])
    assert forms == set()
    assert create.config.settings.interfaces == (NetworkInterface("x"), NetworkInterface("aa"))


def test_equal_devices_are_kept() -> None:
    create, forms = created(blocks=[{"name": b"b"}, {"name": b"b"}])
    assert (create.config.settings.blocks, forms) == ((BlockDevice("b"), BlockDevice("b")), set())


def test_the_lists_of_a_policy_are_read_in_any_order() -> None:
    policy = {"cpuids": [3, 200, 1], "unikernels": 1, "memory": 32, "bridges": [b"zz", b"a"]}
    payload, forms = read(wire("command", "policy", "add", policy))
    assert payload == PolicyAdd(Policy(frozenset({1, 3, 200}), 1, 32, None, frozenset({"a", "zz"})))
    assert forms == {Form.ORDER}


@pytest.mark.parametrize(
    ("place", "octets"),
    [
        ("create.cpuids", wire("command", "unikernel", "create", config(cpuids=[1, 1]))),
        ("restartExitCodes", wire("command", "unikernel", "create", config(fail=("restart", [2, 2])))),
        *(
            (f"policy.add.{name}", wire("command", "policy", "add", policy))
            for name, policy in (
                ("cpuids", {"cpuids": [1, 1], "unikernels": 1, "memory": 32, "bridges": []}),
                ("bridges", {"cpuids": [1], "unikernels": 1, "memory": 32, "bridges": [b"a", b"a"]}),
            )
        ),
    ],
)
def test_no_element_stands_twice_in_a_set(place: str, octets: bytes) -> None:
    with pytest.raises(MalformedMessage, match="twice") as refusal:
        decode_message(octets)
    assert refusal.value.place.endswith(place)


def test_an_empty_optional_list_is_the_same_as_none() -> None:
    create, forms = created(blocks=[], bridges=[])
    assert (create.config.settings.blocks, create.config.settings.interfaces) == ((), ())
    assert forms == {Form.EMPTY}


def test_empty_arguments_are_not_the_same_as_none() -> None:
    create, forms = created(arguments=[])
    assert (create.config.settings.arguments, forms) == ((), set())
    create, forms = created()
    assert (create.config.settings.arguments, forms) == (None, set())


def test_an_empty_list_of_counters_is_not_the_same_as_none() -> None:
    statistics = oracle.payload(Statistics(usage(0), vmm=()))[1][1]
    payload, forms = read(wire("data", "statistics", statistics))
    assert isinstance(payload, Statistics)
    assert (payload.vmm, forms) == ((), set())


def test_one_virtual_cpu_is_meant_where_none_is_named() -> None:
    structure = config()
    del structure["cpus"]
    payload, forms = read(wire("command", "unikernel", "create", structure))
    assert isinstance(payload, UnikernelCreate)
    assert (payload.config.settings.cpus, forms) == (1, {Form.CPUS})


@pytest.mark.parametrize("version", [Version.V3, Version.V4])
def test_old_commands_are_no_tolerated_form_but_written_as_they_came(version: Version) -> None:
    name = {Version.V3: "createV3", Version.V4: "createV4"}[version]
    payload, forms = read(wire("command", "unikernel", name, config(cpuid=3)))
    assert isinstance(payload, UnikernelCreate)
    assert (payload.version, forms) == (version, set())
    assert payload.config.settings.cpuids == {3}


def test_entries_of_a_state_dump_are_read_in_the_order_of_the_file_and_written_in_that_of_the_tree() -> None:
    one, other = Name.parse("b"), Name.parse("a:x")
    entries = tuple((name, UnikernelConfig(b"", Settings())) for name in (one, other))
    forms: set[Form] = set()
    dump = decode_state_dump(oracle.state(StateDump(entries, ())), forms)
    assert ([name for name, _ in dump.unikernels], forms) == ([one, other], {Form.ORDER})
    again = decode_state_dump(encode_state_dump(dump))
    assert [name for name, _ in again.unikernels] == [other, one]


def test_constraints_are_read_in_any_order() -> None:
    forms: set[Form] = set()
    constraints = decode_constraints(
        oracle.encode("Constraints", {"version": 1, "commands": [b"info", b"create"]}), forms
    )
    assert constraints.commands == frozenset({"info", "create"})
    assert forms == {Form.ORDER}


def test_every_form_says_who_writes_it() -> None:
    assert all("(" in form.value for form in Form)


@pytest.mark.parametrize("octet", [0x01, 0x7F, 0xFE])
def test_a_boolean_other_than_00_and_ff_is_refused(octet: int) -> None:
    octets = encode_message(Message(Header(), UnikernelCreate(UnikernelConfig(b"", Settings()))))
    assert octets.count(b"\x01\x01\xff") == 1
    with pytest.raises(MalformedMessage, match="boolean") as refusal:
        decode_message(octets.replace(b"\x01\x01\xff", bytes((1, 1, octet))))
    assert refusal.value.place == "message.payload.command.unikernel.create.add_name"
