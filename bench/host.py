"""albatrossd: deployments beside what runs already, starts beside bare spawning, and what each unikernel costs.

Every row starts daemons of its own in a temporary directory and leaves nothing behind.
"""

import contextlib
import itertools
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from albatross_pki.authorised import LocalRequest
from albatross_pki.commands import Command, PolicyAdd, UnikernelCreate, UnikernelDestroy, UnikernelInfoRequest
from albatross_pki.extensions import Start, Stop
from albatross_pki.host.spt.attached import Confinement
from albatross_pki.host.spt.compose import compose
from albatross_pki.host.spt.spawn import spawn
from albatross_pki.image.solo5 import parse_image
from albatross_pki.names import Name
from albatross_pki.policies import Policy
from albatross_pki.replies import Text, Unikernels
from albatross_pki.transport.blocking import Connection
from albatross_pki.unikernels import Settings, UnikernelConfig
from albatross_pki.wire.side import encode_side
from bench.measure import Row, compare, spread
from tests.host.running import Daemon, directories

HELLO = (Path(__file__).parents[1] / "examples" / "unikernels" / "hello.spt").read_bytes()
CREATE = UnikernelCreate(UnikernelConfig(HELLO, Settings(memory_mb=2)))
MANY = 1000
PROBES = 75  # each waits for the disk, whose latency has a long tail: the median of few says little


def rows() -> Iterator[Row]:
    """All rows; about a minute."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        empty, full = Daemon(Path(directory, "e")), Daemon(Path(directory, "f"))
        try:
            for each in (empty, full):
                _run_in_memory(each, stack)
                each.start()
            yield _start(empty)
            yield from _beside_others(empty, full)
            yield from _restore(full)
        finally:
            empty.close()
            full.close()
        yield from _large_image(Path(directory))


def _run_in_memory(host: Daemon, stack: contextlib.ExitStack) -> None:
    """Sockets and fifos are in a file system in memory, as /run is on a host; state and images are on the disk."""
    if os.path.isdir("/dev/shm"):  # noqa: S108  a directory of our own below it
        memory = stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm"))
        shutil.rmtree(host.tmpdir)
        os.symlink(memory, host.tmpdir)
        directories(host.root)


def _start(host: Daemon) -> Row:
    """``start`` of a stopped unikernel, from the connection to the answer, against making the same process."""
    host.ask("probe:start", CREATE)
    composed = compose(parse_image(HELLO), HELLO, 2, b"--name=start", (), Confinement(title="bench"))
    name = Name.parse("probe:start")

    def ours() -> float:
        _ask_extended(host, name, Stop())
        begin = time.perf_counter()
        _ask_extended(host, name, Start())
        return time.perf_counter() - begin

    def theirs() -> float:
        """The same process, made and known to be there: it has said something."""
        reader, writer = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, writer, 1)]
        begin = time.perf_counter()
        pid = os.posix_spawn(f"/proc/self/fd/{composed}", ["bench"], {}, file_actions=actions)
        os.read(reader, 4096)
        seconds = time.perf_counter() - begin
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for each in (reader, writer):
            os.close(each)
        return seconds

    try:
        return compare(
            "start of hello, command to answer", ours, "posix_spawn of the composed file, until it says hello", theirs,
            at_most=2, rounds=PROBES,
        )  # fmt: skip
    finally:
        os.close(composed)
        host.ask("probe:start", UnikernelDestroy())


def _ask_extended(host: Daemon, name: Name, command: Stop | Start) -> None:
    """Have a command done that AV5 has no word for."""
    with Connection(host.socket("extended.sock"), timeout=20) as connection:
        connection.send_payload(encode_side(LocalRequest(name, command)))
        answer = connection.receive()
    if answer is None or not isinstance(answer.payload, Text):
        raise RuntimeError(f"{command}: {answer}")


def _beside_others(empty: Daemon, full: Daemon) -> Iterator[Row]:
    before = _resident(full)
    for target in (100, MANY):
        fill(full, target)
        yield compare(
            f"create to answer, {target} running",
            lambda: create_once(full),
            "none running",
            lambda: create_once(empty),
            at_most=1.2,
            rounds=PROBES,
        )
    each = (_resident(full) - before) / MANY
    yield Row(
        f"albatrossd's memory for each of {MANY} unikernels",
        f"{each:.0f} kB",
        ratio=each / 100,
        bound="≤ 100 kB",
        met=each <= 100,
    )
    yield _policy(full)


def _policy(host: Daemon) -> Row:
    """A policy that differs from the one before, so that each is written, against the floor: one write to that disk."""
    numbers = itertools.count(64)
    floor = os.path.join(host.dbdir, "bench")

    def ours() -> float:
        return _timed(host, "p:", PolicyAdd(Policy(frozenset({0}), 1, next(numbers))))

    def theirs() -> float:
        descriptor = os.open(floor, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            begin = time.perf_counter()
            os.write(descriptor, bytes(4096))
            os.fsync(descriptor)
            return time.perf_counter() - begin
        finally:
            os.close(descriptor)

    try:
        return compare(f"add a policy, {MANY} running", ours, "4 kB to the disk", theirs, rounds=PROBES)
    finally:
        os.unlink(floor)


def _restore(full: Daemon) -> Iterator[Row]:
    took, bare = [], []
    for _ in range(4):
        full.stop()
        begin = time.perf_counter()
        full.start()
        last = max(f"m:h{number}" for number in range(MANY))
        while full.ask(last, UnikernelInfoRequest()) == Unikernels(()):  # asking for all would be a part of the work
            time.sleep(0.005)
        took.append(time.perf_counter() - begin)
        bare.append(spawn_bare(MANY))
    ratio = median(took) / median(bare)
    yield Row(
        f"start {MANY} unikernels at boot",
        f"{median(took):.2f} s",
        f"compose and spawn in a bare loop {median(bare):.2f} s",
        ratio,
        "≤ 2x",
        ratio <= 2,
        spread(took),
    )
    begin = time.perf_counter()
    for number in range(MANY):
        full.ask(f"m:h{number}", UnikernelDestroy())
    took_to_destroy = time.perf_counter() - begin
    yield Row(f"destroy {MANY} unikernels, one after the other", f"{took_to_destroy:.2f} s")


def _large_image(directory: Path) -> Iterator[Row]:
    """Octets written to disk for a create whose image is there already."""
    image = HELLO + os.urandom(10 << 20)
    command = UnikernelCreate(UnikernelConfig(image, Settings(memory_mb=32)))
    host = Daemon(directory / "l")
    try:
        host.start()
        host.ask("m:first", command)
        before = _written(host)
        host.ask("m:second", command)
        octets = _written(host) - before
        yield Row(
            "written to disk for a 10 MB image that is there",
            f"{octets / 1024:.0f} kB",
            ratio=octets / 65536,
            bound="≤ 64 kB",
            met=octets <= 65536,
        )
    finally:
        host.close()


def fill(host: Daemon, target: int) -> None:
    """Have ``target`` unikernels."""
    for number in range(len(host.running()), target):
        host.ask(f"m:h{number}", CREATE)


def create_once(host: Daemon) -> float:
    """Seconds from a create to its answer; the unikernel is destroyed again."""
    seconds = _timed(host, "probe:one", CREATE)
    host.ask("probe:one", UnikernelDestroy())
    return seconds


def spawn_bare(count: int) -> float:
    """Seconds to compose and spawn ``count`` unikernels in a loop, with nothing kept of them."""
    pids = []
    with open(os.devnull, "wb") as console:
        begin = time.perf_counter()
        for number in range(count):
            settings = Confinement(title=f"bare{number}", cpuids=frozenset({0}))
            composed = compose(parse_image(HELLO), HELLO, 2, b"--name=bare", (), settings)
            pids.append(spawn(composed, console_fd=console.fileno()))
            os.close(composed)
        seconds = time.perf_counter() - begin
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return seconds


def _timed(host: Daemon, name: str, command: Command) -> float:
    begin = time.perf_counter()
    host.ask(name, command)
    return time.perf_counter() - begin


def _resident(host: Daemon) -> int:
    """Kilobytes."""
    assert host.process is not None
    with open(f"/proc/{host.process.pid}/status", encoding="ascii") as source:
        return next(int(line.split()[1]) for line in source if line.startswith("VmRSS:"))


def _written(host: Daemon) -> int:
    """Octets that the daemon has caused to be written to a disk."""
    assert host.process is not None
    with open(f"/proc/{host.process.pid}/io", encoding="ascii") as source:
        return next(int(line.split()[1]) for line in source if line.startswith("write_bytes:"))
