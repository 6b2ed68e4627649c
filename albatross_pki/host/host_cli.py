"""``albatross-host``: all daemons of a host in one terminal, in one directory, as root or not.

``run`` stays in the foreground until Ctrl-C or SIGTERM, and starts programs again that end by themselves. ``start`` is
``run`` in the background and returns when everything listens; ``stop`` ends it and returns when everything is gone;
``reload`` is for a renewed certificate or another root. ``doctor`` says what this machine can do.

Whoever runs a directory holds ``DIR/host.lock`` locked; ``stop`` finds the process by that lock and no number in a
file is ever believed.
"""

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from albatross_pki import __version__
from albatross_pki.console_script import run as run_script
from albatross_pki.console_script import say
from albatross_pki.errors import AlbatrossError, ExitCode
from albatross_pki.host.audit_cli import audit
from albatross_pki.host.bridges_cli import bridge
from albatross_pki.host.crl_cli import crl
from albatross_pki.host.doctor_cli import doctor
from albatross_pki.text import printable

if TYPE_CHECKING:
    from albatross_pki.host.ensemble import Program, Wishes
    from albatross_pki.host.separation import Tls

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2) on 64-bit Linux
_LOCK_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # whatever somebody has put in its place
_READY = b"\0"  # between what ``start`` shows and what its host says later; no text of ours has it
STOP_TIMEOUT = 180.0  # seconds for the whole ensemble; each program has a bound of its own


class AlreadyRunning(AlbatrossError):
    """Somebody runs this directory."""


@click.group(help="All daemons of a host in one terminal, in one directory, as root or not.")
@click.version_option(__version__, message="version %(version)s protocol version 5")
def program() -> None:
    pass


program.add_command(audit)
program.add_command(doctor)
program.add_command(bridge)
program.add_command(crl)


def _directory(function: "click.decorators.FC") -> "click.decorators.FC":
    return click.argument("directory", type=click.Path(file_okay=False), default=".")(function)


def _ensemble(function: "click.decorators.FC") -> "click.decorators.FC":
    """The arguments of ``run`` and ``start``."""
    file = click.Path(exists=True, dir_okay=False)
    for option in (
        click.option("--ca", type=file, help="Root certificate that clients are judged by (PEM)."),
        click.option("--cert", type=file, help="The server's certificate (PEM)."),
        click.option("--key", type=file, help="Its private key (PEM)."),
        click.option("--ip", default="127.0.0.1", show_default=True, help="Address that the TLS endpoint listens on."),
        click.option("--port", type=click.IntRange(1, 65535), default=1025, show_default=True, help="Its port."),
        click.option("--stats", is_flag=True, help="Run albatross-stats too."),
        click.option("--keep-running", is_flag=True, help="Leave unikernels running at the end; adopt them again."),
        click.option("--one-user", is_flag=True, help="As root, do not give each program a user of its own."),
    ):
        function = option(function)
    return _directory(function)


def _tls(ca: str | None, cert: str | None, key: str | None, ip: str, port: int) -> "Tls | None":
    from albatross_pki.host.separation import Tls

    given = [file for file in (ca, cert, key) if file is not None]
    if not given:
        return None
    if ca is None or cert is None or key is None:
        raise AlbatrossError(
            "a TLS endpoint needs all of --ca, --cert and --key",
            hint="leave all three away to run the local daemons alone",
        )
    return Tls(os.path.abspath(ca), os.path.abspath(cert), os.path.abspath(key), ip, port)


@program.command(help="Run all daemons until Ctrl-C; without --ca, --cert and --key only the local ones.")
@_ensemble
@click.option("--then-log", type=click.Path(dir_okay=False), hidden=True)
def run(
    directory: str,
    ca: str | None,
    cert: str | None,
    key: str | None,
    ip: str,
    port: int,
    stats: bool,
    keep_running: bool,
    one_user: bool,
    then_log: str | None,
) -> int:
    from albatross_pki.host.ensemble import Ensemble, prepare

    directory = prepare(directory)
    tls = _tls(ca, cert, key, ip, port)
    ended = None
    with _locked(directory), _signals() as wishes:
        ensemble = Ensemble(directory)
        try:
            wanted, renew = _programs(directory, tls, keep_running=keep_running, statistics=stats, one_user=one_user)
            if not ensemble.start(wanted, wishes):
                return ExitCode.OK
            for each in wanted:
                click.echo(printable(f"{each.word}: {', '.join(_where(listening) for listening in each.ready)}"))
            if then_log is not None:
                _go_on_in(then_log)
            ended = ensemble.watch(wishes, lambda text: say("warning", text), renew)
            if ended is not None:
                say("error", f"{ended} ended by itself again and again: {ensemble.last_words(ended)}")
        finally:
            for word in ensemble.stop():
                say("warning", f"{word} did not end and was killed")
        return ExitCode.OK if ended is None else ExitCode.INTERNAL


def _programs(
    directory: str, tls: "Tls | None", *, keep_running: bool, statistics: bool, one_user: bool
) -> "tuple[tuple[Program, ...], Callable[[], None]]":
    """What is to run, as users of their own if this is root and that is possible; and what renews their files."""
    from albatross_pki.host import separation
    from albatross_pki.host.ensemble import divided, programs

    if os.geteuid() == 0:
        if not one_user:
            users = separation.daemon_users()
            reason = separation.unavailable(users)
            if reason is None:
                readable = separation.divide(directory, users, tls)
                reason = separation.obstacle(users, directory)
                if reason is None:
                    each = divided(directory, users, readable, keep_running=keep_running, statistics=statistics)
                    return each, lambda: separation.copy_again(directory, users, tls) if tls else None
            say("warning", f"all programs run as root, P37 is not in force: {reason}")
        separation.unite(directory)
    return programs(directory, tls, keep_running=keep_running, statistics=statistics), lambda: None


@program.command(help="Run all daemons in the background; returns when they listen.")
@_ensemble
def start(
    directory: str,
    ca: str | None,
    cert: str | None,
    key: str | None,
    ip: str,
    port: int,
    stats: bool,
    keep_running: bool,
    one_user: bool,
) -> int:
    from albatross_pki.host.ensemble import executable, prepare

    tls = _tls(ca, cert, key, ip, port)
    directory = prepare(directory)
    arguments = [executable("albatross-host"), "run", directory, *["--stats"] * stats]
    arguments += ["--keep-running"] * keep_running + ["--one-user"] * one_user
    if tls is not None:
        arguments += ["--ca", tls.ca, "--cert", tls.certificate, "--key", tls.key, "--ip", ip, "--port", str(port)]
    log = os.path.join(directory, "log", "albatross-host.log")
    process = subprocess.Popen(
        [*arguments, "--then-log", log],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    if process.stdout is None:
        raise TypeError("a pipe was asked for")
    try:
        with process.stdout as pipe:
            told, ready, _ = pipe.read().partition(_READY)  # its end is where it goes on in the log
    except BaseException:  # Ctrl-C reaches this process alone
        process.terminate()
        process.wait()
        raise
    with contextlib.suppress(OSError), open(log, "ab") as for_later:
        for_later.write(told)
    click.echo(told.decode("utf-8", "replace"), nl=False, err=not ready)
    if ready:
        process.returncode = 0  # it goes on without us
        return ExitCode.OK
    status = process.wait()
    if status <= 0:  # asked to end, or killed: in both cases there is no host
        raise AlbatrossError("albatross-host was ended while it started", hint=f"its log is {log}")
    return status


def _running(directory: str) -> int:
    """The process that runs ``directory``; raises ``AlbatrossError`` if there is none."""
    pid = _holder(directory)
    if pid is None:
        raise AlbatrossError(f"nobody runs {os.path.abspath(directory)}")
    return pid


@program.command(help="End the daemons of a directory; returns when they are gone.")
@_directory
def stop(directory: str) -> None:
    pid = _running(directory)
    with contextlib.suppress(ProcessLookupError), _signalled(directory, pid, signal.SIGTERM) as descriptor:
        if not select.select([descriptor], [], [], STOP_TIMEOUT)[0]:
            raise AlbatrossError(f"process {pid} has not ended after {STOP_TIMEOUT:g} seconds")


@program.command(help="Make a running host read its roots, certificate, key and revocation lists again; nothing ends.")
@_directory
def reload(directory: str) -> None:
    pid = _running(directory)
    with _signalled(directory, pid, signal.SIGHUP):
        click.echo(
            f"asked: the logs in {printable(os.path.join(os.path.abspath(directory), 'log'))} say what came of it"
        )


@contextlib.contextmanager
def _signalled(directory: str, pid: int, number: signal.Signals) -> Iterator[int]:
    """A descriptor of the process ``pid``, which has got the signal if it runs ``directory``."""
    descriptor = os.pidfd_open(pid)
    try:
        if _holder(directory) == pid:  # still the same process, which the descriptor now stands for
            signal.pidfd_send_signal(descriptor, number)
        yield descriptor
    finally:
        os.close(descriptor)


def _where(listening: object) -> str:
    from albatross_pki.host.ensemble import Listening

    if not isinstance(listening, Listening):
        raise TypeError("something that listens")
    return listening.path if listening.path else "{} port {}".format(*(listening.address or ("", 0)))


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Hold the lock of ``directory``; raises ``AlreadyRunning``."""
    descriptor = os.open(os.path.join(directory, "host.lock"), os.O_RDWR | os.O_CREAT | _LOCK_FLAGS, 0o600)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AlreadyRunning(
                f"{directory} is run by process {_holder(directory)} already", hint=f"albatross-host stop {directory}"
            ) from error
        yield
    finally:
        os.close(descriptor)


def _holder(directory: str) -> int | None:
    """The process that holds the lock of ``directory``, ``None`` if nobody does."""
    try:
        descriptor = os.open(os.path.join(directory, "host.lock"), os.O_RDWR | _LOCK_FLAGS)
    except FileNotFoundError:
        return None
    try:
        wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, wanted))
        return None if kind == fcntl.F_UNLCK else int(pid)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _signals() -> "Iterator[Wishes]":
    """SIGINT and SIGTERM ask for the end, SIGHUP for a reload, unless it says that our terminal is gone."""
    from albatross_pki.host.ensemble import Wishes

    had_terminal, stays = _has_terminal(), signal.getsignal(signal.SIGHUP) == signal.SIG_IGN  # stays: nohup(1)
    pipes = [os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) for _ in range(2)]
    wishes = Wishes(end=pipes[0][0], reload=pipes[1][0])

    def asked(number: int, _: object) -> None:
        nonlocal had_terminal
        again = number == signal.SIGHUP and _has_terminal() == had_terminal
        if number == signal.SIGHUP and not again and stays:
            had_terminal = False
            return
        with contextlib.suppress(BlockingIOError):
            os.write(pipes[again][1], b".")

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield wishes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for descriptor in (descriptor for pipe in pipes for descriptor in pipe):
            os.close(descriptor)


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal that is still there (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _go_on_in(log: str) -> None:
    """Everything listens: whoever started this process need not listen any more."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    os.write(1, _READY)  # the pipe of ``start``
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)


def main() -> None:
    run_script(program)
