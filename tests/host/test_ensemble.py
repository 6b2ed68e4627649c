"""Programs started in order, watched, stopped in reverse; nothing outlives the one that started them."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatross_pki.host.ensemble import (
    DidNotStart,
    Ensemble,
    Listening,
    PlaceTaken,
    Program,
    Tls,
    prepare,
    programs,
)

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
listener.bind(path)
listener.listen()
log.write("start " + name + "\\n")
if "dies" in rest:
    signal.signal(signal.SIGALRM, lambda *_: (print("my last words", flush=True), os._exit(3)))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
while True:
    signal.pause()
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


def listener(directory: Path, name: str, *how: str) -> Program:
    path = str(directory / "run" / f"{name}.sock")
    return Program("listener", (name, path, *how), (Listening(path),))


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


def test_waiting_ends_when_a_program_dies_or_somebody_asks(directory: Path) -> None:
    ensemble = Ensemble(str(directory))
    never, wake = os.pipe()
    try:
        ensemble.start([listener(directory, "a", "dies")])
        assert ensemble.wait(never) == "listener"
        assert ensemble.last_words("listener") == "my last words"
        os.write(wake, b".")
        assert ensemble.wait(never) is None
    finally:
        os.close(never)
        os.close(wake)
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
