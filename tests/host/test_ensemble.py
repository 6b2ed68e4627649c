"""Programs started in order, watched, stopped in reverse; nothing outlives the one that started them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from albatross_pki.errors import AlbatrossError
from albatross_pki.host.ensemble import (
    DidNotStart,
    Ensemble,
    Listening,
    PlaceTaken,
    Program,
    Wishes,
    prepare,
    programs,
)
from albatross_pki.host.restarts import delay
from albatross_pki.host.separation import Tls

LISTENER = """#!{python}
import os, signal, socket, sys
name, path, *rest = sys.argv[1:]
log = open("order", "a", buffering=1)
def end(*_):
    log.write("stop " + name + "\\n")
    os.unlink(path)
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in rest else end)
listener = socket.socket(socket.AF_UNIX)
if os.path.exists(path):
    os.unlink(path)
listener.bind(path)
listener.listen()
log.write("start " + name + "\\n")
if "dies" in rest:
    listener.settimeout(0.01)
    while not os.path.exists("go"):
        try:
            listener.accept()[0].close()
        except TimeoutError:
            pass
    listener.settimeout(None)
    signal.signal(signal.SIGALRM, lambda *_: (print("my last words", flush=True), os._exit(3)))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
while True:
    listener.accept()[0].close()
"""


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="alba-") as name:
        program = Path(name) / "listener"
        program.write_text(LISTENER.format(python=sys.executable))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{name}:{os.environ['PATH']}")
        prepare(name)
        yield Path(name)


def listener(directory: Path, name: str, *how: str, word: str = "listener") -> Program:
    path = str(directory / "run" / f"{name}.sock")
    if not (directory / word).exists():
        (directory / word).symlink_to(directory / "listener")
    return Program(word, (name, path, *how), (Listening(path),))


def test_programs_start_in_order_and_stop_in_reverse(directory: Path) -> None:
    ensemble = Ensemble(str(directory))
    ensemble.start([listener(directory, name) for name in ("a", "b", "c")])
    pids = [process.pid for _, process in ensemble.running]
    assert ensemble.stop() == []
    order = (directory / "order").read_text().split("\n")
    assert order == ["start a", "start b", "start c", "stop c", "stop b", "stop a", ""]
    assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []


def test_a_program_that_ends_while_it_starts_is_told_with_its_last_words(directory: Path) -> None:
    ensemble = Ensemble(str(directory))
    taken = listener(directory, "missing/directory")
    try:
        with pytest.raises(DidNotStart, match=r"listener ended with status 1: .*No such file or directory") as caught:
            ensemble.start([taken])
        assert "log/listener.log" in (caught.value.hint or "")
    finally:
        ensemble.stop()


def test_a_place_where_somebody_else_listens_is_not_taken_for_ready(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as foreign:
        port = foreign.getsockname()[1]
        taken = Program("listener", ("a", str(directory / "run" / "a.sock")), (Listening(address=("127.0.0.1", port)),))
        ensemble = Ensemble(str(directory))
        with pytest.raises(PlaceTaken, match=rf"127\.0\.0\.1 port {port} is in use by another program") as refused:
            ensemble.start([taken])
    assert "another port" in (refused.value.hint or "")
    assert ensemble.running == []
    assert not (directory / "order").exists(), "nothing was started"


def test_a_program_that_is_not_installed_is_told(directory: Path) -> None:
    with pytest.raises(DidNotStart, match="nobody-has-this is not installed"):
        Ensemble(str(directory)).start([Program("nobody-has-this", (), ())])


def watch_while(ensemble: Ensemble, wake: tuple[int, int], told: list[str], act: Callable[[], None]) -> str | None:
    """What ``ensemble.watch`` returns while ``act`` happens in another thread, which ends it.

    The programs' parent is this thread: they would get their parent-death signal if it was the one that ends.
    """
    failures: list[BaseException] = []

    def body() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001  raised where pytest sees it
            failures.append(error)
        os.write(wake[1], b".")

    thread = threading.Thread(target=body)
    thread.start()
    with no_reload() as reload:
        returned = ensemble.watch(Wishes(wake[0], reload), told.append)
    thread.join()
    if failures:
        raise failures[0]
    return returned


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextlib.contextmanager
def no_reload() -> Iterator[int]:
    descriptor = os.eventfd(0)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.fixture
def wake() -> Iterator[tuple[int, int]]:
    """A descriptor that becomes readable, and the one that makes it so."""
    readable, writable = os.pipe()
    yield readable, writable
    os.close(readable)
    os.close(writable)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_ends_by_itself_is_started_again_at_once_and_the_others_go_on(
    directory: Path, wake: tuple[int, int], number: signal.Signals
) -> None:
    ensemble = Ensemble(str(directory))
    told: list[str] = []
    try:
        ensemble.start([listener(directory, name, word=f"listener-{name}") for name in ("a", "b")])
        pids = [process.pid for _, process in ensemble.running]

        def act() -> None:
            os.kill(pids[0], number)
            until(lambda: "listener-a runs again" in told)

        assert watch_while(ensemble, wake, told, act) is None
        assert told[0].startswith(f"listener-a ended with {'SIGKILL' if number == signal.SIGKILL else 'status 0'}: ")
        assert ensemble.running[0][0].ready[0].answers()
        assert ensemble.running[0][1].pid != pids[0]
        assert ensemble.running[1][1].pid == pids[1]
    finally:
        ensemble.stop()
    assert (directory / "order").read_text().split("\n")[-3:] == ["stop b", "stop a", ""]


def test_what_ends_again_and_again_is_given_up_and_named(
    directory: Path, wake: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []

    def quick(failures: int) -> float:
        delays.append(delay(failures))
        return delays[-1] / 1000

    monkeypatch.setattr("albatross_pki.host.ensemble.delay", quick)
    ensemble = Ensemble(str(directory))
    told: list[str] = []
    try:
        ensemble.start([listener(directory, "a", "dies"), listener(directory, "b", word="listener-b")])
        (directory / "go").touch()
        with no_reload() as reload:
            assert ensemble.watch(Wishes(wake[0], reload), told.append) == "listener"
        assert ensemble.last_words("listener") == "my last words"
    finally:
        ensemble.stop()
    assert delays == [0, 1, 2, 4, 8]
    assert sum(text.startswith("listener ended with status 3: my last words") for text in told) == 6
    assert not any("listener-b" in text for text in told)


def test_one_that_does_not_start_again_is_tried_until_it_does(directory: Path, wake: tuple[int, int]) -> None:
    ensemble = Ensemble(str(directory))
    told: list[str] = []
    program = directory / "listener"
    works = program.read_text()
    try:
        ensemble.start([listener(directory, "a")])

        def act() -> None:
            program.write_text(f"#!{sys.executable}\nprint('no, not yet')\nraise SystemExit(7)\n")
            os.kill(ensemble.running[0][1].pid, signal.SIGKILL)
            until(lambda: any("status 7: no, not yet" in text for text in told))
            until(lambda: "listener starts again in 1 seconds" in told)
            program.write_text(works)
            until(lambda: "listener runs again" in told)

        assert watch_while(ensemble, wake, told, act) is None
    finally:
        ensemble.stop()


def test_what_ignores_sigterm_is_killed_and_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albatross_pki.host.ensemble.STOP_TIMEOUT", 0.2)
    ensemble = Ensemble(str(directory))
    ensemble.start([listener(directory, "a", "stubborn"), listener(directory, "b")])
    assert ensemble.stop() == ["listener"]


def test_nothing_outlives_the_one_who_started_it(directory: Path) -> None:
    """The starter is killed; its program gets SIGTERM from the kernel and ends in its own way."""
    starter = (
        "import sys; from albatross_pki.host.ensemble import *; e = Ensemble(sys.argv[1]); "
        "p = sys.argv[1] + '/run/a.sock'; e.start([Program('listener', ('a', p), (Listening(p),))]); "
        "print(e.running[0][1].pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", starter, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = os.pidfd_open(int(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
    try:
        import select

        assert select.select([child], [], [], 10)[0], "the program is still there"
    finally:
        os.close(child)
    assert (directory / "order").read_text() == "start a\nstop a\n"


def test_the_programs_of_a_host_and_their_order(tmp_path: Path) -> None:
    local = programs("/d", None)
    assert [program.word for program in local] == ["albatross-console", "albatrossd"]
    assert [program.word for program in programs("/d", None, statistics=True)][2:] == ["albatross-stats"]
    tls = Tls("/ca.pem", "/s.pem", "/s.key", "0.0.0.0", 1025)
    every = programs("/d", tls)
    assert every[:2] == local
    assert [program.word for program in every[2:]] == ["albatross-authorise", "albatross-tls-endpoint"]
    assert every[2].arguments[-1] == "/ca.pem"
    assert every[3].arguments[-3:] == ("/ca.pem", "/s.pem", "/s.key")
    assert every[3].ready == (Listening(address=("127.0.0.1", 1025)),)


def test_a_directory_is_made_private_and_short_enough(tmp_path: Path) -> None:
    made = Path(prepare(str(tmp_path / "host")))
    assert all(path.stat().st_mode & 0o077 == 0 for path in (made, *made.rglob("*")))
    from albatross_pki.errors import AlbatrossError

    with pytest.raises(AlbatrossError, match="too long a name"):
        prepare("/tmp/" + "x" * 100)


def test_whoever_asks_for_the_end_while_programs_start_need_not_wait(directory: Path, wake: tuple[int, int]) -> None:
    """One that never listens would have twenty seconds."""
    os.write(wake[1], b".")
    ensemble = Ensemble(str(directory))
    mute = Program("sleep", ("1000",), (Listening(str(directory / "run" / "mute.sock")),))
    began = time.monotonic()
    with no_reload() as reload:
        assert not ensemble.start((listener(directory, "a"), mute), Wishes(wake[0], reload))
    assert time.monotonic() - began < 10
    assert ensemble.running == []


def test_an_end_that_comes_while_a_program_does_not_listen_is_heard(directory: Path, wake: tuple[int, int]) -> None:
    ensemble = Ensemble(str(directory))
    mute = Program("sleep", ("1000",), (Listening(str(directory / "run" / "mute.sock")),))

    def act() -> None:
        until(lambda: len(ensemble.running) == 2)
        os.write(wake[1], b".")

    thread = threading.Thread(target=act)
    thread.start()
    try:
        with no_reload() as reload:
            assert not ensemble.start((listener(directory, "a"), mute), Wishes(wake[0], reload))
    finally:
        thread.join()
        assert ensemble.stop() == []
    assert (directory / "order").read_text() == "start a\nstop a\n"


def test_files_that_cannot_be_renewed_are_told_and_nothing_ends(directory: Path, wake: tuple[int, int]) -> None:
    ensemble, told, asked = Ensemble(str(directory)), list[str](), os.eventfd(1)

    def renew() -> None:
        os.write(wake[1], b".")
        raise AlbatrossError("server.key: no such file or directory")

    try:
        ensemble.start((listener(directory, "a"),))
        assert ensemble.watch(Wishes(wake[0], asked), told.append, renew) is None
        assert told == ["nothing is read again: server.key: no such file or directory"]
    finally:
        os.close(asked)
        assert ensemble.stop() == []


def test_whoever_listens_and_ends_before_it_serves_has_not_started(directory: Path) -> None:
    """As albatrossd with a state that cannot be read: its sockets are there before it looks."""
    program = directory / "early"
    program.write_text(
        f"#!{sys.executable}\n"
        "import select, socket, sys\n"
        "listener = socket.socket(socket.AF_UNIX)\n"
        "listener.bind(sys.argv[1])\n"
        "listener.listen()\n"
        "select.select([listener], [], [])\n"
        "print('error: the state is damaged', flush=True)\n"
        "sys.exit(7)\n"
    )
    program.chmod(0o755)
    path = str(directory / "run" / "early.sock")
    ensemble = Ensemble(str(directory))
    with pytest.raises(DidNotStart, match="early ended with status 7: error: the state is damaged"):
        ensemble.start((Program("early", (path,), (Listening(path),)),))
    ensemble.stop()
