"""Events: what happened, what happens, and who hears of it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath

import pytest

from albatross_pki.commands import UnikernelDestroy
from albatross_pki.extensions import Events
from albatross_pki.host.events import EventLog, Happened, Lagging
from albatross_pki.host.limits import EVENT_LISTENERS, EVENT_QUEUE, EVENTS_KEPT
from albatross_pki.host.rights import Rights
from albatross_pki.names import Name
from albatross_pki.replies import ConsoleLine, Failure, Text
from tests.host.running import create, daemon, inside
from tests.host.test_daemon import authorised, send_authorised

START = datetime(2020, 1, 1, tzinfo=UTC)


def words(log: EventLog, asked: str, since: datetime = START) -> list[str]:
    return [f"{each.name} {each.what}" for each in log.since(Name.parse(asked), since)]


def test_each_path_hears_of_itself_alone() -> None:
    log = EventLog()
    for name in ("a:one", "b:two", "a:c:three", ":four"):
        log.note(Name.parse(name), "started")
    assert words(log, "a:") == ["a:one started", "a:c:three started"]
    assert words(log, "a:one") == ["a:one started"]
    assert words(log, ":") == ["a:one started", "b:two started", "a:c:three started", ":four started"]
    assert words(log, ":", datetime.now(UTC) + timedelta(seconds=1)) == []


def test_p40_a_noisy_tenant_does_not_push_out_the_events_of_another() -> None:
    log = EventLog()
    log.note(Name.parse("quiet:one"), "started")
    for number in range(10 * EVENTS_KEPT):
        log.note(Name.parse("noisy:one"), f"event {number}")
    assert words(log, "quiet:") == ["quiet:one started"]
    assert len(words(log, "noisy:")) == EVENTS_KEPT


async def test_p06_a_listener_that_does_not_listen_loses_its_place() -> None:
    log = EventLog()
    with log.listening(Name.parse("a:")) as following:
        for number in range(EVENT_QUEUE + 2):
            log.note(Name.parse("a:one"), f"event {number}")
        heard: list[Happened] = []
        with pytest.raises(Lagging):
            await take_all(following, heard)
        assert len(heard) == EVENT_QUEUE


async def take_all(following: AsyncIterator[Happened], into: list[Happened]) -> None:
    async for each in following:
        into.append(each)


async def test_the_number_of_listeners_is_bounded() -> None:
    log = EventLog()
    with ExitStack() as stack:
        for _ in range(EVENT_LISTENERS):
            stack.enter_context(log.listening(Name()))
        with pytest.raises(Lagging), log.listening(Name()):
            pass
    with log.listening(Name()):
        pass


async def test_the_life_of_a_unikernel_in_events(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask("dev:web", create())
        await host.ask("dev:web", UnikernelDestroy())
        assert [each.split()[1] for each in words(host.supervisor.events, "dev:")] == ["started", "ended", "gone"]
        (line,) = (each.line(Name.parse("dev:")) for each in host.supervisor.events.since(Name.parse("dev:"), START)
                   if each.what == "ended")  # fmt: skip
        assert json.loads(line) == {"name": ":web", "event": "ended", "detail": "signal SIGTERM"}


async def test_an_event_stream_goes_on_until_its_chain_expires(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask("dev:one", create())
        rights = Rights(not_after=datetime.now(UTC) + timedelta(seconds=0.5), operator=False)
        stream = asyncio.create_task(host.asked("dev:", Events(START), rights))
        await asyncio.sleep(0.1)
        await host.ask("dev:two", create())
        answers, _ = await stream
        first, *lines, last = answers
        assert first == Text("subscribed")
        assert [json.loads(each.line)["name"] for each in lines if isinstance(each, ConsoleLine)] == [":one", ":two"]
        assert last == Failure("a certificate of the chain has expired")


def test_events_through_the_socket_of_the_authoriser(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        name = f"dev:{host.label()}"
        host.ask(name, create())
        answers, outcome = send_authorised(host, authorised("dev:", Events(START)), read=2)
        assert answers[0] == Text("subscribed")
        assert isinstance(answers[1], ConsoleLine)
        assert outcome.succeeded
