from datetime import UTC, datetime
from pathlib import Path as FilePath

import pytest

from albatross_pki.extensions import Constraints
from albatross_pki.pem import certificates
from albatross_pki.policy.certificates import read_certificate
from albatross_pki.policy.server import judge_server, needs_pin
from tests.pki_builder import CLIENT_AUTH, EXTENDED_KEY_USAGE, HOUR, NOW, SERVER_AUTH, Authority, Leaf, purposes

ROOT = Authority.root()
VECTORS = FilePath(__file__).parents[1] / "vectors"
AUTHORITIES = sorted(found.parent for found in (VECTORS / "pki").glob("*/cacert.pem"))
FILES = ("server.pem", "cacert.pem")
WITHIN = datetime(2026, 11, 25, tzinfo=UTC)


def problems(server: Leaf, host: str = "localhost", pin: bytes | None = None) -> list[str]:
    found = judge_server(server.path, server.anchor_facts, host=host, now=NOW, pin=pin)
    assert all(violation.text.isprintable() for violation in found)
    return [violation.field for violation in found]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "::1", "0:0:0:0:0:0:0:1"])
def test_names_and_addresses(host: str) -> None:
    assert problems(ROOT.server(["localhost", "127.0.0.1", "::1"]), host) == []


@pytest.mark.parametrize("host", ["localhost.example", "ocalhost", "127.0.0.2", "", "*", "localhost\0"])
def test_another_host(host: str) -> None:
    assert problems(ROOT.server(), host) == ["host"]


def test_the_common_name_is_no_name_and_wildcards_match_nothing() -> None:
    assert problems(ROOT.server(["other"], name="localhost")) == ["host"]
    assert problems(ROOT.server(["*.example"]), "host.example") == ["host"]


def test_an_address_is_not_a_name() -> None:
    assert problems(ROOT.server(["127.0.0.1.example"]), "127.0.0.1") == ["host"]


class TestWithoutNames:
    """Server certificates as upstream's tools make them."""

    def test_only_by_its_pin(self) -> None:
        server = ROOT.server([])
        assert needs_pin(server.path)
        assert problems(server) == ["pin"]
        assert problems(server, pin=server.facts.digest) == []
        assert problems(server, pin=b"\0" * 32) == ["pin"]

    def test_only_directly_below_the_root(self) -> None:
        server = ROOT.plain("servers", drop=[EXTENDED_KEY_USAGE]).server([])
        assert not needs_pin(server.path)
        assert problems(server, pin=server.facts.digest) == ["host"]


class TestNobodyElsePoses:
    def test_below_a_plain_ca(self) -> None:
        assert problems(ROOT.plain("servers", drop=[EXTENDED_KEY_USAGE]).server()) == []

    @pytest.mark.parametrize("narrow", [True, False])
    def test_p15_nobody_below_a_delegation(self, narrow: bool) -> None:
        """With the extended key usage of native delegations, and without any, as upstream makes them."""
        dev = ROOT.delegate("dev", drop=[] if narrow else [EXTENDED_KEY_USAGE])
        assert set(problems(dev.server())) == ({"role", "purpose"} if narrow else {"role"})

    def test_p15_nobody_below_a_permission_certificate(self) -> None:
        permission = ROOT.permit("ci", Constraints(once=True), drop=[EXTENDED_KEY_USAGE])
        assert problems(permission.server()) == ["role"]

    def test_p15_nobody_below_a_plain_ca_below_a_delegation(self) -> None:
        plain = ROOT.delegate("dev", drop=[EXTENDED_KEY_USAGE]).plain("x", drop=[EXTENDED_KEY_USAGE])
        assert problems(plain.server()) == ["role"]

    def test_p15_no_leaf_with_a_command(self) -> None:
        assert set(problems(ROOT.leaf(), "hello")) == {"role", "purpose", "pin"}
        both = ROOT.leaf(add=[purposes(CLIENT_AUTH, SERVER_AUTH)])
        assert problems(both, pin=both.facts.digest) == ["role"]

    def test_p15_no_leaf_without_purpose(self) -> None:
        assert problems(ROOT.server(drop=[EXTENDED_KEY_USAGE])) == ["purpose"]

    def test_p15_nobody_below_another_root(self) -> None:
        server = Authority.root().server()
        found = judge_server(server.path, ROOT.facts, host="localhost", now=NOW)
        assert [violation.field for violation in found] == ["signature", "key-ids"]


def test_everything_at_once() -> None:
    server = ROOT.server(["other"], not_after=NOW - HOUR / 2, add=[purposes(CLIENT_AUTH)])
    assert problems(server) == ["validity", "purpose", "host"]


def test_an_empty_chain_is_nobody() -> None:
    assert judge_server([], ROOT.facts, host="localhost", now=NOW) != []


@pytest.mark.parametrize("directory", AUTHORITIES, ids=lambda found: found.name)
def test_servers_that_upstreams_tools_made(directory: FilePath) -> None:
    """No name in them, directly below the root: known by their pin, and by nothing else."""
    server, root = (read_certificate(certificates((directory / name).read_bytes(), name)[0]) for name in FILES)
    found = {pin: judge_server([server], root, host="host", now=WITHIN, pin=pin) for pin in (None, server.digest)}
    assert [violation.field for violation in found[None]] == ["pin"]
    assert found[server.digest] == []


@pytest.mark.parametrize("directory", AUTHORITIES, ids=lambda found: found.name)
def test_p15_delegations_that_upstreams_tools_made_are_no_servers(directory: FilePath) -> None:
    """They have no extended key usage, so OpenSSL would take a server below them."""
    alice, root = (read_certificate(certificates((directory / n).read_bytes(), n)[0]) for n in ("alice.pem", FILES[1]))
    found = judge_server([alice], root, host="host", now=WITHIN, pin=alice.digest)
    assert {"role", "purpose", "ca"} <= {violation.field for violation in found}
