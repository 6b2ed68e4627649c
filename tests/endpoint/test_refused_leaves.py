"""Leaves that are of no use: the client says why before it sends anything, and the server says why to whoever asks.

The client judges its own chain by its own clock (status 116). A server's clock may be another one, and clients may be
others than ours, so each of them is presented to a real endpoint too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from albatross_pki.client.remote_cli import program as remote_tls
from albatross_pki.console_script import execute
from albatross_pki.extensions import ALBATROSS_OID
from albatross_pki.replies import Failure, Text
from albatross_pki.transport.alerts import CertificateRefused
from tests.endpoint.deployment import Host, answer, whole_host
from tests.pki_builder import HOUR, NOW, Authority, Issued

ROOT = Authority.root()
DEV = ROOT.delegate("dev")


@dataclass(frozen=True)
class Case:
    leaf: Issued
    client: str  # a word of what the client says by itself
    server: str  # what it says about the server's answer
    hint: str = ""


CASES = {
    "expired": Case(
        DEV.leaf("hello", not_after=NOW - timedelta(minutes=1)),
        "expired",
        "it, or one above it, is not valid at this time",
        "clock",
    ),
    "not yet valid": Case(
        DEV.leaf("hello", not_before=NOW + HOUR), "not valid before", "or not valid yet by the server's clock", "clock"
    ),
    "an expired delegation": Case(
        ROOT.delegate("dev", not_after=NOW - timedelta(minutes=1)).leaf("hello"),
        "expired",
        "it, or one above it, is not valid at this time",
        "clock",
    ),
    "unknown CA": Case(
        Authority.root("other").delegate("dev").leaf("hello"),
        "root",
        "does not know the CA that our chain ends at",
        "bundle",
    ),
    "without a command": Case(DEV.leaf("hello", drop=[ALBATROSS_OID]), "command", "command"),
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with whole_host(tmp_path_factory.mktemp("refused"), root=ROOT) as made:
        yield made


@pytest.mark.parametrize("name", CASES)
def test_p30_the_client_says_why_and_sends_nothing(
    host: Host, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    for file, octets in (("leaf.pem", case.leaf.chain_pem), ("leaf.key", case.leaf.key_pem)):
        (tmp_path / file).write_bytes(octets)
    words = [str(host.deployment.file("cacert.pem")), str(tmp_path / "leaf.pem"), str(tmp_path / "leaf.key")]
    seen = len(host.endpoint.log)
    status = execute(remote_tls(), [*words, f"localhost:{host.port}"], "albatross-client-remote-tls")
    told = capsys.readouterr().err
    assert status == 116, told
    assert case.client in told.splitlines()[0]
    assert told.splitlines()[0].startswith("error: ")
    assert host.ask(DEV.leaf("hello")) == Text("done")
    assert not [line for line in host.endpoint.log[seen:] if "refused" in line or "failed" in line]


@pytest.mark.parametrize("name", CASES)
def test_p29_the_server_says_why_and_the_client_in_one_line(host: Host, name: str) -> None:
    case = CASES[name]
    asked = len(host.daemon.asked)
    with host.connect(case.leaf) as connection:
        if case.hint:
            with pytest.raises(CertificateRefused) as refused:
                connection.receive_frame(seconds=20)
            assert case.server in str(refused.value)
            assert "\n" not in str(refused.value)
            assert case.hint in (refused.value.hint or "")
        else:
            failure = answer(connection)
            assert isinstance(failure, Failure)
            assert case.server in failure.text
    assert len(host.daemon.asked) == asked
