"""Events of real lives: once each, in order, in agreement with the state, whatever is killed and whoever is slow."""

import asyncio
import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath
from typing import Any

import pytest

from albatross_pki.authorised import LocalRequest
from albatross_pki.commands import (
    BlockAdd,
    BlockRemove,
    PolicyAdd,
    PolicyRemove,
    UnikernelCreate,
    UnikernelDestroy,
    UnikernelRestart,
)
from albatross_pki.errors import Refused
from albatross_pki.extensions import Events, ExtendedCommand, Rollback, Start, Status, Stop
from albatross_pki.host import faults
from albatross_pki.host.conversation import Conversation
from albatross_pki.host.events_kinds import LAST_LINES, PolicyRemoved, Waiting
from albatross_pki.host.events_log import SHARE, SLACK
from albatross_pki.host.events_stream import stream_events
from albatross_pki.host.rights import Rights
from albatross_pki.messages import Header
from albatross_pki.names import Name
from albatross_pki.policies import Policy
from albatross_pki.replies import Failure, Text
from albatross_pki.transport.blocking import Connection
from albatross_pki.transport.channel import Channel
from albatross_pki.transport.errors import ConnectionCut
from albatross_pki.unikernels import Settings
from albatross_pki.wire.framing import frame
from albatross_pki.wire.message import decode_message
from albatross_pki.wire.side import encode_side
from tests.host.lives import Document, on_disk, replayed
from tests.host.running import RESTART, TICKER, Daemon, Inside, create, daemon, hello, inside, reachable
from tests.host.test_console_of_unikernels import companion, until_attached
from tests.host.test_crashes import DEADLY, Model, scenario, wanted
from tests.host.test_daemon import authorised, send_authorised

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def recorded(host: Inside, asked: str = ":") -> list[Document]:
    """Everything that is on record for ``asked``."""
    log = host.supervisor.events.log
    listener = log.listen(Name.parse(asked), LONG_AGO, lambda: None)
    found: list[Document] = []
    while page := log.take(listener):
        found += map(json.loads, page)
    log.leave(listener)
    return found


def words(documents: list[Document]) -> list[str]:
    """What happened, without delays and what was printed."""
    return [each["event"] for each in documents if each["event"] not in ("waiting", "last-lines")]


async def test_a_life_is_told_step_by_step(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        rights = Rights(by=1000)
        await host.ask("dev:web", create("one"), rights)
        await host.ask("dev:web", create("two", force=True), rights)
        await host.ask("dev:web", UnikernelRestart(None), rights)
        await host.ask("dev:web", UnikernelRestart(Settings(memory_mb=3)), rights)
        await host.ask("dev:web", Rollback(), rights)
        await host.ask("dev:web", Stop(), rights)
        await host.ask("dev:web", Start(), rights)
        await host.ask("dev:web", UnikernelDestroy(), rights)
        told = recorded(host, "dev:")
        assert words(told) == [
            *("started", "created"),
            *("exited", "started", "replaced"),
            *("exited", "started", "restarted"),
            *("exited", "started", "replaced"),
            *("exited", "started", "rolled-back"),
            *("stopped", "exited"),
            *("started", "resumed"),
            *("destroyed", "exited"),
        ]
        asked_for = {"created", "replaced", "restarted", "rolled-back", "stopped", "resumed", "destroyed"}
        assert {each["event"] for each in told if each.get("by") == {"user": 1000}} == asked_for
        assert {each["name"] for each in told} == {":web"}
        assert "one" not in json.dumps(told)  # arguments are nobody's business


async def test_ends_and_delays_are_told(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask("dev:loop", create("--exit=3", fail_behaviour=RESTART))
        await host.ask("dev:once", create("--exit=4"))
        await host.until(lambda: len([each for each in recorded(host, "dev:loop") if each["event"] == "waiting"]) > 1)
        await host.until(lambda: words(recorded(host, "dev:once"))[-1] == "over")
        assert words(recorded(host, "dev:loop")) == ["started", "created", "exited", "started", "exited"]
        waits = [(each["seconds"], each["failures"]) for each in recorded(host, "dev:loop") if "seconds" in each]
        assert waits == [(0.0, 1), (1.0, 2)]
        assert [each["code"] for each in recorded(host, "dev:once") if each["event"] == "exited"] == [4]
        await host.ask("dev:loop", UnikernelDestroy())


async def test_a_successor_that_does_not_come_up_is_told(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask("dev:web", create())
        answer = await host.ask("dev:web", create("--exit=3", force=True))
        assert isinstance(answer, Failure)
        told = recorded(host, "dev:")
        assert words(told) == [
            *("started", "created", "exited", "started", "exited", "started", "not-replaced"),
        ]
        assert told[-1]["reason"].endswith("the old one was put back")


async def test_policies_and_blocks_are_told(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        rights = Rights(by=7)
        for name, command in (
            ("dev:", PolicyAdd(Policy(frozenset({0}), 1, 32))),
            (":", PolicyAdd(Policy(frozenset({0}), 9, 99, 99))),
            ("dev:", PolicyRemove()),
            (":vol", BlockAdd(1)),
            (":vol", BlockRemove()),
        ):
            assert isinstance(await host.ask(name, command, rights), Text)
        told = recorded(host)[1:]
        assert [(each["name"], each["event"]) for each in told] == [
            *(("dev:", "policy-set"), (":", "policy-set"), ("dev:", "policy-removed")),
            *((":vol", "block-created"), (":vol", "block-removed")),
        ]
        assert {each["by"]["user"] for each in told} == {7}


async def test_what_is_refused_is_no_event(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        for name, command in (
            ("dev:web", UnikernelDestroy()),
            ("dev:web", create(memory_mb=1 << 30)),
            ("dev:", PolicyRemove()),
            (":vol", BlockRemove()),
        ):
            assert isinstance(await host.ask(name, command), Failure)
        assert words(recorded(host)) == ["daemon-started"]


# streams


@contextlib.asynccontextmanager
async def listening(host: Inside, asked: str, since: datetime | None = None) -> Any:
    """The end of a channel that the events of ``asked`` come from."""
    ours, theirs = socket.socketpair()
    log = host.supervisor.events.log
    async with Channel(ours) as mine, Channel(theirs) as other:
        conversation = Conversation(other, Header(Name.parse(asked)))
        task = asyncio.create_task(stream_events(log, Name.parse(asked), since, None, conversation))
        try:
            yield mine
        finally:
            mine.half_close()
            await task


async def documents(channel: Channel) -> Any:
    while payload := await channel.receive():
        answer = decode_message(payload).payload
        assert isinstance(answer, Text)
        yield json.loads(answer.text)


async def test_p06_one_who_does_not_read_delays_nobody_and_is_told_what_it_missed(tmp_path: FilePath) -> None:
    count = 4 * SHARE
    async with inside(tmp_path) as host, listening(host, "dev:") as slow, listening(host, "dev:") as quick:
        streams = documents(slow), documents(quick)
        for stream in streams:
            assert [(await anext(stream))["event"] for _ in range(2)] == ["subscribed", "caught-up"]
        heard: list[int] = []
        for number in range(count):
            host.supervisor.events.tell(Name.parse("dev:a"), Waiting(0, number), durable=False)
            if number % 50 == 49:
                heard += [(await anext(streams[1]))["failures"] for _ in range(50)]
        heard += [(await anext(streams[1]))["failures"] for _ in range(count - len(heard))]
        assert heard == list(range(count))
        late: list[int] = []
        missed = 0
        while missed + len(late) < count:
            document = await anext(streams[0])
            if document["event"] == "missed":
                missed += document["count"]
            else:
                late.append(document["failures"])
        assert missed > 0
        assert late == sorted(set(late))
        assert late[-1] == count - 1
        assert len(late) >= SHARE - SLACK


async def test_history_and_present_meet_without_a_gap(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        for number in range(300):
            host.supervisor.events.tell(Name.parse("dev:a"), Waiting(0, number), durable=False)
        async with listening(host, "dev:a", LONG_AGO) as channel:
            stream = documents(channel)
            assert (await anext(stream))["event"] == "subscribed"
            heard: list[int] = []
            for number in range(300, 400):
                host.supervisor.events.tell(Name.parse("dev:a"), Waiting(0, number), durable=False)
                host.supervisor.events.tell(Name.parse("dev:b"), PolicyRemoved(), durable=False)
            while len(heard) < 400:
                document = await anext(stream)
                if document["event"] != "caught-up":
                    heard.append(document["failures"])
            assert heard == list(range(400))


async def test_an_event_stream_goes_on_until_its_chain_expires(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        rights = Rights(not_after=datetime.now(UTC) + timedelta(seconds=0.3), operator=False)
        ours, theirs = socket.socketpair()
        async with Channel(ours), Channel(theirs) as channel:
            conversation = Conversation(channel, Header(Name.parse("dev:")))
            log = host.supervisor.events.log
            with pytest.raises(Refused, match="a certificate of the chain has expired"):
                await stream_events(log, Name.parse("dev:"), None, rights.not_after, conversation)


# processes


def asked_locally(host: Daemon, name: str, command: ExtendedCommand, *, until: str = "caught-up") -> Iterator[Any]:
    """The documents that answer a request of somebody on the host."""
    with Connection(host.socket("extended.sock"), timeout=20) as connection:
        connection.send_payload(encode_side(LocalRequest(Name.parse(name), command)))
        while (message := connection.receive()) is not None:
            assert isinstance(message.payload, Text), message.payload
            document = json.loads(message.payload.text)
            yield document
            if isinstance(document, dict) and document["event"] == until:
                return


def test_people_on_the_host_ask_what_av5_has_no_words_for(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        name = f"dev:{host.label()}"
        host.ask(name, create())
        (status,) = asked_locally(host, "dev:", Status())
        assert [each["name"] for each in status] == [f":{host.label()}"]
        told = list(asked_locally(host, ":", Events(LONG_AGO)))
        assert [each["event"] for each in told] == ["subscribed", "daemon-started", "started", "created", "caught-up"]
        assert told[3]["by"] == {"user": os.geteuid()}
        assert host.stop() == 0
        host.start()
        told = list(asked_locally(host, ":", Events(LONG_AGO)))
        assert [each["event"] for each in told][4:7] == ["exited", "daemon-stopped", "daemon-started"]


def test_p10_events_through_the_authoriser_are_those_of_the_path_alone(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        label = host.label()
        answers, _ = send_authorised(host, authorised(f"dev:{label}", create()))
        assert answers == [Text("created unikernel")]
        host.ask(f"dev:{label}:inner", create())
        host.ask(":dev", create())
        answers, outcome = send_authorised(host, authorised("dev:", Events(LONG_AGO)), read=6)
        told = [json.loads(each.text) for each in answers if isinstance(each, Text)]
        assert [(each["name"], each["event"]) for each in told] == [
            (":", "subscribed"),
            *((f":{label}", "started"), (f":{label}", "created")),
            *((f"{label}:inner", "started"), (f"{label}:inner", "created")),
            (":", "caught-up"),
        ]
        assert told[2]["by"] == {"certificate": "63", "issuer_key": b"l".hex() * 32}
        assert outcome.succeeded
        answers, _ = send_authorised(host, authorised(f"dev:{label}:", Events(LONG_AGO)), read=4)
        told = [json.loads(each.text) for each in answers if isinstance(each, Text)]
        assert [each["name"] for each in told] == [":", ":inner", ":inner", ":"]
        host.ask(":dev", UnikernelDestroy())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(
    ("mode", "groups", "obeyed"),
    [
        (0o660, (), False),
        (0o660, (65532, 65531), True),  # the socket's group is among them
        (0o660, tuple(range(70000, 70300)), False),
        (0o606, (65532,), False),  # unix(7): the first class that fits decides
        (0o666, (), True),
    ],
)
def test_p37_the_authoriser_s_user_is_not_the_operator(
    shared_path: FilePath, mode: int, groups: tuple[int, ...], obeyed: bool
) -> None:
    code = (
        "import os, socket, sys\n"
        f"os.setgroups({list(groups)}); os.setgid(65534); os.setuid(65534)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(bytes.fromhex(sys.argv[2]))\n"
        "answer = b''\n"
        "while piece := s.recv(4096): answer += piece\n"
        "print(answer[4:].hex())"
    )
    with daemon(shared_path, "--authoriser-uid", "65534") as host:
        os.chmod(host.socket("extended.sock"), 0o666)
        os.chown(host.socket("vmmd.sock"), 0, 65532)
        os.chmod(host.socket("vmmd.sock"), mode)
        request = frame(encode_side(LocalRequest(Name.parse("dev:web"), Stop())))
        with reachable(FilePath(host.socket("extended.sock")).parent):
            arguments = [sys.executable, "-c", code, host.socket("extended.sock"), request.hex()]
            ran = subprocess.run(arguments, capture_output=True, text=True, timeout=20)
        answer = "stop: not found" if obeyed else "only those who may connect to vmmd.sock may ask this"
        assert decode_message(bytes.fromhex(ran.stdout)).payload == Failure(answer), ran.stderr


def test_p28_the_last_lines_of_one_that_died_are_on_record(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host, companion(host, "console_cli", "console.sock"):
        until_attached(host)
        host.ask(f"dev:{host.label()}", create("--exit=5", "--say=\x1b[2J"))
        told = list(asked_locally(host, "dev:", Events(LONG_AGO), until="last-lines"))
        assert told[-1]["name"] == f":{host.label()}"
        assert "--say=\\x1b[2J" in " ".join(told[-1]["lines"])


def test_p28_without_a_console_the_last_lines_are_those_in_the_pipe(tmp_path: FilePath) -> None:
    with daemon(tmp_path) as host:
        ticks = UnikernelCreate(hello("--fast", "--lines=5000", image=TICKER))
        host.ask(f"dev:{host.label()}", ticks)
        told = list(asked_locally(host, "dev:", Events(LONG_AGO), until="last-lines"))
        assert told[-1]["lines"][-1] == "tick 5000"
        assert len(told[-1]["lines"]) == LAST_LINES


# crashes


def with_process(host: Daemon) -> set[str]:
    """The names whose process is on record with its pid."""
    with contextlib.closing(sqlite3.connect(os.path.join(host.dbdir, "albatross.sqlite"))) as database:
        return {row[0] for row in database.execute("SELECT name FROM processes WHERE pid IS NOT NULL")}


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("point", faults.POINTS)
def test_p21_killed_at_any_point_the_record_agrees_with_the_state(tmp_path: FilePath, point: str, times: int) -> None:
    host = Daemon(tmp_path, "--come-up-grace", "0.05", before=DEADLY.format(point=point, times=times))
    try:
        with contextlib.suppress(Exception):
            scenario(host.start(), Model())
        assert host.process is not None
        if host.process.poll() is None:  # it did not come to this point so often, or is about to be gone
            host.kill()
        assert replayed(on_disk(host.dbdir)) == (set(wanted(host)), with_process(host))
        before = on_disk(host.dbdir)
        survivor = Daemon(tmp_path)
        survivor.prefix = host.prefix
        try:
            survivor.start()
            survivor.running()  # it answers: from here on SIGTERM is an orderly end
            assert survivor.stop() == 0
            told = on_disk(survivor.dbdir)
            assert told[: len(before)] == before
            assert replayed(told) == (set(wanted(survivor)), set())
            assert told[-1][1]["event"] == "daemon-stopped"
        finally:
            survivor.close()
    finally:
        host.close()


@pytest.mark.parametrize("times", [3, 4, 6])
def test_p21_one_who_comes_back_after_a_crash_has_heard_each_event_once(tmp_path: FilePath, times: int) -> None:
    host = Daemon(tmp_path, "--come-up-grace", "0.05", before=DEADLY.format(point="state.after-commit", times=times))
    try:
        host.start()
        with Connection(host.socket("extended.sock"), timeout=20) as connection:
            connection.send_payload(encode_side(LocalRequest(Name(), Events(LONG_AGO))))
            stream = until_cut(connection)
            heard = [next(stream)]  # it listens
            with contextlib.suppress(Exception):
                scenario(host, Model())
            heard += stream
        assert host.process is not None
        host.process.wait(timeout=20)
        survivor = Daemon(tmp_path)
        survivor.prefix = host.prefix
        try:
            survivor.start()
            survivor.running()  # it answers, so both sockets are there
            known = {each["id"] for each in heard}
            since = datetime.fromisoformat(heard[-1]["time"])
            heard += [each for each in asked_locally(survivor, ":", Events(since)) if each.get("id", "") not in known]
            told = [document["id"] for _, document in on_disk(survivor.dbdir)]
            ids = [each["id"] for each in heard if "id" in each]
            assert ids == told[: len(ids)]
            assert len(ids) > len(known) > 1  # both parts heard something; what came after is the next one's affair
        finally:
            survivor.close()
    finally:
        host.close()


def until_cut(connection: Connection) -> Iterator[Document]:
    """Every event that came before the other side died."""
    with contextlib.suppress(ConnectionCut):
        while (message := connection.receive()) is not None:
            assert isinstance(message.payload, Text)
            document = json.loads(message.payload.text)
            if "id" in document:
                yield document
