"""``albatross-host`` with the real daemons: Ctrl-C, a daemon that dies, a host that is killed, a second one."""

import contextlib
import json
import os
import re
import select
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.site import HELLO, PROGRAMS, TIMEOUT, Site, eventually
from tests.pki_builder import policy


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(Path(tempfile.mkdtemp(prefix="alba-h-")))
    try:
        yield site
    finally:
        site.destroy()


def run_in_foreground(site: Site) -> "subprocess.Popen[str]":
    """``albatross-host run`` of the local daemons, when both listen."""
    process = subprocess.Popen(
        [str(PROGRAMS / "albatross-host"), "run", "host"],
        cwd=site.directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    if lines[0].startswith("warning: all programs run as root"):  # installed where nobody else may execute it
        lines = [lines[1], process.stdout.readline()]
    assert [line.partition(":")[0] for line in lines] == ["albatross-console", "albatrossd"], lines
    return process


def daemons(process: "subprocess.Popen[str]") -> list[int]:
    """The children of a host."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def special_files(site: Site) -> list[Path]:
    return [path for path in (site.host / "run").rglob("*") if path.is_socket() or path.is_fifo()]


def test_ctrl_c_ends_everything_in_order(site: Site) -> None:
    with run_in_foreground(site) as process:
        assert site.local("create", "hello", str(HELLO)).status == 0
        pids = [*daemons(process), *site.tenders()]
        assert len(pids) == 3
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert (process.stdout.read(), process.wait(TIMEOUT)) == ("", 0)
    assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []
    assert special_files(site) == []


def test_the_same_directory_runs_again_with_what_was_wanted(site: Site) -> None:
    for _ in range(2):
        with run_in_foreground(site) as process:
            if not site.local("info", "-o", "name").out:
                assert site.local("create", "hello", str(HELLO)).status == 0
            assert eventually(lambda: len(site.tenders()) == 1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT) == 0
    with run_in_foreground(site) as process:
        assert eventually(lambda: site.local("info", "-o", "name").out == "hello\n")
        assert site.local("destroy", "hello").status == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
    assert site.remains() == []


@pytest.mark.parametrize("which", [0, 1], ids=["albatross-console", "albatrossd"])
def test_a_daemon_that_is_killed_is_started_again_and_nothing_else_ends(site: Site, which: int) -> None:
    with run_in_foreground(site) as process:
        assert site.local("create", "hello", str(HELLO)).status == 0
        (unikernel,) = site.tenders()
        pids = daemons(process)
        os.kill(pids[which], signal.SIGKILL)
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(2)]
        word = ("albatross-console", "albatrossd")[which]
        assert told[0].startswith(f"warning: {word} ended with SIGKILL: ")
        assert told[1] == f"warning: {word} runs again\n"
        again = daemons(process)
        assert pids[which] not in again
        assert pids[1 - which] in again
        assert site.local("info", "-o", "name").out == "hello\n"
        assert os.path.exists(f"/proc/{unikernel}"), "it was adopted, or never noticed"
        assert site.local("destroy", "hello").status == 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0
    assert site.remains() == []


@pytest.mark.slow
def test_whichever_daemon_is_killed_the_next_deployment_works(site: Site) -> None:
    """Each of the five, one after the other, on the way of a signed command."""
    site.start("--stats")
    dev = site.root.delegate("dev", policy(unikernels=9, memory_mb=64))
    log = site.host / "log" / "albatross-host.log"
    (holder,) = (
        int(pid) for pid in re.findall(r"is run by process (\d+)", site.run("albatross-host", "run", "host").err)
    )
    children = Path(f"/proc/{holder}/task/{holder}/children")
    words = ["albatross-console", "albatrossd", "albatross-stats", "albatross-authorise", "albatross-tls-endpoint"]
    for number, word in enumerate(words):
        assert site.bistro(dev, "create", f"u{number}", str(HELLO), "--mem=4").status == 0
        (pid,) = (
            pid
            for pid in children.read_text().split()
            if word in [part.rpartition("/")[2] for part in Path(f"/proc/{pid}/cmdline").read_text().split("\0")]
        )
        os.kill(int(pid), signal.SIGKILL)
        again = f"warning: {word} runs again\n"
        assert eventually(lambda again=again: again in log.read_text()), log.read_text()  # type: ignore[misc]
    assert site.bistro(dev, "create", "last", str(HELLO), "--mem=4").status == 0
    assert len(json.loads(site.bistro(dev, "info", "-o", "json").out)) == len(words) + 1
    assert site.bistro(dev, "console", "last", "--lines=1").status == 0
    site.stop()


@pytest.mark.slow
def test_a_daemon_that_dies_again_and_again_is_given_up_and_ends_the_others(site: Site) -> None:
    with run_in_foreground(site) as process:
        assert process.stdout is not None
        told = ""
        while process.poll() is None:
            for pid in daemons(process)[1:]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            while line := process.stdout.readline():
                told += line
                if line.endswith("runs again\n"):
                    break
        assert process.wait(TIMEOUT) == 125
    assert re.search(r"^error: albatrossd ended by itself again and again: ", told, re.M)
    assert "warning: albatrossd starts again in 8 seconds\n" in told


def test_daemons_do_not_outlive_a_host_that_is_killed(site: Site) -> None:
    with run_in_foreground(site) as process:
        descriptors = [os.pidfd_open(pid) for pid in daemons(process)]
        process.send_signal(signal.SIGKILL)
    try:
        for descriptor in descriptors:
            assert select.select([descriptor], [], [], TIMEOUT)[0]
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def test_a_directory_is_run_once_and_can_be_stopped_from_elsewhere(site: Site) -> None:
    with run_in_foreground(site) as process:
        for verb in ("run", "start"):
            second = site.run("albatross-host", verb, "host")
            assert second.status == 124
            assert f"is run by process {process.pid} already" in second.err
            assert f"hint: albatross-host stop {site.host}" in second.err
        assert site.run("albatross-host", "doctor", "host").out.count("  listens") == 3
        assert site.run("albatross-host", "stop", "host").status == 0
        assert process.wait(TIMEOUT) == 0
    assert site.run("albatross-host", "stop", "host").err == f"error: nobody runs {site.host}\n"


def test_a_host_that_cannot_start_says_why_and_leaves_nothing(site: Site) -> None:
    for name in ("cacert.pem", "server.pem", "server.key"):
        site.write(name, b"not PEM\n")
    files = ("--ca", "cacert.pem", "--cert", "server.pem", "--key", "server.key", "--port", "1")
    failed = site.run("albatross-host", "start", "host", *files)
    assert failed.status == 125
    assert failed.err.startswith("error: albatross-authorise ended with status ")
    assert "cacert.pem" in failed.err
    assert special_files(site) == []


def test_statistics_are_streamed_where_they_are_wanted(site: Site) -> None:
    assert site.run("albatross-host", "start", "host", "--stats").status == 0
    assert site.local("create", "hello", str(HELLO)).status == 0
    sample = site.local("stats", "--name", "hello", "--lines=1", "-o", "json")
    assert sample.status == 0, sample.err
    document = json.loads(sample.out)
    assert document["memory"]["virtual_octets"] > 16 << 20
    assert site.local("destroy", "hello").status == 0
    site.stop()
    assert special_files(site) == []


def test_unikernels_that_are_left_running_are_adopted(site: Site) -> None:
    assert site.run("albatross-host", "start", "host", "--keep-running").status == 0
    assert site.local("create", "hello", str(HELLO)).status == 0
    (pid,) = site.tenders()
    site.stop()
    assert os.path.exists(f"/proc/{pid}")
    assert site.run("albatross-host", "start", "host").status == 0
    assert site.local("info", "-o", "name").out == "hello\n"
    assert os.path.exists(f"/proc/{pid}")
    assert site.local("destroy", "hello").status == 0
    assert eventually(lambda: not os.path.exists(f"/proc/{pid}"))  # init reaps it in its own time
    site.stop()
    assert special_files(site) == []


def test_a_host_whose_terminal_goes_ends_in_order(site: Site) -> None:
    """A window that is closed: SIGHUP, and there is no terminal any more."""
    controller, terminal = os.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, str(PROGRAMS / "albatross-host"), "run", "host"],
            cwd=site.directory, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
            env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        os.close(terminal)
        assert eventually(lambda: (site.host / "run" / "util" / "extended.sock").exists(), TIMEOUT)
        assert eventually(lambda: site.local("info").status == 0, TIMEOUT)
        pids = daemons(process)  # type: ignore[arg-type]
    finally:
        os.close(controller)
    assert process.wait(TIMEOUT) == 0
    assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []
    assert special_files(site) == []


TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("options", [(), ("--one-user",)], ids=["users", "one-user"])
def test_a_renewed_certificate_and_key_are_taken_without_a_restart(site: Site, options: tuple[str, ...]) -> None:
    site.start(*options)
    before = served(site)
    (holder,) = re.findall(r"is run by process (\d+)", site.run("albatross-host", "run", "host").err)
    children = Path(f"/proc/{holder}/task/{holder}/children").read_text()
    server = site.root.server()
    site.write("server.pem", server.chain_pem)
    site.write("server.key", server.key_pem)
    asked = site.run("albatross-host", "reload", "host")
    assert asked.status == 0, asked.err
    assert eventually(lambda: served(site) != before), site.logs()
    assert Path(f"/proc/{holder}/task/{holder}/children").read_text() == children, "nothing was started again"
    (site.directory / "server.key").unlink()
    assert site.run("albatross-host", "reload", "host").status == 0
    endpoint, host = (site.host / "log" / f"albatross-{word}.log" for word in ("tls-endpoint", "host"))
    refused = endpoint if "--one-user" in options or os.geteuid() else host
    assert eventually(lambda: "no such file or directory" in refused.read_text().lower()), site.logs()
    assert served(site) != before
    site.stop()
    assert site.run("albatross-host", "reload", "host").errors == [f"nobody runs {site.host}"]


def served(site: Site) -> str:
    return ssl.get_server_certificate(("127.0.0.1", site.port), timeout=TIMEOUT)


def test_whoever_interrupts_start_leaves_no_host(site: Site) -> None:
    process = subprocess.Popen(
        [str(PROGRAMS / "albatross-host"), "start", "host"],
        cwd=site.directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={"PATH": os.environ["PATH"]}, start_new_session=True,
    )  # fmt: skip
    assert eventually(lambda: (site.host / "host.lock").exists(), TIMEOUT)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, said.strip()) in ((130, ""), (0, ""))  # 0: it was too late, everything listened already
    assert ("nobody runs" in site.run("albatross-host", "stop", "host").err) == (process.returncode == 130)
    assert special_files(site) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_host_that_is_ended_while_it_starts_is_no_success(site: Site, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [str(PROGRAMS / "albatross-host"), "start", "host"],
        cwd=site.directory, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    assert eventually(lambda: (site.host / "host.lock").exists() and children.read_text() != "", TIMEOUT)
    os.kill(int(children.read_text()), number)
    _, said = process.communicate(timeout=TIMEOUT)
    if process.returncode == 0:  # everything listened already
        return
    assert process.returncode == 124
    assert said.startswith("error: albatross-host was ended while it started\nhint: its log is ")
    assert "nobody runs" in site.run("albatross-host", "stop", "host").err


def test_whoever_starts_hears_of_their_own_host_alone(site: Site) -> None:
    """Of several at once one runs; each of the others is told once, and it hears nothing of them."""
    command = [str(PROGRAMS / "albatross-host"), "start", "host"]
    at_once = [
        subprocess.Popen(
            command, cwd=site.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env={"PATH": os.environ["PATH"]},
        )
        for _ in range(4)
    ]  # fmt: skip
    said = [each.communicate(timeout=TIMEOUT) for each in at_once]
    assert sorted(each.returncode for each in at_once) == [0, 124, 124, 124]
    for process, (out, err) in zip(at_once, said, strict=True):
        if process.returncode == 0:
            assert err == ""
            assert "error" not in out
        else:
            assert out == ""
            assert re.fullmatch(r"error: \S+ is run by process \d+ already\nhint: albatross-host stop \S+\n", err)
    site.stop()
