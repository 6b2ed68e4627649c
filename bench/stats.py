"""The processor time of one pass of albatross-stats over 1,000 processes, against reading their files and nothing else.

Each process is a ``sleep``; one subscriber listens to all of them, and the samples are encoded and sent to it.
"""

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator

from albatross_pki.host.console_subscriber import Subscriber
from albatross_pki.host.stats import Audience, Watched
from albatross_pki.host.stats_sampling import read_process, start_ticks
from albatross_pki.host.stats_server import INTERVAL, StatsServer
from albatross_pki.names import Name
from bench.measure import Row, compare

PROCESSES = 1000
ROUNDS = 7


def rows() -> Iterator[Row]:
    """One row: a pass over all processes; it must take well under the interval between two passes."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(sleeping()) for _ in range(PROCESSES)]
        pids = [process.pid for process in processes]
        yield compare(
            f"processor time of a statistics pass over {PROCESSES:,} processes, every {INTERVAL:g} s",
            lambda: asyncio.run(one_pass(pids)),
            "reading their files",
            lambda: reading(pids),
            at_most=8,
            rounds=ROUNDS,
        )


@contextlib.contextmanager
def sleeping() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that does nothing until it is killed."""
    process = subprocess.Popen(["/bin/sleep", "3600"], close_fds=False)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def reading(pids: list[int]) -> float:
    begin = time.process_time()
    for pid in pids:
        read_process(pid)
    return time.process_time() - begin


async def one_pass(pids: list[int]) -> float:
    """Processor seconds of a pass whose samples go to one subscriber that reads them all."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        audience: Audience[Subscriber] = Audience()
        subscriber = Subscriber(ours, 1 << 24, lambda _: b"")
        audience.subscribe(Name(), subscriber)
        for number, pid in enumerate(pids):
            audience.watch(Name.parse(f"dev:u{number}"), Watched(pid, start_ticks(read_process(pid)), ()))
        server = StatsServer("", frozenset(), audience=audience)
        begin = time.process_time()
        await server.sample(audience.wanted())
        taken = time.process_time() - begin
        subscriber.close()
    return taken
