"""``albatross-host``: all daemons of a host in one terminal, in one directory, as root or not.

``run`` stays in the foreground until Ctrl-C or SIGTERM, and starts programs again that end by themselves. ``start`` is
``run`` in the background and returns when everything listens; ``stop`` ends it and returns when everything is gone.
``doctor`` says what this machine can do.

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
from collections.abc import Iterator
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
    from albatross_pki.host.ensemble import Program
    from albatross_pki.host.separation import Tls

_FLOCK = struct.Struct("hhqqi4x")  # struct flock of fcntl(2) on 64-bit Linux
_LOCK_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # whatever somebody has put in its place
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
@click.option("--ready-descriptor", type=int, hidden=True)
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
    ready_descriptor: int | None,
) -> int:
    from albatross_pki.host.ensemble import Ensemble, prepare

    directory = prepare(directory)
    tls = _tls(ca, cert, key, ip, port)
    with _locked(directory), _signals() as wake:
        ensemble = Ensemble(directory)
        try:
            wanted = _programs(directory, tls, keep_running=keep_running, statistics=stats, one_user=one_user)
            ensemble.start(wanted)
            for each in wanted:
                click.echo(printable(f"{each.word}: {', '.join(_where(listening) for listening in each.ready)}"))
            _tell_ready(ready_descriptor)
            ended = ensemble.watch(wake, lambda text: say("warning", text))
            if ended is not None:
                say("error", f"{ended} ended by itself again and again: {ensemble.last_words(ended)}")
        finally:
            for word in ensemble.stop():
                say("warning", f"{word} did not end and was killed")
        return ExitCode.OK if ended is None else ExitCode.INTERNAL


def _programs(
    directory: str, tls: "Tls | None", *, keep_running: bool, statistics: bool, one_user: bool
) -> "tuple[Program, ...]":
    """What is to run, as users of their own if this is root and that is possible."""
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
                    return divided(directory, users, readable, keep_running=keep_running, statistics=statistics)
            say("warning", f"all programs run as root, P37 is not in force: {reason}")
        separation.unite(directory)
    return programs(directory, tls, keep_running=keep_running, statistics=statistics)


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
    ready, told = os.pipe()
    log_path = os.path.join(directory, "log", "albatross-host.log")
    with open(log_path, "ab") as log:
        begin = log.tell()
        process = subprocess.Popen(
            [*arguments, "--ready-descriptor", str(told)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(told,),
            start_new_session=True,
        )
    os.close(told)
    with open(ready, "rb") as answer:
        is_ready = answer.read() == b"ready\n"
    with open(log_path, encoding="utf-8", errors="replace") as log_text:
        log_text.seek(begin)
        click.echo(log_text.read(), nl=False, err=not is_ready)
    if is_ready:
        process.returncode = 0  # it goes on without us
        return ExitCode.OK
    return process.wait()


@program.command(help="End the daemons of a directory; returns when they are gone.")
@_directory
def stop(directory: str) -> None:
    pid = _holder(directory)
    if pid is None:
        raise AlbatrossError(f"nobody runs {os.path.abspath(directory)}")
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            if _holder(directory) == pid:  # still the same process, which the descriptor now stands for
                signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            if not select.select([descriptor], [], [], STOP_TIMEOUT)[0]:
                raise AlbatrossError(f"process {pid} has not ended after {STOP_TIMEOUT:g} seconds")
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
def _signals() -> Iterator[int]:
    """A descriptor that becomes readable at SIGINT or SIGTERM."""
    readable, writable = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def asked(*_: object) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(writable, b".")

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield readable
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(readable)
        os.close(writable)


def _tell_ready(descriptor: int | None) -> None:
    if descriptor is not None:
        os.write(descriptor, b"ready\n")
        os.close(descriptor)


def main() -> None:
    run_script(program)
