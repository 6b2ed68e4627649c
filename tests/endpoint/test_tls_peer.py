"""What a raw TLS 1.3 client may get wrong, octet by octet, and the alert that the endpoint gives for it (RFC 8446).

The peer here is made of tlslite-ng's record layer and key schedule; its messages are written out by hand, so that each
can be wrong. After every check somebody who behaves is served.
"""

import socket
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from albatross_pki.commands import UnikernelCreate
from albatross_pki.replies import Text
from albatross_pki.unikernels import Settings, UnikernelConfig
from albatross_pki.wire.framing import END_OF_STREAM, frame
from tests.endpoint.deployment import Host, whole_host
from tests.pki_builder import Issued, policy

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


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    options = ("-v", "--handshake-seconds", "5", "--connections-per-address", "400")
    with whole_host(tmp_path_factory.mktemp("peer"), endpoint=options) as made:
        yield made


@pytest.fixture(scope="module")
def leaf(host: Host) -> Issued:
    return host.deployment.root.delegate("dev").leaf("hello")


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


Hello = Callable[[Peer], bytes]


def changed(*, kind: int | None = None, body: bytes | None = None, **how: Any) -> Hello:
    """A hello with the extension ``kind`` left out, or with ``body`` in its place."""

    def make(peer: Peer) -> bytes:
        extensions = without(peer.extensions(), kind) if kind is not None else peer.extensions()
        if kind is not None and body is not None:
            extensions.append((kind, body))
        return peer.hello(extensions, **how)

    return make


def trailing(peer: Peer) -> bytes:
    hello = peer.hello()
    return message(1, hello[4:] + b"x")


HELLOS: dict[str, tuple[Hello, int]] = {
    "TLS 1.0": (changed(kind=43, version=0x0301), PROTOCOL_VERSION),
    "TLS 1.1": (changed(kind=43, version=0x0302), PROTOCOL_VERSION),
    "TLS 1.2, or no supported_versions": (changed(kind=43), PROTOCOL_VERSION),
    "TLS 1.2 in supported_versions": (changed(kind=43, body=b"\x02\x03\x03"), PROTOCOL_VERSION),
    "a version nobody knows": (changed(kind=43, body=b"\x02\x7f\x7f"), PROTOCOL_VERSION),
    "empty supported_versions": (changed(kind=43, body=b"\0"), DECODE_ERROR),
    "deflate and null": (changed(compression=b"\1\0"), ILLEGAL_PARAMETER),
    "deflate alone": (changed(compression=b"\1"), ILLEGAL_PARAMETER),
    "no key_share": (changed(kind=51), MISSING_EXTENSION),
    "no supported_groups": (changed(kind=10), MISSING_EXTENSION),
    "no signature_algorithms": (changed(kind=13), MISSING_EXTENSION),
    "no signature algorithm in common": (changed(kind=13, body=b"\0\2\x02\x01"), HANDSHAKE_FAILURE),
    "a share of the wrong length": (
        changed(kind=51, body=vector(struct.pack("!H", X25519) + vector(b"x" * 31, 2), 2)),
        ILLEGAL_PARAMETER,
    ),
    "a share of zeros": (
        changed(kind=51, body=vector(struct.pack("!H", X25519) + vector(bytes(32), 2), 2)),
        ILLEGAL_PARAMETER,
    ),
    "an extension twice": (lambda peer: peer.hello(peer.extensions() + peer.extensions()[:1]), ILLEGAL_PARAMETER),
    "octets behind the extensions": (trailing, DECODE_ERROR),
}

DEVIATIONS: dict[str, tuple[int, str]] = {
    "empty supported_versions": (PROTOCOL_VERSION, "an empty list is read as one that has no version in common"),
    "deflate alone": (DECODE_ERROR, "a list without null is called malformed before it is looked at for TLS 1.3"),
    "a ChangeCipherSpec that is not 1": (ILLEGAL_PARAMETER, "its content is judged, not that it came at all"),
    "a KeyUpdate that is too long": (ILLEGAL_PARAMETER, "the length is held against a bound before it is decoded"),
}
"""What OpenSSL does otherwise than RFC 8446 says, and why that is good enough."""


def expected(name: str, alert: int) -> int:
    return DEVIATIONS[name][0] if name in DEVIATIONS else alert


@pytest.mark.parametrize("name", HELLOS)
def test_p03_a_hello_that_is_wrong_gets_its_alert(host: Host, leaf: Issued, name: str) -> None:
    make, alert = HELLOS[name]
    with Peer(host.port) as peer:
        peer.raw(record(HANDSHAKE, make(peer)))
        assert peer.rest() == ([], expected(name, alert))
    assert host.ask(leaf) == Text("done")


def bad_finished(peer: Peer, leaf: Issued) -> None:
    peer.introduce(leaf)
    finished = bytearray(peer.finished())
    finished[-1] ^= 1
    peer.say(bytes(finished))


def bad_signature(peer: Peer, leaf: Issued) -> None:
    peer.say(peer.certificate(leaf.ders))
    verify = bytearray(peer.verify(leaf))
    verify[-40] ^= 1
    peer.say(bytes(verify))


def other_scheme(peer: Peer, leaf: Issued) -> None:
    peer.say(peer.certificate(leaf.ders))
    verify = bytearray(peer.verify(leaf))
    verify[4:6] = b"\x02\x01"  # RSA with SHA-1
    peer.say(bytes(verify))


def no_certificate(peer: Peer, leaf: Issued) -> None:
    peer.say(peer.certificate([]))
    peer.say(peer.finished())


def no_verify(peer: Peer, leaf: Issued) -> None:
    peer.say(peer.certificate(leaf.ders))
    peer.say(peer.finished())


def no_flight(peer: Peer, leaf: Issued) -> None:
    peer.say(peer.finished())


def early_application(peer: Peer, leaf: Issued) -> None:
    peer.introduce(leaf)
    peer.send(APPLICATION, b"\0\0\0\0")


def bad_tag(peer: Peer, leaf: Issued) -> None:
    peer.raw(record(APPLICATION, bytes(40), 0x0303))


def empty_handshake(peer: Peer, leaf: Issued) -> None:
    peer.send(HANDSHAKE, b"")


def long_plaintext(peer: Peer, leaf: Issued) -> None:
    peer.send(HANDSHAKE, b"\x0b\0\x50\0" + bytes(16400))


def long_record(peer: Peer, leaf: Issued) -> None:
    peer.raw(record(APPLICATION, bytes(16384 + 257), 0x0303))


def protected_ccs(peer: Peer, leaf: Issued) -> None:
    """Sent as inner content, where it must not be (RFC 8446 5)."""
    data = peer.layer._encryptThenSeal(bytearray(b"\1\x14"), APPLICATION)
    peer.raw(record(APPLICATION, bytes(data), 0x0303))


def odd_ccs(peer: Peer, leaf: Issued) -> None:
    peer.raw(record(CCS, b"\2", 0x0303))


def second_hello(peer: Peer, leaf: Issued) -> None:
    peer.say(peer.hello())


FLIGHTS: dict[str, tuple[Callable[[Peer, Issued], None], int]] = {
    "a wrong Finished": (bad_finished, DECRYPT_ERROR),
    "a wrong signature": (bad_signature, DECRYPT_ERROR),
    "a scheme that was not offered": (other_scheme, ILLEGAL_PARAMETER),
    "an empty certificate list": (no_certificate, CERTIFICATE_REQUIRED),
    "no CertificateVerify": (no_verify, UNEXPECTED_MESSAGE),
    "Finished alone": (no_flight, UNEXPECTED_MESSAGE),
    "application data before Finished": (early_application, UNEXPECTED_MESSAGE),
    "a record whose tag is wrong": (bad_tag, BAD_RECORD_MAC),
    "an empty handshake record": (empty_handshake, UNEXPECTED_MESSAGE),
    "too much in a record": (long_plaintext, RECORD_OVERFLOW),
    "a record that is too long": (long_record, RECORD_OVERFLOW),
    "a protected ChangeCipherSpec": (protected_ccs, UNEXPECTED_MESSAGE),
    "a ChangeCipherSpec that is not 1": (odd_ccs, UNEXPECTED_MESSAGE),
    "a second hello": (second_hello, UNEXPECTED_MESSAGE),
}


@pytest.mark.parametrize("name", FLIGHTS)
def test_p03_a_last_flight_that_is_wrong_gets_its_alert(host: Host, leaf: Issued, name: str) -> None:
    act, alert = FLIGHTS[name]
    asked = len(host.daemon.asked)
    with Peer(host.port) as peer:
        peer.begin()
        act(peer, leaf)
        assert peer.rest() == ([], expected(name, alert))
    assert len(host.daemon.asked) == asked
    assert host.ask(leaf) == Text("done")


def test_a_handshake_that_is_right_is_answered_and_gets_no_ticket(host: Host, leaf: Issued) -> None:
    with Peer(host.port) as peer:
        peer.begin()
        assert CERTIFICATE_REQUEST in peer.messages
        peer.finish(leaf)
        assert answered(peer)


@pytest.mark.parametrize("kind", [42, 0x0A0A, 0xFFFF], ids=["early_data", "GREASE", "unknown"])
def test_what_is_not_wanted_is_not_taken_up(host: Host, leaf: Issued, kind: int) -> None:
    """Early data is offered without a key to resume, and extensions that nobody knows: RFC 8446 4.2, 4.2.10."""
    with Peer(host.port) as peer:
        hello = peer.hello([*peer.extensions(), (kind, b"")])
        peer.transcript.update(hello)
        peer.raw(record(HANDSHAKE, hello))
        peer.server_flight()
        assert struct.pack("!H", kind) not in peer.encrypted_extensions
        peer.finish(leaf)
        assert answered(peer)


def test_an_empty_list_of_shares_gets_a_retry(host: Host, leaf: Issued) -> None:
    with Peer(host.port) as peer:
        peer.raw(record(HANDSHAKE, changed(kind=51, body=b"\0\0")(peer)))
        assert RETRY in peer.handshake_message()
    assert host.ask(leaf) == Text("done")


def test_a_flight_in_pieces_is_a_flight(host: Host, leaf: Issued) -> None:
    with Peer(host.port) as peer:
        hello = peer.hello()
        peer.transcript.update(hello)
        peer.raw(b"".join(record(HANDSHAKE, hello[at : at + 7]) for at in range(0, len(hello), 7)))
        peer.server_flight()
        peer.raw(record(CCS, b"\1", 0x0303))  # allowed anywhere before Finished: RFC 8446 D.4
        makers: list[Callable[[], bytes]] = [
            lambda: peer.certificate(leaf.ders),
            lambda: peer.verify(leaf),
            peer.finished,
        ]
        for make in makers:
            octets = make()
            peer.transcript.update(octets)
            for at in range(0, len(octets), 50):
                peer.send(HANDSHAKE, octets[at : at + 50])
        peer.protect()
        assert answered(peer)


@pytest.mark.parametrize("level", [1, 2], ids=["warning", "fatal"])
def test_user_canceled_inside_a_message_is_passed_over(host: Host, leaf: Issued, level: int) -> None:
    """RFC 8446 5.1 forbids alerts there; OpenSSL passes over this one, and the message is none the worse for it."""
    with Peer(host.port) as peer:
        peer.begin()
        certificate = peer.certificate(leaf.ders)
        peer.transcript.update(certificate)
        peer.send(HANDSHAKE, certificate[:100])
        peer.send(ALERT, bytes((level, USER_CANCELED)))
        peer.send(HANDSHAKE, certificate[100:])
        peer.say(peer.verify(leaf))
        peer.say(peer.finished())
        peer.protect()
        assert answered(peer)


IMAGE = b"an image" * 100


@pytest.fixture(scope="module")
def create(host: Host) -> Issued:
    dev = host.deployment.root.delegate("dev", policy(memory_mb=64))
    return dev.leaf("hello", UnikernelCreate(UnikernelConfig(b"", Settings(memory_mb=32))), binding=IMAGE)


@pytest.mark.parametrize("requested", [0, 1], ids=["told", "asked back"])
def test_keys_are_updated_within_an_upload(host: Host, create: Issued, requested: int) -> None:
    with Peer(host.port) as peer:
        peer.begin()
        peer.finish(create)
        stream = frame(IMAGE) + END_OF_STREAM
        peer.send(APPLICATION, stream[:300])
        peer.send(HANDSHAKE, message(24, bytes((requested,))))
        peer.application = list(peer.layer.calcTLS1_3KeyUpdate_reciever(AES_128_GCM_SHA256, *peer.application))
        peer.send(APPLICATION, b"")  # allowed: RFC 8446 5.1
        peer.send(APPLICATION, stream[300:])
        if requested:
            assert peer.receive() == Received(HANDSHAKE, message(24, b"\0"))
            peer.layer.calcTLS1_3KeyUpdate_sender(AES_128_GCM_SHA256, *peer.application)
        assert answered(peer)
    assert host.daemon.asked[-1].image == IMAGE


LATER: dict[str, tuple[int, bytes, int]] = {
    "a hello, to negotiate again": (HANDSHAKE, message(1, bytes(40)), UNEXPECTED_MESSAGE),
    "a KeyUpdate of no known kind": (HANDSHAKE, message(24, b"\2"), ILLEGAL_PARAMETER),
    "a KeyUpdate that is too long": (HANDSHAKE, message(24, b"\0\0"), DECODE_ERROR),
    "a Finished": (HANDSHAKE, message(FINISHED, bytes(32)), UNEXPECTED_MESSAGE),
    "a ChangeCipherSpec": (CCS, b"\1", UNEXPECTED_MESSAGE),
    "an empty handshake record": (HANDSHAKE, b"", UNEXPECTED_MESSAGE),
    "too much in a record": (APPLICATION, bytes(16385), RECORD_OVERFLOW),
    "a record of no known kind": (99, b"x", UNEXPECTED_MESSAGE),
}


@pytest.mark.parametrize("name", LATER)
def test_p03_what_is_wrong_within_an_upload_gets_its_alert(host: Host, leaf: Issued, create: Issued, name: str) -> None:
    kind, octets, alert = LATER[name]
    asked = len(host.daemon.asked)
    with Peer(host.port) as peer:
        peer.begin()
        peer.finish(create)
        peer.send(APPLICATION, frame(IMAGE)[:300])
        peer.send(kind, octets)
        assert peer.rest()[1] == expected(name, alert)
    assert len(host.daemon.asked) == asked
    assert host.ask(leaf) == Text("done")


def test_p03_a_goodbye_within_an_upload_does_nothing(host: Host, leaf: Issued, create: Issued) -> None:
    asked = len(host.daemon.asked)
    with Peer(host.port) as peer:
        peer.begin()
        peer.finish(create)
        peer.send(APPLICATION, frame(IMAGE)[:300])
        peer.send(ALERT, bytes((1, CLOSE_NOTIFY)))
        assert peer.rest()[1] == CLOSE_NOTIFY
    assert len(host.daemon.asked) == asked
    assert host.ask(leaf) == Text("done")
