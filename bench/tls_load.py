"""What the endpoint is measured with: clients, a server that does TLS alone, a daemon that only answers.

All of them are processes of their own, forked from the bench, and gone when it leaves.
"""

import contextlib
import multiprocessing
import os
import selectors
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

from albatross_pki.authorised import Effect, Outcome, Remembered
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import Text
from albatross_pki.transport.contexts import client_context, server_context
from albatross_pki.transport.sockets import close_all
from albatross_pki.transport.tls import connect
from albatross_pki.wire.framing import frame
from albatross_pki.wire.message import encode_message
from albatross_pki.wire.side import encode_side
from tests.endpoint.deployment import Deployment
from tests.pki_builder import Issued

FORK = multiprocessing.get_context("fork")
_ASK_REMEMBERED = 0xA7  # the tag of what the authoriser asks now and then, wire/side.py
_REQUEST_OCTETS = 64 * 1024


@contextlib.contextmanager
def running(work: Callable[[], None], *ours: socket.socket) -> Iterator[int]:
    """``work`` in a process, until the end of the block; its pid. ``ours`` are closed at the end."""
    process = FORK.Process(target=work, daemon=True)
    process.start()
    try:
        yield process.pid or 0
    finally:
        process.kill()
        process.join()
        for each in ours:
            each.close()


@contextlib.contextmanager
def bare_server(
    deployment: Deployment, serve: Callable[[ssl.SSLSocket], None] | None = None
) -> Iterator[tuple[int, int]]:
    """TLS 1.3 with the same files and verification, one connection after the other; its port and pid."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def work() -> None:
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

    with running(work, listener) as pid:
        yield listener.getsockname()[1], pid


@contextlib.contextmanager
def daemon_that_answers(path: Path) -> Iterator[None]:
    """In albatrossd's place at ``path``: every request gets the same octets, so that the way there is measured."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    answer = frame(encode_message(Message(Header(Name.parse("dev:hello")), Text("done"))))
    outcome = frame(encode_side(Outcome(True, Effect.NONE, "done")))
    remembered = frame(encode_side(Remembered(())))

    def respond(connection: socket.socket) -> bool:
        octets, descriptors, _, _ = socket.recv_fds(connection, _REQUEST_OCTETS, 4)
        if octets[4:5] == bytes([_ASK_REMEMBERED]):
            connection.sendall(remembered)
        elif octets:
            os.write(descriptors[0], answer)
            connection.sendall(outcome)
        close_all(descriptors)
        return bool(octets)

    def work() -> None:
        events = selectors.DefaultSelector()
        events.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in events.select():
                if key.fileobj is listener:
                    events.register(listener.accept()[0], selectors.EVENT_READ)
                elif isinstance(key.fileobj, socket.socket) and not respond(key.fileobj):
                    events.unregister(key.fileobj)
                    key.fileobj.close()

    try:
        with running(work, listener):
            yield
    finally:
        path.unlink()


def ask(port: int, leaf: Issued, root: bytes) -> None:
    """One request as our own client makes it."""
    with connect("127.0.0.1", port, leaf.chain_pem, leaf.key_pem, root, lambda _: ()) as connection:
        if connection.receive_frame() is None:
            raise RuntimeError("no answer")


def asking(port: int, leaf: Issued, root: bytes) -> Callable[[], None]:
    """A client that reads its files once, and takes little more time than its handshakes."""
    context = client_context(leaf.chain_pem, leaf.key_pem, root)

    def asked() -> None:
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with context.wrap_socket(connection) as tls:
            if not tls.recv(4096):
                raise RuntimeError("no answer")
            while tls.recv(4096):
                pass

    return asked


def spread_over(clients: int, requests: int, request: Callable[[], None]) -> float:
    """Seconds of wall-clock time for one of the ``requests`` that each of the ``clients``, all processes, make."""
    start = FORK.Barrier(clients + 1)

    def client() -> None:
        start.wait()
        for _ in range(requests):
            request()

    processes = [FORK.Process(target=client) for _ in range(clients)]
    for process in processes:
        process.start()
    start.wait()
    begin = perf_counter()
    for process in processes:
        process.join()
    taken = perf_counter() - begin
    if any(process.exitcode for process in processes):
        raise RuntimeError("a client failed")
    return taken / (clients * requests)


def processor_seconds(pid: int) -> float:
    """Processor time of all threads of a process and of its children, as the scheduler counted it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = sum(int((task / "schedstat").read_text().split()[0]) / 1e9 for task in Path(f"/proc/{pid}/task").iterdir())
    return own + sum(processor_seconds(int(child)) for child in children)
