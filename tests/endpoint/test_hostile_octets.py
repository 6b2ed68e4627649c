"""Octets that are no TLS, or break it: an alert or an end, and everybody else is served."""

import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatross_pki.authorised import Effect, Outcome
from albatross_pki.commands import ConsoleSubscribe, PolicyAdd, UnikernelDestroy
from albatross_pki.extensions import Constraints
from albatross_pki.messages import Message
from albatross_pki.replies import Failure, Text
from albatross_pki.transport.contexts import client_context
from albatross_pki.transport.session import TlsSession
from tests.endpoint.deployment import Asked, Av5Daemon, Host, answer, do_it, say, whole_host
from tests.pki_builder import Issued, albatross, policy


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    options = ("-v", "--handshake-seconds", "1", "--connections-per-address", "400")
    with whole_host(tmp_path_factory.mktemp("hostile"), endpoint=options) as made:
        yield made


def hello(host: Host, leaf: Issued) -> tuple[TlsSession, bytes]:
    session = TlsSession(client_context(leaf.chain_pem, leaf.key_pem, host.deployment.root.pem), server_name="")
    session.handshake()
    return session, session.outgoing()


RECORD = b"\x16\x03\x01"
HOSTILE = {
    "http": b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    "random": os.urandom(4096),
    "an SSL 2 hello": bytes.fromhex("802b0103010012000000100100800200800600400700c0080080") + bytes(20),
    "a record of 65535 octets": RECORD + b"\xff\xff" + bytes(70_000),
    "an empty record": RECORD + b"\0\0",
    "a thousand empty records": (RECORD + b"\0\0") * 1000,
    "an alert instead of a hello": bytes.fromhex("15030300020228"),
    "application data instead of a hello": b"\x17\x03\x03\x00\x10" + bytes(16),
    "a hello that claims 16 MB": RECORD + b"\x00\x04" + b"\x01\xff\xff\xff",
    "ten thousand ChangeCipherSpec": bytes.fromhex("140303000101") * 10_000,
}


@pytest.mark.parametrize("octets", HOSTILE.values(), ids=HOSTILE.keys())
def test_p03_octets_that_are_no_handshake_end_their_connection_alone(host: Host, leaf: Issued, octets: bytes) -> None:
    with socket.create_connection(("127.0.0.1", host.port)) as connection:
        connection.settimeout(20)
        try:
            connection.sendall(octets)
            while connection.recv(65536):
                pass
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert host.ask(leaf) == Text("done")


def test_a_hello_octet_by_octet_is_a_hello(host: Host, leaf: Issued) -> None:
    session, octets = hello(host, leaf)
    with socket.create_connection(("127.0.0.1", host.port)) as connection:
        connection.settimeout(20)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in octets:
            connection.send(bytes((octet,)))
        while not session.handshake():
            session.feed(connection.recv(65536))


@pytest.mark.parametrize("part", [1, 5, 6, 50, 0.5, 0.99])
def test_a_hello_cut_anywhere_is_given_up(host: Host, leaf: Issued, part: float) -> None:
    _, octets = hello(host, leaf)
    cut = int(part * len(octets)) if part < 1 else int(part)
    with socket.create_connection(("127.0.0.1", host.port)) as connection:
        connection.settimeout(20)
        connection.sendall(octets[:cut])
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


@pytest.mark.parametrize("position", [0, 10, 100, -1])
def test_a_changed_octet_in_the_last_flight_gets_an_alert(host: Host, leaf: Issued, position: int) -> None:
    session, octets = hello(host, leaf)
    with socket.create_connection(("127.0.0.1", host.port)) as connection:
        connection.settimeout(20)
        connection.sendall(octets)
        while not session.handshake():
            session.feed(connection.recv(65536))
        flight = bytearray(session.outgoing())
        start = 6 if flight[0] == 20 else 0  # behind ChangeCipherSpec and a record's header
        flight[position if position < 0 else start + 5 + position] ^= 1
        connection.sendall(flight)
        while octets := connection.recv(65536):
            session.feed(octets)
        session.feed(b"")
        with pytest.raises(ssl.SSLError):
            session.read_into(memoryview(bytearray(100)))


def test_without_a_certificate_there_is_an_alert(host: Host) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", host.port)) as plain,
        context.wrap_socket(plain) as tls,
        pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"),
    ):
        tls.recv(100)


def test_p03_a_daemon_that_answers_nonsense_ends_that_request_alone(host: Host, leaf: Issued) -> None:
    def nonsense(asked: Asked) -> Outcome:
        asked.answers.sendall(b"\0\0\0\x04\x30\x80\xff\xff")
        return Outcome(False, Effect.NONE, "")

    host.daemon.doing = nonsense
    refused = host.ask(leaf)
    assert isinstance(refused, Failure)
    assert "went away without an answer" in refused.text or "malformed" in refused.text
    host.daemon.doing = do_it
    assert host.ask(leaf) == Text("done")


def test_p13_a_chain_that_is_wrong_in_one_place_does_nothing_at_all(host: Host) -> None:
    before = len(host.daemon.asked)
    root = host.deployment.root
    good = root.delegate("dev", policy(unikernels=4))
    wide = good.delegate("wide", policy(unikernels=9, memory_mb=4096))
    wrong = [
        wide.leaf("hello", UnikernelDestroy()),
        good.leaf("hello", UnikernelDestroy(), add=[albatross(PolicyAdd(policy()))]),
        good.plain("plain").leaf("hello", UnikernelDestroy()),
        good.delegate("dev", constraints=Constraints(commands=frozenset({"info"}))).leaf("hello", UnikernelDestroy()),
        good.leaf("hello", PolicyAdd(policy())),
        good.leaf("not a label", UnikernelDestroy()),
    ]
    for leaf in wrong:
        assert isinstance(host.ask(leaf), Failure)
    assert len(host.daemon.asked) == before


def test_p29_who_is_served_when_the_endpoint_ends_is_told(tmp_path: Path) -> None:
    def subscribed(message: Message, connection: socket.socket) -> bool:
        say(connection, message.header.name, Text("subscribed"))
        assert connection.recv(1) == b""
        return False

    with whole_host(tmp_path) as host:
        console = Av5Daemon(host.deployment.socket_path("console.sock"), subscribed)
        try:
            leaf = host.deployment.root.delegate("dev").leaf("hello", ConsoleSubscribe(count=1))
            with host.connect(leaf) as connection:
                assert answer(connection) == Text("subscribed")
                assert host.endpoint.stop() == 0
                assert answer(connection) == Failure("the endpoint is shutting down")
                assert connection.receive_frame() is None
        finally:
            console.close()
        host.endpoint = host.deployment.endpoint()
