"""The TLS endpoint with its authoriser, against servers that do TLS 1.3 and nothing else.

* seconds for a request at one and at eight clients, against a bare loop that accepts, shakes hands with the same chain
  and key type, sends one frame and closes; the clients are the same, each a process of its own, and make a request as
  ``albatross-client`` does;
* with two workers, by clients that take as little time as they can (they have the same processors): requests per
  second, and the processor time of one request in endpoint and authoriser. Whoever has its clients elsewhere gets as
  many requests from a processor as fit that time;
* the same with a revocation list of 100,000 entries, against none;
* an image of 64 MB through the endpoint's spool into a daemon's descriptor, against a plain copy over TLS to a file;
* resident memory of the endpoint with idle connections, idle meaning that the handshake was not begun;
* the inetd program, from connect to answer.

The daemon behind the endpoint answers at once and looks at nothing, so what is measured is the way there.
"""

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from albatross_pki.commands import UnikernelCreate
from albatross_pki.transport.tls import connect
from albatross_pki.unikernels import Settings, UnikernelConfig
from bench.measure import Row, compare, compared, shown
from bench.tls_load import FORK, ask, asking, bare_server, daemon_that_answers, processor_seconds, spread_over
from tests.endpoint.deployment import Deployment, Host, port_of, whole_host
from tests.pki_builder import Authority, Issued, policy

QUIET = ("--verbosity", "error")
LIST_ENTRIES = 100_000
REQUESTS = 60  # for each client and round
IMAGE = 64 * 1024 * 1024
WORKERS = 2
RATE = 650  # requests per second of two workers on two processors


@contextlib.contextmanager
def host_in(directory: Path, root: Authority | None = None) -> Iterator[Host]:
    """Endpoint and authoriser, and in albatrossd's place what answers at once."""
    with (
        whole_host(directory, endpoint=QUIET, authoriser=QUIET, root=root, extended=False) as host,
        daemon_that_answers(host.deployment.socket_path("extended.sock")),
    ):
        yield host


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as directory, host_in(Path(directory)) as host:
        dev = host.deployment.root.delegate("dev", policy(memory_mb=256))
        leaf = dev.leaf("hello")
        for clients, bound in ((1, 1.6), (8, None)):
            yield requests_row(host, leaf, clients, bound)
        yield from two_workers_rows(host, leaf)
        yield revocation_row(Path(directory), host, leaf)
        yield from image_rows(host, dev)
        yield memory_row(host, leaf)
        yield inetd_row(host, leaf)


def requests_row(host: Host, leaf: Issued, clients: int, bound: float | None) -> Row:
    """Seconds for one request, so that a smaller ratio is better."""
    root = host.deployment.root.pem
    with bare_server(host.deployment) as (bare, _):
        return compare(
            f"TLS request, {clients} client{'s' * (clients > 1)}",
            lambda: spread_over(clients, REQUESTS, lambda: ask(host.port, leaf, root)),
            "bare TLS 1.3 loop",
            lambda: spread_over(clients, REQUESTS, lambda: ask(bare, leaf, root)),
            at_most=bound,
            rounds=7 if clients == 1 else 5,
        )


def two_workers_rows(host: Host, leaf: Issued) -> Iterator[Row]:
    """Of the same runs: requests per second, and the processor time that one of them takes."""
    root, deployment = host.deployment.root.pem, host.deployment
    rates: list[tuple[float, float]] = []
    costs: list[tuple[float, float]] = []
    with deployment.endpoint("--workers", str(WORKERS), *QUIET) as two, bare_server(deployment) as (bare, pid):
        ours, theirs = asking(port_of(two), leaf, root), asking(bare, leaf, root)

        def spent() -> tuple[float, float]:
            endpoint, authoriser, alone = map(processor_seconds, (two.process.pid, host.authoriser.process.pid, pid))
            return endpoint + authoriser, alone

        for _ in range(6):
            before = spent()
            rates.append((1 / spread_over(8, REQUESTS, ours), 1 / spread_over(8, REQUESTS, theirs)))
            after = spent()
            costs.append(((after[0] - before[0]) / (8 * REQUESTS), (after[1] - before[1]) / (8 * REQUESTS)))
    yield compared(f"TLS requests, 8 clients, {WORKERS} workers", rates[1:], "bare TLS 1.3 loop", unit="requests/s")
    per_request = WORKERS / RATE
    row = compared("processor time of a TLS request, endpoint and authoriser", costs[1:], "bare TLS 1.3 loop")
    cost = median(cost for cost, _ in costs[1:])
    yield replace(
        row,
        value=f"{row.value} ({WORKERS / cost:.0f}/s on {WORKERS} processors)",
        bound=f"> {RATE}/s on {WORKERS}",
        met=cost < per_request,
    )


def revocation_row(directory: Path, plain: Host, leaf: Issued) -> Row:
    """A second host with the same root, which has a list of 100,000 entries to look into for each request."""
    root = plain.deployment.root
    other = directory / "revoking"
    (other / "crls").mkdir(parents=True)
    (other / "crls" / "root.crl").write_bytes(root.crl(range(1, LIST_ENTRIES + 1)))
    with host_in(other, root) as revoking:
        ask(revoking.port, leaf, root.pem)  # reads the list
        return compare(
            f"TLS request, revocation list of {LIST_ENTRIES:,}",
            lambda: spread_over(1, REQUESTS, lambda: ask(revoking.port, leaf, root.pem)),
            "without a list",
            lambda: spread_over(1, REQUESTS, lambda: ask(plain.port, leaf, root.pem)),
            rounds=5,
        )


@contextlib.contextmanager
def copying(deployment: Deployment) -> Iterator[int]:
    """A server that copies as many octets as an image has to a file, and answers; its port."""

    def copy(tls: ssl.SSLSocket) -> None:
        left = IMAGE
        buffer = memoryview(bytearray(128 * 1024))
        with tempfile.TemporaryFile(dir=deployment.tmpdir) as target:
            while left:
                count = tls.recv_into(buffer[: min(left, len(buffer))])
                target.write(buffer[:count])
                left -= count

    with bare_server(deployment, copy) as (port, _):
        yield port


def image_rows(host: Host, dev: Any) -> Iterator[Row]:
    image = os.urandom(1 << 20) * (IMAGE >> 20)
    config = UnikernelConfig(b"", Settings(memory_mb=128))
    leaf = dev.leaf("hello", UnikernelCreate(config), binding=image)

    with copying(host.deployment) as bare:
        yield compare(
            "image of 64 MB",
            lambda: throughput(host.port, leaf, host.deployment.root.pem, image, framed=True),
            "plain TLS copy",
            lambda: throughput(bare, leaf, host.deployment.root.pem, image, framed=False),
            at_least=0.7,
            rounds=5,
            unit="MiB/s",
        )
    yield Row("endpoint's memory after images of 64 MB", f"{host.endpoint.resident() >> 20} MiB resident")


def throughput(port: int, leaf: Issued, root: bytes, image: bytes, *, framed: bool) -> float:
    begin = perf_counter()
    with connect("127.0.0.1", port, leaf.chain_pem, leaf.key_pem, root, lambda _: ()) as connection:
        if framed:
            connection.send_stream(image)
        else:
            connection.send_raw(image)
        if connection.receive_frame() is None:
            raise RuntimeError("no answer")
    return len(image) / (1 << 20) / (perf_counter() - begin)


def memory_row(host: Host, leaf: Issued) -> Row:
    """Connections from many addresses, because one address has a bound of its own."""
    with host.deployment.endpoint("--connections", "600") as endpoint:
        root = host.deployment.root.pem
        ask(port_of(endpoint), leaf, root)
        before = endpoint.resident()
        with contextlib.ExitStack() as stack:
            for number in range(500):
                source = (f"127.0.1.{number // 20 + 1}", 0)
                stack.enter_context(socket.create_connection(("127.0.0.1", port_of(endpoint)), source_address=source))
            ask(port_of(endpoint), leaf, root)  # behind all of them in the queue
            after = endpoint.resident()
    each = (after - before) / 500 / 1024
    return Row(
        "endpoint's memory with 500 idle connections",
        f"{after >> 20} MiB resident, {each:.1f} kB each",
        f"without them {before >> 20} MiB",
    )


def inetd_row(host: Host, leaf: Issued) -> Row:
    """From connect to answer, the program's start included."""
    files = host.deployment.credentials
    code = "from albatross_pki.endpoint.inetd_cli import main; main()"
    times = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(5):
            begin = perf_counter()
            client = FORK.Process(target=ask, args=(listener.getsockname()[1], leaf, host.deployment.root.pem))
            client.start()
            accepted, _ = listener.accept()
            with accepted:
                command = [sys.executable, "-c", code, "--tmpdir", str(host.deployment.tmpdir), *files]
                server = subprocess.Popen(command, stdin=accepted.fileno(), stdout=accepted.fileno())
            client.join()
            times.append(perf_counter() - begin)
            server.wait()
    return Row("inetd: connect to answer", shown(sorted(times)[2], "s"))
