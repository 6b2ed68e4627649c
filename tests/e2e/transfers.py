"""Transfers that are stopped in the middle, by a relay that passes so many octets and then waits to be told to go on.

What has passed by then, with what the relay's and the kernel's buffers hold, is far less than what is transferred here:
the end was not sent, whatever sizes those buffers have.
"""

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.site import HELLO, PROGRAMS, Site
from tests.pki_builder import Authority

SIZE = 16 << 20  # octets of what is transferred
MIDDLE = 1 << 20
OLD, NEW = os.urandom(SIZE), os.urandom(SIZE)
IMAGE = HELLO.read_bytes() + os.urandom(SIZE)  # nothing loads what follows the sections of an ELF file

PIECE = 64 * 1024
NEVER = 1 << 62


@dataclass(frozen=True)
class Stop:
    """After how many octets from the client (``up``) or to it (``down``) a connection stops."""

    up: int = NEVER
    down: int = NEVER


class Relay:
    """Relays connections while it is entered; ``stalled`` is set when one has stopped, ``go_on`` lets all go on.

    Its own end is a TCP port, or, with ``path``, a unix socket there.
    """

    def __init__(self, target: int | Path, stop: Stop, path: Path | None = None) -> None:
        self.stalled, self._on = threading.Event(), threading.Event()
        self._target, self._stop = target, stop
        self._connections: list[socket.socket] = []
        self._pumps: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
        self._listener.bind(("127.0.0.1", 0) if path is None else str(path))
        self._listener.listen(8)
        self.port = 0 if path else int(self._listener.getsockname()[1])
        self._accepting = threading.Thread(target=self._accept)

    def go_on(self) -> None:
        self._on.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            host = socket.socket(socket.AF_INET if isinstance(self._target, int) else socket.AF_UNIX)
            host.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
            self._connections += [client, host]
            host.connect(("127.0.0.1", self._target) if isinstance(self._target, int) else str(self._target))
            for source, sink, most in ((client, host, self._stop.up), (host, client, self._stop.down)):
                pump = threading.Thread(target=self._pump, args=(source, sink, most))
                pump.start()
                self._pumps.append(pump)

    def _pump(self, source: socket.socket, sink: socket.socket, most: int) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while octets := source.recv(PIECE):
                sink.sendall(octets)
                passed += len(octets)
                if passed >= most and not self._on.is_set():
                    self.stalled.set()
                    self._on.wait()
        # an end, or a peer that is gone, is one for the other side as well
        for end, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
            with contextlib.suppress(OSError):
                end.shutdown(how)

    def __enter__(self) -> "Relay":
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(30)
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for pump in self._pumps:
            pump.join(30)
        for connection in self._connections:
            connection.close()


@dataclass(frozen=True)
class Way:
    """How a client reaches a host: its program, and the names of things there."""

    site: Site
    dev: Authority
    remote: bool

    def __post_init__(self) -> None:
        for name, content in (("image", IMAGE), ("old", OLD), ("new", NEW)):
            self.site.write(name, content)
        self.site.write("ca.pem", self.dev.chain_pem)
        self.site.write("ca.key", self.dev.key_pem)
        for place in ("relay/util", "tmp"):
            (self.site.directory / place).mkdir(parents=True, exist_ok=True)

    @property
    def program(self) -> str:
        return "albatross-client-bistro" if self.remote else "albatross-client-local"

    def name(self, label: str) -> str:
        return label if self.remote else f"{self.dev.facts.common_name}:{label}"

    def options(self, relay: Relay | None = None) -> list[str]:
        if not self.remote:
            return ["--tmpdir", "relay" if relay is not None else "host/run"]
        return ["-d", f"localhost:{self.site.port if relay is None else relay.port}"]

    def run(self, *words: str) -> str:
        done = self.site.run(self.program, *words, *self.options())
        assert (done.status, done.err) == (0, ""), done
        return done.out

    @contextlib.contextmanager
    def disk(self) -> Iterator[str]:
        """A block device with the old content."""
        name = self.name("disk")
        self.run("create-block", name, str(SIZE >> 20), "--data", "old")
        yield name
        self.run("destroy-block", name)

    def content(self, name: str) -> bytes:
        """What is on a block device."""
        self.run("dump-block", name, "--to", "dump")
        dump = self.site.directory / "dump"
        octets = dump.read_bytes()
        dump.unlink()
        return octets

    @contextlib.contextmanager
    def stopped(
        self, stop: Stop, *words: str, builds: int | None = None, terminal: int | None = None
    ) -> Iterator[tuple[Relay, "subprocess.Popen[str]"]]:
        """The command in the middle of its transfer with the host, or with the build server at the port ``builds``.

        ``terminal`` is what it has for standard error.
        """
        with contextlib.ExitStack() as stack:
            if builds is not None:
                relay = stack.enter_context(Relay(builds, stop))
                options = [*self.options(), "--http-host", f"http://127.0.0.1:{relay.port}"]
            elif self.remote:
                relay = stack.enter_context(Relay(self.site.port, stop))
                options = self.options(relay)
            else:
                place = self.site.directory / "relay" / "util" / "vmmd.sock"
                stack.callback(place.unlink)
                relay = stack.enter_context(Relay(self.site.host / "run" / "util" / "vmmd.sock", stop, place))
                options = self.options(relay)
            client = subprocess.Popen(
                [str(PROGRAMS / self.program), *words, *options],
                cwd=self.site.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if terminal is None else terminal,
                text=True,
                env={"PATH": os.environ["PATH"], "HOME": str(self.site.directory), "TMPDIR": self.temporary},
            )
            stack.enter_context(client)
            stack.callback(client.kill)
            assert relay.stalled.wait(60), client.communicate(timeout=10)
            yield relay, client

    @property
    def temporary(self) -> str:
        return str(self.site.directory / "tmp")
