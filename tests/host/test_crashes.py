"""kill -9 of albatrossd at every point where it writes or makes something, one after the other.

Afterwards a new daemon is started. Whatever was answered is as it was answered; what was in progress is as before or
as asked for; every wanted unikernel runs exactly once; nothing else is left.
"""

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path as FilePath

import pytest

from albatross_pki.commands import UnikernelCreate, UnikernelDestroy
from albatross_pki.host import faults
from albatross_pki.replies import Text
from tests.host.running import TICKER, Daemon, create, hello

# the daemon dies when it comes to a point for the n-th time
DEADLY = """
import os, signal
from albatross_pki.host import faults
left = {times}
def reach(point):
    global left
    if point == {point!r}:
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
faults.reach = reach
"""


class Model:
    """What is known of a name: the argument of the deployment that must run, or those that may."""

    def __init__(self) -> None:
        self.possible: dict[str, set[str | None]] = {}

    def asked(self, name: str, outcome: str | None) -> None:
        self.possible[name] = {*self.possible.get(name, {None}), outcome}

    def answered(self, name: str, outcome: str | None) -> None:
        self.possible[name] = {outcome}


def scenario(host: Daemon, model: Model) -> None:
    """Create, replace with another image, and destroy, until the daemon dies."""
    first, second = f"dev:{host.label('a')}", f"dev:{host.label('b')}"
    steps: list[tuple[str, str | None, Callable[[], object]]] = [
        (first, "one", lambda: create("one")),
        (second, "two", lambda: create("two")),
        (first, "three", lambda: UnikernelCreate(hello("three", image=TICKER), force=True)),
        (second, None, UnikernelDestroy),
        (first, "four", lambda: create("four", force=True)),
        (second, "five", lambda: create("five")),
        (first, None, UnikernelDestroy),
    ]
    for name, outcome, command in steps:
        model.asked(name, outcome)
        answer = host.ask(name, command())  # type: ignore[arg-type]
        assert isinstance(answer, Text), answer
        model.answered(name, outcome)


def wanted(host: Daemon) -> dict[str, str]:
    """Name and argument of everything that the state wants to run."""
    from albatross_pki.wire.configuration import decode_config

    with contextlib.closing(sqlite3.connect(os.path.join(host.dbdir, "albatross.sqlite"))) as database:
        rows = database.execute(
            "SELECT unikernels.name, config FROM unikernels JOIN deployments ON deployment = number"
        ).fetchall()
    return {name: (decode_config(config).settings.arguments or ("",))[0] for name, config in rows}


def check(host: Daemon, model: Model) -> None:
    """The promises, after a new start."""
    state = wanted(host)
    for name, possible in model.possible.items():
        assert state.get(name) in possible, (name, state, possible)
    deadline = time.monotonic() + 15
    while set(host.running()) != set(state) or len(host.unikernels()) != len(state):
        assert time.monotonic() < deadline, (host.running(), state, host.unikernels(), host.log())
        time.sleep(0.02)
    for letter in "ab":
        assert len(host.unikernels(letter)) == (f"dev:{host.label(letter)}" in state)
    assert set(os.listdir(os.path.join(host.tmpdir, "fifo"))) == set(state)
    with contextlib.closing(sqlite3.connect(os.path.join(host.dbdir, "albatross.sqlite"))) as database:
        images = {row[0].hex() for row in database.execute("SELECT image FROM deployments")}
        processes = database.execute("SELECT count(*) FROM processes").fetchone()[0]
    assert set(os.listdir(os.path.join(host.dbdir, "images"))) == images
    assert processes == len(state)


@pytest.mark.parametrize("times", [1, 2, 3, 5])
@pytest.mark.parametrize("point", faults.POINTS)
def test_p21_killed_at_any_point_nothing_is_lost_and_nothing_is_left(
    tmp_path: FilePath, point: str, times: int
) -> None:
    host = Daemon(tmp_path, "--come-up-grace", "0.05", before=DEADLY.format(point=point, times=times))
    model = Model()
    try:
        with contextlib.suppress(Exception):  # it may die before it listens
            host.start()
            scenario(host, model)
        assert host.process is not None
        if host.process.poll() is None:  # it did not come to this point so often
            host.stop()
        survivor = Daemon(tmp_path)
        survivor.prefix = host.prefix
        try:
            check(survivor.start(), model)
            name = f"dev:{host.label('c')}"
            assert survivor.ask(name, create()) == Text("created unikernel")
            assert survivor.ask(name, UnikernelDestroy()) == Text("destroyed unikernel")
            assert survivor.stop() == 0
            assert survivor.unikernels() == set()
        finally:
            survivor.close()
    finally:
        host.close()


def test_every_point_is_reached(tmp_path: FilePath) -> None:
    """The list of points is what the code has."""
    source = "".join(each.read_text() for each in FilePath(faults.__file__).parent.glob("*.py"))
    for point in faults.POINTS:
        assert f'faults.reach("{point}")' in source
    assert source.count('faults.reach("') == len(faults.POINTS)
    before = f"""
from albatross_pki.host import faults
faults.reach = lambda point: open({str(tmp_path / "points")!r}, "a").write(point + chr(10)) and None
"""
    host = Daemon(tmp_path, "--come-up-grace", "0.05", before=before)
    try:
        scenario(host.start(), Model())
        assert set((tmp_path / "points").read_text().split()) == set(faults.POINTS)
    finally:
        host.close()


@pytest.mark.parametrize("point", ["state.before-commit", "state.after-commit", "image.before-link"])
def test_p21_power_loss_leaves_a_state_that_loads(tmp_path: FilePath, point: str) -> None:
    """A copy of the state directory taken at a write, started as after power loss: nothing of it runs any more."""
    copies = tmp_path / "copies"
    copies.mkdir()
    before = f"""
import itertools, shutil
from albatross_pki.host import faults
number = itertools.count()
def reach(point):
    if point == {point!r}:
        shutil.copytree({str(tmp_path / "db")!r}, f"{copies}/{{next(number)}}")
faults.reach = reach
"""
    host = Daemon(tmp_path, "--come-up-grace", "0.05", before=before)
    try:
        scenario(host.start(), Model())
        host.stop()
    finally:
        host.close()
    taken = sorted(copies.iterdir(), key=lambda each: int(each.name))
    assert taken
    for each in taken[-4:]:
        root = tmp_path / f"after-{each.name}"
        root.mkdir()
        shutil.copytree(each, root / "db")
        (root / "db" / "albatross.lock").unlink()
        with contextlib.closing(sqlite3.connect(root / "db" / "albatross.sqlite")) as database:
            database.execute("UPDATE processes SET boot = 'another'")
            database.commit()
        again = Daemon(root)
        again.prefix = host.prefix
        try:
            check(again.start(), Model())
        finally:
            again.close()
