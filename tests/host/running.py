"""A host for tests: the real supervisor with real unikernels, inside the test's own event loop or as a process."""

import asyncio
import contextlib
import os
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath

from albatross_pki.authorised import CertificateId, ChainPolicy, Outcome
from albatross_pki.commands import Command, UnikernelCreate
from albatross_pki.extensions import AnyCommand
from albatross_pki.host.adoption import start_wanted, take_over
from albatross_pki.host.attachment import ConsoleAttachment
from albatross_pki.host.commands import Commands, Request
from albatross_pki.host.conversation import Conversation
from albatross_pki.host.policy_book import PolicyBook
from albatross_pki.host.rights import OPERATOR, Rights
from albatross_pki.host.state import State
from albatross_pki.host.statistics_link import StatisticsLink
from albatross_pki.host.supervisor import Patience, Supervisor
from albatross_pki.host.surroundings import Surroundings
from albatross_pki.messages import Header, Message, Payload
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.replies import Failure, Text, Unikernels
from albatross_pki.transport.blocking import Connection
from albatross_pki.transport.errors import ConnectionCut
from albatross_pki.unikernels import FailBehaviour, Settings, UnikernelConfig

EXAMPLES = FilePath(__file__).parents[2] / "examples" / "unikernels"
HELLO = (EXAMPLES / "hello.spt").read_bytes()
TICKER = (EXAMPLES / "ticker.spt").read_bytes()
QUICK = Patience(stop=5.0, kill=5.0, come_up=0.1)  # for successors that come up
UNHURRIED = Patience(stop=5.0, kill=5.0, come_up=20.0)  # for successors that end, however slow the machine is
WIDE = Policy(frozenset(range(64)), 1000, 1 << 20, 1 << 20, frozenset({"service"}))
RESTART = FailBehaviour(frozenset())


def hello(*arguments: str, image: bytes = HELLO, memory_mb: int = 2, **settings: object) -> UnikernelConfig:
    """A configuration of the example that prints its command line and waits, or exits as it is told."""
    return UnikernelConfig(image, Settings(memory_mb=memory_mb, arguments=arguments, **settings))  # type: ignore[arg-type]


def create(*arguments: str, force: bool = False, **settings: object) -> UnikernelCreate:
    """A create command for ``hello``."""
    return UnikernelCreate(hello(*arguments, **settings), force)  # type: ignore[arg-type]


def chain_policy(path: str, policy: Policy, *, serial: int = 1, age: float = 60, left: float = 3600) -> ChainPolicy:
    """The policy of a delegation that became valid ``age`` seconds ago."""
    now = datetime.now(UTC).replace(microsecond=0)
    identity = CertificateId(b"k" * 32, serial)
    return ChainPolicy(Path.parse(path), policy, identity, now - timedelta(seconds=age), now + timedelta(seconds=left))


def directories(root: FilePath) -> tuple[str, str]:
    """TMPDIR and DBDIR below ``root``, made."""
    for name in ("run/util", "run/fifo", "db/block"):
        (root / name).mkdir(parents=True, exist_ok=True)
    return str(root / "run"), str(root / "db")


@dataclass(slots=True)
class Recorder(Conversation):
    """A conversation that keeps what was answered and gives the chunks that it was given."""

    chunks: list[bytes] = field(default_factory=list)
    answers: list[Payload] = field(default_factory=list)

    async def answer(self, payload: Payload) -> None:
        self.answered = True
        self.answers.append(payload)

    async def follow(self, payloads: AsyncIterator[Payload]) -> None:
        async for payload in payloads:
            await self.answer(payload)

    async def chunk(self) -> bytes:
        await asyncio.sleep(0)
        if not self.chunks:
            raise ConnectionCut("the connection ended before the end of the stream")
        return self.chunks.pop(0)


@dataclass(slots=True)
class Inside:
    """A supervisor in the test's own event loop."""

    supervisor: Supervisor
    commands: Commands
    state: State
    console: "asyncio.Task[None]"

    async def ask(self, name: str, command: AnyCommand, rights: Rights = OPERATOR, image: int | None = None) -> Payload:
        """The first answer to ``command``."""
        answers, _ = await self.asked(name, command, rights, image)
        return answers[0]

    async def asked(
        self,
        name: str,
        command: AnyCommand,
        rights: Rights = OPERATOR,
        image: int | None = None,
        *,
        chunks: list[bytes] | None = None,
    ) -> tuple[list[Payload], Outcome]:
        """All answers, and the outcome."""
        recorder = Recorder(None, Header(Name.parse(name)), chunks=[] if chunks is None else chunks)  # type: ignore[arg-type]
        request = Request(Name.parse(name), command, rights, "test", image)
        outcome = await self.commands.execute(request, recorder)
        return recorder.answers, outcome

    def now(self) -> datetime:
        return datetime.now(UTC)

    def pid(self, name: str) -> int:
        running = self.supervisor.table[Name.parse(name)].running
        assert running is not None
        return running.process.pid

    def phase(self, name: str) -> str:
        unikernel = self.supervisor.table.get(Name.parse(name))
        return "absent" if unikernel is None else unikernel.phase.value

    async def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Let the event loop turn until ``condition`` holds."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def inside(
    root: FilePath,
    *,
    patience: Patience = QUICK,
    policy: Policy = WIDE,
    keep_running: bool = False,
    keep: int = 3,
    image_quota: int | None = None,
) -> AsyncIterator[Inside]:
    """A host in ``root`` for as long as the block runs; everything is ended afterwards."""
    tmpdir, dbdir = directories(root)
    state = State(dbdir)
    host = Surroundings(tmpdir, dbdir)
    console = ConsoleAttachment(os.path.join(tmpdir, "util", "console.sock"))
    book = PolicyBook(policy)
    supervisor = Supervisor(
        host, state, book, console, StatisticsLink(), patience=patience, keep=keep, image_quota=image_quota
    )
    task = asyncio.create_task(console.run())
    try:
        await take_over(supervisor, state.load())
        await start_wanted(supervisor)
        yield Inside(supervisor, Commands(supervisor), state, task)
    finally:
        await supervisor.shut_down(keep_running=keep_running)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        host.close()
        state.close()


def text_of(payload: Payload | None) -> str:
    """The text of a success or failure."""
    assert isinstance(payload, Text | Failure), payload
    return payload.text


class Daemon:
    """albatrossd as a process of its own, with everything below ``root``."""

    def __init__(self, root: FilePath, *options: str, before: str = "") -> None:
        self.root = root
        self.tmpdir, self.dbdir = directories(root)
        self._options = options
        self._before = before
        self.prefix = "t" + secrets.token_hex(2)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> "Daemon":
        """Start it; ``before`` is Python text that runs in it first. Waits until it listens."""
        code = f"{self._before}\nfrom albatross_pki.host.cli import main\nmain()"
        arguments = ["--tmpdir", self.tmpdir, "--dbdir", self.dbdir, "-v", *self._options]
        with open(self.root / "albatrossd.log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-c", code, *arguments], stdout=log, stderr=log, cwd="/"
            )
        if wait:
            self.wait_until_listening()
        return self

    def wait_until_listening(self, seconds: float = 20.0) -> None:
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(Exception),
                Connection(self.socket("vmmd.sock")),
                Connection(self.socket("extended.sock")),
            ):
                return
            assert self.process.poll() is None, self.log()
            time.sleep(0.02)
        raise AssertionError(f"albatrossd does not listen: {self.log()}")

    def socket(self, name: str) -> str:
        return os.path.join(self.tmpdir, "util", name)

    def log(self) -> str:
        return (self.root / "albatrossd.log").read_text(errors="replace")

    def ask(self, name: str, command: Command) -> Payload:
        """The answer to one command."""
        with Connection(self.socket("vmmd.sock"), timeout=20) as connection:
            connection.send(Message(Header(Name.parse(name)), command))
            answer = connection.receive()
        assert answer is not None
        return answer.payload

    def running(self) -> dict[str, tuple[float, ...]]:
        """The names that info tells about."""
        from albatross_pki.commands import UnikernelInfoRequest

        answer = self.ask(":", UnikernelInfoRequest())
        assert isinstance(answer, Unikernels)
        return {str(name): () for name, _ in answer.unikernels}

    def kill(self) -> None:
        """As a crash: SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and wait; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)

    def label(self, letter: str = "u") -> str:
        """A label that no other test on this machine has; it begins the title of the process."""
        return self.prefix + letter

    def unikernels(self, letter: str = "") -> set[int]:
        """The pids of all unikernels of this host (with that letter), whoever their parent is."""
        return titled(self.prefix + letter)

    def recorded(self) -> set[int]:
        """The pids of unikernels that the state knows, whatever their labels: titles end with the recorded token."""
        database = os.path.join(self.dbdir, "albatross.sqlite")
        if not os.path.exists(database):
            return set()
        with (
            contextlib.suppress(sqlite3.DatabaseError),
            contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection,
        ):
            tokens = tuple(f".{row[0]}" for row in connection.execute("SELECT token FROM processes"))
            return {pid for pid, title in processes() if title.endswith(tokens)} if tokens else set()
        return set()

    def recorded_pids(self) -> set[int]:
        """The pids that the state has on record and that are there, whatever their titles."""
        with contextlib.closing(sqlite3.connect(os.path.join(self.dbdir, "albatross.sqlite"))) as connection:
            rows = connection.execute("SELECT pid FROM processes WHERE pid IS NOT NULL").fetchall()
        return {pid for (pid,) in rows} & {pid for pid, _ in processes()}

    def close(self) -> None:
        """Leave no process behind."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        left = self.unikernels() | self.recorded()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while left & {pid for pid, _ in processes()} and time.monotonic() < deadline:
            time.sleep(0.01)


def processes() -> Iterator[tuple[int, str]]:
    """Every process of this machine that is no zombie, with its title."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                title, state = FilePath(f"/proc/{entry}/stat").read_text().partition("(")[2].rsplit(")", 1)
                if state.split()[0] != "Z":
                    yield int(entry), title


def titled(prefix: str) -> set[int]:
    """The pids of processes whose title begins so."""
    return {pid for pid, title in processes() if title.startswith(prefix)}


@contextlib.contextmanager
def reachable(directory: FilePath) -> Iterator[None]:
    """Other users may enter ``directory``, somewhere in ``shared_path``, and what is above it while the block runs."""
    closed = [each for each in (directory, *directory.parents) if not each.stat().st_mode & 0o001]
    modes = [(each, each.stat().st_mode & 0o7777) for each in closed]
    for each, mode in modes:
        each.chmod(mode | 0o011)
    try:
        yield
    finally:
        for each, mode in modes:
            each.chmod(mode)


@contextlib.contextmanager
def daemon(root: FilePath, *options: str, before: str = "") -> Iterator[Daemon]:
    """A daemon that is started, and of which nothing is left afterwards."""
    it = Daemon(root, *options, before=before)
    try:
        yield it.start()
    finally:
        it.close()
