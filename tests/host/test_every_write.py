"""kill -9 of albatrossd before and after every call by which it writes, whichever piece of code makes it.

``faults.POINTS`` are the moments that somebody thought of. Here the calls themselves are the list: those of ``os`` that
write, and SQLite's commits, tell who makes them. A first life finds every place; then a daemon dies at each one. What
could write in the source and was not come to is named in ``NOT_COME_TO``, so nothing new is left out silently.
"""

import ast
import contextlib
import json
from pathlib import Path as FilePath

import pytest

import albatross_pki
from albatross_pki.authorised import LocalRequest
from albatross_pki.commands import PolicyAdd, PolicyRemove, UnikernelDestroy
from albatross_pki.extensions import Rollback, Start, Stop
from albatross_pki.names import Name
from albatross_pki.replies import Text
from albatross_pki.transport.blocking import Connection
from albatross_pki.wire.side import encode_side
from tests.host.running import WIDE, Daemon, create
from tests.host.test_crashes import Model, check, scenario

PACKAGE = FilePath(albatross_pki.__file__).parent
CALLS = (
    frozenset({"chmod", "chown", "fchmod", "fchown", "lchown", "utime", "fsync", "fdatasync", "open", "posix_spawn"})
    | frozenset({"link", "symlink", "mkdir", "makedirs", "mkfifo", "mknod", "rename", "renames", "replace"})
    | frozenset({"remove", "removedirs", "rmdir", "unlink", "truncate", "ftruncate", "posix_fallocate"})
    | frozenset({"write", "writev", "pwrite", "pwritev", "copy_file_range", "sendfile", "splice"})
)
MAKING = frozenset({"O_CREAT", "O_TMPFILE", "_MAKE"})  # an ``open`` without one of these makes nothing
SHARES = 16  # in so many tests

# module:function, and why no daemon of this test comes to it; each has a test of its own
_CGROUPS = "tests/host/test_cgroups.py: this machine's tree is not ours to write to"
_TENDERS = "tests/host/test_tenders.py: an installed tender's image in memory, and its devices' owner"
_NAMED = "tests/host/test_images.py: a file system without files that have no name"
NOT_COME_TO = {
    "albatross_pki.files:Disk.truncate": "nothing of albatrossd's",
    "albatross_pki.files:Disk.write": "nothing of albatrossd's",
    "albatross_pki.files:_make_beside": "nothing of albatrossd's",
    "albatross_pki.host.blocks:BlockStore.snapshot": "no command asks for it",
    "albatross_pki.host.cgroups:Cgroups.make": _CGROUPS,
    "albatross_pki.host.cgroups:_set_up": _CGROUPS,
    "albatross_pki.host.cgroups:_write": _CGROUPS,
    "albatross_pki.host.cgroups:_write_if_there": _CGROUPS,
    "albatross_pki.host.cgroups:remove": _CGROUPS,
    "albatross_pki.host.fifos:Fifo._unlink_temporary": "a create that is refused, after its fifo was made",
    "albatross_pki.host.fifos:reclaim": "what a crash left: it is what the survivors do",
    "albatross_pki.host.images:ImageStore._named_inode": _NAMED,
    "albatross_pki.host.images:ImageStore._named_inode.<locals>.<lambda>": _NAMED,
    "albatross_pki.host.ownership:own_directory": "albatross-host's",
    "albatross_pki.host.state:State.amend": "an exit with status 64",
    "albatross_pki.host.state:State.fill": "an import, before any daemon",
    "albatross_pki.host.state:State.remember": "policies of a chain, with a block device",
    "albatross_pki.host.tenders:_give": _TENDERS,
    "albatross_pki.host.tenders:_sealed": _TENDERS,
    "albatross_pki.transport.sockets:_make_room": "a socket that somebody left",
}

# ``note`` hears of every call that writes: its place, and whether it is about to be made or was made
TELLING = """
import os, sqlite3, sys
real_open, real_write = os.open, os.write

def place(frame, name):
    while frame.f_globals["__name__"] == "contextlib" or frame.f_code.co_name == "_transaction":
        frame = frame.f_back
    module = frame.f_globals["__name__"]
    return f"{{module}}:{{frame.f_code.co_qualname}}:{{name}}" if module.startswith("albatross_pki.") else None

def wrapped(name, real):
    def call(*arguments, **settings):
        makes = name != "open" or len(arguments) > 1 and arguments[1] & (os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY)
        where = place(sys._getframe(1), name) if makes else None
        if where is None:
            return real(*arguments, **settings)
        note(where + " before")
        result = real(*arguments, **settings)
        note(where + " after")
        return result
    return call

class Telling(sqlite3.Connection):
    def execute(self, text, *arguments):
        if text != "COMMIT":
            return super().execute(text, *arguments)
        where = place(sys._getframe(1), "commit")
        note(where + " before")
        result = super().execute(text, *arguments)
        note(where + " after")
        return result

connect = sqlite3.connect
sqlite3.connect = lambda *arguments, **settings: connect(*arguments, factory=Telling, **settings)
for name in {calls!r}:
    setattr(os, name, wrapped(name, getattr(os, name)))
"""

RECORDING = """
import atexit, json
def note(moment):
    descriptor = real_open({file!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    real_write(descriptor, (moment + chr(10)).encode())
    os.close(descriptor)
atexit.register(lambda: open({modules!r}, "w").write(json.dumps(sorted(sys.modules))))
"""

DYING = """
import signal
def note(moment):
    if moment == {moment!r}:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def telling(note: str) -> str:
    return TELLING.format(calls=sorted(CALLS)) + note


def life(host: Daemon, model: Model) -> None:
    """What the other crash tests do, and every other way to change something, on a name that is over afterwards."""
    name = f"dev:{host.label('d')}"
    for argument, force in (("six", False), ("seven", True)):
        model.asked(name, argument)
        assert isinstance(host.ask(name, create(argument, force=force)), Text)
    for extended in (Rollback(), Stop(), Start()):
        with Connection(host.socket("extended.sock"), timeout=20) as connection:
            connection.send_payload(encode_side(LocalRequest(Name.parse(name), extended)))
            assert connection.receive() is not None
    model.asked(name, None)
    for command_about_a_path in (PolicyAdd(WIDE), PolicyRemove()):
        assert isinstance(host.ask("dev:", command_about_a_path), Text)
    assert isinstance(host.ask(name, UnikernelDestroy()), Text)
    model.answered(name, None)
    scenario(host, model)


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """Every moment of a whole life in the order in which it was first come to, and the modules that were loaded."""
    root = tmp_path_factory.mktemp("life")
    note = RECORDING.format(file=str(root / "moments"), modules=str(root / "modules"))
    host = Daemon(root, "--come-up-grace", "0.05", before=telling(note))
    try:
        life(host.start(), Model())
        assert host.stop() == 0
    finally:
        host.close()
    return list(dict.fromkeys((root / "moments").read_text().splitlines())), json.loads((root / "modules").read_text())


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("share", range(SHARES))
def test_p21_killed_at_every_call_that_writes(
    tmp_path: FilePath, share: int, moments: tuple[list[str], list[str]]
) -> None:
    for number, moment in enumerate(moments[0][share::SHARES]):
        root = tmp_path / str(number)
        root.mkdir()
        host = Daemon(root, "--come-up-grace", "0.05", before=telling(DYING.format(moment=moment)))
        survivor = Daemon(root)
        survivor.prefix = host.prefix
        model = Model()
        try:
            with contextlib.suppress(Exception):  # it dies, perhaps before it listens
                host.start()
                life(host, model)
            assert host.process is not None
            if host.process.poll() is None:
                host.stop()
            assert host.process.wait() == -9, moment
            survivor.start().running()  # the sockets are there before the state is
            check(survivor, model)
            assert survivor.stop() == 0, moment
            assert survivor.unikernels() == set(), moment
        except Exception as error:
            raise AssertionError(f"killed at {moment}: {error}") from error
        finally:
            survivor.close()
            host.close()


def test_every_call_that_could_write_was_come_to_or_is_named(moments: tuple[list[str], list[str]]) -> None:
    came_to = {moment.rpartition(":")[0] for moment in moments[0]}
    written = {place for module in moments[1] for place in places(module)}
    missing = written - came_to
    assert missing <= set(NOT_COME_TO), sorted(missing - set(NOT_COME_TO))
    assert not set(NOT_COME_TO) - written, "what is gone from the source needs no reason"


def places(module: str) -> set[str]:
    """``module:function`` of every call in the source of one of our modules that could write."""
    source = PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")
    if not module.startswith("albatross_pki.") or not source.exists():
        return set()
    found: set[str] = set()

    def look(node: ast.AST, within: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = within
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = f"{within}{child.name}.<locals>."
            elif isinstance(child, ast.Lambda):
                inner = f"{within}<lambda>.<locals>."
            elif isinstance(child, ast.ClassDef):
                inner = f"{within}{child.name}."
            elif isinstance(child, ast.Call) and _could_write(child):
                found.add(f"{module}:{within.removesuffix('.').removesuffix('.<locals>')}")
            look(child, inner)

    look(ast.parse(source.read_text()), "")
    return found


def _could_write(call: ast.Call) -> bool:
    called = call.func
    if isinstance(called, ast.Name) and called.id == "open":  # open(path, "w")
        return any(isinstance(each, ast.Constant) and str(each.value)[:1] in "wax" for each in call.args[1:2])
    if not (isinstance(called, ast.Attribute) and called.attr in CALLS):
        return isinstance(called, ast.Attribute) and called.attr == "_transaction"
    if not (isinstance(called.value, ast.Name) and called.value.id == "os"):
        return False
    words = {each.id if isinstance(each, ast.Name) else getattr(each, "attr", "") for each in ast.walk(call)}
    return called.attr != "open" or bool(words & MAKING)
