"""Consoles: which ones are meant, and what is shown of them."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from albatross_pki.client.consoles import ConsolePrinter, NothingRuns, Wish, names_meant, show_consoles
from albatross_pki.client.line_filter import LONGEST_PATTERN, LineFilter
from albatross_pki.client.local import OnData, OnSuccess
from albatross_pki.client.show import Screen
from albatross_pki.client.side_by_side import MOST_STREAMS
from albatross_pki.command_line import TypedCommand
from albatross_pki.commands import ConsoleSubscribe, UnikernelInfoRequest
from albatross_pki.errors import AlbatrossError
from albatross_pki.messages import Header
from albatross_pki.names import Name
from albatross_pki.replies import ConsoleLine, Text, Unikernels
from albatross_pki.syntax import BadValue
from tests.client.test_show import WEB as INFO

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 600000, tzinfo=UTC)
WEB, DB = Name.parse("dev:web"), Name.parse("dev:db")
FEW = ConsoleSubscribe(count=2)


class Host:
    """Knows which unikernels run, relative to the path that it is asked about, and what each has printed."""

    def __init__(self, running: tuple[str, ...] = (), printed: dict[str, tuple[bytes, ...]] | None = None) -> None:
        self.running, self.printed = running, printed or {}
        self.asked: list[TypedCommand] = []

    def send(self, typed: TypedCommand, on_success: OnSuccess, on_data: OnData) -> None:
        self.asked.append(typed)
        header = Header(typed.name)
        if isinstance(typed.command, UnikernelInfoRequest):
            on_success(header, Unikernels(tuple((Name.parse(each), INFO) for each in self.running)))
            return
        assert isinstance(typed.command, ConsoleSubscribe)
        on_success(header, Text("subscribed"))
        for line in self.printed[str(typed.name)]:
            if not on_data(header, ConsoleLine(MOMENT, line)):
                return


def test_a_path_stands_for_what_runs_in_it_and_each_name_is_shown_once() -> None:
    host = Host(("web", "db", "sub:deep"))
    meant = names_meant([Name.parse("dev:web"), Name.parse("dev:")], host.send, remote=False)
    assert meant[0] == WEB
    assert sorted(meant) == sorted([WEB, DB, Name.parse("dev:sub:deep")])
    assert [each.name for each in host.asked] == [Name.parse("dev:")]


def test_through_tls_only_what_a_leaf_can_name_is_meant() -> None:
    assert names_meant([Name()], Host(("web", "sub:deep")).send, remote=True) == [Name.parse("web")]


def test_nothing_that_runs_is_said() -> None:
    with pytest.raises(NothingRuns, match="nothing runs in dev:"):
        names_meant([Name.parse("dev:")], Host().send, remote=False)


def test_p04_the_number_of_consoles_at_once_is_bounded() -> None:
    host = Host(tuple(f"u{number}" for number in range(MOST_STREAMS + 1)))
    with pytest.raises(AlbatrossError, match=f"at most {MOST_STREAMS} consoles"):
        names_meant([Name()], host.send, remote=False)


def test_several_have_their_names_in_front(capsys: pytest.CaptureFixture[str]) -> None:
    host = Host(printed={"dev:web": (b"one",), "dev:db": (b"two",)})
    assert show_consoles([WEB, DB], Wish(FEW, lines=2), host.send, Screen()) == []
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "dev:db  | 2026-01-02T03:04:05.600Z two",
        "dev:web | 2026-01-02T03:04:05.600Z one",
    ]
    assert {each.name for each in host.asked} == {WEB, DB}


def test_one_has_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_consoles([WEB], Wish(FEW), Host(printed={"dev:web": (b"one",)}).send, Screen()) == []
    assert capsys.readouterr().out == "subscribed\n2026-01-02T03:04:05.600Z one\n"


def test_programs_get_one_document_per_line_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    host = Host(printed={"dev:web": (b"one",), "dev:db": (b"two",)})
    assert show_consoles([WEB, DB], Wish(FEW), host.send, Screen("json")) == []
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted((each["name"], each["line"]) for each in documents) == [("dev:db", "two"), ("dev:web", "one")]


def test_without_follow_it_ends_after_the_last_lines(capsys: pytest.CaptureFixture[str]) -> None:
    host = Host(printed={"dev:web": (b"1", b"2", b"3"), "dev:db": (b"x",)})
    assert show_consoles([WEB, DB], Wish(FEW, follow=False), host.send, Screen()) == []
    lines = [line.split()[-1] for line in capsys.readouterr().out.splitlines()]
    assert sorted(lines) == ["1", "2", "x"]


def test_p06_what_was_missed_is_shown_whatever_is_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    lines = (b"a cat", b"[albatross-console: 7 lines missed]", b"a dog", b"[albatross-console: x lines missed]")
    host = Host(printed={"dev:web": lines})
    wish = Wish(ConsoleSubscribe(count=9), pattern=LineFilter("c[a]t"), lines=9)
    assert show_consoles([WEB], wish, host.send, Screen()) == []
    shown = [line.partition("Z ")[2] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["a cat", "[albatross-console: 7 lines missed]"]


def test_the_pattern_is_looked_for_in_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    host = Host(printed={"dev:web": (b"\x1b[31mred", b"plain")})
    assert show_consoles([WEB], Wish(FEW, pattern=LineFilter(r"\\x1b"), lines=9), host.send, Screen()) == []
    assert capsys.readouterr().out.splitlines() == [r"2026-01-02T03:04:05.600Z \x1b[31mred"]


def test_p19_hostile_lines_of_several_cannot_forge_another_name(capsys: pytest.CaptureFixture[str]) -> None:
    printer = ConsolePrinter([WEB, DB], Wish(FEW), Screen(width=80), coloured=True)
    printer.take(1, Header(DB), ConsoleLine(MOMENT, b"x\ndev:web | forged\r\x1b[2Jdev:web | again\x00\xff"))
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert out.startswith("\x1b[33mdev:db \x1b[0m | ")
    assert "\x1b" not in out.removeprefix("\x1b[33mdev:db \x1b[0m | ")


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "[z-a]", "x" * (LONGEST_PATTERN + 1)])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(BadValue):
        LineFilter(pattern)


def test_p04_a_pattern_that_takes_for_ever_is_given_up() -> None:
    """In a process of its own: its timer is that of the whole process."""
    code = (
        "from albatross_pki.client.line_filter import LineFilter, TooSlow\n"
        "slow = LineFilter('(a+)+$')\n"
        "assert slow.shows('aaaa')\n"
        "try:\n    slow.shows('a' * 500 + '!')\n"
        "except TooSlow as error:\n    print(error.message)\n"
        "assert slow.shows('aaaa')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "the pattern of --grep takes more than 1 second on one line\n"
