"""The certificates that upstream's programs made, presented to our endpoint, as they were presented to upstream's.

What upstream answered is recorded in ``tests/vectors/remote``. What it accepted we accept, and what it refused we
refuse, with a reason where it said nothing. Where we are stricter on purpose stands in ``STRICTER``.
"""

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from albatross_pki.errors import AlbatrossError
from albatross_pki.messages import Message
from albatross_pki.replies import Failure, Text
from albatross_pki.transport.alerts import CertificateRefused
from albatross_pki.transport.contexts import server_context
from albatross_pki.transport.errors import ConnectionCut
from albatross_pki.transport.tls import connect
from albatross_pki.wire.message import decode_message
from tests.endpoint.deployment import Av5Daemon, ExtendedDaemon, answer, port_of, say
from tests.endpoint.deployment import Deployment as Deployment
from tests.vectors.manifest import ROOT as VECTORS

VALID_FROM = datetime(2026, 11, 21, 4, tzinfo=UTC)  # the vectors' certificates; OpenSSL asks the clock of this machine
STRICTER = {
    "over-unikernels.console": "policies are judged for every command, not only for those that albatrossd executes",
}
pytestmark = pytest.mark.skipif(datetime.now(UTC) < VALID_FROM, reason="the clock is before the vectors' validity")


@dataclass(frozen=True)
class Pem:
    """What the deployment needs of an authority."""

    pem: bytes


@dataclass(frozen=True)
class PemIdentity:
    chain_pem: bytes
    key_pem: bytes


@dataclass
class Upstream:
    """A host with upstream's root and server certificate."""

    port: int
    root: bytes


def records() -> list[dict[str, Any]]:
    """All but those for another root, without a certificate, and the one about TLS 1.2."""
    found = json.loads((VECTORS / "remote" / "index.json").read_text())
    chains = [one for one in found if (one.get("bundle") or "").startswith(("pki/ed25519/", "negative/"))]
    return [one for one in chains if one["label"] != "tls12"]


def accepted_by_upstream(record: dict[str, Any]) -> bool:
    if not record["frames"]:
        return False
    if record["kind"] == "ok":  # its failures were about the state of that daemon
        return True
    directory = VECTORS / "remote" / record["kind"]
    replies = sorted(directory.glob(f"{record['label']}.reply*.der"))
    return not isinstance(decode_message(replies[0].read_bytes()).payload, Failure)


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    directory = tmp_path_factory.mktemp("upstream")
    pki = VECTORS / "pki" / "ed25519"
    root = Pem((pki / "cacert.pem").read_bytes())
    server = PemIdentity((pki / "server.pem").read_bytes(), (pki / "server.key").read_bytes())
    made = Deployment(directory, root, server)  # type: ignore[arg-type]

    def stream(message: Message, connection: socket.socket) -> bool:
        say(connection, message.header.name, Text("subscribed"))
        return False

    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(ExtendedDaemon(made.socket_path("extended.sock"))))
        for name in ("console.sock", "stat.sock"):
            stack.enter_context(contextlib.closing(Av5Daemon(made.socket_path(name), stream)))
        options = ("-v", "--accept-plain-intermediates", "--accept-unbound-images")
        stack.enter_context(made.authoriser(*options))
        front = stack.enter_context(made.endpoint())
        yield Upstream(port_of(front), root.pem)


def ask(upstream: Upstream, bundle: Path) -> object:
    key = bundle.parent / bundle.name.replace(".bundle.pem", ".key")
    if bundle.name.startswith("colon-") and not key.exists():
        key = bundle.parent / f"{bundle.name.removesuffix('.bundle.pem')}.key"
    with connect(
        "127.0.0.1", upstream.port, bundle.read_bytes(), key.read_bytes(), upstream.root, lambda _: ()
    ) as connection:
        if bundle.name.startswith("block-set"):
            connection.send_stream(b"")
        return answer(connection)


@pytest.mark.parametrize("record", records(), ids=lambda record: f"{record['kind']}-{record['label']}")
def test_upstreams_certificates_have_upstreams_verdict(upstream: Upstream, record: dict[str, Any]) -> None:
    try:
        got = ask(upstream, VECTORS / record["bundle"])
    except (CertificateRefused, ConnectionCut) as error:
        got = error
    accepted = got == Text("done") or got == Text("subscribed")
    assert accepted is (accepted_by_upstream(record) is not (record["label"] in STRICTER)), got
    assert accepted or isinstance(got, Failure | AlbatrossError), "a refusal has words"


@pytest.mark.parametrize("key_type", ["rsa2048", "p256", "p384", "p521", "mixed"])
def test_upstreams_keys_of_every_kind_load(key_type: str) -> None:
    pki = VECTORS / "pki" / key_type
    server_context(str(pki / "server.pem"), str(pki / "server.key"), (pki / "cacert.pem").read_bytes())
    x509.load_pem_x509_certificate((pki / "cacert.pem").read_bytes())
