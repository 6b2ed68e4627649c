"""What docs/endpoint.md says about bounds and the audit log is what the code has."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from albatross_pki.endpoint.bounds import AuthoriserBounds, EndpointBounds

TEXT = (Path(__file__).parents[2] / "docs" / "endpoint.md").read_text()
MEBIBYTE = 1 << 20


def documented(heading: str) -> dict[str, str]:
    """Names and defaults of one table, rows for several names taken apart."""
    table = TEXT.split(f"| {heading} | default | why |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (`.*?`) \| (.*?) \|", table, re.MULTILINE)
    found: dict[str, str] = {}
    for names, defaults in rows:
        keys = re.findall(r"`(\w+)`", names)
        values = re.split(r", (?=\d)", defaults) if len(keys) > 1 else [defaults]
        found.update(zip(keys, values, strict=True))
    return found


def number(text: str) -> float:
    value, _, unit = text.replace(",", "").partition(" ")
    return float(value) * {"": 1, "KiB": 1024, "MiB": MEBIBYTE, "GiB": 1024 * MEBIBYTE}[unit]


@pytest.mark.parametrize(("heading", "bounds"), [("endpoint", EndpointBounds), ("authoriser", AuthoriserBounds)])
def test_every_bound_is_documented_with_its_default(heading: str, bounds: type) -> None:
    table = documented(heading)
    assert {name: number(text) for name, text in table.items()} == {
        field.name: field.default for field in fields(bounds)
    }
