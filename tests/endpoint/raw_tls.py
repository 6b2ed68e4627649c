"""A raw TLS 1.3 client for tests: its messages are written out by hand, so that each of them can be wrong (RFC 8446).

Record layer and key schedule are tlslite-ng's.
"""

import socket
import struct
import warnings
from dataclasses import dataclass
from typing import Any

from tests.pki_builder import Issued

with warnings.catch_warnings():
    # tlslite offers an integration with asyncore, and importing anything of it imports that
    warnings.filterwarnings("ignore", "The asyncore module is deprecated", DeprecationWarning)
    from tlslite.handshakehashes import HandshakeHashes
    from tlslite.keyexchange import ECDHKeyExchange, KeyExchange
    from tlslite.messages import Message
    from tlslite.recordlayer import RecordLayer
    from tlslite.utils.cryptomath import HKDF_expand_label, derive_secret, secureHMAC

CCS, ALERT, HANDSHAKE, APPLICATION = 20, 21, 22, 23
UNEXPECTED_MESSAGE, BAD_RECORD_MAC, RECORD_OVERFLOW, HANDSHAKE_FAILURE = 10, 20, 22, 40
ILLEGAL_PARAMETER, DECODE_ERROR, DECRYPT_ERROR, PROTOCOL_VERSION = 47, 50, 51, 70
MISSING_EXTENSION, CERTIFICATE_REQUIRED = 109, 116
CLOSE_NOTIFY, USER_CANCELED = 0, 90
AES_128_GCM_SHA256, X25519, ED25519 = 0x1301, 29, 0x0807
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")  # RFC 8446 4.1.3
SERVER_HELLO, ENCRYPTED_EXTENSIONS, CERTIFICATE_REQUEST, FINISHED = 2, 8, 13, 20
Extensions = list[tuple[int, bytes]]


def vector(octets: bytes, length: int) -> bytes:
    """``octets`` behind their count in ``length`` octets."""
    return len(octets).to_bytes(length, "big") + octets


def message(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + vector(body, 3)


def record(kind: int, body: bytes, version: int = 0x0301) -> bytes:
    return struct.pack("!BHH", kind, version, len(body)) + body


class End(Exception):
    """How the endpoint ended the connection; ``alert`` is None if without any."""

    def __init__(self, alert: int | None) -> None:
        super().__init__(alert)
        self.alert = alert


@dataclass(frozen=True)
class Received:
    kind: int
    octets: bytes


class Peer:
    """A client; its handshake goes on only as far as a check tells it to."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.layer = RecordLayer(self.socket)
        self.layer.client = True
        self.layer.version, self.layer.tls13record = (3, 4), True
        self.exchange = ECDHKeyExchange(X25519, (3, 4))
        self.private = self.exchange.get_random_private_key()
        self.share = bytes(self.exchange.calc_public_value(self.private))
        self.transcript = HandshakeHashes()
        self.messages: list[int] = []  # kinds, in the order they came
        self._pending = b""

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    # the hello

    def extensions(self) -> Extensions:
        share = struct.pack("!H", X25519) + vector(self.share, 2)
        return [
            (43, vector(b"\x03\x04", 1)),
            (10, vector(struct.pack("!H", X25519), 2)),
            (13, vector(struct.pack("!H", ED25519), 2)),
            (51, vector(share, 2)),
        ]

    def hello(
        self, extensions: Extensions | None = None, *, compression: bytes = b"\0", version: int = 0x0303
    ) -> bytes:
        listed = self.extensions() if extensions is None else extensions
        encoded = b"".join(struct.pack("!H", kind) + vector(body, 2) for kind, body in listed)
        body = struct.pack("!H", version) + bytes(32) + vector(b"", 1)
        body += vector(struct.pack("!HH", AES_128_GCM_SHA256, 0xC02B), 2) + vector(compression, 1)
        return message(1, body + vector(encoded, 2))

    def raw(self, octets: bytes) -> None:
        self.socket.sendall(octets)

    def send(self, kind: int, octets: bytes) -> None:
        """One record, protected once there are keys."""
        for _ in self.layer.sendRecord(Message(kind, bytearray(octets))):
            pass

    def say(self, octets: bytes) -> None:
        """One handshake message in a record of its own."""
        self.transcript.update(octets)
        self.send(HANDSHAKE, octets)

    # what comes

    def receive(self) -> Received:
        """The next record other than ChangeCipherSpec; raises ``End``."""
        while True:
            try:
                found: Any = next(item for item in self.layer.recvRecord() if item not in (0, 1))
            except OSError as error:
                if isinstance(error, TimeoutError):
                    raise
                raise End(None) from error
            except Exception as error:
                if type(error).__name__ == "TLSAbruptCloseError":
                    raise End(None) from error
                raise
            header, parser = found
            octets = bytes(parser.bytes)
            if header.type == ALERT:
                raise End(octets[1])
            if header.type != CCS:
                return Received(header.type, octets)

    def handshake_message(self) -> bytes:
        while len(self._pending) < 4 or len(self._pending) < 4 + int.from_bytes(self._pending[1:4], "big"):
            got = self.receive()
            assert got.kind == HANDSHAKE
            self._pending += got.octets
        end = 4 + int.from_bytes(self._pending[1:4], "big")
        found, self._pending = self._pending[:end], self._pending[end:]
        self.messages.append(found[0])
        return found

    # the handshake

    def server_flight(self) -> None:
        """Everything up to the server's Finished; afterwards what is sent is protected with the handshake's keys."""
        hello = self.handshake_message()
        assert hello[0] == SERVER_HELLO
        self.transcript.update(hello)
        at = hello.index(struct.pack("!HHHH", 51, 36, X25519, 32)) + 8
        secret = secureHMAC(bytearray(32), bytearray(32), "sha256")
        secret = derive_secret(secret, bytearray(b"derived"), None, "sha256")
        shared = self.exchange.calc_shared_key(self.private, bytearray(hello[at : at + 32]))
        secret = secureHMAC(secret, shared, "sha256")
        self.client_secret = derive_secret(secret, bytearray(b"c hs traffic"), self.transcript, "sha256")
        server_secret = derive_secret(secret, bytearray(b"s hs traffic"), self.transcript, "sha256")
        self.layer.calcTLS1_3PendingState(AES_128_GCM_SHA256, self.client_secret, server_secret, ["python"])
        self.layer.changeReadState()
        while True:
            found = self.handshake_message()
            self.transcript.update(found)
            if found[0] == ENCRYPTED_EXTENSIONS:
                self.encrypted_extensions = found[4:]
            if found[0] == FINISHED:
                break
        self.layer.changeWriteState()
        secret = derive_secret(secret, bytearray(b"derived"), None, "sha256")
        self.master = secureHMAC(secret, bytearray(32), "sha256")
        self.application = [
            derive_secret(self.master, bytearray(label), self.transcript, "sha256")
            for label in (b"c ap traffic", b"s ap traffic")
        ]
        # a server protects its alerts with these from its Finished on
        self.layer.calcTLS1_3PendingState(AES_128_GCM_SHA256, *self.application, ["python"])
        self.layer.changeReadState()

    def begin(self) -> None:
        hello = self.hello()
        self.transcript.update(hello)
        self.raw(record(HANDSHAKE, hello))
        self.server_flight()

    def certificate(self, ders: list[bytes]) -> bytes:
        entries = b"".join(vector(der, 3) + vector(b"", 2) for der in ders)
        return message(11, vector(b"", 1) + vector(entries, 3))

    def verify(self, leaf: Issued) -> bytes:
        """CertificateVerify over what was said so far."""
        signed = KeyExchange.calcVerifyBytes((3, 4), self.transcript, (8, 7), None, None, None, "sha256", b"client")
        return message(15, struct.pack("!H", ED25519) + vector(leaf.key.sign(bytes(signed)), 2))

    def finished(self) -> bytes:
        key = HKDF_expand_label(self.client_secret, b"finished", b"", 32, "sha256")
        return message(FINISHED, bytes(secureHMAC(key, self.transcript.digest("sha256"), "sha256")))

    def introduce(self, leaf: Issued) -> None:
        self.say(self.certificate(leaf.ders))
        self.say(self.verify(leaf))

    def protect(self) -> None:
        """From here on what is sent has the keys for application data."""
        self.layer.changeWriteState()

    def finish(self, leaf: Issued) -> None:
        self.introduce(leaf)
        self.say(self.finished())
        self.protect()

    def rest(self) -> tuple[list[Received], int | None]:
        """All records until the end, and the alert there."""
        records = []
        while True:
            try:
                records.append(self.receive())
            except End as end:
                return records, end.alert


def without(extensions: Extensions, kind: int) -> Extensions:
    return [extension for extension in extensions if extension[0] != kind]


def answered(peer: Peer) -> list[bytes]:
    """The application data up to a closing alert; nothing else may come, tickets least of all (RFC 8446 4.6.1)."""
    records, alert = peer.rest()
    assert alert == CLOSE_NOTIFY
    assert {item.kind for item in records} == {APPLICATION}
    return [item.octets for item in records]
