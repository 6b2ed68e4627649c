"""The client's end of TLS against servers that a test plays: honest ones, impostors, and those that break off."""

import contextlib
import io
import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from albatross_pki.commands import UnikernelCreate
from albatross_pki.errors import AlbatrossError, ExitCode
from albatross_pki.transport.alerts import CertificateRefused, ServerRefused, meaning
from albatross_pki.transport.contexts import client_context, server_context
from albatross_pki.transport.errors import ConnectionCut, TimedOut, TransportError, Unreachable
from albatross_pki.transport.openssl import (
    DEFAULT_CERTIFICATE_LIST_LIMIT,
    presented_chain,
    raise_certificate_list_limit,
    verified_chain,
)
from albatross_pki.transport.session import TlsSession
from albatross_pki.transport.streams import ChunkDecoder
from albatross_pki.transport.tls import CHUNK, connect
from albatross_pki.unikernels import Settings, UnikernelConfig
from albatross_pki.wire.framing import frame
from tests.pki_builder import NOW, Authority, Issued

Serve = Callable[[socket.socket], None]
ROOT = Authority.root()
SERVER = ROOT.server()
LEAF = ROOT.delegate("dev").leaf("hello")


def nothing_against(_: list[bytes]) -> tuple[str, ...]:
    return ()


@contextlib.contextmanager
def listening(serve: Serve) -> Iterator[int]:
    """A server for one connection, in a thread; its port."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(20)
                serve(connection)
        except BaseException as error:  # noqa: BLE001  shown below
            errors.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(30)
    if errors:
        raise errors[0]


def tls_server(serve: Callable[[ssl.SSLSocket], None], directory: Path, trusted: Authority = ROOT) -> Serve:
    """A server with OpenSSL's own loop on its socket, so that ours has somebody else at the other end."""
    files = directory / "server.pem", directory / "server.key"
    for path, octets in zip(files, (SERVER.chain_pem, SERVER.key_pem), strict=True):
        path.write_bytes(octets)
    context = server_context(str(files[0]), str(files[1]), trusted.pem)

    def run(connection: socket.socket) -> None:
        with (
            contextlib.suppress(ssl.SSLError, ConnectionError),
            context.wrap_socket(connection, server_side=True) as tls,
        ):
            serve(tls)

    return run


def dial(port: int, leaf: Issued = LEAF, trusted: Authority = ROOT) -> object:
    with connect("127.0.0.1", port, leaf.chain_pem, leaf.key_pem, trusted.pem, nothing_against) as connection:
        return connection.receive_frame(seconds=20)


def test_an_answer_arrives_and_the_end_behind_it_is_orderly(tmp_path: Path) -> None:
    def serve(tls: ssl.SSLSocket) -> None:
        tls.sendall(frame(b"one") + frame(b"two"))
        tls.unwrap()

    with (
        listening(tls_server(serve, tmp_path)) as port,
        connect("127.0.0.1", port, LEAF.chain_pem, LEAF.key_pem, ROOT.pem, nothing_against) as connection,
    ):
        assert [connection.receive_frame() for _ in range(3)] == [b"one", b"two", None]


def test_p15_an_impostor_receives_not_one_octet_behind_the_hello(tmp_path: Path) -> None:
    received: list[bytes] = []
    judged: list[list[bytes]] = []
    files = tmp_path / "server.pem", tmp_path / "server.key"
    for path, octets in zip(files, (SERVER.chain_pem, SERVER.key_pem), strict=True):
        path.write_bytes(octets)

    def impostor(connection: socket.socket) -> None:
        session = TlsSession(server_context(str(files[0]), str(files[1]), ROOT.pem))
        session.feed(connection.recv(65536))
        assert not session.handshake()
        connection.sendall(session.outgoing())
        while octets := connection.recv(65536):
            received.append(octets)

    def judge(chain: list[bytes]) -> list[str]:
        judged.append(chain)
        return ["it is an impostor", "and it is for another host"]

    with listening(impostor) as port, pytest.raises(ServerRefused) as refused:
        connect("127.0.0.1", port, LEAF.chain_pem, LEAF.key_pem, ROOT.pem, judge)
    assert received == []
    assert judged == [[SERVER.der, ROOT.der]]
    assert refused.value.reasons == ("it is an impostor", "and it is for another host")
    assert refused.value.exit_code is ExitCode.REMOTE_AUTHENTICATION


def test_p15_a_server_of_another_root_is_refused_before_the_judge_is_asked(tmp_path: Path) -> None:
    other = Authority.root("other")
    with listening(tls_server(lambda tls: None, tmp_path)) as port, pytest.raises(ServerRefused):
        dial(port, trusted=other)


@pytest.mark.parametrize(
    ("leaf", "trusted", "text"),
    [
        (Authority.root("other").leaf("hello"), ROOT, "does not know the CA"),
        (ROOT.leaf("hello", not_after=NOW - timedelta(minutes=1)), ROOT, "not valid at this time"),
        (ROOT.leaf("hello", not_before=NOW + timedelta(hours=1)), ROOT, "refused our certificate"),
    ],
)
def test_p29_an_alert_is_shown_as_what_it_means(tmp_path: Path, leaf: Issued, trusted: Authority, text: str) -> None:
    with listening(tls_server(lambda tls: None, tmp_path, trusted)) as port:
        with pytest.raises(CertificateRefused, match=text) as refused:
            dial(port, leaf)
        assert refused.value.exit_code is ExitCode.LOCAL_AUTHENTICATION


@pytest.mark.parametrize("how", ["closing alert", "cut", "cut within a frame"])
def test_p29_an_end_without_an_answer_is_an_error(tmp_path: Path, how: str) -> None:
    def serve(tls: ssl.SSLSocket) -> None:
        if how == "closing alert":
            tls.unwrap()
        elif how == "cut within a frame":
            tls.sendall(frame(b"x" * 10)[:-1])

    with listening(tls_server(serve, tmp_path)) as port, pytest.raises(ConnectionCut, match="without an answer"):
        dial(port)


def test_p05_a_silent_server_is_waited_for_no_longer_than_asked(tmp_path: Path) -> None:
    over = threading.Event()

    def silent(_: ssl.SSLSocket) -> None:
        over.wait(20)

    with (
        listening(tls_server(silent, tmp_path)) as port,
        connect("127.0.0.1", port, LEAF.chain_pem, LEAF.key_pem, ROOT.pem, nothing_against) as connection,
    ):
        with pytest.raises(TimedOut):
            connection.receive_frame(seconds=0.05)
        over.set()


def test_p05_a_handshake_that_never_goes_on_ends() -> None:
    over = threading.Event()

    def silent(_: socket.socket) -> None:
        over.wait(20)

    with listening(silent) as port:
        with pytest.raises(TimedOut, match="handshake"):
            connect(
                "127.0.0.1",
                port,
                LEAF.chain_pem,
                LEAF.key_pem,
                ROOT.pem,
                nothing_against,
                handshake_seconds=0.05,
            )
        over.set()


def test_p29_an_upload_stops_at_the_answer_and_the_answer_is_not_lost(tmp_path: Path) -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return bytes(size)

    def serve(tls: ssl.SSLSocket) -> None:
        tls.recv(1000)
        tls.sendall(frame(b"refused"))
        socket.socket.shutdown(tls, socket.SHUT_WR)
        with contextlib.suppress(ssl.SSLError, OSError):
            while tls.recv(65536):
                pass

    with (
        listening(tls_server(serve, tmp_path)) as port,
        connect("127.0.0.1", port, LEAF.chain_pem, LEAF.key_pem, ROOT.pem, nothing_against) as connection,
    ):
        assert connection.send_stream(Endless()) is False  # type: ignore[arg-type]
        assert connection.receive_frame() == b"refused"


def test_who_does_not_speak_tls_is_named_so() -> None:
    def web(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with listening(web) as port, pytest.raises(TransportError, match="TLS failed"):
        dial(port)


def test_nobody_there_and_no_such_name_are_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Unreachable, match="connection refused") as refused:
        dial(port)
    assert refused.value.exit_code is ExitCode.CONNECT
    with pytest.raises(Unreachable, match="resolved"):
        connect("no.such.host.invalid", 1025, LEAF.chain_pem, LEAF.key_pem, ROOT.pem, nothing_against)


def test_a_key_that_does_not_belong_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(AlbatrossError, match="does not belong"):
        client_context(LEAF.chain_pem, SERVER.key_pem, ROOT.pem)
    with pytest.raises(AlbatrossError, match="CA certificates"):
        client_context(LEAF.chain_pem, LEAF.key_pem, "no PEM at all")


def test_unknown_alerts_still_have_words() -> None:
    error = ssl.SSLError(1, "[SSL: TLSV1_ALERT_SOMETHING_NEW] something")
    error.reason = "TLSV1_ALERT_SOMETHING_NEW"
    assert "something new" in str(meaning(error))


def memory_pair(leaf: Issued, limit: int | None) -> tuple[TlsSession, ssl.SSLError | None]:
    """A server's session after a handshake in memory, with its certificate limit changed or not."""
    with tempfile.NamedTemporaryFile() as chain, tempfile.NamedTemporaryFile() as key:
        chain.write(SERVER.chain_pem)
        key.write(SERVER.key_pem)
        chain.flush()
        key.flush()
        server = TlsSession(server_context(chain.name, key.name, ROOT.pem))
    client = TlsSession(client_context(leaf.chain_pem, leaf.key_pem, ROOT.pem), server_name="")
    if limit is not None:
        assert raise_certificate_list_limit(server.object, limit)
    try:
        for _ in range(4):
            client.handshake()
            server.feed(client.outgoing() or b"")
            if server.handshake():
                return server, None
            client.feed(server.outgoing())
    except ssl.SSLError as error:
        return server, error
    raise AssertionError("the handshake came to no end")


def big_leaf(octets: int) -> Issued:
    image = bytes(range(256)) * (octets // 256)
    return ROOT.leaf("hello", UnikernelCreate(UnikernelConfig(image, Settings())))


def test_a_certificate_over_openssls_limit_needs_the_limit_raised() -> None:
    leaf = big_leaf(DEFAULT_CERTIFICATE_LIST_LIMIT + 1024)
    _, error = memory_pair(leaf, None)
    assert error is not None
    assert error.reason == "EXCESSIVE_MESSAGE_SIZE"
    server, error = memory_pair(leaf, 1 << 20)
    assert error is None
    assert verified_chain(server.object) == [leaf.der, ROOT.der]
    assert presented_chain(server.object)[0] == leaf.der


@pytest.mark.parametrize("key_type", ["ed25519", "p256", "p384", "p521", "rsa2048"])
def test_the_verified_chain_is_right_for_every_key_type(key_type: str) -> None:
    leaf = ROOT.delegate("dev", key_type=key_type).leaf("hello", key_type=key_type)
    server, error = memory_pair(leaf, None)
    assert error is None
    assert verified_chain(server.object) == [*leaf.ders, ROOT.der]


def test_the_limit_of_a_context_is_that_of_its_connections() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert raise_certificate_list_limit(context, 123_456)


@pytest.mark.parametrize("octets", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
@pytest.mark.parametrize("buffered", [True, False])
def test_a_stream_is_the_source_whatever_its_length(octets: int, buffered: bool, tmp_path: Path) -> None:
    """A source that fills buffers, and one that only gives octets; progress is told each octet of it once."""

    class Giving:
        def __init__(self, source: io.BytesIO) -> None:
            self.read = source.read

    content = os.urandom(octets)
    came: list[bytes] = []

    def serve(tls: ssl.SSLSocket) -> None:
        decoder, received = ChunkDecoder(), b""
        while not decoder.ended:
            received += b"".join(decoder.feed(memoryview(tls.recv(1 << 20))))
        came.append(received)
        tls.sendall(frame(b"done"))

    told: list[int] = []
    with (
        listening(tls_server(serve, tmp_path)) as port,
        connect("127.0.0.1", port, LEAF.chain_pem, LEAF.key_pem, ROOT.pem, nothing_against) as connection,
    ):
        source = io.BytesIO(content) if buffered else cast(BinaryIO, Giving(io.BytesIO(content)))
        assert connection.send_stream(source, progress=told.append)
        assert connection.receive_frame() == b"done"
    assert came == [content]
    assert sum(told) == octets
