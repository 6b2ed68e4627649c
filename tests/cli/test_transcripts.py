"""Every command as it is typed, against real daemons: what it prints and what it ends with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.stage import HERE, builds, host_options, played, prepare, transcripts
from tests.cli.transcript import Exchange, matches, parse, rerecorded
from tests.e2e.conftest import running_site
from tests.e2e.site import Site


@pytest.fixture
def site(name: str) -> Iterator[Site]:
    """A host for each transcript, so that one that fails does not spoil the others."""
    with running_site(*host_options((HERE / f"{name}.txt").read_text())) as site:
        yield site


@pytest.fixture
def url() -> Iterator[str]:
    with builds() as url:
        yield url


@pytest.mark.timeout(900)  # some have a hundred commands, and machines are slow
@pytest.mark.parametrize("name", transcripts())
def test_a_transcript_is_what_happens(name: str, site: Site, url: str, tmp_path: Path) -> None:
    environment = prepare(site, name, tmp_path)
    exchanges = parse((HERE / f"{name}.txt").read_text())
    assert exchanges
    for exchange in exchanges:
        lines, status = played(site, exchange, tmp_path, environment, url)
        expected = "\n".join([*exchange.output, f"[{exchange.status}]"])
        came = "\n".join([*lines, f"[{status}]"])
        assert matches(exchange.output, lines), f"{name}.txt:{exchange.number}: expected\n{expected}\nand came\n{came}"
        assert status == exchange.status, f"{name}.txt:{exchange.number}: {came}"
    assert site.tenders() == []
    assert site.remains() == []


def test_a_transcript_is_read_as_it_is_written() -> None:
    text = "# prose\n\n$ a b\nout\n\n$ c\n[3]\n$ d\nerror: x\nhint: y\n[124]\n"
    assert parse(text) == [
        Exchange(3, "a b", ("out",), 0),
        Exchange(6, "c", (), 3),
        Exchange(8, "d", ("error: x", "hint: y"), 124),
    ]
    with pytest.raises(ValueError, match="line 2 belongs to no command"):
        parse("# prose\nlost\n")


@pytest.mark.parametrize(
    ("expected", "lines", "result"),
    [
        (("a",), ["a"], True),
        (("a",), ["b"], False),
        (("a",), ["a", "b"], False),
        (("a…c",), ["abbc"], True),
        (("a…c",), ["a", "c"], False),
        (("…",), [], True),
        (("a", "…", "z"), ["a", "b", "c", "z"], True),
        ((), ["a"], False),
    ],
)
def test_what_an_ellipsis_stands_for(expected: tuple[str, ...], lines: list[str], result: bool) -> None:
    assert matches(expected, lines) is result


def test_recording_again_keeps_what_still_holds() -> None:
    text = "$ a\nolder …\n\n$ b\nwrong\n[1]\n$ c\n"
    results = {1: (["older than"], 0), 4: (["right"], 0), 7: (["new"], 2)}
    assert rerecorded(text, results) == "$ a\nolder …\n\n$ b\nright\n$ c\nnew\n[2]\n"
