"""Progress is shown to those who wait at a terminal, and to nobody else; what it counts is what passed."""

import io
import os
import pty
import subprocess
import sys

import pytest

from albatross_pki.client import progress
from albatross_pki.client.local import Compressed
from albatross_pki.client.progress import Meter, Watched, pace


class Screen(io.StringIO):
    def __init__(self, looked_at: bool) -> None:
        super().__init__()
        self._looked_at = looked_at

    def isatty(self) -> bool:
        return self._looked_at


def test_nothing_is_shown_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    screen = Screen(looked_at=False)
    meter = Meter("sending", 10, screen)
    meter.add(10)
    meter.done()
    assert (screen.getvalue(), meter.octets) == ("", 10)


def test_nothing_is_shown_before_half_a_second() -> None:
    screen = Screen(looked_at=True)
    meter = Meter("sending", 10, screen)
    meter.add(10)
    meter.done()
    assert screen.getvalue() == ""


def test_what_takes_longer_is_shown_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    screen = Screen(looked_at=True)
    source = Watched(io.BytesIO(b"x" * 3), Meter("sending f", 3, screen))
    assert (source.read(2), source.read(2), source.read(2)) == (b"xx", b"x", b"")
    shown = screen.getvalue()
    assert shown.startswith("\rsending f: 0.0 of 0.0 MB")
    meter = Meter("x", None, screen)
    meter.add(1)
    meter.done()
    assert screen.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("f", 6 << 20, 12 << 20, 2.0), "f: 6.0 of 12.0 MB, 3.0 MB/s, 2 s left"),
        (("f", 6 << 20, None, 2.0), "f: 6.0 MB, 3.0 MB/s"),
        (("f", 0, 1 << 20, 0.0), "f: 0.0 of 1.0 MB, 0.0 MB/s"),
    ],
)
def test_bytes_rate_and_time_left(arguments: tuple[str, int, int | None, float], text: str) -> None:
    assert pace(*arguments) == text


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 100_000, os.urandom(100_000)])
def test_content_is_compressed_while_it_is_read(content: bytes) -> None:
    import zlib

    packed = Compressed(io.BytesIO(content), 6)
    octets = b""
    while piece := packed.read(1000):
        octets += piece
    assert zlib.decompress(octets) == content
    assert packed.read(1000) == b""


def test_a_real_terminal_sees_it() -> None:
    """On a pseudo-terminal, with the real patience."""
    controller, terminal = pty.openpty()
    script = (
        "import time\nfrom albatross_pki.client.progress import Meter\nm = Meter('sending', 100)\n"
        "end = time.monotonic() + 0.6\nwhile time.monotonic() < end: m.add(1)\nm.done()\nprint('done')"
    )
    with subprocess.Popen([sys.executable, "-c", script], stderr=terminal, stdout=subprocess.PIPE) as process:
        os.close(terminal)
        assert process.communicate(timeout=30)[0] == b"done\n"
    seen = os.read(controller, 1 << 16)
    os.close(controller)
    assert b"sending: " in seen
    assert seen.endswith(b"\r\x1b[K")
