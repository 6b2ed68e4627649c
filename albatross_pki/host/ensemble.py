"""All daemons of a host as processes in one directory: started in order, watched, stopped in reverse order.

A directory DIR holds everything: ``run`` (sockets, fifos, the endpoint's spool), ``db`` (state, images, blocks),
``authorise`` (replay and audit), ``log`` (one file per program) and ``host.lock``, which the one process that runs
this ensemble holds locked.

1. ``programs`` decides, purely, what is started with which arguments, and what shows that it listens;
2. ``Ensemble.start`` starts one after the other, each only when its predecessor listens;
3. ``Ensemble.watch`` starts a program again that ended by itself, at once and then after a delay that grows, and makes
   the programs of TLS read their files again when that is asked for; it returns when somebody asks for the end, or
   when a program ends again and again, and says which;
4. ``Ensemble.stop`` sends SIGTERM in reverse order, waits, and kills only what ignores it.

The programs get sessions of their own, so that a Ctrl-C reaches this process alone, and a parent-death signal, so
that none of them outlives it.
"""

import contextlib
import ctypes
import math
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from albatross_pki.errors import AlbatrossError, ExitCode
from albatross_pki.host.ownership import own_directory
from albatross_pki.host.restarts import delay, failures_after
from albatross_pki.host.separation import DaemonUsers, Tls, User, part_owners
from albatross_pki.transport.sockets import listen

READY_TIMEOUT = 20.0  # seconds for one program to listen; a slow machine under load needs two
STOP_TIMEOUT = 40.0  # seconds from SIGTERM to SIGKILL; albatrossd itself gives its unikernels 20
RELOADED = ("albatross-authorise", "albatross-tls-endpoint")  # read roots, lists, certificate and key again at SIGHUP
MOST_FAILURES = 5  # ends soon after a start, in a row, after which everything ends: about 15 seconds of waiting
POLL = 0.01  # seconds between two looks at whether a program listens
SUBDIRECTORIES = ("run", "run/util", "run/fifo", "run/spool", "db", "authorise", "log")
SOCKET_ROOM = 107 - len("/run/util/authorise.sock")  # octets: sun_path of unix(7)
_PR_SET_PDEATHSIG = 1
_MANY = 4096  # octets of wishes that are read at once
_FIRST_GIVEN = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START


class DidNotStart(AlbatrossError):
    """A program that ended or did not listen in time."""

    exit_code = ExitCode.INTERNAL


class PlaceTaken(AlbatrossError):
    """Somebody else listens where a program should."""


@dataclass(frozen=True, slots=True)
class Listening:
    """What shows that a program is ready: a unix socket's path, or a TCP address and port."""

    path: str | None = None
    address: tuple[str, int] | None = None

    def answers(self) -> bool:
        """Whether somebody listens there."""
        target = self.path or self.address
        if target is None:
            raise TypeError("something that listens has a path or an address")
        family = socket.AF_UNIX if self.path else socket.AF_INET6 if ":" in target[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            with contextlib.suppress(OSError):
                probe.connect(target)
                # a port that nobody listens on can be connected to itself (RFC 9293 3.5, simultaneous open)
                return bool(self.path) or probe.getsockname() != probe.getpeername()
        return False

    def serves(self) -> bool:
        """Whether somebody takes connections from there: at the end of ours, the other side ends it too.

        A unix socket's queue takes them before anybody does, and those of one that ends meanwhile are reset. A port is
        served when it is bound: its program does that last.
        """
        if self.path is None:
            return self.answers()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(0.2)
            try:
                probe.connect(self.path)
                probe.shutdown(socket.SHUT_WR)
                probe.recv(1)
            except OSError:
                return False
            return True


@dataclass(frozen=True, slots=True)
class Wishes:
    """What people ask for while programs run: descriptors that become readable, for the end and for a reload."""

    end: int
    reload: int


@dataclass(frozen=True, slots=True)
class GivenSocket:
    """A unix socket that only root and the members of one group may connect to."""

    path: str
    gid: int


@dataclass(frozen=True, slots=True)
class Program:
    """One daemon: its word, its arguments, where it listens when it is ready, and as which user it runs.

    ``sockets`` are made for it and handed over.
    """

    word: str
    arguments: tuple[str, ...]
    ready: tuple[Listening, ...]
    user: User | None = None
    sockets: tuple[GivenSocket, ...] = ()


def programs(
    directory: str, tls: Tls | None, *, keep_running: bool = False, statistics: bool = False
) -> tuple[Program, ...]:
    """Every program of a host in ``directory``, in the order of their start; without ``tls`` only the local ones."""
    run = os.path.join(directory, "run")
    util = os.path.join(run, "util")
    daemon = ["--tmpdir", run, "--dbdir", os.path.join(directory, "db"), *(["--keep-running"] if keep_running else [])]
    local: tuple[Program, ...] = (
        Program("albatross-console", ("--tmpdir", run), (Listening(f"{util}/console.sock"),)),
        Program("albatrossd", tuple(daemon), (Listening(f"{util}/vmmd.sock"), Listening(f"{util}/extended.sock"))),
    )
    if statistics:
        local = (*local, Program("albatross-stats", ("--tmpdir", run), (Listening(f"{util}/stat.sock"),)))
    if tls is None:
        return local
    state = os.path.join(directory, "authorise")
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(tls.ip, tls.ip)  # noqa: S104  compared, not listened on
    return (
        *local,
        Program(
            "albatross-authorise",
            ("--tmpdir", run, "--statedir", state, "--cert", tls.certificate, tls.ca),
            (Listening(f"{util}/authorise.sock"),),
        ),
        Program(
            "albatross-tls-endpoint",
            ("--tmpdir", run, "--ip", tls.ip, "--port", str(tls.port), tls.ca, tls.certificate, tls.key),
            (Listening(address=(reached, tls.port)),),
        ),
    )


def divided(
    directory: str, users: DaemonUsers, tls: Tls | None, *, keep_running: bool = False, statistics: bool = False
) -> tuple[Program, ...]:
    """The same programs, each as its own user, with sockets that only those may connect to who need them."""
    reached_by = {  # whose group may connect, beside root
        "console.sock": users.authoriser,
        "vmmd.sock": users.statistics,
        "extended.sock": users.authoriser,
        "stat.sock": users.authoriser,
        "authorise.sock": users.endpoint,
    }
    more = {
        "albatrossd": ("--authoriser-uid", str(users.authoriser.uid), "--statistics-uid", str(users.statistics.uid)),
        "albatross-authorise": ("--endpoint-user", str(users.endpoint.uid)),
    }
    user_of = {
        "albatross-console": users.console,
        "albatross-stats": users.statistics,
        "albatross-authorise": users.authoriser,
        "albatross-tls-endpoint": users.endpoint,
    }
    made = []
    for program in programs(directory, tls, keep_running=keep_running, statistics=statistics):
        sockets = tuple(
            GivenSocket(each.path, reached_by[os.path.basename(each.path)].gid) for each in program.ready if each.path
        )
        options = ("--systemd-socket-activation",) if sockets else ()
        made.append(
            replace(
                program,
                arguments=(*options, *more.get(program.word, ()), *program.arguments),
                user=user_of.get(program.word),
                sockets=sockets,
            )
        )
    return tuple(made)


def _refuse_taken(program: Program) -> None:
    """Raise ``PlaceTaken`` where somebody listens already: asked for a sign of life, they would answer for ours."""
    for listening in program.ready:
        if listening.answers():
            place = listening.path or "{} port {}".format(*listening.address or ())
            elsewhere = "directory" if listening.path else "port"
            raise PlaceTaken(
                f"{program.word} cannot start: {place} is in use by another program",
                hint=f"end that program, or choose another {elsewhere}",
            )


def prepare(directory: str) -> str:
    """Make what is missing of ``directory``, private to its owner; returns its absolute path.

    Nothing that somebody else has put there is used: root would follow the links. Raises ``AlbatrossError``.
    """
    if not directory:
        raise AlbatrossError("the name of the directory is empty", hint="for the current one, say .")
    directory = os.path.abspath(directory)
    if len(os.fsencode(directory)) > SOCKET_ROOM:
        raise AlbatrossError(
            f"{directory} is too long a name: unix sockets below it could not be bound",
            hint=f"choose a directory of at most {SOCKET_ROOM} characters",
        )
    own_directory(directory, named=True)
    for name in SUBDIRECTORIES:
        own_directory(os.path.join(directory, name), owners=part_owners(name))
    return directory


def _make(given: GivenSocket) -> socket.socket:
    """The listening socket, root's and one group's."""
    made = listen(given.path, 0o600)
    os.chown(given.path, -1, given.gid)
    os.chmod(given.path, 0o660)
    return made


def _reserve_low_descriptors(count: int) -> None:
    """See to it that nothing that is opened from now on has a number that a child's given sockets will have."""
    while (descriptor := os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) < _FIRST_GIVEN + count:
        pass
    os.close(descriptor)


def _is_readable(descriptor: int | None) -> bool:
    if descriptor is None:
        return False
    poll = select.poll()  # unlike select(2), for descriptors of any number
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _how(status: int) -> str:
    """How a process has ended, in words; a negative status is a signal (subprocess)."""
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def executable(word: str) -> str:
    """The program called ``word``: the one installed beside this interpreter, else the first in PATH."""
    beside = os.path.join(os.path.dirname(sys.executable), word)
    found = beside if os.access(beside, os.X_OK) else shutil.which(word)
    if found is None:
        raise DidNotStart(f"{word} is not installed", hint="pip install albatross-pki")
    return found


@dataclass(slots=True)
class Ensemble:
    """The running programs of one directory."""

    directory: str
    running: list[tuple[Program, "subprocess.Popen[bytes]"]] = field(default_factory=list)
    given: dict[str, list[socket.socket]] = field(default_factory=dict)  # by word; open for as long as we are

    def start(self, wanted: Sequence[Program], wishes: Wishes | None = None) -> bool:
        """Start ``wanted`` in order; ``False`` if the end was asked for meanwhile.

        Raises ``PlaceTaken``, or ``DidNotStart`` with the last words of that one.
        """
        end = None if wishes is None else wishes.end
        for program in wanted:
            if _is_readable(end):
                return False
            _refuse_taken(program)
            if program.sockets:
                _reserve_low_descriptors(len(program.sockets))
                self.given[program.word] = [_make(each) for each in program.sockets]
            self.running.append((program, self._spawn(program)))
            self._wait_until_ready(*self.running[-1], end)
        if _is_readable(end):
            return False
        for program, process in self.running:
            self._check_alive(program, process)
        return True

    def watch(
        self, wishes: Wishes, tell: Callable[[str], None], renew: Callable[[], None] = lambda: None
    ) -> str | None:
        """Keep everything running until the end is asked for: ``None``.

        Or until a program has ended too often: its word. ``tell`` gets sentences about what ended and began. ``renew``
        is called before programs are made to read their files again.
        """
        failures = {program.word: 0 for program, _ in self.running}
        begun = dict.fromkeys(failures, time.monotonic())
        due: dict[str, float] = {}
        while self._wait(wishes, due):
            if _is_readable(wishes.reload):
                os.read(wishes.reload, _MANY)
                self._reload(renew, tell)
            for program, process in self.running:
                word = program.word
                if process.returncode is None or word in due:
                    continue
                failures[word] = failures_after(failures[word], time.monotonic() - begun[word])
                tell(f"{word} ended with {_how(process.returncode)}: {self.last_words(word)}")
                if failures[word] > MOST_FAILURES:
                    return word
                seconds = delay(failures[word])
                if seconds:
                    tell(f"{word} starts again in {seconds:g} seconds")
                due[word] = time.monotonic() + seconds
            for word in [word for word, when in due.items() if when <= time.monotonic()]:
                del due[word]
                begun[word] = time.monotonic()
                if self._start_again(word, wishes.end):
                    tell(f"{word} runs again")
        return None

    def _reload(self, renew: Callable[[], None], tell: Callable[[str], None]) -> None:
        """What cannot be renewed stays as it is."""
        try:
            renew()
        except AlbatrossError as error:
            tell(f"nothing is read again: {error}")
            return
        for program, process in self.running:
            if program.word in RELOADED:
                process.send_signal(signal.SIGHUP)  # nothing is sent to one that has ended

    def _wait(self, wishes: Wishes, due: Mapping[str, float]) -> bool:
        """Until a program has ended, one is due (monotonic seconds by word), or a wish; ``False`` for the end."""
        waiting = [(program.word, process) for program, process in self.running if program.word not in due]
        with contextlib.ExitStack() as stack:
            poll = select.poll()
            for wish in (wishes.end, wishes.reload):
                poll.register(wish, select.POLLIN)
            # one that was found dead while it started has been waited for already
            known = any(process.returncode is not None for _, process in waiting)
            for _, process in waiting:
                if process.returncode is None:
                    descriptor = os.pidfd_open(process.pid)
                    stack.callback(os.close, descriptor)
                    poll.register(descriptor, select.POLLIN)
            soonest = min(due.values(), default=None)
            seconds = 0.0 if known else None if soonest is None else max(0.0, soonest - time.monotonic())
            ready = poll.poll(None if seconds is None else math.ceil(seconds * 1000))
        for _, process in waiting:
            process.poll()
        return all(descriptor != wishes.end for descriptor, _ in ready)

    def _start_again(self, word: str, wake: int) -> bool:
        """Start a program in its old place, and wait until it listens; one that does not has ended again."""
        place = next(number for number, (program, _) in enumerate(self.running) if program.word == word)
        program = self.running[place][0]
        process = self._spawn(program)
        self.running[place] = (program, process)
        try:
            self._wait_until_ready(program, process, wake)
        except DidNotStart:
            process.kill()
            process.wait()
        return process.poll() is None

    def stop(self) -> list[str]:
        """Stop everything, last started first; returns the words of those that had to be killed."""
        killed = []
        for program, process in reversed(self.running):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                killed.append(program.word)
                process.kill()
                process.wait()
            for made in self.given.pop(program.word, []):
                with contextlib.suppress(OSError):
                    os.unlink(made.getsockname())
                made.close()
        self.running.clear()
        return killed

    def last_words(self, word: str) -> str:
        """The last error that ``word`` logged, or its last line if it named none."""
        with contextlib.suppress(OSError):
            with open(self._log(word), "rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - 4096))
                lines = log.read().decode("utf-8", "replace").splitlines()
            errors = [line for line in lines if "error: " in line]
            if lines:
                return (errors or lines)[-1]
        return "it said nothing"

    def _log(self, word: str) -> str:
        return os.path.join(self.directory, "log", f"{word}.log")

    def _spawn(self, program: Program) -> "subprocess.Popen[bytes]":
        parent = os.getpid()
        libc = ctypes.CDLL(None)
        given = [each.fileno() for each in self.given.get(program.word, [])]
        targets = range(_FIRST_GIVEN, _FIRST_GIVEN + len(given))

        def become() -> None:
            for target, descriptor in zip(targets, given, strict=True):
                os.dup2(descriptor, target)
            if given:
                os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given)))
            if program.user is not None:
                os.setgroups([])
                os.setresgid(program.user.gid, program.user.gid, program.user.gid)
                os.setresuid(program.user.uid, program.user.uid, program.user.uid)
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # after the user: a change of it clears the signal
            if os.getppid() != parent:  # it was too late already
                os._exit(1)

        with open(self._log(program.word), "ab") as log:
            return subprocess.Popen(
                [executable(program.word), *program.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
                pass_fds=tuple(targets),
                preexec_fn=become if sys.platform == "linux" else None,
            )

    def _check_alive(self, program: Program, process: "subprocess.Popen[bytes]") -> None:
        status = process.poll()
        if status is not None:
            raise DidNotStart(
                f"{program.word} ended with status {status}: {self.last_words(program.word)}",
                hint=f"its log is {self._log(program.word)}",
            )

    def _wait_until_ready(self, program: Program, process: "subprocess.Popen[bytes]", wake: int | None = None) -> None:
        """Raises ``DidNotStart``; returns early if ``wake`` becomes readable: then it does not matter any more."""
        deadline = time.monotonic() + READY_TIMEOUT
        for listening in program.ready:
            while not listening.serves():
                self._check_alive(program, process)
                if _is_readable(wake):
                    return
                if time.monotonic() > deadline:
                    raise DidNotStart(
                        f"{program.word} does not listen after {READY_TIMEOUT:g} seconds",
                        hint=f"its log is {self._log(program.word)}",
                    )
                time.sleep(POLL)
