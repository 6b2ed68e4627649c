"""Dates that do not fit a clock: what is said, and by how much."""

from datetime import timedelta

import pytest

from albatross_pki.transport.clocks import at, own_difference, server_difference, span
from tests.pki_builder import DAY, HOUR, NOW, Authority

ROOT = Authority.root()
DEV = ROOT.delegate("dev")


def test_a_server_that_is_not_valid_yet() -> None:
    server = ROOT.server(not_before=NOW + HOUR, not_after=NOW + DAY)
    found = server_difference([server.der, b"no certificate"], NOW)
    assert found is not None
    assert found.reasons == (
        f'certificate "server" is not valid before {at(NOW + HOUR)}',
        f"this machine's clock says {at(NOW)}",
    )
    assert "at least 1 h behind: set it" in found.hint


def test_a_server_that_has_expired() -> None:
    server = ROOT.server(not_before=NOW - 2 * DAY, not_after=NOW - 90 * HOUR / 60)
    found = server_difference([server.der], NOW)
    assert found is not None
    assert f"expired at {at(NOW - 90 * HOUR / 60)}" in found.reasons[0]
    assert "at least 1 h 30 min ahead: set it" in found.hint


def test_dates_that_say_nothing() -> None:
    assert server_difference([ROOT.server().der], NOW) is None  # it is the root, or something else
    assert server_difference([], NOW) is None
    assert own_difference("UNKNOWN_CA", [DEV.leaf("hello").der], NOW) is None
    assert own_difference("BAD_CERTIFICATE", [], NOW) is None
    assert own_difference("BAD_CERTIFICATE", [DEV.leaf("hello", not_before=NOW + HOUR).der], NOW) is None


def test_our_chain_that_is_good_here() -> None:
    leaf = DEV.leaf("hello", not_before=NOW - timedelta(seconds=10), not_after=NOW + timedelta(minutes=5))
    early = own_difference("BAD_CERTIFICATE", [leaf.der, DEV.der], NOW)
    assert early is not None
    assert early.reasons == (
        f"ours is valid from {at(NOW - timedelta(seconds=10))} to {at(NOW + timedelta(minutes=5))}, "
        f"and this machine's clock says {at(NOW)}",
    )
    assert "the server's clock is more than 10 s behind this machine's" in early.hint
    late = own_difference("CERTIFICATE_EXPIRED", [leaf.der, DEV.der], NOW)
    assert late is not None
    assert (
        "if certificate \"hello\" is right, the server's clock is more than 5 min ahead of this machine's" in late.hint
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1 s"), (-5, "1 s"), (12.9, "12 s"), (60, "1 min"), (3661, "1 h 1 min"), (86400, "1 d"), (90000, "1 d 1 h"),
     (86400 * 400 + 30, "400 d")],
)  # fmt: skip
def test_lengths_of_time(seconds: float, text: str) -> None:
    assert span(timedelta(seconds=seconds)) == text
