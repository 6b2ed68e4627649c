"""A whole host for a test: real processes in a directory of the test's own, and people who talk to it.

A ``Site`` has a root authority of ``tests.pki_builder``, so that chains of every kind can be presented, and runs the
installed programs as a person would.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from albatross_pki.messages import Message
from albatross_pki.transport.tls import TlsConnection, connect
from albatross_pki.wire.message import decode_message
from tests.pki_builder import NOW, Authority, Issued

EXAMPLES = Path(__file__).parents[2] / "examples" / "unikernels"
HELLO = EXAMPLES / "hello.spt"
PROGRAMS = Path(sys.executable).parent
TIMEOUT = 60


@dataclass
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line.removeprefix("error: ") for line in self.err.splitlines() if line.startswith("error: ")]


def _lasting_root() -> Authority:
    """One that outlives what is signed below it for days or a month."""
    return Authority.root(not_after=NOW + timedelta(days=60))


@dataclass
class Site:
    """A host in ``directory``/host, and files beside it."""

    directory: Path
    root: Authority = field(default_factory=_lasting_root)
    port: int = 0

    def __post_init__(self) -> None:
        self.directory.chmod(0o711)  # as root, the programs run as users of their own

    @property
    def host(self) -> Path:
        return self.directory / "host"

    def start(self, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        server = self.root.server()
        self.write("cacert.pem", self.root.pem)
        self.write("server.pem", server.chain_pem)
        self.write("server.key", server.key_pem)
        started = self.run(
            "albatross-host",
            *("start", "host", "--ca", "cacert.pem", "--cert", "server.pem", "--key", "server.key"),
            *("--port", str(self.port), *options),
        )
        assert started.status == 0, started.out + started.err + self.logs()

    def stop(self) -> None:
        stopped = self.run("albatross-host", "stop", "host")
        assert stopped.status == 0, stopped.err + self.logs()

    def write(self, name: str, content: bytes) -> str:
        """Make a file; only its owner may read a key."""
        path = self.directory / name
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(0o400 if name.endswith(".key") else 0o644)
        return name

    def run(self, program: str, *arguments: str, timeout: float = TIMEOUT) -> Done:
        """Run one of our programs in the site's directory."""
        done = subprocess.run(
            [str(PROGRAMS / program), *arguments],
            cwd=self.directory,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            env={"PATH": os.environ["PATH"], "HOME": str(self.directory), "TMPDIR": str(self.directory)},
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def bistro(self, who: Authority, *arguments: str) -> Done:
        """A one-shot command signed by ``who``."""
        self.write("ca.pem", who.chain_pem)
        self.write("ca.key", who.key_pem)
        return self.run("albatross-client-bistro", *arguments, "-d", f"localhost:{self.port}")

    def remote(self, what: Issued, *arguments: str) -> Done:
        """Send a bundle that was signed before."""
        self.write("leaf.pem", what.chain_pem)
        self.write("leaf.key", what.key_pem)
        return self.run(
            "albatross-client-remote-tls",
            *("cacert.pem", "leaf.pem", "leaf.key", f"localhost:{self.port}", *arguments),
        )

    def local(self, *arguments: str) -> Done:
        return self.run("albatross-client-local", *arguments, "--tmpdir", "host/run")

    def connect(self, what: Issued) -> TlsConnection:
        """A connection with this chain that trusts any server: for what our client would not send."""
        return connect("127.0.0.1", self.port, what.chain_pem, what.key_pem, self.root.pem, lambda _: ())

    def raw(self, what: Issued, *streams: bytes) -> Message | None:
        """The first answer to a chain and the frames after it, sent as they are."""
        with self.connect(what) as connection:
            for octets in streams:
                connection.send_frame(octets)
            payload = connection.receive_frame(seconds=TIMEOUT)
            return decode_message(payload) if payload else None

    def logs(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()}" for log in sorted((self.host / "log").glob("*.log")))

    def remains(self) -> list[str]:
        """Images, fifos, spooled and half-made files on the host, relative to its directory."""
        places = ("run/fifo", "run/spool", "db/images")
        return sorted(
            str(path.relative_to(self.host))
            for place in places
            for path in (self.host / place).rglob("*")
            if not path.is_dir()
        )

    def tenders(self) -> list[int]:
        """Processes whose parent is albatrossd of this site."""
        daemons = [pid for pid in _pids() if _is_daemon(pid, str(self.host))]
        return [pid for pid in _pids() if _parent(pid) in daemons and not _is_daemon(pid, str(self.host))]

    def daemons(self, program: str) -> list[int]:
        """Processes of a program of ours that works for this host."""
        return [pid for pid in _pids() if _is_daemon(pid, str(self.host), program)]

    def destroy(self) -> None:
        if os.environ.get("KEEPLOGS"):
            print(self.logs())
        if self.host.exists() and (self.host / "host.lock").exists():
            self.run("albatross-host", "stop", "host")
        shutil.rmtree(self.directory, ignore_errors=True)


def _pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


def _is_daemon(pid: int, host: str, program: str = "albatrossd") -> bool:
    command = _read(f"/proc/{pid}/cmdline").split(b"\0")
    return any(word.endswith(f"/{program}".encode()) for word in command) and any(
        host.encode() in word for word in command
    )


def _parent(pid: int) -> int:
    found = re.search(rb"^PPid:\s+(\d+)", _read(f"/proc/{pid}/status"), re.MULTILINE)
    return int(found.group(1)) if found else 0


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether ``condition`` holds within ``seconds``; for what another process does in its own time."""
    import time

    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
