"""A daemon for one conversation: what it is sent is kept, what it answers is given beforehand."""

import contextlib
import os
import socket
import ssl
import threading
from pathlib import Path
from types import TracebackType

from albatross_pki.messages import Header, Message, Payload
from albatross_pki.wire.framing import FrameDecoder, frame
from albatross_pki.wire.message import decode_message, encode_message
from tests.pki_builder import Issued


class Daemon:
    """Listens on ``path``; answers the n-th connection's command with the n-th list of payloads.

    ``received`` has every payload that came, messages and chunks alike, per connection. On the connections of
    ``streams_of`` everything up to the end-of-stream mark is read before the answer is given; on others nothing but
    the command.
    """

    def __init__(self, path: Path, *answers: list[Payload], streams_of: tuple[int, ...] = ()) -> None:
        os.makedirs(path.parent, exist_ok=True)
        self.received: list[list[bytes]] = []
        self._answers = answers
        self._streams_of = streams_of
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(4)
        self._listener.settimeout(5)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Daemon":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.join(20)
        self._listener.close()
        assert not self._thread.is_alive()

    def commands(self) -> list[Message]:
        """The first message of every connection."""
        return [decode_message(payloads[0]) for payloads in self.received]

    def _serve(self) -> None:
        for answer in self._answers:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                self._converse(connection, answer)

    def _converse(self, connection: socket.socket, answer: list[Payload]) -> None:
        decoder = FrameDecoder(1 << 28)
        payloads: list[bytes] = []
        self.received.append(payloads)
        streams = len(self.received) - 1 in self._streams_of
        while not payloads or (streams and payloads[-1] != b""):
            octets = connection.recv(1 << 16)
            if not octets:
                return
            payloads += decoder.feed(octets)
        header = Header(decode_message(payloads[0]).header.name)
        with contextlib.suppress(ConnectionError):  # a client that has seen enough closes
            for payload in answer:
                connection.sendall(frame(encode_message(Message(header, payload))))


class TlsServer:
    """A TLS 1.3 server for some connections, one after the other.

    Each connection gets the next list of octets after the handshake, as they are, and is closed. ``received`` has what
    each client sent; ``refused`` counts handshakes that the client did not finish.
    """

    def __init__(
        self, directory: Path, server: Issued, root: bytes, *answers: list[bytes], waits_for: bytes = b""
    ) -> None:
        (directory / "server.pem").write_bytes(server.chain_pem)
        (directory / "server.key").write_bytes(server.key_pem)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.load_cert_chain(directory / "server.pem", directory / "server.key")
        self._context.load_verify_locations(cadata=root.decode("ascii"))
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.verify_flags |= 0x10  # our own extensions are critical (X509_V_FLAG_IGNORE_CRITICAL)
        self._answers = answers
        self._waits_for = waits_for
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(10)
        self.port = int(self._listener.getsockname()[1])
        self.received: list[bytes] = []
        self.refused = 0
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "TlsServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(20)
        self._listener.close()
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        for answer in self._answers:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(10)
            try:
                with self._context.wrap_socket(connection, server_side=True) as session:
                    self._converse(session, answer)
            except (ssl.SSLError, OSError):
                self.refused += 1
            finally:
                connection.close()

    def _converse(self, session: ssl.SSLSocket, answer: list[bytes]) -> None:
        heard = b""
        while not heard.endswith(self._waits_for):
            heard += session.recv(1 << 16)
        self.received.append(heard)
        for octets in answer:
            session.sendall(octets)
        session.unwrap()


def said(*payloads: Payload) -> list[bytes]:
    """Payloads as octets on a connection."""
    return [frame(encode_message(Message(Header(), payload))) for payload in payloads]
