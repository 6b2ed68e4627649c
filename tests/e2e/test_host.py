"""``albatross-host`` with the real daemons: Ctrl-C, a daemon that dies, a host that is killed, a second one."""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
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
