"""What must not grow with the number of unikernels, counted rather than timed."""

from datetime import UTC, datetime
from pathlib import Path as FilePath

import pytest

from albatross_pki.commands import UnikernelDestroy
from albatross_pki.host.lifecycle import Wanted
from albatross_pki.host.records import Deployment
from albatross_pki.host.state import State
from albatross_pki.names import Name
from albatross_pki.replies import Text
from albatross_pki.unikernels import Settings
from tests.host.running import create, inside


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
