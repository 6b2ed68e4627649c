"""What people may write for an interface, a block device, a time and a destination, and what is said otherwise."""

from datetime import UTC, datetime, timedelta

import pytest

from albatross_pki.syntax import BadValue, parse_block, parse_destination, parse_network, parse_since, parse_time
from albatross_pki.unikernels import BlockDevice, NetworkInterface


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("service", NetworkInterface("service")),
        ("service:br0", NetworkInterface("service", "br0")),
        ("service=br0", NetworkInterface("service", "br0")),
        ("service:br-lan.1", NetworkInterface("service", "br-lan.1")),
        ("service@00:80:41:1b:18:52", NetworkInterface("service", None, bytes.fromhex("0080411b1852"))),
        ("service:br0@00-80-41-1B-18-52", NetworkInterface("service", "br0", bytes.fromhex("0080411b1852"))),
    ],
)
def test_a_network_is_written_as_name_bridge_and_mac(text: str, meaning: NetworkInterface) -> None:
    assert parse_network(text) == meaning


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:", ":b", "a:b:c", "a@", "a@00:80", "a b", "a:b/c", "a:" + "b" * 16, "br-0", "a@zz:80:41:1b:18:52"],
)
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        parse_network(text)


def test_a_bridge_that_cannot_name_a_device_is_told_how() -> None:
    with pytest.raises(BadValue, match=r"--net NAME:br-0"):
        parse_network("br-0")


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("storage", BlockDevice("storage")),
        ("storage:vol", BlockDevice("storage", "vol")),
        ("storage=vol@512", BlockDevice("storage", "vol", 512)),
        ("storage@4096", BlockDevice("storage", None, 4096)),
        ("storage:vol.1@512", BlockDevice("storage", "vol.1", 512)),
    ],
)
def test_a_block_device_is_written_as_name_device_and_sector(text: str, meaning: BlockDevice) -> None:
    assert parse_block(text) == meaning


@pytest.mark.parametrize("text", ["", "a:", ":b", "a@", "a@0", "a@513", "a@1e3", "a@131072", "a@-512", "a@99999999999"])
def test_what_is_no_block_device_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        parse_block(text)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("2026-11-21", datetime(2026, 11, 21, tzinfo=UTC)),
        ("2026-11-21T02:31:10Z", datetime(2026, 11, 21, 2, 31, 10, tzinfo=UTC)),
        ("2026-11-21t02:31:10.5z", datetime(2026, 11, 21, 2, 31, 10, 500_000, tzinfo=UTC)),
        ("2026-11-21T02:31:10+02:00", datetime(2026, 11, 21, 0, 31, 10, tzinfo=UTC)),
        ("2026-11-21 02:31:10-00:00", datetime(2026, 11, 21, 2, 31, 10, tzinfo=UTC)),
    ],
)
def test_a_time_is_rfc_3339_or_a_date(text: str, meaning: datetime) -> None:
    assert parse_time(text) == meaning


@pytest.mark.parametrize("text", ["", "now", "2026", "2026-13-01", "2026-11-21T02:31:10", "2026-11-21T25:00:00Z"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("host", ("host", 1025)),
        ("host:2", ("host", 2)),
        ("10.0.0.1:1025", ("10.0.0.1", 1025)),
        ("::1:1025", ("::1", 1025)),
        ("[::1]", ("::1", 1025)),
        ("[::1]:99", ("::1", 99)),
        ("-", ("-", 1025)),
    ],
)
def test_a_destination_is_host_and_port(text: str, meaning: tuple[str, int]) -> None:
    assert parse_destination(text) == meaning


@pytest.mark.parametrize("text", ["", ":1", "host:0", "host:65536", "host:x", "[::1]x"])
def test_what_is_no_destination_is_refused(text: str) -> None:
    with pytest.raises(BadValue):
        parse_destination(text)


@pytest.mark.parametrize(
    ("text", "ago"),
    [("now", 0), ("0s", 0), ("90s", 90), ("10m", 600), ("2h", 7200), ("3d", 259200), ("2026-01-01T00:00:00Z", 3600)],
)
def test_since_is_a_time_or_a_span_before_now(text: str, ago: int) -> None:
    now = datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert parse_since(text, now) == now - timedelta(seconds=ago)


def test_a_span_ends_at_the_beginning_of_time() -> None:
    assert parse_since("999999d", datetime(2026, 1, 1, tzinfo=UTC)) == datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "10", "m", "-5m", "1234567s", "10 m", "yesterday", "\u0663m"])
def test_what_is_neither_is_refused_with_what_would_do(text: str) -> None:
    with pytest.raises(BadValue, match="or a span before now such as 10m"):
        parse_since(text, datetime(2026, 1, 1, tzinfo=UTC))
