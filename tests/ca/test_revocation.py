"""Revoking, and the lists that tell servers of it."""

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from albatross_pki.ca.ledger import LedgerView
from albatross_pki.ca.revocation import KEPT_AFTER_EXPIRY, listed, next_number
from albatross_pki.journal.log import read_entries
from albatross_pki.pem import certificates
from albatross_pki.policy.certificates import CertificateFacts, read_certificate
from albatross_pki.policy.revocation import read_crl
from tests.ca.programs import Program


def first(path: str) -> CertificateFacts:
    return read_certificate(certificates(Path(path).read_bytes(), path)[0])


@pytest.fixture
def leaf(dev: Path, ca: Program, ask: Program) -> Path:
    """A leaf ``hello`` below ``dev``."""
    ask("info", "-n", "hello")
    ca("sign", "dev.pem", "dev.db", "dev.key", "hello.req", "--as=leaf")
    return dev


def test_p14_a_revoked_delegation_takes_everything_below_with_it(leaf: Path, ca: Program) -> None:
    ca("revoke", "db", "dev", "--reason=key-compromise")
    assert ca("verify", "hello.pem", "--ca=cacert.pem").status == 0, "nobody knows without the list"
    said = ca("crl", "cacert.pem", "db", "ca.key")
    assert "revokes 1 certificate" in said.err
    refused = ca("verify", "hello.pem", "--ca=cacert.pem", "--crl=ca.crl", check=False)
    assert refused.status == 116
    assert 'revoked by "ca"' in refused.out
    assert "REFUSED" in refused.out


def test_p14_a_delegation_revokes_what_it_signed(leaf: Path, ca: Program) -> None:
    ca("revoke", "dev.db", "dev:hello")
    ca("crl", "dev.pem", "dev.db", "dev.key", "--pem")
    assert Path("dev.crl").read_bytes().startswith(b"-----BEGIN X509 CRL-----")
    assert ca("verify", "hello.pem", "--ca=cacert.pem", "--crl=dev.crl", check=False).status == 116


def test_p14_the_list_of_a_namesake_is_not_used(leaf: Path, ca: Program, ask: Program) -> None:
    """A list under the root's name, by another key, neither revokes nor takes the place of the root's own."""
    root = Path("cacert.pem").read_bytes()
    Path("ca.key").rename("real.key")
    ca("generate", "ca", "other.db", "--force", "--server=other")
    ca("revoke", "other.db", "other")
    ca("crl", "cacert.pem", "other.db", "ca.key", "-o", "namesake.crl")
    Path("cacert.pem").write_bytes(root)
    said = ca("verify", "hello.pem", "--ca=cacert.pem", "--crl=namesake.crl")
    assert "namesake.crl is not used" in said.err
    ca("revoke", "db", "dev")
    ca("crl", "cacert.pem", "db", "real.key", "-o", "real.crl")
    both = ("--crl=real.crl", "--crl=namesake.crl")
    assert ca("verify", "hello.pem", "--ca=cacert.pem", *both, check=False).status == 116
    assert ca("verify", "hello.pem", "--ca=cacert.pem", *reversed(both), check=False).status == 116


def test_p14_numbers_only_rise(leaf: Path, ca: Program) -> None:
    numbers = []
    for _ in range(3):
        ca("crl", "cacert.pem", "db", "ca.key")
        numbers.append(read_crl(Path("ca.crl").read_bytes()).number)
    assert numbers[0] < numbers[1] < numbers[2]


def test_numbers_rise_above_the_clock_and_above_the_last() -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    assert next_number(0, now) == int(now.timestamp())
    assert next_number(int(now.timestamp()) + 5, now) == int(now.timestamp()) + 6


def test_a_list_by_serial_name_label_and_file(leaf: Path, ca: Program, ask: Program) -> None:
    serials = []
    for label in ("a", "b", "c", "d"):
        ask("info", "-n", label)
        ca("sign", "dev.pem", "dev.db", "dev.key", f"{label}.req", "--as=leaf")
        serials.append(f"{first(f'{label}.pem').serial:x}")
    for what in (serials[0], "dev:b", "C", "d.pem"):
        ca("revoke", "dev.db", what)
    assert [entry["serial"] for entry in read_entries("dev.db.ledger") if entry["kind"] == "revoked"] == serials


def test_a_name_of_several_certificates_is_asked_back(leaf: Path, ca: Program) -> None:
    ca("sign", "dev.pem", "dev.db", "dev.key", "hello.req", "--as=leaf", "--force")
    refused = ca("revoke", "dev.db", "hello", check=False)
    assert refused.errors[0] == "'hello' means 2 certificates"
    assert len(refused.errors) == 3
    ca("revoke", "dev.db", "hello", "--all")
    assert "revoked or expired already" in ca("revoke", "dev.db", "hello", check=False).err


def test_unknown_certificates_are_not_revoked_by_accident(leaf: Path, ca: Program) -> None:
    assert "has no certificate 'nobody'" in ca("revoke", "db", "nobody", check=False).err
    assert "--ca CACERT" in ca("revoke", "db", "hello.pem", check=False).err
    assert "was not issued by" in ca("revoke", "db", "hello.pem", "--ca=cacert.pem", check=False).err
    assert "root cannot be revoked" in ca("revoke", "db", "ca", check=False).err


def test_a_certificate_that_a_thief_signed_is_revoked_by_its_file(leaf: Path, ca: Program, ask: Program) -> None:
    ask("delegation", "evil", 1)
    ca("sign", "cacert.pem", "thief.db", "ca.key", "evil.req", "--as=delegation")
    ca("revoke", "db", "evil.pem", "--ca=cacert.pem", "--reason=ca-compromise")
    ca("crl", "cacert.pem", "db", "ca.key")
    assert read_crl(Path("ca.crl").read_bytes()).serials == frozenset({first("evil.pem").serial})
    assert "already" in ca("revoke", "db", "evil.pem", "--ca=cacert.pem", check=False).err


def test_the_list_is_recorded_before_it_is_there(leaf: Path, ca: Program) -> None:
    ca("crl", "cacert.pem", "db", "ca.key", "--days=7")
    crl = read_crl(Path("ca.crl").read_bytes())
    entry = [entry for entry in read_entries("db.ledger") if entry["kind"] == "crl"][-1]
    assert (entry["number"], entry["entries"], entry["digest"]) == (crl.number, 0, crl.digest.hex())
    assert crl.next_update - crl.this_update == timedelta(days=7)


def test_openssl_reads_the_list(leaf: Path, ca: Program) -> None:
    ca("revoke", "db", "dev", "--reason=superseded")
    ca("crl", "cacert.pem", "db", "ca.key")
    words = ["openssl", "crl", "-inform", "DER", "-in", "ca.crl", "-CAfile", "cacert.pem", "-noout", "-text"]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert "Superseded" in text


def test_long_expired_certificates_leave_the_list() -> None:
    now = datetime(2026, 11, 21, tzinfo=UTC)

    def issued(serial: str, until: datetime) -> dict[str, str]:
        members = dict.fromkeys(
            ("issuer", "key", "path", "label", "rights", "not_before", "digest", "word", "time"), "k"
        )
        stamp = until.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"kind": "issued", **members, "serial": serial, "role": "leaf", "not_after": stamp}

    def revoked(serial: str) -> dict[str, str]:
        return {
            "kind": "revoked",
            "serial": serial,
            "issuer": "k",
            "reason": "superseded",
            "time": "2026-01-01T00:00:00Z",
        }

    view = LedgerView(
        [],
        [
            *(issued("a", now - KEPT_AFTER_EXPIRY - timedelta(seconds=1)), revoked("a")),
            *(issued("b", now - KEPT_AFTER_EXPIRY + timedelta(seconds=1)), revoked("b")),
            revoked("c"),
        ],
    )
    assert [item.serial for item in listed(view, "k", now)] == ["b", "c"]
    assert listed(view, "another", now) == []
