"""Resumption, early data, retries, compression and broken messages of a raw TLS 1.3 client (RFC 8446, RFC 8879).

What the endpoint does not offer is not taken up; what is broken gets its alert; after every check somebody who behaves
is served.
"""

import contextlib
import hashlib
import os
import struct
from collections.abc import Callable, Iterator

import pytest

from albatross_pki.replies import Text
from tests.endpoint.deployment import Host
from tests.endpoint.raw_tls import (
    ALERT,
    APPLICATION,
    CCS,
    CERTIFICATE_REQUEST,
    DECODE_ERROR,
    DECRYPT_ERROR,
    HANDSHAKE,
    HANDSHAKE_FAILURE,
    ILLEGAL_PARAMETER,
    MISSING_EXTENSION,
    PROTOCOL_VERSION,
    RETRY,
    SERVER_HELLO,
    UNEXPECTED_MESSAGE,
    Extensions,
    Peer,
    answered,
    message,
    record,
    vector,
    without,
)
from tests.pki_builder import Issued

BAD_CERTIFICATE, UNSUPPORTED_EXTENSION = 42, 110
ED25519_SCHEME, COMPRESSED_CERTIFICATE, MESSAGE_HASH = 0x0807, 25, 254
PSK, EARLY_DATA, SUPPORTED_VERSIONS, PSK_MODES, POST_HANDSHAKE_AUTH, COMPRESS = 41, 42, 43, 45, 49, 27


DEVIATIONS: dict[str, tuple[int | None, str]] = {
    "a ticket without a binder": (None, "no ticket of ours is known, so binders are not looked at"),
    "octets behind the binders": (None, "no ticket of ours is known, so binders are not looked at"),
    "an empty list of compressions": (None, "an extension that is not supported is not decoded"),
    "other versions": (PROTOCOL_VERSION, "the versions are looked at before the hello is compared with the first one"),
    "a context that nobody gave": (DECODE_ERROR, "a context where none is due counts as malformed"),
    "a certificate that is none": (DECODE_ERROR, "what is no certificate is not told from a broken message"),
}
"""What OpenSSL does otherwise than RFC 8446 says, and why that is good enough; ``None``: the handshake goes on."""


def expected(name: str, alert: int) -> int | None:
    return DEVIATIONS[name][0] if name in DEVIATIONS else alert


def served(host: Host, leaf: Issued) -> bool:
    return bool(host.ask(leaf) == Text("done"))


@contextlib.contextmanager
def refused_peer(host: Host, leaf: Issued) -> Iterator[Peer]:
    """A peer of whom the daemon hears nothing, and after whom somebody who behaves is served."""
    asked = len(host.daemon.asked)
    with Peer(host.port) as peer:
        yield peer
    assert len(host.daemon.asked) == asked
    assert served(host, leaf)


# hellos that offer what is not taken up


def psk_offer(identity: bytes = b"a ticket of yesterday", binder: int = 32, extra: bytes = b"") -> bytes:
    identities = vector(vector(identity, 2) + bytes(4), 2)
    return identities + vector(vector(os.urandom(binder), 1), 2) + extra


def offering(peer: Peer, *extensions: tuple[int, bytes]) -> bytes:
    return peer.hello([*peer.extensions(), *extensions])


MODES = (PSK_MODES, b"\1\1")  # psk_dhe_ke

OFFERS: dict[str, tuple[tuple[int, bytes], ...]] = {
    "a ticket of somebody else": (MODES, (PSK, psk_offer())),
    "a ticket without a fresh key": ((PSK_MODES, b"\1\0"), (PSK, psk_offer())),
    "early data with a ticket": (MODES, (EARLY_DATA, b""), (PSK, psk_offer())),
    "authentication after the handshake": ((POST_HANDSHAKE_AUTH, b""),),
    "compressed certificates": ((COMPRESS, vector(struct.pack("!HHH", 1, 2, 3), 1)),),
}


@pytest.mark.parametrize("name", OFFERS)
def test_what_is_offered_and_not_wanted_is_passed_over(host: Host, leaf: Issued, name: str) -> None:
    with Peer(host.port) as peer:
        hello = offering(peer, *OFFERS[name])
        peer.transcript.update(hello)
        peer.raw(record(HANDSHAKE, hello))
        peer.server_flight()
        assert CERTIFICATE_REQUEST in peer.messages, "a whole handshake, with a certificate"
        assert COMPRESSED_CERTIFICATE not in peer.messages
        for kind, _ in OFFERS[name]:
            assert struct.pack("!H", kind) not in peer.encrypted_extensions[2:4]
        peer.finish(leaf)
        assert answered(peer)


def test_p35_early_data_is_never_read(host: Host, leaf: Issued) -> None:
    """0-RTT can be played back by anybody; it is skipped, up to a bound, as RFC 8446 4.2.10 has it."""
    asked = len(host.daemon.asked)
    with Peer(host.port) as peer:
        hello = offering(peer, *OFFERS["early data with a ticket"])
        peer.transcript.update(hello)
        early = record(APPLICATION, os.urandom(200), 0x0303) * 3
        peer.raw(record(HANDSHAKE, hello) + record(CCS, b"\1", 0x0303) + early)
        peer.server_flight()
        assert struct.pack("!H", EARLY_DATA) not in peer.encrypted_extensions
        peer.finish(leaf)
        assert answered(peer)
    assert len(host.daemon.asked) == asked + 1


def test_p04_early_data_without_end_is_refused(host: Host, leaf: Issued) -> None:
    with Peer(host.port) as peer:
        hello = offering(peer, *OFFERS["early data with a ticket"])
        peer.transcript.update(hello)
        peer.raw(record(HANDSHAKE, hello))
        peer.server_flight()
        try:
            for _ in range(100):
                peer.raw(record(APPLICATION, os.urandom(16384), 0x0303))
        except OSError:
            pass
        assert peer.rest()[1] in (20, 22, UNEXPECTED_MESSAGE, None)
    assert served(host, leaf)


BROKEN_OFFERS: dict[str, tuple[Callable[[Peer], bytes], int]] = {
    "a ticket that is not the last extension": (
        lambda peer: peer.hello([(PSK, psk_offer()), MODES, *peer.extensions()]),
        ILLEGAL_PARAMETER,
    ),
    "a ticket without its modes": (lambda peer: offering(peer, (PSK, psk_offer())), MISSING_EXTENSION),
    "a ticket without a binder": (
        lambda peer: offering(peer, MODES, (PSK, vector(vector(b"x", 2) + bytes(4), 2) + vector(b"", 2))),
        DECODE_ERROR,
    ),
    "octets behind the binders": (lambda peer: offering(peer, MODES, (PSK, psk_offer(extra=b"x"))), DECODE_ERROR),
    "no mode at all": (lambda peer: offering(peer, (PSK_MODES, b"\0"), (PSK, psk_offer())), DECODE_ERROR),
    "an empty list of compressions": (lambda peer: offering(peer, (COMPRESS, b"\0")), DECODE_ERROR),
}


@pytest.mark.parametrize("name", BROKEN_OFFERS)
def test_p03_a_broken_offer_gets_its_alert(host: Host, leaf: Issued, name: str) -> None:
    make, alert = BROKEN_OFFERS[name]
    with Peer(host.port) as peer:
        hello = make(peer)
        peer.raw(record(HANDSHAKE, hello))
        if expected(name, alert) is None:
            peer.transcript.update(hello)
            peer.server_flight()
            peer.finish(leaf)
            assert answered(peer)
        else:
            assert peer.rest() == ([], expected(name, alert))
    assert served(host, leaf)


# a retry: RFC 8446 4.1.4


def retried(peer: Peer) -> None:
    """A hello without a share, and the server's request for one."""
    first = peer.hello([*without(peer.extensions(), 51), (51, b"\0\0")])
    peer.raw(record(HANDSHAKE, first))
    request = peer.handshake_message()
    assert request[0] == SERVER_HELLO
    assert RETRY in request
    peer.transcript.update(message(MESSAGE_HASH, hashlib.sha256(first).digest()))
    peer.transcript.update(request)


def test_a_handshake_with_a_retry_is_answered(host: Host, leaf: Issued) -> None:
    with Peer(host.port) as peer:
        retried(peer)
        hello = peer.hello()
        peer.transcript.update(hello)
        peer.raw(record(CCS, b"\1", 0x0303) + record(HANDSHAKE, hello, 0x0303))
        peer.server_flight()
        peer.finish(leaf)
        assert answered(peer)


def other_share(peer: Peer) -> Extensions:
    body = vector(struct.pack("!H", 23) + vector(b"\4" + bytes(64), 2), 2)
    return [*without(peer.extensions(), 51), (51, body)]


SECOND_HELLOS: dict[str, tuple[Callable[[Peer], bytes], int]] = {
    "no share once more": (
        lambda peer: peer.hello([*without(peer.extensions(), 51), (51, b"\0\0")]),
        ILLEGAL_PARAMETER,
    ),
    "a share that was not asked for": (lambda peer: peer.hello(other_share(peer)), ILLEGAL_PARAMETER),
    "early data after a retry": (lambda peer: offering(peer, (EARLY_DATA, b"")), ILLEGAL_PARAMETER),
    "other versions": (
        lambda peer: peer.hello([*without(peer.extensions(), SUPPORTED_VERSIONS), (SUPPORTED_VERSIONS, b"\2\3\3")]),
        ILLEGAL_PARAMETER,
    ),
    "no hello but a Finished": (lambda peer: message(20, bytes(32)), UNEXPECTED_MESSAGE),
    "a hello that is cut": (lambda peer: message(1, peer.hello()[4:40]), DECODE_ERROR),
}


@pytest.mark.parametrize("name", SECOND_HELLOS)
def test_p03_a_second_hello_that_is_wrong_gets_its_alert(host: Host, leaf: Issued, name: str) -> None:
    make, alert = SECOND_HELLOS[name]
    with Peer(host.port) as peer:
        retried(peer)
        peer.raw(record(HANDSHAKE, make(peer), 0x0303))
        assert peer.rest() == ([], expected(name, alert))
    assert served(host, leaf)


# the client's last flight


def certificate(peer: Peer, leaf: Issued, body: bytes) -> None:
    peer.say(message(11, body))
    peer.say(peer.verify(leaf))
    peer.say(peer.finished())


def entry(der: bytes, extensions: bytes = b"") -> bytes:
    return vector(der, 3) + vector(extensions, 2)


def listed(leaf: Issued, extensions: bytes = b"") -> bytes:
    return b"".join(entry(der, extensions) for der in leaf.ders)


CERTIFICATES: dict[str, tuple[Callable[[Issued], bytes], int]] = {
    "a context that nobody gave": (lambda leaf: vector(b"x", 1) + vector(listed(leaf), 3), ILLEGAL_PARAMETER),
    "octets behind the list": (lambda leaf: vector(b"", 1) + vector(listed(leaf), 3) + b"x", DECODE_ERROR),
    "a list longer than its message": (lambda leaf: b"\0\xff\xff\xff" + listed(leaf), DECODE_ERROR),
    "a certificate of no octets": (lambda leaf: b"\0" + vector(entry(b"") + listed(leaf), 3), DECODE_ERROR),
    "a certificate that is none": (lambda leaf: b"\0" + vector(entry(b"\x30\x03\2\1\1"), 3), BAD_CERTIFICATE),
    "octets behind a certificate": (
        lambda leaf: b"\0" + vector(entry(leaf.ders[0] + b"x") + listed(leaf), 3),
        DECODE_ERROR,
    ),
    "extensions without their end": (lambda leaf: b"\0" + vector(vector(leaf.ders[0], 3) + b"\0\5x", 3), DECODE_ERROR),
    "an extension that was not asked for": (
        lambda leaf: b"\0" + vector(listed(leaf, struct.pack("!HH", 5, 0)), 3),
        UNSUPPORTED_EXTENSION,
    ),
}


@pytest.mark.parametrize("name", CERTIFICATES)
def test_p03_a_certificate_message_that_is_wrong_gets_its_alert(host: Host, leaf: Issued, name: str) -> None:
    make, alert = CERTIFICATES[name]
    with refused_peer(host, leaf) as peer:
        peer.begin()
        certificate(peer, leaf, make(leaf))
        assert peer.rest() == ([], expected(name, alert))


def signed(peer: Peer, leaf: Issued) -> bytes:
    """The signature alone, of 64 octets."""
    return peer.verify(leaf)[8:]


Verify = Callable[[Peer, Issued], bytes]
VERIFIES: dict[str, tuple[Verify, int]] = {
    **{
        f"the scheme {scheme:04x}": (
            lambda peer, leaf, scheme=scheme: struct.pack("!H", scheme) + vector(signed(peer, leaf), 2),  # type: ignore[misc]
            ILLEGAL_PARAMETER,
        )
        for scheme in (0x0000, 0x0201, 0x0401, 0x0403, 0x0804, 0x0808, 0x0A0A, 0xFFFF)
    },
    "no signature": (lambda peer, leaf: struct.pack("!H", ED25519_SCHEME) + vector(b"", 2), DECRYPT_ERROR),
    "a signature that is cut": (
        lambda peer, leaf: struct.pack("!H", ED25519_SCHEME) + vector(signed(peer, leaf)[:-1], 2),
        DECRYPT_ERROR,
    ),
    "a signature that is too long": (
        lambda peer, leaf: struct.pack("!H", ED25519_SCHEME) + vector(signed(peer, leaf) + b"x", 2),
        DECRYPT_ERROR,
    ),
    "octets behind the signature": (
        lambda peer, leaf: struct.pack("!H", ED25519_SCHEME) + vector(signed(peer, leaf), 2) + b"x",
        DECODE_ERROR,
    ),
    "a length beyond the message": (
        lambda peer, leaf: struct.pack("!HH", ED25519_SCHEME, 500) + signed(peer, leaf),
        DECODE_ERROR,
    ),
    "nothing": (lambda peer, leaf: b"", DECODE_ERROR),
    "the server's own context": (
        lambda peer, leaf: struct.pack("!H", ED25519_SCHEME) + vector(leaf.key.sign(b"other octets"), 2),
        DECRYPT_ERROR,
    ),
}


@pytest.mark.parametrize("name", VERIFIES)
def test_p03_a_proof_of_the_key_that_is_wrong_gets_its_alert(host: Host, leaf: Issued, name: str) -> None:
    make, alert = VERIFIES[name]
    with refused_peer(host, leaf) as peer:
        peer.begin()
        peer.say(peer.certificate(leaf.ders))
        peer.say(message(15, make(peer, leaf)))
        assert peer.rest() == ([], expected(name, alert))


FINISHES: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "nothing": (lambda right: b"", DECODE_ERROR),
    "cut": (lambda right: right[:-1], DECODE_ERROR),
    "too long": (lambda right: right + b"\0", DECODE_ERROR),
    "the digest of another hash": (lambda right: right + bytes(16), DECODE_ERROR),
    "the first octet changed": (lambda right: bytes((right[0] ^ 0x80,)) + right[1:], DECRYPT_ERROR),
    "zeros": (lambda right: bytes(32), DECRYPT_ERROR),
}


@pytest.mark.parametrize("name", FINISHES)
def test_p03_a_finished_that_is_wrong_gets_its_alert(host: Host, leaf: Issued, name: str) -> None:
    make, alert = FINISHES[name]
    with refused_peer(host, leaf) as peer:
        peer.begin()
        peer.introduce(leaf)
        peer.say(message(20, make(peer.finished()[4:])))
        assert peer.rest() == ([], expected(f"Finished: {name}", alert))


FLIGHTS: dict[str, tuple[Callable[[Peer, Issued], bytes], int]] = {
    "a compressed certificate": (
        lambda peer, leaf: message(COMPRESSED_CERTIFICATE, struct.pack("!H", 1) + bytes(3) + vector(b"x", 3)),
        UNEXPECTED_MESSAGE,
    ),
    "the end of early data": (lambda peer, leaf: message(5, b""), UNEXPECTED_MESSAGE),
    "a ticket": (lambda peer, leaf: message(4, bytes(13)), UNEXPECTED_MESSAGE),
    "a request for a certificate": (lambda peer, leaf: message(13, bytes(3)), UNEXPECTED_MESSAGE),
    "a hello of a server": (lambda peer, leaf: message(2, bytes(40)), UNEXPECTED_MESSAGE),
    "a request to negotiate again": (lambda peer, leaf: message(0, b""), UNEXPECTED_MESSAGE),
    "a message of no known kind": (lambda peer, leaf: message(99, b"x"), UNEXPECTED_MESSAGE),
    "keys updated too early": (lambda peer, leaf: message(24, b"\0"), UNEXPECTED_MESSAGE),
}


@pytest.mark.parametrize("name", FLIGHTS)
def test_p03_a_message_that_is_not_due_gets_its_alert(host: Host, leaf: Issued, name: str) -> None:
    make, alert = FLIGHTS[name]
    with Peer(host.port) as peer:
        peer.begin()
        peer.say(make(peer, leaf))
        assert peer.rest() == ([], expected(name, alert))
    assert served(host, leaf)


@pytest.mark.parametrize("kind", [4, 5, 11, 13, 15, COMPRESSED_CERTIFICATE])
def test_p03_nobody_authenticates_once_more(host: Host, leaf: Issued, kind: int) -> None:
    """Not even a client that offered to: RFC 8446 4.6.2 leaves it to the server to ask, and ours never does."""
    with Peer(host.port) as peer:
        hello = offering(peer, (POST_HANDSHAKE_AUTH, b""))
        peer.transcript.update(hello)
        peer.raw(record(HANDSHAKE, hello))
        peer.server_flight()
        peer.introduce(leaf)
        peer.say(peer.finished())
        peer.protect()
        octets = {11: peer.certificate(leaf.ders)}.get(kind, message(kind, bytes(8)))
        peer.send(HANDSHAKE, octets)
        assert peer.rest()[1] in (UNEXPECTED_MESSAGE, 0)  # 0: it had its answer, and we read no more
    assert served(host, leaf)


# records and messages: RFC 8446 5.1


def flight_of(peer: Peer, leaf: Issued) -> list[Callable[[], bytes]]:
    """What makes the messages of a client's last flight, each when those before it are in the transcript."""
    return [lambda: peer.certificate(leaf.ders), lambda: peer.verify(leaf), peer.finished]


def test_the_whole_flight_in_one_record(host: Host, leaf: Issued) -> None:
    with Peer(host.port) as peer:
        peer.begin()
        flight = b""
        for make in flight_of(peer, leaf):
            octets = make()
            peer.transcript.update(octets)
            flight += octets
        peer.send(HANDSHAKE, flight)
        peer.protect()
        assert answered(peer)


def test_a_flight_of_records_of_one_octet(host: Host, leaf: Issued) -> None:
    with Peer(host.port) as peer:
        peer.begin()
        for make in flight_of(peer, leaf):
            octets = make()
            peer.transcript.update(octets)
            for octet in octets:
                peer.send(HANDSHAKE, bytes((octet,)))
        peer.protect()
        assert answered(peer)


def test_p03_no_message_goes_on_behind_a_change_of_keys(host: Host, leaf: Issued) -> None:
    """RFC 8446 5.1: handshake messages do not span key changes. Here one begins in the record of the hello."""
    with Peer(host.port) as peer:
        hello = peer.hello()
        peer.raw(record(HANDSHAKE, hello + b"\x0b\0\0"))
        assert peer.rest() == ([], UNEXPECTED_MESSAGE)
    with Peer(host.port) as peer:
        peer.begin()
        peer.introduce(leaf)
        finished = peer.finished()
        peer.send(HANDSHAKE, finished + b"\x18\0\0")
        assert peer.rest() == ([], UNEXPECTED_MESSAGE)
    assert served(host, leaf)


def test_p03_records_interleaved_with_another_kind(host: Host, leaf: Issued) -> None:
    """RFC 8446 5.1: no other record stands between the parts of a handshake message."""
    with Peer(host.port) as peer:
        peer.begin()
        octets = peer.certificate(leaf.ders)
        peer.send(HANDSHAKE, octets[:50])
        peer.send(APPLICATION, b"between")
        assert peer.rest() == ([], UNEXPECTED_MESSAGE)
    assert served(host, leaf)


@pytest.mark.parametrize(
    ("name", "octets"),
    [("an alert of no octets", b""), ("an alert of one octet", b"\2"), ("two alerts in one record", b"\1\x5a\1\x5a")],
)
def test_p03_alerts_that_are_wrong(host: Host, leaf: Issued, name: str, octets: bytes) -> None:
    with Peer(host.port) as peer:
        peer.begin()
        peer.send(ALERT, octets)
        assert peer.rest()[1] in (UNEXPECTED_MESSAGE, DECODE_ERROR)
    assert served(host, leaf)


def test_p04_empty_records_end_somewhere(host: Host, leaf: Issued) -> None:
    """Application data may be empty, but nobody goes on for ever with it."""
    with Peer(host.port) as peer:
        peer.begin()
        peer.finish(leaf)
        assert answered(peer)
    with Peer(host.port) as peer:
        peer.begin()
        try:
            for _ in range(100):
                peer.send(APPLICATION, b"")
        except OSError:
            pass
        assert peer.rest()[1] in (UNEXPECTED_MESSAGE, None)
    assert served(host, leaf)


def test_signatures_that_we_do_not_have_in_common(host: Host, leaf: Issued) -> None:
    """The server's key is Ed25519: who takes only RSA or ECDSA is told so."""
    for schemes in (struct.pack("!H", 0x0804), struct.pack("!HH", 0x0403, 0x0503)):
        with Peer(host.port) as peer:
            peer.raw(record(HANDSHAKE, peer.hello([*without(peer.extensions(), 13), (13, vector(schemes, 2))])))
            assert peer.rest() == ([], HANDSHAKE_FAILURE)
    assert served(host, leaf)
