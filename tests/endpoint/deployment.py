"""A host for tests: authoriser and endpoint as real processes, and behind them daemons that do what a test says."""

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from albatross_pki.authorised import AskRemembered, AuthorisedRequest, Effect, Outcome, Remembered
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import Text
from albatross_pki.transport.sockets import close_all
from albatross_pki.transport.tls import TlsConnection, connect
from albatross_pki.wire.framing import frame
from albatross_pki.wire.message import decode_message, encode_message
from albatross_pki.wire.side import decode_side, encode_side
from tests.pki_builder import Authority, Issued

PYTHON = sys.executable
CHANGED = Outcome(True, Effect.CHANGED, "done")
NOTHING_DONE = Outcome(False, Effect.NONE, "refused")


def receive_frame(connection: socket.socket) -> bytes | None:
    header = _exactly(connection, 4)
    return None if header is None else _exactly(connection, struct.unpack("!I", header)[0])


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    octets = b""
    while len(octets) < count:
        piece = connection.recv(count - len(octets))
        if not piece:
            return None
        octets += piece
    return octets


def receive_stream(connection: socket.socket) -> bytes | None:
    """Chunks up to the end mark; ``None`` if the connection ended before it."""
    content = b""
    while (chunk := receive_frame(connection)) is not None:
        if not chunk:
            return content
        content += chunk
    return None


def say(connection: socket.socket, name: Name, payload: Any, sequence: int = 0) -> None:
    connection.sendall(frame(encode_message(Message(Header(name, sequence), payload))))


class Listener:
    """A unix socket whose connections are served by ``serve`` in threads; closed by ``close``."""

    def __init__(self, path: Path, serve: Callable[[socket.socket], None]) -> None:
        self.path = path
        self.errors: list[BaseException] = []
        self._serve = serve
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        os.chmod(path, 0o777)
        self._socket.listen(64)
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._guarded, args=(connection,))
            thread.start()
            self._threads.append(thread)

    def _guarded(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(30)
            try:
                self._serve(connection)
            except (BrokenPipeError, ConnectionResetError):
                return
            except BaseException as error:  # noqa: BLE001  shown by close
                self.errors.append(error)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._accepting.join(30)
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        if self.errors:
            raise self.errors[0]


@dataclass
class Asked:
    """One request as the daemon got it. ``answers`` is the descriptor that answers are written to."""

    request: AuthorisedRequest
    answers: socket.socket
    image: bytes | None


Doing = Callable[[Asked], Outcome]


def do_it(asked: Asked) -> Outcome:
    say(asked.answers, asked.request.name, Text("done"))
    return CHANGED


class ExtendedDaemon(Listener):
    """albatrossd's extended socket: every request goes into ``asked`` and is done by ``doing``.

    Without ``reads_images`` their descriptors are only closed.
    """

    reads_images = True

    def __init__(self, path: Path, doing: Doing = do_it) -> None:
        self.asked: list[Asked] = []
        self.doing = doing
        super().__init__(path, self._one)

    def _one(self, connection: socket.socket) -> None:
        connection.settimeout(None)  # the authoriser keeps connections for the next request
        while self._request(connection):
            pass

    def _request(self, connection: socket.socket) -> bool:
        octets, descriptors, _, _ = socket.recv_fds(connection, 4, 4)
        if not octets:
            return False
        try:
            while len(octets) < 4:
                octets += connection.recv(4 - len(octets))
            payload = _exactly(connection, struct.unpack("!I", octets)[0])
            assert payload is not None
            request = decode_side(payload)
            if isinstance(request, AskRemembered):
                connection.sendall(frame(encode_side(Remembered(()))))
                return True
            assert isinstance(request, AuthorisedRequest)
            image = None
            if len(descriptors) > 1 and self.reads_images:
                image = os.pread(descriptors[1], os.fstat(descriptors[1]).st_size, 0)
            answers = socket.socket(fileno=os.dup(descriptors[0]))
        finally:
            close_all(descriptors)
        answers.settimeout(30)
        asked = Asked(request, answers, image)
        self.asked.append(asked)
        with answers:
            outcome = self.doing(asked)
        connection.sendall(frame(encode_side(outcome)))
        return True


class Av5Daemon(Listener):
    """A daemon that knows AV5 alone: ``answer`` gets each message and the connection; it goes on while that is true."""

    def __init__(self, path: Path, answer: Callable[[Message, socket.socket], bool]) -> None:
        self.messages: list[Message] = []
        self._answer = answer
        super().__init__(path, self._one)

    def _one(self, connection: socket.socket) -> None:
        while (payload := receive_frame(connection)) is not None:
            message = decode_message(payload)
            self.messages.append(message)
            if not self._answer(message, connection):
                return


class Program:
    """One of our programs as a process, started and waited for until it says that it listens."""

    def __init__(
        self, module: str, *arguments: str, user: int | None = None, environment: Any = None, wait: bool = True
    ) -> None:
        # what console scripts do, without depending on where they were installed
        code = f"from {module} import main; main()"
        self.process = subprocess.Popen(
            [PYTHON, "-c", code, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            user=user,
            group=user,
            extra_groups=[] if user is not None else None,
            env=environment,
        )
        self.log: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.listening = ""
        if wait:
            self.until_listening()

    def until_listening(self) -> None:
        try:
            self.listening = self.wait_for(r"listening on .*").string
        except BaseException:
            self.stop()
            raise

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.log.append(line.rstrip())
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait_for(self, pattern: str, seconds: float = 20) -> "re.Match[str]":
        """The first line of the log, past or to come, that ``pattern`` is found in."""
        found: list[re.Match[str]] = []

        def there() -> bool:
            found.extend(match for line in self.log if (match := re.search(pattern, line)))
            return bool(found) or self._ended

        with self._changed:
            self._changed.wait_for(there, seconds)
        assert found, f"no {pattern!r} in the log of {self.process.args!r}:\n" + "\n".join(self.log)
        return found[0]

    def resident(self) -> int:
        """Resident memory in octets."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._reader.join(20)
            if self.process.stdout is not None:
                self.process.stdout.close()
        return status


@dataclass
class Deployment:
    """A directory with everything in it; made by ``deployment``."""

    directory: Path
    root: Authority
    server: Issued
    tmpdir: Path = field(init=False)
    statedir: Path = field(init=False)
    crls: Path = field(init=False)

    def __post_init__(self) -> None:
        self.tmpdir, self.statedir = self.directory / "run", self.directory / "authorise"
        self.crls = self.directory / "crls"
        for path in (self.tmpdir, self.tmpdir / "util", self.tmpdir / "spool", self.crls):
            path.mkdir(exist_ok=True)
        self.file("cacert.pem").write_bytes(self.root.pem)
        self.file("server.pem").write_bytes(self.server.chain_pem)
        key = self.file("server.key")
        if not key.exists():
            key.touch(0o600)
        key.write_bytes(self.server.key_pem)

    def file(self, name: str) -> Path:
        return self.directory / name

    def socket_path(self, name: str) -> Path:
        return self.tmpdir / "util" / name

    @property
    def spooled(self) -> list[str]:
        return os.listdir(self.tmpdir / "spool")

    @property
    def audit(self) -> list[dict[str, Any]]:
        from albatross_pki.journal.log import read_entries

        return list(read_entries(str(self.statedir / "audit.log")))

    def authoriser(self, *options: str, **how: Any) -> Program:
        options = options or ("-v",)
        fixed = ["--tmpdir", str(self.tmpdir), "--statedir", str(self.statedir), "--crl-dir", str(self.crls)]
        return Program(
            "albatross_pki.endpoint.authorise_cli",
            *fixed,
            "--host",
            "testhost",
            *options,
            str(self.file("cacert.pem")),
            **how,
        )

    def endpoint(self, *options: str, ip: str = "127.0.0.1", **how: Any) -> Program:
        options = options or ("-v",)
        fixed = ["--tmpdir", str(self.tmpdir), "--ip", ip, "--port", "0"]
        return Program("albatross_pki.endpoint.cli", *fixed, *options, *self.credentials, **how)

    @property
    def credentials(self) -> list[str]:
        return [str(self.file(name)) for name in ("cacert.pem", "server.pem", "server.key")]


def port_of(endpoint: Program) -> int:
    return int(endpoint.listening.rpartition(" ")[2])


@dataclass
class Host:
    """A whole host: deployment, programs, and the daemon behind them."""

    deployment: Deployment
    authoriser: Program
    endpoint: Program
    daemon: ExtendedDaemon

    @property
    def port(self) -> int:
        return port_of(self.endpoint)

    def connect(self, issued: Issued, host: str = "127.0.0.1", **bounds: Any) -> TlsConnection:
        return connect(
            host, self.port, issued.chain_pem, issued.key_pem, self.deployment.root.pem, lambda _: (), **bounds
        )

    def ask(self, issued: Issued, stream: bytes | None = None) -> Any:
        """One request as a client does it; the payload of its first answer."""
        with self.connect(issued) as connection:
            if stream is not None:
                connection.send_stream(stream)
            return answer(connection)


def answer(connection: TlsConnection) -> Any:
    payload = connection.receive_frame(seconds=30)
    assert payload is not None
    return decode_message(payload).payload


@contextlib.contextmanager
def whole_host(
    directory: Path,
    *,
    doing: Doing = do_it,
    extended: bool = True,
    endpoint: Sequence[str] = (),
    authoriser: Sequence[str] = (),
    root: Authority | None = None,
    server: Issued | None = None,
) -> Iterator[Host]:
    """A host in ``directory`` with one worker; everything is stopped at the end, and must not have ended before.

    With ``extended=False`` there is no socket of ours, as where upstream's albatrossd runs.
    """
    root = root or Authority.root()
    made = Deployment(directory, root, server or root.server())
    daemon = ExtendedDaemon(made.socket_path("extended.sock" if extended else "elsewhere.sock"), doing)
    with (
        contextlib.closing(daemon),
        made.authoriser(*authoriser, wait=False) as judge,
        made.endpoint(*endpoint, wait=False) as front,
    ):
        for program in (judge, front):
            program.until_listening()
        host = Host(made, judge, front, daemon)
        yield host
        for program in (host.endpoint, host.authoriser):
            assert program.process.poll() is None, "\n".join(program.log)
        for program in {host.endpoint, host.authoriser} - {front, judge}:
            program.stop()


def eventually(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """What ``condition`` gives as soon as it is true; it has to become true in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)
    return found
