"""One test for each bound: whoever exceeds it is told or dropped, and everybody else is served as before."""

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import monotonic

import pytest

from albatross_pki.authorised import Effect, Outcome
from albatross_pki.commands import UnikernelCreate, UnikernelGet
from albatross_pki.replies import Failure, Text, UnikernelImage
from albatross_pki.transport.alerts import CertificateRefused
from albatross_pki.transport.contexts import client_context
from albatross_pki.transport.errors import TransportError
from albatross_pki.transport.session import TlsSession
from albatross_pki.transport.tls import connect
from albatross_pki.unikernels import Settings, UnikernelConfig
from tests.endpoint.deployment import Asked, Host, answer, eventually, say, whole_host
from tests.pki_builder import Issued, policy

ENDPOINT = ("-v", "--connections", "600", "--handshake-seconds", "4", "--idle-seconds", "2")
CEILING = 60 * 1024 * 1024  # octets; what docs/endpoint.md says for the attacks below
IDLE_CEILING = 120 * 1024 * 1024


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with whole_host(tmp_path, endpoint=ENDPOINT) as made:
        yield made


@pytest.fixture
def leaf(host: Host) -> Issued:
    return host.deployment.root.delegate("dev", policy(memory_mb=64)).leaf("hello")


def source(number: int) -> tuple[str, int]:
    """Attackers come from many addresses, because each one has a bound of its own: 20 from each."""
    return f"127.0.2.{number // 20 + 1}", 0


def hello_and_wait(host: Host, leaf: Issued, number: int) -> tuple[socket.socket, TlsSession]:
    """A client that stops in the middle of the handshake: it has the server's flight and says nothing more."""
    connection = socket.create_connection(("127.0.0.1", host.port), source_address=source(number))
    session = TlsSession(client_context(leaf.chain_pem, leaf.key_pem, host.deployment.root.pem), server_name="")
    session.handshake()
    connection.sendall(session.outgoing())
    return connection, session


def latency(host: Host, leaf: Issued, rounds: int = 9) -> float:
    """Seconds for one request of somebody who behaves, from an address of its own."""
    times = []
    for _ in range(rounds):
        begin = monotonic()
        assert host.ask(leaf) == Text("done")
        times.append(monotonic() - begin)
    return median(times)


def test_p04_500_connections_that_say_nothing_hold_nobody_up(host: Host, leaf: Issued) -> None:
    alone = latency(host, leaf)
    with contextlib.ExitStack() as stack:
        for number in range(500):
            stack.enter_context(socket.create_connection(("127.0.0.1", host.port), source_address=source(number)))
        assert latency(host, leaf) < 2 * alone + 0.05
        assert host.endpoint.resident() < CEILING


def test_p04_200_that_stop_in_the_middle_of_the_handshake(host: Host, leaf: Issued) -> None:
    alone = latency(host, leaf)
    waiting = [hello_and_wait(host, leaf, number) for number in range(200)]
    try:
        assert latency(host, leaf) < 2 * alone + 0.05
        assert host.endpoint.resident() < IDLE_CEILING
        # and they are let go
        waiting[0][0].settimeout(10)
        while waiting[0][0].recv(65536):
            pass
    finally:
        for connection, _ in waiting:
            connection.close()


def test_p05_a_handshake_has_a_deadline(host: Host) -> None:
    begin = monotonic()
    with socket.create_connection(("127.0.0.1", host.port)) as connection:
        connection.settimeout(15)
        assert connection.recv(1) == b""
    assert 3 < monotonic() - begin < 10


def test_p04_a_claimed_certificate_of_16_mb_costs_a_place_and_not_the_memory_of_others(
    host: Host, leaf: Issued
) -> None:
    """A client that claims much and sends little is cut off, and others are served meanwhile."""
    big = host.deployment.root.leaf(
        "x", UnikernelCreate(UnikernelConfig(bytes(1 << 20) + os.urandom(2 << 20), Settings()))
    )
    attackers = []
    try:
        for number in range(40):
            connection, session = hello_and_wait(host, big, number)
            connection.settimeout(10)
            while not session.handshake():
                session.feed(connection.recv(65536))
                if session.handshake():
                    break
            connection.sendall(session.outgoing()[: 64 * 1024])
            attackers.append(connection)
        assert host.ask(leaf) == Text("done")
        assert host.endpoint.resident() < IDLE_CEILING
    finally:
        for connection in attackers:
            connection.close()


def test_a_certificate_over_the_limit_is_refused_with_a_hint_to_stream(host: Host) -> None:
    huge = host.deployment.root.leaf("x", UnikernelCreate(UnikernelConfig(os.urandom(5 << 20), Settings())))
    with pytest.raises((CertificateRefused, TransportError)) as refused:
        host.ask(huge)
    assert "limit" in str(refused.value)


def test_a_certificate_with_an_image_of_3_mb_is_taken(host: Host) -> None:
    image = os.urandom(3 << 20)
    large = host.deployment.root.leaf("x", UnikernelCreate(UnikernelConfig(image, Settings())))
    assert host.ask(large) == Text("done")
    (asked,) = host.daemon.asked
    assert isinstance(asked.request.command, UnikernelCreate)
    assert asked.request.command.config.image == image


def test_p04_more_connections_of_one_address_than_allowed_are_told_so(host: Host, leaf: Issued) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(32):
            stack.enter_context(socket.create_connection(("127.0.0.1", host.port)))
        with pytest.raises(CertificateRefused, match="no more connections from this address"):
            eventually(lambda: host.ask(leaf) is None)
    assert eventually(lambda: served(host, leaf))


def served(host: Host, leaf: Issued) -> bool:
    with contextlib.suppress(TransportError):
        return bool(host.ask(leaf) == Text("done"))
    return False


def bound_create(host: Host, octets: int) -> Issued:
    dev = host.deployment.root.delegate("dev", policy(memory_mb=64))
    return dev.leaf("hello", UnikernelCreate(UnikernelConfig(b"", Settings(memory_mb=32))), binding=bytes(octets))


def test_p04_a_stream_that_never_ends_is_stopped_at_the_bound_size(host: Host) -> None:
    with host.connect(bound_create(host, 100_000)) as connection, open("/dev/zero", "rb") as endless:
        assert connection.send_stream(endless) is False
        refused = answer(connection)
    assert isinstance(refused, Failure)
    assert "longer than the 100000 octets" in refused.text
    assert host.deployment.spooled == []
    assert host.daemon.asked == []


def test_p05_one_octet_a_second_is_too_slow(host: Host) -> None:
    with host.connect(bound_create(host, 100_000)) as connection:
        for _ in range(1000):
            if not connection.send_frame(b"x", seconds=5):
                break
            threading.Event().wait(0.3)
        refused = answer(connection)
    assert isinstance(refused, Failure)
    assert "octets a second" in refused.text


def test_p05_silence_in_a_stream_ends_it(host: Host) -> None:
    with host.connect(bound_create(host, 100_000)) as connection:
        connection.send_frame(b"x" * 1000)
        refused = answer(connection)
    assert isinstance(refused, Failure)
    assert "longer than 2 seconds" in refused.text


def test_p05_a_client_that_never_reads_is_given_up(host: Host, leaf: Issued) -> None:
    image = os.urandom(16 << 20)
    ended = threading.Event()

    def get(asked: Asked) -> Outcome:
        if isinstance(asked.request.command, UnikernelGet):
            with contextlib.suppress(OSError):
                say(asked.answers, asked.request.name, UnikernelImage(False, image))
            asked.answers.settimeout(30)
            assert asked.answers.recv(1) == b""
            ended.set()
        else:
            say(asked.answers, asked.request.name, Text("done"))
        return Outcome(True, Effect.NONE, "")

    host.daemon.doing = get
    with host.connect(host.deployment.root.delegate("dev").leaf("hello", UnikernelGet(0))):
        assert ended.wait(30)
        assert host.ask(leaf) == Text("done")


def test_p40_the_spool_has_a_bound_for_all_together(tmp_path: Path) -> None:
    with whole_host(tmp_path, endpoint=("--spool-octets", str(3 << 20))) as host:
        leaf = bound_create(host, 8 << 20)
        refused = host.ask(leaf, bytes(8 << 20))
        assert isinstance(refused, Failure)
        assert "spool is full" in refused.text
        assert host.ask(bound_create(host, 1 << 20), bytes(1 << 20)) == Text("done")


def test_p40_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    reserve = 1 << 60
    with whole_host(tmp_path, endpoint=("--spool-reserve", str(reserve))) as host:
        refused = host.ask(bound_create(host, 1 << 20), bytes(1 << 20))
    assert isinstance(refused, Failure)
    assert "disk is full" in refused.text


def test_p29_a_refusal_arrives_20_times_in_20_with_an_upload_under_way(host: Host) -> None:
    """The refusal is known before the client has sent its 64 MB; the client's answer must not get lost in a reset."""
    dev = host.deployment.root.delegate("dev", policy(memory_mb=64))
    leaf = dev.leaf("hello", UnikernelCreate(UnikernelConfig(b"", Settings(memory_mb=1024))), binding=b"x" * 100)
    upload = bytes(64 << 20)
    for _ in range(20):
        refused = host.ask(leaf, upload)
        assert isinstance(refused, Failure)
        assert "1024" in refused.text


def test_p29_an_alert_arrives_20_times_in_20(host: Host) -> None:
    stranger = type(host.deployment.root).root("stranger").leaf("hello")
    upload = bytes(64 << 20)
    root = host.deployment.root.pem
    for _ in range(20):
        with connect("127.0.0.1", host.port, stranger.chain_pem, stranger.key_pem, root, lambda _: ()) as connection:
            connection.send_stream(upload)
            with pytest.raises(CertificateRefused, match="does not know the CA"):
                connection.receive_frame()


def test_tls_is_13_without_tickets(host: Host, leaf: Issued, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", host.port)) as plain,
        pytest.raises(ssl.SSLError, match=r"(?i)protocol version"),
    ):
        context.wrap_socket(plain)
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    chain, key = tmp_path / "leaf.pem", tmp_path / "leaf.key"
    chain.write_bytes(leaf.chain_pem)
    key.write_bytes(leaf.key_pem)
    context.load_cert_chain(chain, key)
    with socket.create_connection(("127.0.0.1", host.port)) as plain, context.wrap_socket(plain) as tls:
        assert tls.version() == "TLSv1.3"
        assert tls.recv(65536)
        assert tls.session is None or not tls.session.has_ticket
        assert tls.compression() is None
