"""Who waits at a terminal for more than half a second sees how far it is, until it is there."""

import os
import pty
import re
import time

import pytest

from albatross_pki.client.progress import PATIENCE
from tests.client.build_server import Builds, pages
from tests.e2e.site import HELLO, Site
from tests.e2e.transfers import IMAGE, MIDDLE, Stop, Way
from tests.pki_builder import policy

OF_ALL = r"\d+\.\d of 16\.\d MB, \d+\.\d MB/s, \d+ s left"
CLEARED = "\r\x1b[K"


@pytest.fixture(params=[False, True], ids=["local", "tls"])
def way(site: Site, request: pytest.FixtureRequest) -> Way:
    label = "".join(letter for letter in request.node.name.lower() if letter.isalnum())[:40]
    dev = site.root.delegate(label, policy(unikernels=2, memory_mb=128, block_mb=64))
    return Way(site, dev, request.param)


def shown(way: Way, stop: Stop, *words: str, builds: int | None = None) -> str:
    """What a terminal shows of a command that was held up in its transfer, and then succeeded."""
    ours, terminal = pty.openpty()
    try:
        with way.stopped(stop, *words, builds=builds, terminal=terminal) as (relay, client):
            os.close(terminal)
            time.sleep(PATIENCE)  # it is about time itself; the rest of the transfer comes after it
            relay.go_on()
            octets = read_all(ours)
            assert client.wait(60) == 0, octets
    finally:
        os.close(ours)
    return octets.decode()


def read_all(terminal: int) -> bytes:
    octets = b""
    try:
        while piece := os.read(terminal, 4096):
            octets += piece
    except OSError:  # Linux says so when the other side is gone
        pass
    return octets


def is_progress(text: str, line: str) -> None:
    """Nothing but lines like ``line``, each over the last one, and the last one taken away."""
    assert re.fullmatch(f"(?:\r{line}\x1b\\[K)+{re.escape(CLEARED)}", text), repr(text)


def test_of_an_image_upload(way: Way) -> None:
    name = way.name("web")
    is_progress(shown(way, Stop(up=MIDDLE), "create", name, "image", "--mem=64"), f"sending image: {OF_ALL}")
    way.run("destroy", name)


def test_of_a_block_upload(way: Way) -> None:
    with way.disk() as name:
        is_progress(shown(way, Stop(up=MIDDLE), "set-block", name, "new"), f"sending new: {OF_ALL}")
        packed = shown(way, Stop(up=MIDDLE), "set-block", name, "new", "--compression-level", "1")
        is_progress(packed, r"sending new: \d+\.\d MB, \d+\.\d MB/s")


def test_of_a_dump(way: Way) -> None:
    with way.disk() as name:
        text = shown(way, Stop(down=MIDDLE), "dump-block", name, "--to", "dump")
        (way.site.directory / "dump").unlink()
    is_progress(text, rf"receiving {re.escape(name)}: \d+\.\d MB, \d+\.\d MB/s")


def test_of_an_update(way: Way) -> None:
    """Of the download; the upload after it is an image upload."""
    name = way.name("web")
    way.run("create", name, str(HELLO), "--mem=64")
    with Builds(pages(HELLO.read_bytes(), IMAGE)) as builds:
        text = shown(way, Stop(down=MIDDLE), "update", name, builds=int(builds.url.rpartition(":")[2]))
    way.run("destroy", name)
    is_progress(text.partition(CLEARED)[0] + CLEARED, f"downloading hello: {OF_ALL}")


def test_nothing_where_nobody_looks(way: Way) -> None:
    with way.disk() as name, way.stopped(Stop(up=MIDDLE), "set-block", name, "new") as (relay, client):
        time.sleep(PATIENCE)
        relay.go_on()
        assert client.communicate(timeout=60)[1] == ""
        assert client.returncode == 0
