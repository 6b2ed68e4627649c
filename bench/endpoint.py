"""The TLS endpoint with its authoriser, against servers that do TLS 1.3 and nothing else.

* requests per second at one and at eight clients, against a bare loop that accepts, shakes hands with the same chain
  and key type, sends one frame and closes; the clients are the same, each a process of its own;
* the same with a revocation list of 100,000 entries, against none;
* an image of 64 MB through the endpoint's spool into a daemon's descriptor, against a plain copy over TLS to a file;
* resident memory of the endpoint with idle connections, idle meaning that the handshake was not begun;
* the inetd program, from connect to answer.

The daemon behind the endpoint answers at once, so what is measured is the way there.
"""

import contextlib
import multiprocessing
import os
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from albatross_pki.commands import UnikernelCreate
from albatross_pki.transport.contexts import server_context
from albatross_pki.transport.tls import connect
from albatross_pki.unikernels import Settings, UnikernelConfig
from albatross_pki.wire.framing import frame
from bench.measure import Row, compare, shown
from tests.endpoint.deployment import Host, Program, port_of, whole_host
from tests.pki_builder import Issued, policy

QUIET = ("--verbosity", "error")
LIST_ENTRIES = 100_000
REQUESTS = 60  # for each client and round
IMAGE = 64 * 1024 * 1024
_FORK = multiprocessing.get_context("fork")


def rows() -> Iterator[Row]:
    with (
        tempfile.TemporaryDirectory() as directory,
        whole_host(Path(directory), endpoint=QUIET, authoriser=QUIET) as host,
    ):
        dev = host.deployment.root.delegate("dev", policy(memory_mb=256))
        leaf = dev.leaf("hello")
        with bare_server(host.deployment) as bare:
            for clients, bound in ((1, 1.6), (8, None)):
                yield requests_row(host, bare, leaf, clients, bound)
        with host.deployment.endpoint("--workers", "2") as two, bare_server(host.deployment) as bare:
            yield two_workers_row(two, bare, host, leaf)
        yield revocation_row(Path(directory), host, leaf)
        yield from image_rows(host, dev)
        yield memory_row(host, leaf)
        yield inetd_row(host, leaf)


def requests_row(host: Host, bare: int, leaf: Issued, clients: int, bound: float | None) -> Row:
    """Seconds for one request, so that a smaller ratio is better."""
    name = f"TLS request, {clients} client{'s' * (clients > 1)}"
    return compare(
        name,
        lambda: spread_over(clients, lambda: ask_repeatedly(host.port, leaf, host.deployment.root.pem)),
        "bare TLS 1.3 loop",
        lambda: spread_over(clients, lambda: ask_repeatedly(bare, leaf, host.deployment.root.pem)),
        at_most=bound,
        rounds=5,
    )


def two_workers_row(endpoint: Program, bare: int, host: Host, leaf: Issued) -> Row:
    root = host.deployment.root.pem
    return compare(
        "TLS requests, 8 clients, 2 workers",
        lambda: 1 / spread_over(8, lambda: ask_repeatedly(port_of(endpoint), leaf, root)),
        "bare TLS 1.3 loop",
        lambda: 1 / spread_over(8, lambda: ask_repeatedly(bare, leaf, root)),
        rounds=3,
        unit="requests/s",
    )


def revocation_row(directory: Path, plain: Host, leaf: Issued) -> Row:
    """A second host with the same root, which has a list of 100,000 entries to look into for each request."""
    root = plain.deployment.root
    other = directory / "revoking"
    (other / "crls").mkdir(parents=True)
    (other / "crls" / "root.crl").write_bytes(root.crl(range(1, LIST_ENTRIES + 1)))
    with whole_host(other, endpoint=QUIET, authoriser=QUIET, root=root) as revoking:
        ask_once(revoking.port, leaf, root.pem)  # reads the list
        return compare(
            f"TLS request, revocation list of {LIST_ENTRIES:,}",
            lambda: spread_over(1, lambda: ask_repeatedly(revoking.port, leaf, root.pem)),
            "without a list",
            lambda: spread_over(1, lambda: ask_repeatedly(plain.port, leaf, root.pem)),
            rounds=5,
        )


def ask_repeatedly(port: int, leaf: Issued, root: bytes) -> None:
    for _ in range(REQUESTS):
        with connect("127.0.0.1", port, leaf.chain_pem, leaf.key_pem, root, lambda _: ()) as connection:
            if connection.receive_frame() is None:
                raise RuntimeError("no answer")


def spread_over(clients: int, work: Callable[[], None]) -> float:
    """Seconds of wall-clock time for one of the requests that ``clients`` processes make at once."""
    start = _FORK.Barrier(clients + 1)

    def client() -> None:
        start.wait()
        work()

    processes = [_FORK.Process(target=client) for _ in range(clients)]
    for process in processes:
        process.start()
    start.wait()
    begin = perf_counter()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a client failed")
    return (perf_counter() - begin) / (clients * REQUESTS)


@contextlib.contextmanager
def bare_server(deployment: Any, serve: Callable[[ssl.SSLSocket], None] | None = None) -> Iterator[int]:
    """A process that does TLS 1.3 with the same files and verification, one connection after the other; its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def run() -> None:
        paths = [str(deployment.file(name)) for name in ("server.pem", "server.key")]
        context = server_context(paths[0], paths[1], deployment.root.pem.decode())
        answer = frame(b"x" * 32)
        while True:
            accepted, _ = listener.accept()
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError), context.wrap_socket(accepted, server_side=True) as tls:
                if serve is not None:
                    serve(tls)
                tls.sendall(answer)
                with contextlib.suppress(OSError):
                    tls.unwrap()

    process = _FORK.Process(target=run, daemon=True)
    process.start()
    try:
        yield listener.getsockname()[1]
    finally:
        process.kill()
        process.join()
        listener.close()


def image_rows(host: Host, dev: Any) -> Iterator[Row]:
    image = os.urandom(1 << 20) * (IMAGE >> 20)
    config = UnikernelConfig(b"", Settings(memory_mb=128))
    leaf = dev.leaf("hello", UnikernelCreate(config), binding=image)

    def copy(tls: ssl.SSLSocket) -> None:
        left = IMAGE
        buffer = memoryview(bytearray(128 * 1024))
        with tempfile.TemporaryFile(dir=host.deployment.tmpdir) as target:
            while left:
                count = tls.recv_into(buffer[: min(left, len(buffer))])
                target.write(buffer[:count])
                left -= count

    host.daemon.reads_images = False  # the way there is measured
    with bare_server(host.deployment, copy) as bare:
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
        ask_once(port_of(endpoint), leaf, root)
        before = endpoint.resident()
        with contextlib.ExitStack() as stack:
            for number in range(500):
                source = (f"127.0.1.{number // 20 + 1}", 0)
                stack.enter_context(socket.create_connection(("127.0.0.1", port_of(endpoint)), source_address=source))
            ask_once(port_of(endpoint), leaf, root)  # behind all of them in the queue
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
            client = _FORK.Process(target=ask_once, args=(listener.getsockname()[1], leaf, host.deployment.root.pem))
            client.start()
            accepted, _ = listener.accept()
            with accepted:
                command = [sys.executable, "-c", code, "--tmpdir", str(host.deployment.tmpdir), *files]
                server = subprocess.Popen(command, stdin=accepted.fileno(), stdout=accepted.fileno())
            client.join()
            times.append(perf_counter() - begin)
            server.wait()
    return Row("inetd: connect to answer", shown(sorted(times)[2], "s"))


def ask_once(port: int, leaf: Issued, root: bytes) -> None:
    with connect("127.0.0.1", port, leaf.chain_pem, leaf.key_pem, root, lambda _: ()) as connection:
        connection.receive_frame()
