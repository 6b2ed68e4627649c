"""Renewal: same rights and place, another serial and another end."""

from pathlib import Path

import pytest

from albatross_pki.journal.log import read_entries
from albatross_pki.pem import certificates
from albatross_pki.policy.certificates import CertificateFacts, read_certificate
from tests.ca.programs import Program


def first(path: str) -> CertificateFacts:
    return read_certificate(certificates(Path(path).read_bytes(), path)[0])


def same_content(old: CertificateFacts, new: CertificateFacts) -> bool:
    """Everything but serial, validity and what follows from a key."""
    fields = ("subject", "issuer", "albatross", "constraints", "binding", "command", "is_ca", "path_length")
    others = ("key_usage", "extended_key_usage", "dns_names", "ip_addresses", "critical", "present")
    return all(getattr(old, field) == getattr(new, field) for field in (*fields, *others))


def test_a_delegation_is_renewed_in_place(dev: Path, ca: Program) -> None:
    old = first("dev.pem")
    ca("renew", "cacert.pem", "db", "ca.key", "dev.pem", "--days=500")
    new = first("dev.pem")
    assert same_content(old, new)
    assert new.spki_sha256 == old.spki_sha256
    assert new.serial != old.serial
    assert new.not_after > old.not_after
    issued = [entry["rights"] for entry in read_entries("db.ledger") if entry.get("label") == "dev"]
    assert issued[0] == issued[1]


def test_a_delegation_is_renewed_with_a_new_key(dev: Path, ca: Program, ask: Program) -> None:
    old = first("dev.pem")
    said = ca("renew", "cacert.pem", "db", "ca.key", "dev.pem", "--new-key=dev-2.key", "-o", "dev-2.pem")
    new = first("dev-2.pem")
    assert same_content(old, new)
    assert new.spki_sha256 != old.spki_sha256
    assert f"revoke {old.serial:x}" in said.err
    ask("info")
    ca("sign", "dev-2.pem", "dev.db", "dev-2.key", "path-info.req", "--as=leaf")
    ca("revoke", "db", f"{old.serial:x}")
    ca("crl", "cacert.pem", "db", "ca.key")
    assert ca("verify", "path-info.pem", "--ca=cacert.pem", "--crl=ca.crl").out.endswith("accepted\n")


def test_a_delegation_is_renewed_with_the_key_of_a_request(dev: Path, ca: Program, ask: Program) -> None:
    """The rights are the old certificate's; what the request asks for beside its key is not looked at."""
    ask("delegation", "dev", 100, "--key=new.key", "-o", "new.req")
    ca("renew", "cacert.pem", "db", "ca.key", "dev.pem", "--request=new.req", "-o", "new.pem")
    assert same_content(first("dev.pem"), first("new.pem"))


def test_a_server_and_a_permission_are_renewed(dev: Path, ca: Program, ask: Program) -> None:
    ask("permissions", "ci", "-p", "info", "--once")
    ca("sign", "cacert.pem", "db", "ca.key", "ci.req", "--as=delegation")
    for name in ("server.pem", "ci.pem"):
        old = first(name)
        ca("renew", "cacert.pem", "db", "ca.key", name)
        assert same_content(old, first(name))


def test_a_leaf_is_once_again_once(dev: Path, ca: Program, ask: Program) -> None:
    ask("destroy", "web")
    ca("sign", "dev.pem", "dev.db", "dev.key", "web.req", "--as=leaf")
    old = first("web.pem")
    ca("renew", "dev.pem", "dev.db", "dev.key", "web.pem")
    assert same_content(old, first("web.pem"))


def test_the_root_renews_itself_with_the_same_key(dev: Path, ca: Program) -> None:
    old = first("cacert.pem")
    ca("renew", "cacert.pem", "db", "ca.key", "cacert.pem", "--days=4000")
    new = first("cacert.pem")
    assert same_content(old, new)
    assert new.not_after > old.not_after
    assert ca("verify", "dev.pem", "--ca=cacert.pem").status == 0, "what stands below goes on"


def test_the_root_renews_itself_with_a_new_key(dev: Path, ca: Program) -> None:
    ca("renew", "cacert.pem", "db", "ca.key", "cacert.pem", "--new-key=ca-2.key", "-o", "cacert-2.pem")
    assert ca("verify", "dev.pem", "--ca=cacert-2.pem", check=False).status == 116
    both = ("--ca=cacert.pem", "--ca=cacert-2.pem")
    assert ca("verify", "dev.pem", *both).status == 0
    ca("renew", "cacert-2.pem", "db", "ca-2.key", "dev.pem", "-o", "dev-2.pem")
    assert ca("verify", "dev-2.pem", "--ca=cacert-2.pem").status == 0
    assert ca("verify", "dev-2.pem", *both).status == 0


def test_what_is_revoked_or_strange_is_not_renewed(dev: Path, ca: Program) -> None:
    vectors = Path(__file__).parent.parent / "vectors" / "pki" / "ed25519"
    refused = ca("renew", "cacert.pem", "db", "ca.key", vectors / "alice.pem", "-o", "x.pem", check=False)
    assert "was not issued here" in refused.err
    ca("revoke", "db", "dev")
    refused = ca("renew", "cacert.pem", "db", "ca.key", "dev.pem", check=False)
    assert "is revoked" in refused.err
    assert not Path("x.pem").exists()


@pytest.mark.parametrize("option", ["--new-key=dev.key", "--output=server.pem"])
def test_files_that_are_there_stay(dev: Path, ca: Program, option: str) -> None:
    kept = Path("dev.key").read_bytes(), Path("server.pem").read_bytes()
    assert "exists already" in ca("renew", "cacert.pem", "db", "ca.key", "dev.pem", option, check=False).err
    assert (Path("dev.key").read_bytes(), Path("server.pem").read_bytes()) == kept


def test_a_root_under_a_passphrase_stays_under_it(ca: Program, workplace: Path) -> None:
    Path("word").write_text("correct horse")
    options = ("--passphrase-file", "word")
    ca("generate", "ca", "db", *options)
    ca("renew", "cacert.pem", "db", "ca.key", "cacert.pem", "--new-key=ca-2.key", "-o", "cacert-2.pem", *options)
    assert b"ENCRYPTED" in Path("ca-2.key").read_bytes()
    ca("generate", "ca", "db", "--force", *options)
    refused = ca("generate", "ca", "db", "--force", check=False)
    assert "no terminal to ask on" in refused.err
