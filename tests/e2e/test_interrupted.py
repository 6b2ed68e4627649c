"""Transfers that end in the middle: the host has nothing half made, the client's side no half file.

Each is stopped by a relay far from its end, interrupted or killed there, and done again afterwards as a whole. What the
relay and the kernel still hold then reaches the host, as from any network.
"""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.build_server import Builds, pages
from tests.e2e.site import HELLO, Site, eventually
from tests.e2e.transfers import IMAGE, MIDDLE, NEW, OLD, Stop, Way
from tests.pki_builder import policy

PARTIAL = "was not sent to its end, and the host makes no use of a part"


def end(client: "subprocess.Popen[str]", how: signal.Signals, said: str) -> None:
    """End a client, and if it was asked to end, that it says so: ``said`` is a pattern."""
    client.send_signal(how)
    out, err = client.communicate(timeout=60)
    if how == signal.SIGINT:
        assert client.returncode == 130, err
        assert all(line.startswith("compare at http://") for line in out.splitlines()), out
        assert re.fullmatch(f"\nerror: interrupted: {said}\n", err)  # the first line is the one that ^C stands on


def made(site: Site) -> set[str]:
    """What is on the host and beside it of all that a transfer could leave."""
    places = ("host/run/spool", "host/run/fifo", "host/db", "tmp")
    kept = (path for place in places for path in (site.directory / place).rglob("*") if ".sqlite" not in path.name)
    return {str(path) for path in (*kept, *site.directory.iterdir())}


def open_files(site: Site) -> list[str]:
    """Files below the host's directory that have no name, and that some process still has."""
    targets = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # one that has ended, or is somebody else's
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    targets.append(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return [target for target in targets if target.startswith(f"{site.host}/") and target.endswith("(deleted)")]


def nothing_left(site: Site, before: set[str]) -> None:
    assert eventually(lambda: made(site) == before), made(site) ^ before
    assert eventually(lambda: open_files(site) == []), open_files(site)


@pytest.fixture(params=[False, True], ids=["local", "tls"])
def way(site: Site, request: pytest.FixtureRequest) -> Way:
    label = "".join(letter for letter in request.node.name.lower() if letter.isalnum())[:40]
    dev = site.root.delegate(label, policy(unikernels=2, memory_mb=128, block_mb=64))
    return Way(site, dev, request.param)


@pytest.fixture(params=[signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def ended(request: pytest.FixtureRequest) -> signal.Signals:
    assert isinstance(request.param, signal.Signals)
    return request.param


def test_an_image_upload_leaves_no_unikernel(way: Way, ended: signal.Signals) -> None:
    before, name = made(way.site), way.name("web")
    with way.stopped(Stop(up=MIDDLE), "create", name, "image", "--mem=64") as (relay, client):
        end(client, ended, f"image {PARTIAL}")
        relay.go_on()
        nothing_left(way.site, before)
    assert way.run("info", "-o", "name", *below(way)) == ""
    way.run("create", name, "image", "--mem=64")
    way.run("destroy", name)
    nothing_left(way.site, before)


def below(way: Way) -> tuple[str, ...]:
    """The options that ask for what is below the delegation alone."""
    return () if way.remote else ("-n", way.name(""))


def test_p24_a_block_upload_leaves_the_old_content(way: Way, ended: signal.Signals) -> None:
    with way.disk() as name:
        before = made(way.site)
        with way.stopped(Stop(up=MIDDLE), "set-block", name, "new") as (relay, client):
            end(client, ended, f"new {PARTIAL}")
            relay.go_on()
            nothing_left(way.site, before)
        assert way.content(name) == OLD
        way.run("set-block", name, "new")
        assert way.content(name) == NEW
        nothing_left(way.site, before)


def test_a_dump_leaves_no_file(way: Way, ended: signal.Signals) -> None:
    with way.disk() as name:
        before = made(way.site)
        with way.stopped(Stop(down=MIDDLE), "dump-block", name, "--to", "dump") as (relay, client):
            end(client, ended, "dump was not made")
            relay.go_on()
            nothing_left(way.site, before)
        assert way.content(name) == OLD
        nothing_left(way.site, before)


@contextlib.contextmanager
def outdated(way: Way) -> Iterator[tuple[str, Builds]]:
    """A unikernel, and a build server with a newer image of it."""
    name = way.name("web")
    way.run("create", name, str(HELLO), "--mem=64")
    with Builds(pages(HELLO.read_bytes(), IMAGE)) as builds:
        yield name, builds
    way.run("destroy", name)


def port_of(builds: Builds) -> int:
    return int(builds.url.rpartition(":")[2])


@pytest.mark.parametrize("phase", ["download", "upload"])
def test_an_update_leaves_what_runs(way: Way, phase: str) -> None:
    with outdated(way) as (name, builds):
        before, running = made(way.site), way.run("info", "-o", "json", "-n", name)
        if phase == "download":
            stopped = way.stopped(Stop(down=MIDDLE), "update", name, builds=port_of(builds))
            said = f"{name} was left as it is"
        else:
            stopped = way.stopped(Stop(up=MIDDLE), "update", name, "--http-host", builds.url)
            said = f".* {PARTIAL}"
        with stopped as (relay, client):
            end(client, signal.SIGINT, said)
            relay.go_on()
            nothing_left(way.site, before)
        assert way.run("info", "-o", "json", "-n", name) == running
        way.run("update", name, "--http-host", builds.url)
        assert way.run("info", "-o", "json", "-n", name) != running


@pytest.mark.parametrize("program", ["albatross-tls-endpoint", "albatross-authorise"])
@pytest.mark.parametrize("transfer", ["image", "block", "dump"])
def test_a_killed_server_leaves_all_or_nothing(site: Site, program: str, transfer: str) -> None:
    """The client is told the truth about it, and the host serves again by itself."""
    label = f"{transfer}-{program}"
    way = Way(site, site.root.delegate(label, policy(unikernels=2, memory_mb=128, block_mb=64)), remote=True)
    words = {
        "image": ("create", "web", "image", "--mem=64"),
        "block": ("set-block", "disk", "new"),
        "dump": ("dump-block", "disk", "--to", "dump"),
    }[transfer]
    stop = Stop(down=MIDDLE) if transfer == "dump" else Stop(up=MIDDLE)
    with way.disk() as name:
        before = made(site)
        with way.stopped(stop, *words) as (relay, client):
            for pid in running(site, program):
                os.kill(pid, signal.SIGKILL)
            relay.go_on()
            _, err = client.communicate(timeout=60)
        done = client.returncode == 0
        assert done or (client.returncode in (117, 121) and err.startswith("error: ")), (client.returncode, err)
        assert eventually(lambda: site.run(way.program, "info", *way.options()).status == 0, 60)
        dump = site.directory / "dump"
        assert dump.exists() == (done and transfer == "dump")
        if dump.exists():
            assert dump.read_bytes() == OLD
            dump.unlink()
        assert way.run("info", "-o", "name").split() == (["web"] if done and transfer == "image" else [])
        if done and transfer == "image":
            way.run("destroy", "web")
        nothing_left(site, before)
        assert way.content(name) == (NEW if done and transfer == "block" else OLD)


def running(site: Site, program: str) -> list[int]:
    """The processes of one of the host's programs."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if any(word.endswith(f"/{program}") for word in words) and any(str(site.host) in word for word in words):
                found.append(int(pid))
    assert found
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_of_the_client_leaves_no_file(way: Way) -> None:
    small = way.site.directory / "small"
    small.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], check=True)
    try:
        with way.disk() as name:
            before = made(way.site)
            full = way.site.run(way.program, "dump-block", name, "--to", "small/dump", *way.options())
            assert (full.status, full.out) == (124, "")
            assert full.err == "error: small/dump: no space left on device\n"
            assert list(small.iterdir()) == []
            nothing_left(way.site, before)
            assert way.content(name) == OLD
    finally:
        subprocess.run(["umount", str(small)], check=True)
