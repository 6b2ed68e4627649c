"""What goes wrong in an operator's hands: absurd numbers, the wrong database, places that cannot be written."""

from pathlib import Path

import pytest

from tests.ca.programs import Program


@pytest.mark.parametrize("span", ["999999999w", "999999999d"])
def test_spans_beyond_all_calendars_are_very_long_ones(dev: Path, ca: Program, span: str) -> None:
    assert "delegation" in ca("list", "db", f"--expiring={span}").out
    assert ca("needs-renewal", "dev.pem", f"--expires-in={span}").status == 0


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_times_beyond_all_calendars_are_refused(dev: Path, ca: Program, time: str) -> None:
    said = ca("verify", "dev.pem", "--ca=cacert.pem", f"--at={time}", check=False)
    assert said.status == 124
    assert "couldn't parse timestamp" in said.err


def test_needs_renewal_never_answers_what_was_not_asked(dev: Path, ca: Program) -> None:
    for wrong in ((), ("--fly",), ("dev.pem", "dev.pem")):
        said = ca("needs-renewal", *wrong, check=False)
        assert said.status == 255
        assert "hint: albatross-provision-ca needs-renewal --help" in said.err
