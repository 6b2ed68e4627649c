"""Figures for Prometheus, for whoever asks on a loopback port or a unix socket of our own.

``render`` makes the text (exposition format 0.0.4) of what is counted. Serving takes one small request, whatever it
says, within a deadline, and answers it; nothing of a request is believed or shown.
"""

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from albatross_pki.errors import AlbatrossError
from albatross_pki.transport.sockets import listen

_REQUEST_OCTETS = 4096
_REQUEST_SECONDS = 5.0
_SERVED_AT_ONCE = 4
_MOST_REASONS = 64


@dataclass
class Counters:
    """What the endpoint counts. Octets are those on the wire, seconds those from accept to close."""

    connections: int = 0
    open: int = 0
    requests: int = 0
    refused_requests: int = 0
    refused_handshakes: dict[str, int] = field(default_factory=dict)
    received: int = 0
    sent: int = 0
    seconds: float = 0.0

    def refuse_handshake(self, reason: str) -> None:
        """Count a refusal; reasons come from OpenSSL, so that their number is bounded here."""
        known = reason if reason in self.refused_handshakes or len(self.refused_handshakes) < _MOST_REASONS else "other"
        self.refused_handshakes[known] = self.refused_handshakes.get(known, 0) + 1


def render(counters: Counters) -> str:
    """The figures as Prometheus reads them."""
    lines: list[str] = []
    for name, kind, text, value in (
        ("connections_total", "counter", "accepted connections", counters.connections),
        ("connections_open", "gauge", "connections that are open", counters.open),
        ("requests_total", "counter", "requests that a daemon was asked for", counters.requests),
        ("requests_refused_total", "counter", "requests refused after the handshake", counters.refused_requests),
        ("received_octets_total", "counter", "octets received", counters.received),
        ("sent_octets_total", "counter", "octets sent", counters.sent),
        ("session_seconds_total", "counter", "seconds from accept to close", f"{counters.seconds:.3f}"),
    ):
        lines += [*_heading(name, kind, text), f"albatross_endpoint_{name} {value}"]
    lines += _heading("handshakes_refused_total", "counter", "handshakes that came to no end, by reason")
    for reason, count in sorted(counters.refused_handshakes.items()):
        lines.append(f'albatross_endpoint_handshakes_refused_total{{reason="{_label(reason)}"}} {count}')
    return "\n".join(lines) + "\n"


def _heading(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP albatross_endpoint_{name} {text}", f"# TYPE albatross_endpoint_{name} {kind}"]


def _label(text: str) -> str:
    return "".join(character for character in text if character.isalnum() or character in " -.,()'")[:80]


def listen_for_metrics(address: str, worker: int = 0) -> socket.socket:
    """A listener at ``PORT``, ``IP:PORT`` (loopback alone) or a path; raises ``AlbatrossError``.

    Each worker has a listener of its own: the next port, or the path with its number behind it.
    """
    if "/" in address:
        return listen(f"{address}.{worker}" if worker else address, 0o660)
    host, _, port = address.rpartition(":")
    try:
        ip = ipaddress.ip_address(host.strip("[]") or "127.0.0.1")
        number = int(port)
    except ValueError as error:
        raise AlbatrossError(f"{address} is no address for metrics", hint="say PORT, IP:PORT or a path") from error
    if not ip.is_loopback:
        raise AlbatrossError(f"metrics are for this host alone, and {ip} is not a loopback address")
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(ip), number + worker if number else 0))
        listener.listen(16)
    except OSError as error:
        listener.close()
        reason = os.strerror(error.errno or 0).lower()
        raise AlbatrossError(f"cannot listen on {address} for metrics: {reason}") from error
    listener.setblocking(False)
    return listener


async def serve_metrics(listener: socket.socket, text: Callable[[], str]) -> None:
    """Answer everybody with ``text()`` for ever."""
    loop = asyncio.get_running_loop()
    places = asyncio.Semaphore(_SERVED_AT_ONCE)
    tasks: set[asyncio.Task[None]] = set()

    async def answer(connection: socket.socket) -> None:
        with connection:
            connection.setblocking(False)
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_REQUEST_SECONDS):
                    request = b""
                    while b"\r\n\r\n" not in request and len(request) < _REQUEST_OCTETS:
                        octets = await loop.sock_recv(connection, _REQUEST_OCTETS)
                        if not octets:
                            break
                        request += octets
                    await loop.sock_sendall(connection, _response(text()))
        places.release()

    while True:
        await places.acquire()
        connection, _ = await loop.sock_accept(listener)
        task = asyncio.ensure_future(answer(connection))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def _response(text: str) -> bytes:
    body = text.encode("ascii", "replace")
    head = f"HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode("ascii") + body
