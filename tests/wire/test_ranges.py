"""Every number from outside has a range that is checked where it enters, and names the field that is wrong."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from albatross_pki import commands as c
from albatross_pki import replies as r
from albatross_pki.authorised import AuthorisedRequest, CertificateId, Verdict
from albatross_pki.extensions import Constraints, ImageBinding
from albatross_pki.messages import Header, Message, Payload
from albatross_pki.names import Name
from albatross_pki.policies import Policy
from albatross_pki.unikernels import BlockDevice, NetworkInterface, Settings, UnikernelConfig
from albatross_pki.wire.compression import compress
from albatross_pki.wire.configuration import deployment_digest
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.extension import encode_constraints, encode_image_binding
from albatross_pki.wire.message import decode_message, encode_message
from albatross_pki.wire.side import decode_side, encode_side
from fuzz.mutation import parse
from tests.wire import oracle
from tests.wire.facts import EPOCH, interface, usage

LARGEST = 2**62 - 1


def create(**settings: Any) -> Payload:
    return c.UnikernelCreate(UnikernelConfig(b"", Settings(**settings)))


def policy(**fields: Any) -> Payload:
    return c.PolicyAdd(replace(Policy(frozenset({0}), 1, 32), **fields))


OUT_OF_RANGE: list[tuple[str, Payload]] = [
    *(("get", c.UnikernelGet(level)) for level in (-1, 10, LARGEST)),
    *(("block.dump", c.BlockDump(level)) for level in (-1, 10)),
    ("block.dumpOld", c.BlockDumpOld(10)),
    *(("console.subscribe.count", c.ConsoleSubscribe(count=count)) for count in (-1, 2**31, 2**60, -LARGEST)),
    ("console.add", c.ConsoleAdd(-1)),
    *(("statistics.add.pid", c.StatsAdd("", pid)) for pid in (-1, 0, 2**31)),
    *(("create.memory_mb", create(memory_mb=memory)) for memory in (-1, 2**42)),
    *(("create.cpuids", create(cpuids=frozenset({cpuid}))) for cpuid in (-1, 2**31)),
    *(("create.cpus", create(cpus=cpus)) for cpus in (-1, 0, 2**31)),
    *(("sector_size", create(blocks=(BlockDevice("b", None, size),))) for size in (-512, 0, 2**31)),
    *(("policy.add.memory_mb", policy(memory_mb=memory)) for memory in (-1, LARGEST + 1)),
    *(("policy.add.unikernels", policy(unikernels=number)) for number in (-1, LARGEST + 1)),
    *(("policy.add.block_mb", policy(block_mb=size)) for size in (-1, LARGEST + 1)),
    ("policy.add.cpuids[0]", policy(cpuids=frozenset({-1}))),
    *(("block.add", c.BlockAdd(size)) for size in (-1, 2**42)),
    ("block.addOld.size_mb", c.BlockAddOld(-1, False, None)),
]


@pytest.mark.parametrize(("place", "payload"), OUT_OF_RANGE, ids=lambda one: str(one)[:70])
def test_p01_a_number_out_of_range_is_refused_when_read(place: str, payload: Payload) -> None:
    octets = oracle.encode(
        "WireMessage",
        {"header": {"version": 5, "sequence": bytes(8), "name": b":"}, "payload": oracle.payload(payload)},
    )
    with pytest.raises(MalformedMessage, match="between") as refusal:
        decode_message(octets)
    assert place in refusal.value.place
    assert refusal.value.header == Header()


@pytest.mark.parametrize(("place", "payload"), OUT_OF_RANGE, ids=lambda one: str(one)[:70])
def test_p01_a_number_out_of_range_is_refused_when_written(place: str, payload: Payload) -> None:
    with pytest.raises(MalformedMessage, match="between") as refusal:
        encode_message(Message(Header(), payload))
    assert place.removesuffix("[0]") in refusal.value.place


IN_RANGE: list[Payload] = [
    *(c.UnikernelGet(level) for level in range(10)),
    *(c.ConsoleSubscribe(count=count) for count in (0, 1024, 2**31 - 1)),
    *(c.ConsoleAdd(rings) for rings in (0, LARGEST)),
    *(create(memory_mb=memory) for memory in (0, 2**42 - 1)),
    *(create(startup=startup) for startup in (-LARGEST - 1, LARGEST)),
    *(policy(unikernels=number, memory_mb=number, block_mb=number) for number in (0, LARGEST)),
]


@pytest.mark.parametrize("payload", IN_RANGE, ids=lambda one: str(one)[:70])
def test_the_ends_of_a_range_are_in_it(payload: Payload) -> None:
    assert decode_message(encode_message(Message(Header(), payload))).payload == payload


CONSOLE_ADD = encode_message(Message(Header(), c.ConsoleAdd(LARGEST)))


def with_count(integer: bytes) -> bytes:
    """The command ``console add`` with these octets for its number."""
    structure = ("command", ("console", ("add", 0)))
    octets = oracle.encode(
        "WireMessage", {"header": {"version": 5, "sequence": bytes(8), "name": b":"}, "payload": structure}
    )
    grown = len(integer) - 3
    assert octets.endswith(b"\x02\x01\x00")
    head = bytearray(octets[:-3])
    for position in (1, len(head) - 1, len(head) - 3, len(head) - 5):
        head[position] += grown
    return bytes(head) + integer


@pytest.mark.parametrize(
    ("integer", "reason"),
    [
        (b"\x02\x00", "integer without octets"),
        (b"\x02\x02\x00\x01", "integer not in its shortest form"),
        (b"\x02\x02\x00\x7f", "integer not in its shortest form"),
        (b"\x02\x02\xff\x80", "integer not in its shortest form"),
        (b"\x02\x02\xff\xff", "integer not in its shortest form"),
        (b"\x02\x03\x00\x00\x80", "integer not in its shortest form"),
        (b"\x02\x08\x40" + bytes(7), f"must be between 0 and {LARGEST}, not {2**62}"),
        (b"\x02\x08\x7f" + b"\xff" * 7, f"must be between 0 and {LARGEST}, not {2**63 - 1}"),
        (b"\x02\x08\x80" + bytes(7), f"must be between 0 and {LARGEST}, not {-(2**63)}"),
        (b"\x02\x09\x00\xff" + b"\xff" * 7, f"integer of 9 octets, it must be between 0 and {LARGEST}"),
        (b"\x02\x40\x01" + bytes(63), f"integer of 64 octets, it must be between 0 and {LARGEST}"),
    ],
)
def test_p01_an_integer_that_upstream_would_refuse_is_refused(integer: bytes, reason: str) -> None:
    with pytest.raises(MalformedMessage) as refusal:
        decode_message(with_count(integer))
    assert (refusal.value.place, refusal.value.reason) == ("message.payload.command.console.add", reason)


def test_p01_a_number_of_a_million_octets_is_neither_computed_nor_printed() -> None:
    size = 1 << 20
    serial = b"\x01" + bytes(size - 1)
    octets = encode_message(Message(Header(), c.BlockAdd(1)))
    assert octets.endswith(b"\x02\x01\x01")
    tree = parse(octets)
    tree.everything()[-1].content = serial
    with pytest.raises(MalformedMessage, match=f"integer of {size} octets"):
        decode_message(tree.encoded())


def test_p01_a_number_too_long_to_print_is_refused_when_written() -> None:
    huge = 10**6000
    for payload in (c.BlockAdd(huge), r.Statistics(usage(0), (replace(interface("a"), mtu=huge),))):
        with pytest.raises(MalformedMessage, match="not a number of 19932 bits"):
            encode_message(Message(Header(), payload))
    with pytest.raises(MalformedMessage, match="a number of 19932 bits is not a signed 64-bit number"):
        encode_message(Message(Header(sequence=huge), r.Empty()))
    with pytest.raises(MalformedMessage, match="unknown version a number of 19932 bits"):
        encode_message(Message(Header(version=huge), r.Empty()))
    with pytest.raises(MalformedMessage, match="not a number of 19932 bits"):
        compress(b"", huge)


def test_the_largest_integer_of_the_protocol_is_read() -> None:
    octets = with_count(b"\x02\x08\x3f" + b"\xff" * 7)
    assert octets == CONSOLE_ADD
    assert decode_message(octets).payload == c.ConsoleAdd(c.UNLIMITED)


@pytest.mark.parametrize("size", [0, 1, 3, 7, 9, 16])
def test_p01_a_64_bit_number_of_other_than_eight_octets_is_refused(size: int) -> None:
    octets = oracle.encode(
        "WireMessage",
        {"header": {"version": 5, "sequence": bytes(size), "name": b":"}, "payload": ("failure", b"")},
    )
    with pytest.raises(MalformedMessage, match=f"64-bit number of {size} octets") as refusal:
        decode_message(octets)
    assert (refusal.value.place, refusal.value.header) == ("message.header.sequence", None)


@pytest.mark.parametrize("size", [0, 5, 7])
def test_p01_a_mac_of_other_than_six_octets_is_refused(size: int) -> None:
    payload = create(interfaces=(NetworkInterface("a", None, bytes(size)),))
    with pytest.raises(MalformedMessage, match="must have 6 octets"):
        encode_message(Message(Header(), payload))


@pytest.mark.parametrize("version", [-1, 0, 4, 6, 127, 2**40])
def test_another_version_is_refused_before_what_follows_it_is_read(version: int) -> None:
    octets = oracle.encode(
        "WireMessage", {"header": {"version": version, "sequence": b"", "name": b"::"}, "payload": ("failure", b"")}
    )
    with pytest.raises(MalformedMessage, match=f"unknown version {version}, only 5") as refusal:
        decode_message(octets)
    assert refusal.value.place == "message.header.version"
    with pytest.raises(MalformedMessage, match="unknown version"):
        encode_message(Message(Header(version=version), r.Empty()))


def test_32_bit_values_travel_signed_and_mean_unsigned() -> None:
    one = replace(interface("a"), flags=2**32 - 1, mtu=2**31)
    octets = encode_message(Message(Header(), r.Statistics(usage(0), (one,))))
    assert b"\x02\x01\xff" in octets
    read = decode_message(octets).payload
    assert isinstance(read, r.Statistics)
    assert (read.interfaces[0].flags, read.interfaces[0].mtu) == (2**32 - 1, 2**31)
    with pytest.raises(MalformedMessage, match="between 0 and 4294967295"):
        encode_message(Message(Header(), r.Statistics(usage(0), (replace(one, flags=2**32),))))


@pytest.mark.parametrize("value", [2**31, 2**31 + 1, 3_000_000_000, 2**32, -(2**31) - 1])
def test_p01_a_32_bit_value_that_is_not_written_as_a_signed_number_is_refused(value: int) -> None:
    statistics = oracle.payload(r.Statistics(usage(0), (interface("a"),)))[1][1]
    statistics["interfaces"][0]["mtu"] = value
    octets = oracle.encode(
        "WireMessage",
        {
            "header": {"version": 5, "sequence": bytes(8), "name": b":"},
            "payload": ("data", ("statistics", statistics)),
        },
    )
    with pytest.raises(MalformedMessage) as refusal:
        decode_message(octets)
    assert refusal.value.place == "message.payload.data.statistics.interfaces[0].mtu"


def test_counters_are_unsigned_and_sequences_signed() -> None:
    largest = replace(usage(0), maxrss=2**64 - 1)
    read = decode_message(encode_message(Message(Header(sequence=-(2**63)), r.Statistics(largest))))
    assert isinstance(read.payload, r.Statistics)
    assert (read.header.sequence, read.payload.usage.maxrss) == (-(2**63), 2**64 - 1)
    for message in (
        Message(Header(sequence=2**63), r.Empty()),
        Message(Header(), r.Statistics(replace(largest, maxrss=-1))),
    ):
        with pytest.raises(MalformedMessage, match="64-bit number"):
            encode_message(message)


@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_text_that_no_octets_stand_for_has_no_encoding(text: str) -> None:
    with pytest.raises(MalformedMessage, match="no encoding in UTF-8"):
        encode_message(Message(Header(), r.Text(text)))


@pytest.mark.parametrize(
    "octets", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"a\x00b", b"\xf5\x80\x80\x80", bytes(range(256))]
)
def test_text_of_any_octets_is_kept(octets: bytes) -> None:
    answer = encode_message(Message(Header(), r.Failure(octets.decode("utf-8", "surrogateescape"))))
    assert octets in answer
    read = decode_message(answer)
    assert encode_message(read) == answer
    line = Message(Header(), r.ConsoleLine(EPOCH, octets))
    assert decode_message(encode_message(line)) == line


def test_lists_have_an_end() -> None:
    many = tuple("x" for _ in range(2**14 + 1))
    with pytest.raises(MalformedMessage, match="more than 16384 elements"):
        encode_message(Message(Header(), create(arguments=many)))
    structure = oracle.config(UnikernelConfig(b"", Settings())) | {"arguments": [b"x"] * (2**14 + 1)}
    octets = oracle.encode(
        "WireMessage",
        {
            "header": {"version": 5, "sequence": bytes(8), "name": b":"},
            "payload": ("command", ("unikernel", ("create", structure))),
        },
    )
    with pytest.raises(MalformedMessage, match="more than 16384 elements") as refusal:
        decode_message(octets)
    assert refusal.value.place == "message.payload.command.unikernel.create.arguments[16384]"


def test_a_list_that_is_a_set_has_an_end_too() -> None:
    many = frozenset(range(2**14 + 1))
    for payload in (create(cpuids=many), policy(cpuids=many)):
        with pytest.raises(MalformedMessage, match="more than 16384 elements"):
            encode_message(Message(Header(), payload))


def test_a_time_that_utc_has_not_is_refused_and_one_without_a_zone_is_a_mistake() -> None:
    first = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    with pytest.raises(MalformedMessage, match="outside the years 1 to 9999"):
        encode_message(Message(Header(), r.ConsoleLine(first, b"")))
    with pytest.raises(TypeError, match="without a time zone"):
        encode_message(Message(Header(), r.ConsoleLine(EPOCH.replace(tzinfo=None), b"")))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_deployment_is_about_a_sha256(size: int) -> None:
    with pytest.raises(MalformedMessage, match=f"must have 32 octets, not {size}"):
        deployment_digest(UnikernelConfig(b"", Settings()), bytes(size))


def test_our_own_formats_have_ranges_too() -> None:
    cases: tuple[tuple[Any, Callable[[Any], bytes]], ...] = (
        (ImageBinding(bytes(32), 0), encode_image_binding),
        (ImageBinding(bytes(31), 1), encode_image_binding),
        (Constraints(images=frozenset({b""})), encode_constraints),
        (Verdict(Name(), stream_limit=-1), encode_side),
        (Verdict(Name(), answers="twice"), encode_side),
        (AuthorisedRequest(Name(), c.PolicyInfo(), (), CertificateId(bytes(32), 2**160), EPOCH), encode_side),
        (AuthorisedRequest(Name(), c.PolicyInfo(), (), CertificateId(bytes(20), 1), EPOCH), encode_side),
    )
    for value, encode in cases:
        with pytest.raises(MalformedMessage):
            encode(value)


def test_an_unknown_value_of_an_enumeration_is_refused() -> None:
    octets = b"\xa1\x0a\x30\x08\x01\x01\xff\x0a\x01\x03\x0c\x00"
    with pytest.raises(MalformedMessage, match="unknown value 3") as refusal:
        decode_side(octets)
    assert refusal.value.place == "side message.outcome.effect"
