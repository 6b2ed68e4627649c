"""kill -9 of albatrossd at every point where it writes or makes something, one after the other.

Afterwards a new daemon is started. Whatever was answered is as it was answered; what was in progress is as before or
as asked for; every wanted unikernel runs exactly once; nothing else is left.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path as FilePath

import pytest

from albatross_pki.commands import BlockAdd, BlockRemove, BlockSetOld, UnikernelCreate, UnikernelDestroy
from albatross_pki.host import faults
from albatross_pki.replies import Empty, Text
from tests.host.running import HELLO, TICKER, Daemon, create, hello

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


MEBIBYTE = 1 << 20
NEW = b"n" * MEBIBYTE  # the content of a block device that was set
CONTENTS = {None: "gone", bytes(MEBIBYTE): "zeros", NEW: "new"}


class Model:
    """What is known of a name: the argument of the deployment that must run, or those that may.

    Of a block device, the word of its content. ``file`` has it too at any moment, as JSON.
    """

    def __init__(self, file: FilePath | None = None) -> None:
        self.possible: dict[str, set[str | None]] = {}
        self._file = file

    @classmethod
    def read(cls, file: FilePath) -> "Model":
        model = cls()
        model.possible = {name: set(outcomes) for name, outcomes in json.loads(file.read_text()).items()}
        return model

    def asked(self, name: str, outcome: str | None) -> None:
        before: set[str | None] = {"gone"} if name.endswith("disk") else {None}
        self.possible[name] = {*self.possible.get(name, before), outcome}
        self._write()

    def answered(self, name: str, outcome: str | None) -> None:
        self.possible[name] = {outcome}
        self._write()

    def _write(self) -> None:
        if self._file is not None:
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps({name: list(outcomes) for name, outcomes in self.possible.items()}))
            new.rename(self._file)


def scenario(host: Daemon, model: Model) -> None:
    """Create, replace with another image, and destroy, and the same with a block device, until the daemon dies."""
    first, second = f"dev:{host.label('a')}", f"dev:{host.label('b')}"
    disk = "dev:disk"
    steps: list[tuple[str, str | None, Callable[[], object]]] = [
        (first, "one", lambda: create("one")),
        (disk, "zeros", lambda: BlockAdd(1)),
        (second, "two", lambda: create("two")),
        (disk, "new", lambda: BlockSetOld(False, NEW)),
        (first, "three", lambda: UnikernelCreate(hello("three", image=TICKER), force=True)),
        (second, None, UnikernelDestroy),
        (first, "four", lambda: create("four", force=True)),
        (disk, "gone", BlockRemove),
        (second, "five", lambda: create("five")),
        (first, None, UnikernelDestroy),
    ]
    for name, outcome, command in steps:
        model.asked(name, outcome)
        answer = host.ask(name, command())  # type: ignore[arg-type]
        assert isinstance(answer, Text | Empty), answer
        model.answered(name, outcome)


def wanted(host: Daemon) -> dict[str, str]:
    """Name and argument of everything that the state wants to run."""
    from albatross_pki.wire.configuration import decode_config

    with contextlib.closing(sqlite3.connect(os.path.join(host.dbdir, "albatross.sqlite"))) as database:
        rows = database.execute(
            "SELECT unikernels.name, config FROM unikernels JOIN deployments ON deployment = number"
            " WHERE wanted = 'running'"
        ).fetchall()
    return {name: (decode_config(config).settings.arguments or ("",))[0] for name, config in rows}


def check(host: Daemon, model: Model) -> None:
    """The promises, after a new start."""
    state = wanted(host)
    device = FilePath(host.dbdir, "block", "dev:disk")
    if "dev:disk" in model.possible:
        content = CONTENTS[device.read_bytes() if device.exists() else None]  # all of the old one or of the new one
        assert content in model.possible["dev:disk"], (content, model.possible)
    for name, possible in model.possible.items():
        if name == "dev:disk":
            continue
        assert state.get(name) in possible, (name, state, possible)
    deadline = time.monotonic() + 15
    while set(host.running()) != set(state) or len(host.unikernels()) != len(state):
        assert time.monotonic() < deadline, (host.running(), state, host.unikernels(), host.log())
        time.sleep(0.02)
    assert {each.name for each in device.parent.iterdir()} <= {"dev:disk"}
    for letter in "ab":
        assert len(host.unikernels(letter)) == (f"dev:{host.label(letter)}" in state)
    assert set(os.listdir(os.path.join(host.tmpdir, "fifo"))) == set(state)
    with contextlib.closing(sqlite3.connect(os.path.join(host.dbdir, "albatross.sqlite"))) as database:
        images = {row[0].hex() for row in database.execute("SELECT image FROM deployments")}
        processes = database.execute("SELECT count(*) FROM processes").fetchone()[0]
    assert set(os.listdir(os.path.join(host.dbdir, "images"))) == images
    assert processes == len(state)


ALWAYS = {("process.before-record", 1), ("process.after-record", 1)}  # what a boot comes to once

CRASHES = [
    (point, times) for point in faults.POINTS for times in ((1,) if point.startswith("block.") else (1, 2, 3, 5))
]


@pytest.mark.parametrize(("point", "times"), CRASHES)
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


@pytest.mark.parametrize(
    ("point", "times"),
    [(point, times) for point in faults.POINTS if point.startswith("process.") for times in (1, 2, 4)],
)
def test_p21_killed_while_everything_starts_at_boot_each_runs_once(tmp_path: FilePath, point: str, times: int) -> None:
    """At boot several are recorded at once and then made: whichever were made are found, and no second one is."""
    host = Daemon(tmp_path)
    names = [f"dev:{host.label(letter)}" for letter in "abcd"]
    try:
        host.start()
        for name in names:
            host.ask(name, create())
        assert host.stop() == 0
        dying = Daemon(tmp_path, before=DEADLY.format(point=point, times=times))
        dying.start(wait=False)
        assert dying.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):  # the last record is one for all
            dying.process.wait(timeout=20 if (point, times) in ALWAYS or "spawn" in point else 1)
        dying.kill()
        host.start()
        deadline = time.monotonic() + 15
        while set(host.running()) != set(names) or len(host.unikernels()) != len(names):
            assert time.monotonic() < deadline, (host.running(), host.unikernels(), host.log())
            time.sleep(0.02)
        assert [len(host.unikernels(letter)) for letter in "abcd"] == [1, 1, 1, 1]
        assert set(os.listdir(os.path.join(host.tmpdir, "fifo"))) == set(names)
        assert len(host.recorded_pids()) == len(names)
    finally:
        host.close()


def test_one_that_cannot_start_at_boot_keeps_no_other_from_it(tmp_path: FilePath) -> None:
    host = Daemon(tmp_path)
    names = [f"dev:{host.label(letter)}" for letter in "abc"]
    try:
        host.start()
        for name, image in zip(names, (HELLO, TICKER, HELLO), strict=True):
            host.ask(name, UnikernelCreate(hello(image=image)))
        assert host.stop() == 0
        (FilePath(host.dbdir) / "images" / hashlib.sha256(TICKER).hexdigest()).unlink()
        host.start()
        deadline = time.monotonic() + 15
        while not (len(host.unikernels()) == 2 and f"failed to create {names[1]}" in host.log()):
            assert time.monotonic() < deadline, host.log()
            time.sleep(0.02)
        assert [len(host.unikernels(letter)) for letter in "abc"] == [1, 0, 1]
        assert set(wanted(host)) == set(names)
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


DURABLE = tuple(point for point in faults.POINTS if point.startswith(("state.", "image.", "block.")))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_p21_power_loss_at_any_write_leaves_what_was_answered(tmp_path: FilePath) -> None:
    """A copy of the state directory taken at each write, started as after power loss: nothing of it runs any more."""
    copies = tmp_path / "copies"
    copies.mkdir()
    before = f"""
import itertools, shutil
from albatross_pki.host import faults
number = itertools.count()
def reach(point):
    if point in {DURABLE!r}:
        copy = f"{copies}/{{next(number):03}}"
        shutil.copytree({str(tmp_path / "db")!r}, copy + "/db")
        shutil.copy({str(tmp_path / "model.json")!r}, copy)
        open(copy + "/point", "w").write(point)
faults.reach = reach
"""
    model = Model(tmp_path / "model.json")
    model._write()
    host = Daemon(tmp_path, "--come-up-grace", "0.05", before=before)
    try:
        scenario(host.start(), model)
        host.stop()
    finally:
        host.close()
    taken = sorted(copies.iterdir())
    assert {(each / "point").read_text() for each in taken} == set(DURABLE)
    for root in taken:
        (root / "db" / "albatross.lock").unlink()
        with contextlib.closing(sqlite3.connect(root / "db" / "albatross.sqlite")) as database:
            database.execute("UPDATE processes SET boot = 'another'")
            database.commit()
        again = Daemon(root)
        again.prefix = host.prefix
        try:
            check(again.start(), Model.read(root / "model.json"))
        finally:
            again.close()
        shutil.rmtree(root)
