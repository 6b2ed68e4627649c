"""Figures for Prometheus: what is counted, for this host alone."""

import socket
from pathlib import Path

import pytest

from albatross_pki.endpoint.metrics import Counters, listen_for_metrics, render
from albatross_pki.errors import AlbatrossError
from albatross_pki.transport.alerts import CertificateRefused
from tests.endpoint.deployment import eventually, whole_host
from tests.pki_builder import Authority


def scrape(connection: socket.socket) -> dict[str, float]:
    connection.settimeout(20)
    connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
    octets = b""
    while piece := connection.recv(65536):
        octets += piece
    head, _, body = octets.decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.0 200 OK")
    lines = [line for line in body.splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_what_happened_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with whole_host(tmp_path, endpoint=("-v", "--metrics", str(path))) as host:
        host.ask(host.deployment.root.delegate("dev").leaf("hello"))
        with pytest.raises(CertificateRefused):
            host.ask(Authority.root("other").leaf("hello"))

        def settled() -> dict[str, float] | None:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                found = scrape(connection)
            return found if found["albatross_endpoint_connections_open"] == 0 else None

        figures = eventually(settled)
    assert figures["albatross_endpoint_connections_total"] == 2
    assert figures["albatross_endpoint_requests_total"] == 1
    assert figures["albatross_endpoint_received_octets_total"] > 1000
    refused = {name: value for name, value in figures.items() if "handshakes_refused" in name}
    assert list(refused.values()) == [1]
    assert not path.exists()


def test_metrics_are_not_for_the_network() -> None:
    with pytest.raises(AlbatrossError, match="loopback"):
        listen_for_metrics("0.0.0.0:9100")
    for nonsense in ("", "here:1", "127.0.0.1:x"):
        with pytest.raises(AlbatrossError, match="no address"):
            listen_for_metrics(nonsense)
    with listen_for_metrics("0") as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_p04_reasons_from_outside_are_bounded_and_cannot_break_out_of_their_label() -> None:
    counters = Counters()
    for number in range(1000):
        counters.refuse_handshake(f'x{number}"}} evil\n')
    text = render(counters)
    assert len(counters.refused_handshakes) <= 65
    assert 'reason="x0 evil"' in text
    assert sum(counters.refused_handshakes.values()) == 1000
