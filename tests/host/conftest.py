"""Tests of the host may be coroutines: each runs in an event loop of its own. Some need a place for several users."""

import asyncio
import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine function as a test; asyncio's debug mode finds what was never awaited."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture
def shared_path() -> Iterator[Path]:
    """As ``tmp_path``, where a test may let other users in: pytest closes its own directory whenever it starts."""
    with tempfile.TemporaryDirectory(prefix="albatross-") as directory:
        yield Path(directory)
