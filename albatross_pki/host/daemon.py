"""albatrossd as a whole: put together, run until a signal, taken apart.

Start: state and directories are opened, sockets made, what the predecessor left is taken over; then connections are
accepted while what is wanted is started. End by SIGTERM or SIGINT: no further connections, every unikernel ended (or
left running), the state as it was.

SIGHUP replaces the daemon in place: the same process executes the program anew, with the sockets that it has, so that
unikernels stay its children, whoever waits for a connection goes on waiting, and nothing ends.
"""

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from albatross_pki.errors import AlbatrossError, ExitCode
from albatross_pki.host import confinement, machine
from albatross_pki.host.adoption import start_wanted, take_over
from albatross_pki.host.attachment import ConsoleAttachment
from albatross_pki.host.cgroups import open_cgroups, open_given
from albatross_pki.host.limits import (
    GARBAGE_THRESHOLD,
    HISTORY_DEPTH,
    IDLE_TIMEOUT,
    MAX_CONNECTIONS,
    MAX_EXTENDED_FRAME,
    MAX_FRAME,
    RECONNECT_FIRST,
)
from albatross_pki.host.ownership import check_owned
from albatross_pki.host.policy_book import PolicyBook
from albatross_pki.host.server import Server
from albatross_pki.host.state import State
from albatross_pki.host.statistics_link import StatisticsLink
from albatross_pki.host.supervisor import Patience, Supervisor
from albatross_pki.host.surroundings import Surroundings
from albatross_pki.transport.channel import Served, serve_unix
from albatross_pki.transport.sockets import activated_sockets, listen, raise_descriptor_limit

log = logging.getLogger(__name__)

_FIRST_PASSED = 3  # sd_listen_fds(3)
_REPLACED = "ALBATROSSD_REPLACED"  # set for ourselves alone
LOCAL_SOCKET = "vmmd.sock"
EXTENDED_SOCKET = "extended.sock"


class DirectoryMissing(AlbatrossError):
    """A directory of the host is not there or cannot be used."""

    exit_code = ExitCode.INTERNAL


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    tmpdir: str
    dbdir: str
    influx: tuple[str, int] | None = None
    activated: bool = False
    drop_path: bool = True
    keep_running: bool = False
    authorisers: frozenset[int] = frozenset()
    statisticians: frozenset[int] = frozenset()
    cgroup: str | None = None
    isolated_bridges: frozenset[str] = frozenset()
    patience: Patience = field(default_factory=Patience)
    history: int = HISTORY_DEPTH
    image_quota: int | None = None


def run(options: Options) -> None:
    """Serve until SIGTERM or SIGINT; raises ``AlbatrossError`` if the daemon cannot start."""
    _make_directories(options)
    raise_descriptor_limit()
    with _sockets(options) as (local, extended):
        with contextlib.closing(State(options.dbdir)) as state:
            again = asyncio.run(_serve(options, state, local, extended))
        if again:
            _execute_anew(local, extended)


def _make_directories(options: Options) -> None:
    """Only what belongs to albatrossd alone is made; TMPDIR and its parts are the installation's.

    Nobody else may write where the state is and tenders are looked for.
    """
    try:
        os.makedirs(os.path.join(options.dbdir, "block"), mode=0o700, exist_ok=True)
    except OSError as error:
        raise DirectoryMissing(
            f"{options.dbdir}: {os.strerror(error.errno or 0).lower()}", hint="give another one with --dbdir"
        ) from error
    check_owned(options.dbdir)
    for name in ("util", "fifo"):
        path = os.path.join(options.tmpdir, name)
        if not os.path.isdir(path):
            raise DirectoryMissing(f"{path} is not a directory", hint=f"mkdir -p {path}")


@contextlib.contextmanager
def _sockets(options: Options) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The two listening sockets: those that systemd passed, the others made and removed again."""
    replaced = os.environ.pop(_REPLACED, None) is not None
    activated = options.activated or replaced
    passed = {os.path.basename(str(each.getsockname())): each for each in activated_sockets()} if activated else {}
    made: list[str] = []
    sockets = []
    try:
        for name in (LOCAL_SOCKET, EXTENDED_SOCKET):
            path = os.path.join(options.tmpdir, "util", name)
            if name in passed:
                sockets.append(passed[name])
                if not options.activated:  # we made it, before we were replaced
                    made.append(path)
            else:
                sockets.append(listen(path))
                made.append(path)
        yield sockets[0], sockets[1]
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                os.unlink(path)
        for each in sockets:
            each.close()


def _look_for_garbage_seldom() -> None:
    """What is there by now stays; what comes is freed without being looked for, but for what an error has tied up.

    Looking at every object again and again takes a tenth of a start of many, and every request waits for it.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)


def _execute_anew(local: socket.socket, extended: socket.socket) -> NoReturn:
    """Become the program that is installed now, with the same arguments and the same sockets."""
    # out of the way of the two descriptors that sd_listen_fds(3) gives, which is also how we hand them to ourselves
    copies = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, 100) for each in (local, extended)]
    for target, copy in enumerate(copies, _FIRST_PASSED):
        os.dup2(copy, target)
        os.close(copy)
    os.environ.update({_REPLACED: "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(copies))})
    log.info("replaced in place")
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  ourselves, as we were started


async def _serve(options: Options, state: State, local: socket.socket, extended: socket.socket) -> bool:
    """Serve until a signal; whether it was the one that asks for a replacement in place."""
    stopping, again = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, lambda: _set(again, stopping))
    host = Surroundings(
        options.tmpdir,
        options.dbdir,
        drop_path=options.drop_path,
        isolated_bridges=options.isolated_bridges,
        cgroups=open_cgroups() if options.cgroup is None else open_given(options.cgroup),
    )
    confinement.gaps(host.users, host.cgroups, lambda text: log.warning("not in force: %s", text))
    supervisor = _supervisor(options, state, host)
    tasks: list[asyncio.Task[None]] = []
    try:
        tasks.append(asyncio.create_task(supervisor.console.run()))
        await _console_there(supervisor.console)
        await take_over(supervisor, state.load())
        _look_for_garbage_seldom()
        trusted = frozenset({0, os.geteuid()}) | options.authorisers
        server = Server(supervisor, trusted, options.statisticians)
        served = Served()
        if options.influx is not None:
            from albatross_pki.host.domain_metrics import metrics_of

            tasks.append(asyncio.create_task(metrics_of(supervisor, options.influx, served).push()))
        for listener, handler, limit in (
            (local, server.local, MAX_FRAME),
            (extended, server.extended, MAX_EXTENDED_FRAME),
        ):
            serving = serve_unix(
                listener,
                handler,
                max_connections=MAX_CONNECTIONS,
                limit=limit,
                idle_timeout=IDLE_TIMEOUT,
                trusted=trusted,
                served=served,
            )
            tasks.append(asyncio.create_task(serving))
        supervisor.background(start_wanted(supervisor))
        log.info("listening on %s", os.path.join(options.tmpdir, "util"))
        await _until(stopping, tasks)
    finally:
        failed = not stopping.is_set()  # a part of the daemon did: the next one goes on with what runs
        await supervisor.shut_down(keep_running=options.keep_running or again.is_set() or failed)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        host.close()
    return again.is_set()


async def _console_there(console: ConsoleAttachment) -> None:
    """Wait for a moment if there is a console, so that it gets the first lines of what is about to start."""
    if os.path.exists(console.path):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECONNECT_FIRST):
                await console.connected.wait()


def _supervisor(options: Options, state: State, host: Surroundings) -> Supervisor:
    root = machine.discover(os.path.join(options.dbdir, "block"), host.bridges())
    log.info("root policy: %s", root)
    book = PolicyBook(root, reserve_mb=machine.reserve_mb(root.memory_mb))
    console = ConsoleAttachment(os.path.join(options.tmpdir, "util", "console.sock"))
    return Supervisor(
        host,
        state,
        book,
        console,
        StatisticsLink(),
        patience=options.patience,
        keep=options.history,
        image_quota=options.image_quota,
    )


def _set(*events: asyncio.Event) -> None:
    for each in events:
        each.set()


async def _until(stopping: asyncio.Event, tasks: list["asyncio.Task[None]"]) -> None:
    """Until the signal, or until a part of the daemon fails that never should."""
    signalled = asyncio.create_task(stopping.wait())
    done, _ = await asyncio.wait([signalled, *tasks], return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    for each in done - {signalled}:
        each.result()
