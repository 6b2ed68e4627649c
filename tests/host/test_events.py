"""Events as values and as a record: what is told to whom, in which order, and what is kept."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath
from typing import Any, get_args

import pytest

from albatross_pki.authorised import CertificateId
from albatross_pki.errors import Refused
from albatross_pki.host import events_kinds as kinds
from albatross_pki.host.events_log import MAX_LISTENERS, MAX_LISTENERS_BELOW, PAGE, SCHEMA, SLACK, EventLog, Listener
from albatross_pki.host.events_recorder import EventRecorder
from albatross_pki.host.state import State, StateError
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy

ROOT = FilePath(__file__).parents[2]
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
STOPPED = kinds.Stopped()


class Record:
    """An event log in memory, with the steps that a state does."""

    def __init__(self, share: int = 100, total: int = 1000) -> None:
        self.database = sqlite3.connect(":memory:", isolation_level=None)
        self.database.executescript(SCHEMA)
        self.log = EventLog(self.database.execute, share=share, total=total)
        self.woken: list[Listener] = []

    def note(self, name: str, what: kinds.What = STOPPED) -> None:
        self.log.stage(Name.parse(name), what)
        self.commit()

    def commit(self) -> None:
        self.log.write(self.database.execute)
        self.log.written(durable=True)

    def listen(
        self, asked: str, since: datetime | None = LONG_AGO, wake: Callable[[], None] = lambda: None
    ) -> Listener:
        return self.log.listen(Name.parse(asked), since, wake)

    def documents(self, listener: Listener) -> list[dict[str, Any]]:
        """Everything that is there for ``listener`` now."""
        found: list[dict[str, Any]] = []
        while page := self.log.take(listener):
            assert len(page) <= PAGE + 1
            found += map(json.loads, page)
        return found

    def heard(self, asked: str, since: datetime | None = LONG_AGO) -> list[str]:
        listener = self.listen(asked, since)
        try:
            return [f"{each['name']} {each['event']}" for each in self.documents(listener)]
        finally:
            self.log.leave(listener)


@pytest.fixture
def record() -> Iterator[Record]:
    made = Record()
    yield made
    made.database.close()


# documents


def test_every_event_is_documented_with_each_of_its_members() -> None:
    text = (ROOT / "docs" / "events.md").read_text()
    for kind in get_args(kinds.What):
        (line,) = [each for each in text.splitlines() if each.startswith(f"| `{kind.word}`")]
        assert [field.name for field in fields(kind) if f"`{field.name}`" not in line] == []


def test_the_words_of_events_are_different() -> None:
    words = [kind.word for kind in get_args(kinds.What)]
    assert len(set(words)) == len(words)


def test_a_document_says_when_what_and_who_asked() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    leaf = CertificateId(bytes(32), 0xABC)
    text = kinds.document(kinds.Created(7, b"\1" * 32, 16), at, leaf, "00ff")
    assert kinds.named(text, Name.parse("dev:web")) == (
        '{"name":"dev:web","id":"00ff","time":"2026-01-02T03:04:05.678Z","event":"created","deployment":7,'
        f'"image":"{"01" * 32}","memory_mb":16,"by":{{"certificate":"abc","issuer_key":"{"00" * 32}"}}}}'
    )
    assert json.loads(kinds.document(STOPPED, at, 0, "1"))["by"] == {"user": 0}
    assert "by" not in json.loads(kinds.document(STOPPED, at, None, "1"))


def test_p19_what_a_guest_wrote_is_escaped_and_cut() -> None:
    lines = ("\x1b[2J\udcff\n", "x" * 5000)
    shown = json.loads(kinds.document(kinds.LastLines(lines), LONG_AGO, None, "1"))["lines"]
    assert shown[0] == "\\x1b[2J\\xff\\n"
    assert len(shown[1]) == kinds.LINE_CHARACTERS + 1
    reason = json.loads(kinds.document(kinds.FailedToStart("y" * 5000), LONG_AGO, None, "1"))["reason"]
    assert len(reason) == kinds.REASON_CHARACTERS + 1


def test_a_policy_is_told_as_a_whole() -> None:
    policy = Policy(frozenset({2, 1}), 3, 64, None, frozenset({"b", "a"}))
    document = json.loads(kinds.document(kinds.PolicySet.of(policy), LONG_AGO, None, "1"))
    assert (document["cpuids"], document["bridges"], document["unikernels"]) == ([1, 2], ["a", "b"], 3)
    assert "block_mb" not in document


# who hears of what


NAMES = (":", "x:", ":x", "x:x", "x:y:", "x:y", "x:y:z", "xx:y", "x-y:z", "x.y:z", "w:x")


@pytest.mark.parametrize("asked", NAMES)
def test_p10_each_path_hears_of_itself_and_below_and_never_of_its_namesake(record: Record, asked: str) -> None:
    for name in NAMES:
        record.note(name)
    who = Name.parse(asked)
    expected = [
        f"{Name.parse(name).relative_to(who.path) if who.is_path else name} stopped"
        for name in NAMES
        if (who.is_path and who.path.contains(Name.parse(name).path)) or name == asked
    ]
    assert record.heard(asked) == expected
    assert expected


def test_a_listener_hears_what_comes_later_and_is_woken_for_its_own_path_alone(record: Record) -> None:
    woken: list[str] = []
    record.note("a:one")
    listener = record.listen("a:", since=None, wake=lambda: woken.append("a"))
    record.note("b:two")
    assert woken == []
    record.note("a:three")
    assert woken == ["a"]
    assert [each["name"] for each in record.documents(listener)] == [":three"]
    assert record.documents(listener) == []


def test_since_is_a_time(record: Record) -> None:
    record.note("a:one")
    assert record.heard("a:", datetime.now(UTC) + timedelta(hours=1)) == []
    assert record.heard("a:", datetime.now(UTC) - timedelta(hours=1)) == [":one stopped"]
    assert record.heard("a:", None) == []


def test_a_subscription_says_since_when_events_are_kept(record: Record) -> None:
    first = json.loads(record.log.first_document(Name.parse("a:")))
    assert first == {"name": ":", "event": "subscribed", "kept_since": None}
    record.note("b:one")
    record.note("a:one")
    kept_since = json.loads(record.log.first_document(Name.parse("a:")))["kept_since"]
    assert kept_since == record.documents(record.listen("a:"))[0]["time"]


# bounds


def test_p40_a_noisy_tenant_pushes_out_its_own_events_alone(record: Record) -> None:
    record.note("quiet:one")
    record.note(":at-the-root")
    for number in range(1000):
        record.note("noisy:one", kinds.BlockCreated(number))
    assert record.heard("quiet:") == [":one stopped"]
    assert record.heard(":at-the-root") == [":at-the-root stopped"]
    kept = [each["size_mb"] for each in record.documents(record.listen("noisy:"))]
    assert 100 <= len(kept) <= 100 + SLACK
    assert kept == list(range(1000 - len(kept), 1000))


def test_p04_the_whole_record_is_bounded_and_the_largest_share_gives_way() -> None:
    record = Record(share=100, total=300)
    for tenant in range(50):
        for _ in range(12 if tenant else 100):
            record.note(f"t{tenant}:one")
    (count,) = record.database.execute("SELECT count(*) FROM events").fetchone()
    assert count <= 300 + SLACK
    assert all(record.heard(f"t{tenant}:") for tenant in range(50))
    record.database.close()


@pytest.mark.parametrize("asked", ["a:", ":", "a:one", "a:b:"])
def test_one_who_is_too_slow_is_told_exactly_how_many_it_missed(record: Record, asked: str) -> None:
    listener = record.listen(asked)
    for number in range(400):
        record.note("a:one" if number % 3 else "a:two", kinds.BlockCreated(number))
    mine = [number for number in range(400) if asked != "a:b:" and (asked != "a:one" or number % 3)]
    heard = record.documents(listener)
    if not mine:
        assert heard == []
        return
    marker, *events = heard
    assert (marker["event"], marker["name"]) == ("missed", str(kinds.seen(listener.asked, listener.asked)))
    assert [each["size_mb"] for each in events] == mine[marker["count"] :]
    assert marker["count"] > 0


def test_p40_the_places_of_listeners_are_bounded_for_one_tenant_and_together(record: Record) -> None:
    kept = [record.listen("a:") for _ in range(MAX_LISTENERS_BELOW)]
    with pytest.raises(Refused, match="listen to events of a already"):
        record.listen("a:b:c")
    kept += [record.listen(f"t{number}:") for number in range(MAX_LISTENERS - len(kept))]
    with pytest.raises(Refused, match="64 listen to events already"):
        record.listen("b:")
    for _ in range(MAX_LISTENERS_BELOW):  # the operator has places that no tenant takes
        record.listen(":")
    with pytest.raises(Refused, match="listen to events of the root already"):
        record.listen(":")
    record.log.leave(kept[0])
    record.log.leave(kept[0])
    record.listen("b:")


# with the state


def recorded(state: State) -> list[str]:
    listener = state.events.listen(Name(), LONG_AGO, lambda: None)
    found: list[str] = []
    while page := state.events.take(listener):
        found += [json.loads(each)["event"] for each in page]
    state.events.leave(listener)
    return found


def test_p21_an_event_is_on_disk_with_the_change_that_it_tells_of(tmp_path: FilePath) -> None:
    state = State(str(tmp_path))
    policy = Policy(frozenset({0}), 1, 1)
    state.events.stage(Name.of_path(Path(("dev",))), kinds.PolicySet.of(policy), 0)
    state.set_policy(Path(("dev",)), policy)
    state.close()
    again = State(str(tmp_path))
    assert recorded(again) == ["policy-set"]
    assert [path for path, _ in again.load().operator] == [Path(("dev",))]
    again.close()


async def test_p21_what_could_not_be_written_did_not_happen_but_what_happened_is_not_lost(tmp_path: FilePath) -> None:
    state = State(str(tmp_path))
    recorder = EventRecorder(state, "nowhere")
    state._database.execute("PRAGMA query_only = ON")  # as a disk that is full
    recorder.happened(Name.parse("a:b"), kinds.Exited("exit 3", 3))
    with pytest.raises(StateError):
        state.process_gone("token")
    recorder.stage(Name.parse("a:b"), kinds.Destroyed(), 0)
    with pytest.raises(StateError):
        state.forget(Name.parse("a:b"))
    recorder.tell(Name.parse("a:b"), kinds.FailedToStart("no memory"))
    state._database.execute("PRAGMA query_only = OFF")
    recorder.tell(Name.parse("a:b"), STOPPED)
    assert recorded(state) == ["exited", "failed-to-start", "stopped"]
    recorder.close()
    state.close()


async def test_what_rides_on_a_process_record_is_on_the_disk_soon(tmp_path: FilePath) -> None:
    state = State(str(tmp_path))
    recorder = EventRecorder(state, "nowhere")
    recorder.happened(Name.parse("a:b"), kinds.Started(1, "embedded spt"))
    state.process_gone("token")
    assert [state.events.unsynced] == [True]
    recorder._sync_now()
    assert [state.events.unsynced] == [False]
    recorder.close()
    state.close()


def test_events_of_a_state_that_knew_none_begin_now(tmp_path: FilePath) -> None:
    state = State(str(tmp_path))
    state.close()
    with sqlite3.connect(state.path) as database:
        database.execute("DROP TABLE events")
        database.execute("DROP TABLE events_on_disk")
    database.close()
    again = State(str(tmp_path))
    assert recorded(again) == []
    again.close()
