"""The endpoint's listening side: who gets a place, what is loaded, and how it ends.

A connection gets a place if there is one in total (else it waits in the kernel's queue) and one for its address, an
IPv4 address or an IPv6 /64 (else it gets the alert ``access_denied``, which costs nothing, and is closed). While all
places are taken, whoever has been in a handshake for longest makes room, after a moment that is enough for those who
mean it: strangers with many addresses cannot hold all places by saying nothing. The server's
certificate, its key and the roots are loaded at the start and whenever ``reload`` is called: connections that are there
go on with what they began with, and files that cannot be used leave everything as it was.
"""

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import ssl
import stat
from collections import Counter
from dataclasses import dataclass

from albatross_pki.endpoint.asking import AuthoriserLinks
from albatross_pki.endpoint.bounds import EndpointBounds
from albatross_pki.endpoint.client_session import ClientSession, Surroundings
from albatross_pki.endpoint.metrics import Counters
from albatross_pki.endpoint.spool import Spool
from albatross_pki.errors import AlbatrossError
from albatross_pki.files import read_file
from albatross_pki.pem import certificates
from albatross_pki.transport.contexts import server_context
from albatross_pki.transport.tls_stream import StreamBounds, TlsStream

_DENIED = bytes.fromhex("15030300020231")  # RFC 8446 5.1 and 6: an alert record, fatal, access_denied
_PAUSE_SECONDS = 0.2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Files:
    """Paths of PEM files: the roots, the server's certificate chain, its key."""

    anchors: str
    certificate: str
    key: str


class Credentials:
    """What is loaded from ``Files``; raises ``AlbatrossError``."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.context, self.anchors = self._load()

    def reload(self) -> None:
        """Load again; what is of no use leaves everything as it was."""
        try:
            self.context, self.anchors = self._load()
        except (AlbatrossError, OSError) as error:
            log.error("certificate, key and roots stay as they were: %s", error)
        else:
            log.info("certificate, key and roots are reloaded")

    def _load(self) -> tuple[ssl.SSLContext, frozenset[bytes]]:
        check_key_mode(self._files.key)
        anchors = certificates(read_file(self._files.anchors), self._files.anchors)
        context = server_context(self._files.certificate, self._files.key, b"".join(dict.fromkeys(anchors)))
        return context, frozenset(anchors)


def check_key_mode(path: str) -> None:
    """Refuse a private key that others may read; raises ``AlbatrossError``."""
    mode = os.stat(path).st_mode
    if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP:
        raise AlbatrossError(f"others than its owner may use the private key {path}", hint=f"chmod 0400 {path}")


@dataclass(frozen=True, slots=True)
class _Beginning:
    """A session that may still be in its handshake, and since when."""

    stream: TlsStream
    at: float


class Endpoint:
    """One worker: serves the clients of its listening sockets until it is cancelled."""

    def __init__(self, credentials: Credentials, tmpdir: str, spool: Spool, bounds: EndpointBounds) -> None:
        self.bounds = bounds
        self.counters = Counters()
        self._credentials = credentials
        self._links = AuthoriserLinks(os.path.join(tmpdir, "util", "authorise.sock"), bounds)
        self._around = Surroundings(self._links, spool, bounds, lambda: credentials.anchors, self.counters)
        self._places = asyncio.Semaphore(bounds.connections)
        self._large = asyncio.Semaphore(bounds.large_handshakes)
        self._addresses: Counter[str] = Counter()
        self._large_of: dict[str, asyncio.Semaphore] = {}
        self._handshaking: dict[asyncio.Task[None], _Beginning] = {}  # oldest first; some are over
        self._sessions: set[asyncio.Task[None]] = set()

    def reload(self) -> None:
        self._credentials.reload()

    async def serve(self, listeners: list[socket.socket]) -> None:
        """Accept from all of ``listeners`` for ever; cancelling this ends every session."""
        try:
            await asyncio.gather(*(self._accept_all(listener) for listener in listeners))
        finally:
            for session in self._sessions:
                session.cancel()
            await asyncio.gather(*self._sessions, return_exceptions=True)
            self._links.close()

    async def serve_one(self, connection: socket.socket, peer: str) -> None:
        """Serve a connection that somebody else accepted (inetd)."""
        await ClientSession(self._stream(connection, peer), peer, self._around).serve()
        self._links.close()

    async def _accept_all(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._place()
            try:
                connection, address = await loop.sock_accept(listener)
            except OSError as error:  # no descriptors left, or the client went away already
                self._places.release()
                log.warning("cannot accept: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            except BaseException:
                self._places.release()
                raise
            self._begin(connection, address)

    async def _place(self) -> None:
        """Take a place; while there is none, those who do not come to the end of their handshake are pushed out."""
        while self._places.locked():
            try:
                async with asyncio.timeout(self._push_out()):
                    await self._places.acquire()
                    return
            except TimeoutError:
                continue
        await self._places.acquire()

    def _push_out(self) -> float | None:
        """End the oldest handshake if it had its time; how many seconds until one has, ``None`` if nobody is in one."""
        now = asyncio.get_running_loop().time()
        for session, beginning in list(self._handshaking.items()):
            if session.done() or beginning.stream.established:
                del self._handshaking[session]
                continue
            left = beginning.at + self.bounds.crowded_seconds - now
            if left > 0:
                return left
            del self._handshaking[session]
            self.counters.refuse_handshake("pushed out by newcomers")
            session.cancel()
            return None
        return None

    def _begin(self, connection: socket.socket, address: object) -> None:
        peer, group = describe_address(address)
        self.counters.connections += 1
        if self._addresses[group] >= self.bounds.connections_per_address:
            self._deny(connection, peer)
            self._places.release()
            return
        self._addresses[group] += 1
        stream = self._stream(connection, group)
        session = asyncio.ensure_future(ClientSession(stream, peer, self._around).serve())
        self._handshaking[session] = _Beginning(stream, asyncio.get_running_loop().time())
        self._sessions.add(session)
        session.add_done_callback(lambda done: self._ended(done, group))

    def _ended(self, session: "asyncio.Task[None]", group: str) -> None:
        self._sessions.discard(session)
        self._handshaking.pop(session, None)
        self._places.release()
        self._addresses[group] -= 1
        if not self._addresses[group]:
            del self._addresses[group]
            self._large_of.pop(group, None)
        if not session.cancelled() and session.exception() is not None:
            log.error("a session failed", exc_info=session.exception())

    def _deny(self, connection: socket.socket, peer: str) -> None:
        self.counters.refuse_handshake("too many connections of one address")
        log.info("%s: more than %d connections of one address", peer, self.bounds.connections_per_address)
        with connection, contextlib.suppress(OSError):
            connection.setblocking(False)
            connection.send(_DENIED)

    def _stream(self, connection: socket.socket, group: str) -> TlsStream:
        connection.setblocking(False)
        with contextlib.suppress(OSError):  # a unix socket in a test, or a connection that is gone
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return TlsStream(connection, self._credentials.context, self._stream_bounds(group))

    def _stream_bounds(self, group: str) -> StreamBounds:
        bounds = self.bounds
        of_address = self._large_of.setdefault(group, asyncio.Semaphore(bounds.large_handshakes_per_address))
        return StreamBounds(
            handshake_seconds=bounds.handshake_seconds,
            large_handshake_seconds=bounds.large_handshake_seconds,
            idle_seconds=bounds.idle_seconds,
            drain_seconds=bounds.drain_seconds,
            drain_octets=bounds.drain_octets,
            certificate_octets=bounds.certificate_octets,
            large=self._large,
            large_of_address=of_address,
        )


def describe_address(address: object) -> tuple[str, str]:
    """How a peer is shown, and what is counted together: an IPv4 address, an IPv6 /64, or everything local."""
    if not isinstance(address, tuple):
        return "local", "local"
    host = str(address[0]).partition("%")[0]
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host, host
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if isinstance(ip, ipaddress.IPv4Address):
        return f"{ip}:{address[1]}", str(ip)
    return f"[{ip}]:{address[1]}", str(ipaddress.ip_network((ip, 64), strict=False))


def listen_tcp(ip: str, port: int, backlog: int) -> socket.socket:
    """A listening TCP socket; ``::`` takes IPv4 as well. Raises ``AlbatrossError``."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((ip, port))
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise AlbatrossError(f"cannot listen on {ip} port {port}: {(error.strerror or str(error)).lower()}") from error
    listener.setblocking(False)
    return listener
