"""Revocation lists and clocks on the client's side: a server that is on a list sees nothing of ours."""

import re
import ssl
from collections.abc import Callable
from datetime import datetime, tzinfo
from pathlib import Path

import pytest

from albatross_pki.client import credentials, remote
from albatross_pki.client.bistro_cli import program as bistro
from albatross_pki.client.remote_cli import program as remote_tls
from albatross_pki.commands import UnikernelInfoRequest
from albatross_pki.console_script import execute
from albatross_pki.pem import CRL, armour
from albatross_pki.replies import Unikernels
from albatross_pki.transport.alerts import meaning
from albatross_pki.transport.clocks import EXPIRED, at
from tests.client.peers import TlsServer, said
from tests.pki_builder import DAY, EXTENDED_KEY_USAGE, HOUR, NOW, Authority, Leaf, policy

ROOT = Authority.root()
MIDDLE = ROOT.plain("servers", drop=[EXTENDED_KEY_USAGE])
DEV = ROOT.delegate("dev", policy())
SERVER = ROOT.server()
BELOW = MIDDLE.server()
ANSWERED, REFUSED = 0, 120

Ask = Callable[..., int]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """The exit status of ``info`` to ``server``, and that it saw our certificate only if that is 0."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    Path("ca.pem").write_bytes(DEV.chain_pem)
    Path("ca.key").write_bytes(DEV.key_pem)
    Path("cacert.pem").write_bytes(ROOT.pem)

    def ask(server: Leaf, *lists: bytes) -> int:
        words = []
        for number, octets in enumerate(lists):
            Path(f"list-{number}").write_bytes(octets)
            words += ["--crl", f"list-{number}"]
        with TlsServer(tmp_path, server, ROOT.pem, said(Unikernels(()))) as peer:
            status = execute(bistro(), ["info", *words, "-d", f"localhost:{peer.port}"], "albatross-client-bistro")
        assert (peer.received, peer.refused) == (([b""], 0) if status == ANSWERED else ([], 1))
        return status

    return ask


def pem(der: bytes) -> bytes:
    return armour(CRL, der)


def test_p15_a_revoked_server_sees_nothing_of_ours(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(SERVER, ROOT.crl([SERVER])) == REFUSED
    assert 'revoked by "ca"' in capsys.readouterr().err
    assert ask(SERVER, pem(ROOT.crl([SERVER]))) == REFUSED
    assert ask(BELOW, ROOT.crl([MIDDLE])) == REFUSED
    assert ask(BELOW, ROOT.crl(), MIDDLE.crl([BELOW])) == REFUSED
    assert capsys.readouterr().err.count(": revoked by") == 3


def test_a_server_that_is_on_no_list_is_talked_to(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(SERVER, ROOT.crl([DEV])) == ANSWERED
    assert ask(BELOW, ROOT.crl(), MIDDLE.crl()) == ANSWERED
    assert capsys.readouterr().err == ""


def test_an_expired_list_still_revokes_and_is_told(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    def old(*revoked: Leaf) -> bytes:
        return ROOT.crl(revoked, this_update=NOW - 2 * DAY, next_update=NOW - DAY)

    assert ask(SERVER, old(SERVER)) == REFUSED
    assert "warning: list-0 expired at" in capsys.readouterr().err
    assert ask(SERVER, old()) == ANSWERED
    assert "warning: list-0 expired at" in capsys.readouterr().err


def test_a_list_of_a_namesake_revokes_nothing_and_is_told(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(SERVER, Authority.root("ca").crl([SERVER])) == ANSWERED
    assert "warning: list-0 is not used: the revocation list is not signed by" in capsys.readouterr().err


@pytest.mark.parametrize("octets", [b"", b"\x30\0", ROOT.pem, pem(ROOT.crl()) * 2], ids=["empty", "der", "pem", "two"])
def test_what_is_no_list_is_refused_before_anybody_is_connected_to(
    octets: bytes, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("list").write_bytes(octets)
    words = ["info", "--crl", "list", "-d", "localhost:1"]
    assert execute(bistro(), words, "albatross-client-bistro") == 124
    assert capsys.readouterr().err.startswith("error: list: ")


@pytest.mark.parametrize(
    ("server", "date", "difference"),
    [
        (ROOT.server(not_before=NOW - 2 * DAY, not_after=NOW - HOUR), f"expired at {at(NOW - HOUR)}", "ahead"),
        (ROOT.server(not_before=NOW + HOUR, not_after=NOW + DAY), f"not valid before {at(NOW + HOUR)}", "behind"),
    ],
    ids=["expired", "not yet"],
)
def test_a_difference_of_clocks_is_called_one(
    server: Leaf, date: str, difference: str, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(server) == REFUSED
    error, hint = capsys.readouterr().err.splitlines()
    assert re.search(f"{date}; this machine's clock says [-0-9]+ [0-9:]+ UTC$", error)
    assert re.search(rf"this machine's clock is at least \d+ (min|h)[ 0-9a-z]* {difference}: set it", hint)


def test_a_root_that_has_expired_is_a_matter_of_clocks_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The root is not presented: its dates are in a file of ours."""
    text = str(meaning(ssl_error(EXPIRED)))
    assert "its certificate, or one above it, has expired by this machine's clock, which says" in text


def ssl_error(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_code = code
    return error


@pytest.mark.parametrize(
    ("not_before", "not_after", "clock", "words"),
    [
        (NOW + HOUR, NOW + DAY, NOW + 2 * HOUR, "the server's clock is more than 1 h behind this machine's"),
        (NOW - DAY, NOW - HOUR, NOW - 3 * HOUR, "the server's clock is more than 2 h ahead of this machine's"),
    ],
    ids=["not yet", "expired"],
)
def test_a_server_whose_clock_differs_refuses_what_is_good_here(
    not_before: datetime,
    not_after: datetime,
    clock: datetime,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Our clock is the one that is set here; the server's is this machine's."""

    class Ours(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Ours":
            return cls.fromtimestamp(clock.timestamp(), tz)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(credentials, "datetime", Ours)
    monkeypatch.setattr(remote, "datetime", Ours)
    root = Authority.root(not_before=NOW - 9 * DAY)
    dev = root.delegate("dev", policy(), not_before=NOW - 9 * DAY)
    leaf = dev.leaf("info", UnikernelInfoRequest(), not_before=not_before, not_after=not_after)
    for name, octets in (("cacert.pem", root.pem), ("leaf.pem", leaf.chain_pem), ("leaf.key", leaf.key_pem)):
        Path(name).write_bytes(octets)
    server = root.server(not_before=NOW - 9 * DAY)
    with TlsServer(tmp_path, server, root.pem, said(Unikernels(()))) as peer:
        to = f"localhost:{peer.port}"
        assert execute(remote_tls(), ["cacert.pem", "leaf.pem", "leaf.key", to], "albatross-client-remote-tls") == 119
    error, hint = capsys.readouterr().err.splitlines()
    dates = f"ours is valid from {at(not_before)} to {at(not_after)}, and this machine's clock says {at(clock)}"
    assert error.startswith("error: the server refused our certificate")
    assert error.endswith(f"; {dates}")
    assert words in hint
