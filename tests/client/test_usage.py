"""What unikernels use now, out of what they have used so far; and how it is shown."""

import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path as FilePath

import pytest

from albatross_pki.client.conversation import CommandFailed, NoAnswer, Streamed
from albatross_pki.client.show import Screen
from albatross_pki.client.top import can_be_live, once
from albatross_pki.client.top_cli import _print
from albatross_pki.client.usage import FIRST_INTERVAL, UsageTable, Use, octets_text, use_cells, use_document
from albatross_pki.messages import Header, Payload
from albatross_pki.names import Name
from albatross_pki.replies import ProcessMemory, Statistics, Success, Text, Timeval
from tests.client.peers import Daemon
from tests.client.test_show import STATISTICS

ROOT = FilePath(__file__).parents[2]
WEB, DB = Name.parse("dev:web"), Name.parse("dev:db")


def sample(cpu: float = 0.0, *, received: int = 0, sent: int = 0, pages: int = 100, started: int = 7) -> Statistics:
    """A sample of a process that has used so much since it began."""
    usage = replace(STATISTICS.usage, utime=Timeval(int(cpu), round(cpu % 1 * 1e6)), stime=Timeval(0, 0))
    memory = ProcessMemory(1 << 20, pages, 0, 0, 0, 0, 0, Timeval(started, 0))
    (interface, *_) = STATISTICS.interfaces
    return replace(
        STATISTICS,
        usage=usage,
        memory=memory,
        interfaces=(replace(interface, input_bytes=sent, output_bytes=received),),
    )


def table(*samples: tuple[Name, Statistics, float]) -> UsageTable:
    made = UsageTable()
    for name, each, at in samples:
        made.take(name, each, at)
    return made


def only(made: UsageTable, now: float) -> Use:
    (use,) = made.rows("cpu", now)
    return use


def test_a_rate_is_the_difference_of_two_samples() -> None:
    use = only(
        table((WEB, sample(1.0, received=100, sent=7), 10.0), (WEB, sample(2.0, received=300, sent=7), 14.0)), 14
    )
    assert (use.cpu_percent, use.received, use.sent) == (25.0, 50.0, 0.0)
    assert use.memory_octets == 100 * 4096
    assert use.counters.cpu_seconds == 2.0


def test_one_sample_has_no_rate() -> None:
    use = only(table((WEB, sample(1.0), 10.0)), 10)
    assert (use.cpu_percent, use.received, use.sent) == (None, None, None)


@pytest.mark.parametrize("later", [sample(0.5), sample(9, started=8), sample(9, received=-1)])
def test_another_process_has_no_rate_of_the_one_before(later: Statistics) -> None:
    use = only(table((WEB, sample(1.0), 10.0), (WEB, later, 20.0)), 20)
    assert use.cpu_percent is None
    assert use.samples == 2


def test_samples_that_come_together_after_a_delay_give_no_absurd_rate() -> None:
    assert only(table((WEB, sample(1.0), 10.0), (WEB, sample(2.0), 10.0)), 10).cpu_percent is None


def test_who_is_silent_for_some_rounds_is_gone() -> None:
    made = table((WEB, sample(), 0.0), (DB, sample(), 0.0), (WEB, sample(), 1.0), (WEB, sample(), 2.0))
    assert [use.name for use in made.rows("name", 4.0)] == [DB, WEB]
    assert [use.name for use in made.rows("name", 4.6)] == [DB]
    assert made.rows("name", 2.5 * FIRST_INTERVAL + 1) == []


def test_the_largest_come_first_and_the_unknown_last() -> None:
    third = Name.parse("third")
    made = table(
        *((WEB, sample(0, pages=1), 0.0), (DB, sample(0, sent=0, pages=3), 0.0), (third, sample(pages=2), 1.0)),
        *((WEB, sample(1, sent=5), 1.0), (DB, sample(0.5, sent=9, pages=3), 1.0)),
    )
    assert [use.name for use in made.rows("cpu", 1.0)] == [WEB, DB, third]
    assert [use.name for use in made.rows("network", 1.0)] == [DB, WEB, third]
    assert [use.name for use in made.rows("name", 1.0)] == [DB, WEB, third]


def test_it_is_complete_when_everybody_has_a_rate_or_one_round_more_has_passed() -> None:
    made = table((WEB, sample(), 0.0), (DB, sample(), 0.0), (WEB, sample(), 1.0))
    assert not UsageTable().complete()
    assert not made.complete()
    made.take(DB, sample(), 1.0)
    assert made.complete()
    ended = table((WEB, sample(), 0.0), (DB, sample(), 0.0), (WEB, sample(), 1.0), (WEB, sample(), 2.0))
    assert ended.complete()


@pytest.mark.parametrize(
    ("octets", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 kB"), (1 << 20, "1.0 MB"), (1 << 45, "32768.0 GB")]
)
def test_octets_for_people(octets: float, text: str) -> None:
    assert octets_text(octets) == text


def test_a_row_as_a_document_and_as_cells() -> None:
    use = only(table((WEB, sample(1.0), 10.0), (WEB, sample(2.5, received=4096), 12.0)), 12)
    assert use_document(use) == {
        "name": "dev:web",
        "cpu_percent": 75.0,
        "memory_octets": 409600,
        "received_octets_per_second": 2048.0,
        "sent_octets_per_second": 0.0,
        "cpu_seconds": 2.5,
    }
    assert use_cells(use) == ["dev:web", "75.0 %", "400.0 kB", "2.0 kB/s", "0 B/s", "2.50 s"]
    unknown = only(table((Name.parse("a"), replace(sample(), memory=None), 1.0)), 1)
    assert use_cells(unknown) == ["a", "-", "-", "-", "-", "0.00 s"]


def test_every_field_is_documented() -> None:
    text = (ROOT / "docs" / "output.md").read_text()
    use = only(table((WEB, sample(), 0.0)), 0)
    assert [field for field in use_document(use) if f"`{field}`" not in text] == []


def saying(
    *pieces: tuple[Name, Payload], then: threading.Event | None = None
) -> Callable[[Callable[[Header, Success], None], Callable[[Header, Streamed], bool]], None]:
    def converse(on_success: Callable[[Header, Success], None], on_data: Callable[[Header, Streamed], bool]) -> None:
        on_success(Header(), Text("subscribed"))
        for name, data in pieces:
            if not on_data(Header(name), data):  # type: ignore[arg-type]
                return
        if then is not None:
            then.wait(20)

    return converse


def test_once_ends_with_the_second_sample_of_everybody() -> None:
    never = threading.Event()
    rows = once(":", saying(*[(WEB, sample()), (DB, sample())] * 2, then=never), "name", quiet=20)
    assert [use.name for use in rows] == [DB, WEB]
    assert [use.samples for use in rows] == [2, 2]
    never.set()


def test_once_ends_where_nothing_comes() -> None:
    never = threading.Event()
    assert once(":", saying(then=never), "cpu", quiet=0.05) == []
    never.set()


def test_once_says_what_went_wrong() -> None:
    with pytest.raises(NoAnswer, match="expected statistics, got Text"):
        once(":", saying((WEB, Text("x"))), "cpu", quiet=20)

    def refused(*_: object) -> None:
        raise CommandFailed("no")

    with pytest.raises(CommandFailed):
        once(":", refused, "cpu", quiet=20)


def test_the_table_the_documents_and_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    rows = table((WEB, sample(), 0.0), (WEB, sample(1), 1.0)).rows("cpu", 1.0)
    _print(rows, Screen())
    assert capsys.readouterr().out.splitlines()[0].split() == [
        "NAME",
        "CPU",
        "MEMORY",
        "RECEIVED",
        "SENT",
        "CPU",
        "TIME",
    ]
    _print(rows, Screen("json"))
    assert json.loads(capsys.readouterr().out) == [use_document(use) for use in rows]
    _print(rows, Screen("name"))
    assert capsys.readouterr().out == "dev:web\n"
    _print([], Screen())
    assert capsys.readouterr().out == "no unikernels\n"
    _print(rows, Screen(quiet=True))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("screen", "wanted"),
    [
        (Screen(width=80), True),
        (Screen(), False),
        (Screen("json", width=80), False),
        (Screen(quiet=True, width=80), False),
    ],
)
def test_a_live_table_is_for_terminals(screen: Screen, wanted: bool) -> None:
    assert can_be_live(screen) is wanted


def test_without_rich_there_is_no_live_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albatross_pki.client.top.find_spec", lambda name: None)
    assert not can_be_live(Screen(width=80))


HOSTILE = Name.parse("bold")
CODE = "from albatross_pki.client.local_cli import main; main()"


def on_a_terminal(tmp_path: FilePath, *arguments: str, without_rich: bool = False) -> str:
    """What a person sees of a command that gets two samples and then the end of the stream."""
    answers: list[Payload] = [Text("subscribed"), sample(1.0), sample(2.0)]
    hidden = ""
    if without_rich:
        hidden = "import albatross_pki.client.top as top; top.find_spec = lambda name: None\n"
    ours, theirs = pty.openpty()
    seen = b""
    with Daemon(tmp_path / "util" / "stat.sock", answers):
        process = subprocess.Popen(
            [sys.executable, "-c", hidden + CODE, *arguments, "--tmpdir", str(tmp_path)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "20"},
        )
        os.close(theirs)
        try:
            while octets := os.read(ours, 4096):
                seen += octets
        except OSError:  # the terminal's other end is closed: Linux says EIO
            pass
        assert process.wait(30) == 0, seen
    os.close(ours)
    return seen.decode()


def test_stats_and_top_are_tables_on_a_terminal(tmp_path: FilePath) -> None:
    stats = on_a_terminal(tmp_path / "stats", "stats")
    assert "CPU TIME" in stats
    assert "1 unikernels of :" in stats
    assert "user" not in stats
    top = on_a_terminal(tmp_path / "top", "top")
    assert "\x1b[?1049h" in top  # a screen of its own
    assert "CPU TIME" in top
    assert "\x1b[?25h" in top[top.rindex("\x1b[?25l") :]  # the cursor
    assert top.endswith("\x1b[?1049l")  # and the old screen again


def test_without_rich_they_are_lines_and_one_table(tmp_path: FilePath) -> None:
    stats = on_a_terminal(tmp_path / "stats", "stats", without_rich=True)
    assert stats.count("user ") == 2
    top = on_a_terminal(tmp_path / "top", "top", without_rich=True)
    assert "note: a table that is kept up to date needs rich" in top
    assert "\x1b[?1049h" not in top
    assert "CPU TIME" in top
