"""What daemons tell about themselves: Albatross' measurements, tags and fields, to whoever takes them."""

import asyncio
import contextlib
import logging
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path as FilePath

import pytest

from albatross_pki.commands import BlockAdd, PolicyAdd, UnikernelDestroy
from albatross_pki.host import own_metrics
from albatross_pki.host.domain_metrics import DomainMetrics
from albatross_pki.host.own_metrics import MAX_DOMAINS, LogCounter, OwnMetrics, line
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.policy.tree import ResourceTree
from albatross_pki.transport.channel import Served
from albatross_pki.unikernels import Settings
from tests.host.running import create, daemon

DEADLINE = 20.0
POLICY = Policy(frozenset({0}), 3, 64, 5)
USAGE_FIELDS = (
    "utime stime maxrss ixrss idrss isrss minflt maxflt nswap inblock outblock msgsnd msgrcv nsignals nvcsw nivcsw"
)
MEMORY_FIELDS = "vsize rss tsize dsize ssize cow_faults runtime uptime"


def fields(text: str) -> list[str]:
    """The names of the fields of one line."""
    return [each.partition("=")[0] for each in re.split(r"(?<!\\),", re.split(r"(?<!\\) ", text)[1])]


def domains(*policies: tuple[str, Policy], metrics: DomainMetrics, tree: ResourceTree | None = None) -> list[str]:
    pairs = [(Path.parse(path), policy) for path, policy in policies]
    return list(metrics.lines(pairs, tree or ResourceTree(), [], {}, []))


def test_a_line_is_escaped() -> None:
    assert line("x", "albatross", {"maximum unikernels": 3}, domain="a,b c=d") == (
        r"x,vm=albatross,domain=a\,b\ c\=d maximum\ unikernels=3i"
    )


def test_the_lines_of_a_process_are_those_of_albatross() -> None:
    served = Served(2, 7)
    batch = OwnMetrics("albatross_console", ("127.0.0.1", 1), {"unix": served, "fifo": Served(1, 1)}).batch()
    usage, memory, logs, unix, fifo = batch.decode().splitlines()
    assert usage.startswith("resource_usage,vm=albatross_console utime=")
    assert fields(usage) == USAGE_FIELDS.split()
    assert memory.startswith("kinfo_mem,vm=albatross_console vsize=")
    assert fields(memory) == MEMORY_FIELDS.split()
    assert logs == "logs,vm=albatross_console warnings=0i,errors=0i"
    assert unix == "connections,vm=albatross_console,kind=unix active=2i,total=7i"
    assert fifo == "connections,vm=albatross_console,kind=fifo active=1i,total=1i"


def test_warnings_and_errors_are_counted() -> None:
    counter = LogCounter()
    for level in (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        record = logging.LogRecord("x", level, "", 0, "text", None, None)
        if level >= counter.level:
            counter.handle(record)
    assert (counter.warnings, counter.errors) == (1, 2)


def test_policies_and_what_is_used_by_domain() -> None:
    tree = ResourceTree()
    web = Name.parse("dev:web")
    tree.add(web, Settings(memory_mb=32))
    tree.add_block(Name.parse("dev:one"), 3)
    tree.add_block(Name.parse("dev:two"), 2)
    blocks = {Name.parse("dev:one"): 3, Name.parse("dev:two"): 2}
    found = DomainMetrics().lines([(Path.parse("dev"), POLICY)], tree, [web], blocks, [Name.parse("dev:one")])
    used = r"attached\ used\ block=3i,unattached\ used\ block=2i,total\ used\ block=5i"
    assert list(found) == [
        r"albatross-policies,vm=albatross,domain=dev maximum\ unikernels=3i,maximum\ memory=64i,maximum\ block=5i",
        rf"albatross-unikernels,vm=albatross,domain=: {used},running\ unikernels=1i,used\ memory=32i",
        rf"albatross-unikernels,vm=albatross,domain=dev {used},running\ unikernels=1i,used\ memory=32i",
    ]


def test_a_policy_that_is_gone_is_told_once_more_with_zeros() -> None:
    metrics = DomainMetrics()
    assert len(domains(("a", POLICY), ("b", POLICY), metrics=metrics)) == 2
    gone = domains(("b", POLICY), metrics=metrics)
    assert gone[1:] == [
        r"albatross-policies,vm=albatross,domain=a maximum\ unikernels=0i,maximum\ memory=0i,maximum\ block=0i"
    ]
    assert len(domains(("b", POLICY), metrics=metrics)) == 1


def test_p04_the_number_of_domains_is_bounded_and_the_outermost_are_told() -> None:
    many = [(f"dev:u{number}", POLICY) for number in range(MAX_DOMAINS)]
    told = domains(*many, ("dev", POLICY), metrics=DomainMetrics())
    assert len(told) == MAX_DOMAINS
    assert ",domain=dev " in told[0]


@contextlib.contextmanager
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(DEADLINE)
        yield server


def heard(server: socket.socket, last: bytes) -> str:
    """What comes on the next connection up to a line that begins with ``last``."""
    connection, _ = server.accept()
    with connection, connection.makefile("rb") as stream:
        text = b""
        for each in stream:
            text += each
            if each.startswith(last):
                break
        return text.decode()


def test_p06_it_is_pushed_again_whoever_went_away_meanwhile() -> None:
    async def body() -> None:
        with listener() as server:
            metrics = OwnMetrics("albatross", server.getsockname(), {})
            pushing = asyncio.create_task(metrics.push(interval=0.01))
            for _ in range(3):
                assert "resource_usage" in await asyncio.to_thread(heard, server, b"logs")
            pushing.cancel()
            await asyncio.gather(pushing, return_exceptions=True)

    asyncio.run(body())
    assert not any(isinstance(each, LogCounter) for each in logging.getLogger().handlers)


def test_it_goes_on_while_nobody_listens_and_serving_is_not_disturbed() -> None:
    async def body() -> None:
        with listener() as server:
            address = server.getsockname()
        served: list[object] = []
        metrics = OwnMetrics("albatross", address, {})

        async def serve(it: socket.socket) -> None:
            async with asyncio.timeout(DEADLINE):
                while not metrics.logged.warnings:  # nobody listens any more: the first push has failed
                    await asyncio.sleep(0.01)
            served.append(it)

        with listener() as own:
            await metrics.beside(serve)(own)
            assert served == [own]

    asyncio.run(body())


@pytest.mark.parametrize(
    ("program", "vm", "kinds"),
    [("console_cli", "albatross_console", ["unix", "fifo"]), ("stats_cli", "albatross_stats", ["unix"])],
)
def test_the_console_and_the_statistics_push(tmp_path: FilePath, program: str, vm: str, kinds: list[str]) -> None:
    for name in ("util", "fifo"):
        (tmp_path / name).mkdir()
    with listener() as server:
        code = f"from albatross_pki.host.{program} import main; main()"
        where = f"127.0.0.1:{server.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-c", code, "--tmpdir", str(tmp_path), "--influx", where], stdout=subprocess.DEVNULL
        )
        try:
            text = heard(server, f"connections,vm={vm},kind={kinds[-1]}".encode())
        finally:
            process.terminate()
            assert process.wait(DEADLINE) == 0
    assert f"resource_usage,vm={vm} utime=" in text
    assert [f"connections,vm={vm},kind={kind} " in text for kind in kinds] == [True] * len(kinds)


def test_albatrossd_pushes_what_is_allowed_and_used(tmp_path: FilePath) -> None:
    with listener() as server:
        before = "from albatross_pki.host import own_metrics; own_metrics.OwnMetrics.push.__defaults__ = (0.05,)"
        where = f"127.0.0.1:{server.getsockname()[1]}"
        with daemon(tmp_path, "--influx", where, before=before) as host:
            label = host.label()
            host.ask("dev:", PolicyAdd(POLICY))
            host.ask("dev:vol", BlockAdd(2))
            host.ask(f"dev:{label}", create())
            running = rb"albatross-unikernels,vm=albatross,domain=dev "
            deadline = time.monotonic() + DEADLINE
            while True:
                text = heard(server, running)
                found = next((each for each in text.splitlines() if each.startswith(running.decode())), "")
                if r"running\ unikernels=1i" in found:
                    break
                assert time.monotonic() < deadline, text
            assert r"unattached\ used\ block=2i" in found
            assert r"used\ memory=2i" in found
            assert r"albatross-policies,vm=albatross,domain=dev maximum\ unikernels=3i" in text
            assert "connections,vm=albatross,kind=unix active=" in text
            host.ask(f"dev:{label}", UnikernelDestroy())


def test_the_interval_is_albatross_own() -> None:
    assert own_metrics.INTERVAL == 10.0
