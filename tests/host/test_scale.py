"""What must not grow with the number of unikernels, counted rather than timed."""

import contextlib
import hashlib
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path as FilePath
from unittest.mock import Mock

import pytest

from albatross_pki.commands import UnikernelCreate, UnikernelDestroy
from albatross_pki.extensions import Start, Stop
from albatross_pki.host import preparation
from albatross_pki.host.lifecycle import Wanted
from albatross_pki.host.limits import STARTED_AT_ONCE
from albatross_pki.host.records import Deployment
from albatross_pki.host.state import State, StateError
from albatross_pki.image.solo5 import parse_image
from albatross_pki.names import Name
from albatross_pki.replies import Text
from albatross_pki.unikernels import Settings
from tests.host.running import HELLO, create, hello, inside, text_of


async def test_a_create_writes_as_often_beside_many_as_alone(tmp_path: FilePath) -> None:
    statements: list[str] = []
    async with inside(tmp_path) as host:
        database = host.state._database

        async def count() -> int:
            statements.clear()
            database.set_trace_callback(statements.append)
            assert await host.ask("dev:probe", create()) == Text("created unikernel")
            database.set_trace_callback(None)
            await host.ask("dev:probe", UnikernelDestroy())
            return len(statements)

        alone = await count()
        for number in range(40):
            await host.ask(f"dev:u{number}", create())
        assert await count() == alone
        assert alone < 40


async def test_a_create_and_a_start_wait_for_the_disk_once_and_write_twice(tmp_path: FilePath) -> None:
    """What finds a process again is written before it is made; its pid goes with what was asked for."""
    async with inside(tmp_path) as host:
        for command, name in ((create(), "dev:a"), (Stop(), "dev:a"), (Start(), "dev:a")):
            statements: list[str] = []
            host.state._database.set_trace_callback(statements.append)
            assert isinstance(await host.ask(name, command), Text)
            host.state._database.set_trace_callback(None)
            if not isinstance(command, Stop):
                assert statements.count("BEGIN IMMEDIATE") == 2, statements
                assert statements.count("PRAGMA synchronous = NORMAL") == 1, statements
        with contextlib.closing(sqlite3.connect(host.state.path)) as database:
            assert database.execute("SELECT pid FROM processes").fetchall() == [(host.pid("dev:a"),)]


async def test_a_create_that_cannot_be_written_leaves_no_record_of_its_process(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with inside(tmp_path) as host:

        def refuse(*_: object, **__: object) -> None:
            raise StateError("no room")

        with monkeypatch.context() as patch:
            patch.setattr(host.state, "deploy", refuse)
            assert "no room" in text_of(await host.ask("dev:a", create()))
        await host.ask("dev:b", create())
        assert [str(each.name) for each in host.state.load().processes] == ["dev:b"]


async def test_a_start_of_many_writes_once_for_several_and_understands_an_image_once(
    tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 2 * STARTED_AT_ONCE
    async with inside(tmp_path) as host:
        for number in range(count):
            await host.ask(f"dev:u{number}", create())
    read = Mock(wraps=parse_image)
    monkeypatch.setattr(preparation, "parse_image", read)
    record = Mock(side_effect=State.record_processes)
    monkeypatch.setattr(State, "record_processes", lambda *given: record(*given))
    async with inside(tmp_path) as host:
        assert {host.phase(f"dev:u{number}") for number in range(count)} == {"running"}
    assert read.call_count == 1
    assert record.call_count == 2 * count // STARTED_AT_ONCE


async def test_of_many_images_only_some_are_remembered(tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "PARSED_IMAGES", 2)
    async with inside(tmp_path) as host:
        for number in range(4):
            config = hello(image=HELLO + bytes([number]))
            assert await host.ask(f"dev:u{number}", UnikernelCreate(config)) == Text("created unikernel")
        remembered = host.supervisor.host.parsed
        assert list(remembered) == [hashlib.sha256(HELLO + bytes([number])).digest() for number in (2, 3)]


async def test_an_image_that_is_remembered_and_cannot_be_read_starts_nothing(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        await host.ask("dev:u", create())
        await host.ask("dev:u", Stop())
        surroundings = host.supervisor.host
        (digest,) = surroundings.parsed
        image = FilePath(surroundings.images.directory) / digest.hex()
        image.unlink()
        image.symlink_to("elsewhere")
        assert "cannot be read" in text_of(await host.ask("dev:u", Start()))
        assert host.phase("dev:u") == "stopped"
        assert os.listdir(surroundings.fifo_directory) == []
        assert not surroundings.users._taken


async def test_queries_of_a_create_and_a_destroy_use_indexes(tmp_path: FilePath) -> None:
    statements: list[str] = []
    async with inside(tmp_path) as host:
        database = host.state._database
        database.set_trace_callback(statements.append)
        await host.ask("dev:probe", create())
        await host.ask("dev:probe", create("x", force=True))
        await host.ask("dev:probe", UnikernelDestroy())
        database.set_trace_callback(None)
        for statement in statements:
            if statement.startswith(("SELECT", "DELETE", "UPDATE")) and "process" not in statement:
                plan = [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {statement}")]
                assert not [step for step in plan if step.startswith("SCAN deployments")], (statement, plan)


@pytest.mark.parametrize("count", [200])
def test_the_state_of_many_unikernels_is_read_in_one_go(tmp_path: FilePath, count: int) -> None:
    state = State(str(tmp_path))
    state._database.execute("PRAGMA synchronous = OFF")
    for number in range(count):
        name = Name.parse(f"dev:u{number}")
        state.deploy(Deployment(number, name, Settings(), b"i" * 32, 1, datetime.now(UTC)), Wanted.RUNNING, keep=0)
    statements: list[str] = []
    state._database.set_trace_callback(statements.append)
    assert len(state.load().unikernels) == count
    assert len(statements) < 12
    state.close()
