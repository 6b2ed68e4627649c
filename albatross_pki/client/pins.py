"""Servers that are known by their certificate alone: one line per host and port, and who is asked at first use.

A server certificate without names (as Albatross' own tools make them) is accepted only directly below the root, and
only if its SHA-256 is the one that was pinned. Pins stand in a text file, ``$XDG_CONFIG_HOME/albatross/pins`` or
``~/.config/albatross/pins``::

    HOST:PORT SHA256

Blank lines and lines that begin with ``#`` are passed over. In this order: ``--pin`` on the command line; the file; a
question, if somebody sits at a terminal, whose answer is kept. A certificate other than the pinned one is refused, and
nobody is asked: whoever replaces a server's certificate tells the new pin, and the line in the file is removed by hand.
"""

import os
import re
import sys

from albatross_pki.client.files import BadFile
from albatross_pki.files import make_file, read_file

_LIMIT = 1 << 20  # octets
_MODE = 0o600
_LINE = re.compile(r"(\S+):(\d{1,5})\s+([0-9A-Fa-f:]{64,95})")


def pins_path() -> str:
    """Where pins are kept for this user."""
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(config, "albatross", "pins")


def known_pin(host: str, port: int, path: str | None = None) -> bytes | None:
    """The SHA-256 that is pinned for ``host`` and ``port``; raises ``BadFile`` for a file that is no list of pins."""
    path = path or pins_path()
    for line in _lines(path):
        found = _LINE.fullmatch(line)
        digest = found[3].replace(":", "") if found else ""
        if found is None or len(digest) != 64:
            raise BadFile(path, f"not a pin: {line!r}", hint="lines are HOST:PORT and 64 hexadecimal digits")
        if (found[1].lower(), int(found[2])) == (host.lower(), port):
            return bytes.fromhex(digest)
    return None


def keep_pin(host: str, port: int, digest: bytes, path: str | None = None) -> None:
    """Add a pin to the file, which is replaced as a whole."""
    path = path or pins_path()
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    before = read_file(path, _LIMIT).decode("utf-8", "replace") if os.path.exists(path) else ""
    if before and not before.endswith("\n"):
        before += "\n"
    make_file(path, f"{before}{host}:{port} {digest.hex()}\n".encode(), _MODE, replace=True)


def ask(host: str, port: int, digest: bytes) -> bool:
    """Ask a person at a terminal whether this is the server; nobody there means no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(
        f"the certificate of {host}:{port} has no name in it. its SHA-256 is\n  {digest.hex()}\n"
        "compare this with what its operator told you. is it the same? [y/N] "
    )
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _lines(path: str) -> list[str]:
    if not os.path.exists(path):
        return []
    lines = read_file(path, _LIMIT).decode("utf-8", "replace").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
