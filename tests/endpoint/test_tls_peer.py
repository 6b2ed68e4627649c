"""What a raw TLS 1.3 client may get wrong, octet by octet, and the alert that the endpoint gives for it (RFC 8446).

After every check somebody who behaves is served.
"""

import struct
from collections.abc import Callable
from typing import Any

import pytest

from albatross_pki.commands import UnikernelCreate
from albatross_pki.replies import Text
from albatross_pki.unikernels import Settings, UnikernelConfig
from albatross_pki.wire.framing import END_OF_STREAM, frame
from tests.endpoint.deployment import Host
from tests.endpoint.raw_tls import (
    AES_128_GCM_SHA256,
    ALERT,
    APPLICATION,
    BAD_RECORD_MAC,
    CCS,
    CERTIFICATE_REQUEST,
    CERTIFICATE_REQUIRED,
    CLOSE_NOTIFY,
    DECODE_ERROR,
    DECRYPT_ERROR,
    FINISHED,
    HANDSHAKE,
    HANDSHAKE_FAILURE,
    ILLEGAL_PARAMETER,
    MISSING_EXTENSION,
    PROTOCOL_VERSION,
    RECORD_OVERFLOW,
    RETRY,
    UNEXPECTED_MESSAGE,
    USER_CANCELED,
    X25519,
    Peer,
    Received,
    answered,
    message,
    record,
    vector,
    without,
)
from tests.pki_builder import Issued, policy

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
