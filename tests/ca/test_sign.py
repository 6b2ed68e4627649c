"""Signing: the operator says what becomes of a request, the issuer bounds it, the server's code has the last word."""

import os
import stat
import subprocess
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from albatross_pki.commands import UnikernelCreate, UnikernelInfoRequest
from albatross_pki.extensions import CONSTRAINTS_OID
from albatross_pki.keys import KeyType, generate_key, key_pem
from albatross_pki.pem import REQUEST, armour, certificates
from albatross_pki.policy.certificates import CertificateFacts, read_certificate
from albatross_pki.policy.profiles import command_extensions
from albatross_pki.unikernels import Settings, UnikernelConfig
from tests.ca.programs import HELLO, Program, Result
from tests.pki_builder import Authority, policy


def read(path: str | Path) -> list[CertificateFacts]:
    return [read_certificate(der) for der in certificates(Path(path).read_bytes(), str(path))]


def sign_root(ca: Program, csr: str, *options: object, check: bool = True) -> Result:
    return ca("sign", "cacert.pem", "db", "ca.key", csr, *options, check=check)


def sign_dev(ca: Program, csr: str, *options: object, check: bool = True) -> Result:
    return ca("sign", "dev.pem", "dev.db", "dev.key", csr, *options, check=check)


def write_request(path: str, common_name: str, *extensions: tuple[x509.ExtensionType, bool]) -> None:
    """A request as a stranger's tool could write it."""
    key = generate_key()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that cryptography finds too short or too long
        name = x509.NameAttribute(NameOID.COMMON_NAME, common_name, _validate=False)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([name]))
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    Path(path).write_bytes(armour(REQUEST, builder.sign(key, None).public_bytes(Encoding.DER)))


# generate


def test_generate_writes_what_albatross_users_know(ca: Program, workplace: Path) -> None:
    ca("generate", "ca", "db", "--server", "srv", "--server-name", "srv.example.org", "--server-name", "10.0.0.1")
    modes = {name: stat.S_IMODE(os.stat(name).st_mode) for name in os.listdir()}
    assert modes == {
        "ca.key": 0o400,
        "cacert.pem": 0o644,
        "srv.key": 0o400,
        "srv.pem": 0o644,
        "db": 0o644,
        "db.ledger": 0o600,
    }
    root, server = read("cacert.pem")[0], read("srv.pem")[0]
    assert root.self_issued
    assert server.dns_names == ("srv.example.org",)
    assert [str(address) for address in server.ip_addresses] == ["10.0.0.1"]
    number, name = Path("db").read_text().split()
    assert (int(number, 16), name) == (server.serial, "srv")


def test_generate_uses_existing_keys_and_replaces_no_certificate(ca: Program, workplace: Path) -> None:
    ca("generate", "ca", "db")
    key, root = Path("ca.key").read_bytes(), Path("cacert.pem").read_bytes()
    again = ca("generate", "ca", "db", check=False)
    assert again.status == 124
    assert "exists already" in again.err
    assert Path("cacert.pem").read_bytes() == root
    ca("generate", "ca", "db", "--force")
    assert Path("ca.key").read_bytes() == key
    assert Path("cacert.pem").read_bytes() != root


@pytest.mark.parametrize("key_type", [kind.value for kind in KeyType])
def test_every_key_type_signs(ca: Program, ask: Program, workplace: Path, key_type: str) -> None:
    ca("generate", "ca", "db", "--key-type", key_type)
    ask("delegation", "dev", 1, "--mem=32", "--key-type", key_type)
    sign_root(ca, "dev.req", "--as=delegation")
    ask("info", "--key-type", key_type)
    sign_dev(ca, "path-info.req", "--as=leaf")
    assert ca("verify", "path-info.pem", "--ca=cacert.pem").out.endswith("accepted\n")


def test_openssl_reads_what_is_written(dev: Path) -> None:
    for words in (["x509", "-in", "dev.pem"], ["req", "-in", "dev.req", "-verify"], ["pkey", "-in", "dev.key"]):
        subprocess.run(["openssl", *words, "-noout"], check=True, capture_output=True)


def test_an_encrypted_key_is_used_with_its_passphrase(ca: Program, ask: Program, workplace: Path) -> None:
    Path("word").write_text("correct horse\n")
    Path("wrong").write_text("battery\n")
    ca("generate", "ca", "db", "--passphrase-file", "word")
    assert b"ENCRYPTED" in Path("ca.key").read_bytes()
    ask("delegation", "dev", 1)
    assert "wrong passphrase" in sign_root(ca, "dev.req", "--as=delegation", "--passphrase-file=wrong", check=False).err
    sign_root(ca, "dev.req", "--as=delegation", "--passphrase-file=word")


# P17


@pytest.mark.parametrize(
    ("words", "role", "hint"),
    [
        (("delegation", "x", 1), "leaf", "--as delegation"),
        (("delegation", "x", 1), "server", "--as delegation"),
        (("info", "-n", "x"), "delegation", "--as leaf"),
        (("info", "-n", "x"), "server", "--as leaf"),
        (("permissions", "x", "-p", "info"), "leaf", "--as delegation"),
        (("permissions", "x", "-p", "info"), "server", "--as delegation"),
        (("server", "x", "--server-name=x"), "delegation", "--as server"),
        (("server", "x", "--server-name=x"), "leaf", "--as server"),
    ],
)
def test_p17_the_role_is_the_operators_word(
    dev: Path, ca: Program, ask: Program, words: tuple[object, ...], role: str, hint: str
) -> None:
    """A request for something else than the operator named is refused, never signed as what it asks to be."""
    ask(*words)
    ledger = Path("db.ledger").read_bytes()
    refused = sign_root(ca, "x.req", "--as", role, check=False)
    assert refused.status == 124
    assert f"hint: {hint}\n" in refused.err
    assert not Path("x.pem").exists()
    assert Path("db.ledger").read_bytes() == ledger


def test_p17_without_a_role_nothing_is_signed(dev: Path, ca: Program, ask: Program) -> None:
    ask("delegation", "x", 1)
    refused = sign_root(ca, "x.req", check=False)
    assert refused.status == 124
    assert "--as delegation, --as leaf or --as server" in refused.err
    assert not Path("x.pem").exists()


@pytest.mark.parametrize("name", ["../x", "a/b", "x" * 64, "-rf", "a:b", "", "ä", "a\nb", ".:", "a_b"])
def test_p17_p20_output_names_are_labels(dev: Path, ca: Program, name: str) -> None:
    """The common name of a request becomes a file name only if it is a label."""
    write_request("stranger.req", name)
    before = sorted(os.listdir(".")), sorted(os.listdir(".."))
    refused = sign_root(ca, "stranger.req", "--as=server", "--server-name=localhost", check=False)
    assert refused.status == 124
    assert (sorted(os.listdir(".")), sorted(os.listdir(".."))) == before


def test_p17_validity_is_clamped_to_the_issuer(ca: Program, ask: Program, workplace: Path) -> None:
    ca("generate", "ca", "db", "--days=20", "--server-days=20")
    ask("delegation", "dev", 1, "--path-length=1")
    said = sign_root(ca, "dev.req", "--as=delegation", "--days=365")
    assert "cut to the issuer's" in said.err
    ask("delegation", "below", 1)
    sign_dev(ca, "below.req", "--as=delegation", "--days=30")
    ask("info")
    ca("sign", "below.pem", "below.db", "below.key", "path-info.req", "--as=leaf", "--days=30")
    leaf, below, dev = read("path-info.pem")
    root = read("cacert.pem")[0]
    assert leaf.not_after <= below.not_after <= dev.not_after <= root.not_after
    assert leaf.not_before >= below.not_before >= dev.not_before >= root.not_before
    assert "outlives" not in ca("verify", "path-info.pem", "--ca=cacert.pem").out


def test_p17_delegations_have_a_path_length(dev: Path, ca: Program, ask: Program) -> None:
    """As asked for and possible, else none at all below."""
    assert read("dev.pem")[0].path_length == 1
    ask("delegation", "below", 1, "--mem=32")
    sign_dev(ca, "below.req", "--as=delegation")
    assert read("below.pem")[0].path_length == 0
    ask("delegation", "deeper", 1, "--mem=32", "--path-length=1")
    assert "path length of 1" in sign_dev(ca, "deeper.req", "--as=delegation", check=False).err
    ask("delegation", "deepest", 1, "--mem=32")
    used_up = ca("sign", "below.pem", "below.db", "below.key", "deepest.req", "--as=delegation", check=False)
    assert "its path length is used up" in used_up.err


def test_native_delegations_are_for_clients_alone(dev: Path) -> None:
    assert read("dev.pem")[0].extended_key_usage == frozenset({"1.3.6.1.5.5.7.3.2"})


# P31, P36, P38: what a request may hold


def test_p31_every_reason_is_given_at_once(dev: Path, ca: Program, ask: Program) -> None:
    ask("delegation", "wide", 3, "--mem=128", "--cpu=7", "--block=5", "--bridge=x", "--path-length=3")
    reasons = sign_dev(ca, "wide.req", "--as=delegation", check=False).errors
    assert len(reasons) == 6
    assert not Path("wide.pem").exists()


def test_p36_constraints_are_never_widened_below(dev: Path, ca: Program, ask: Program) -> None:
    ask("permissions", "ci", "-p", "info,console", "--only-name=web*", "--only-host=a.example.org", "--once")
    sign_dev(ca, "ci.req", "--as=delegation")
    ask("destroy", "web1")
    refused = ca("sign", "ci.pem", "ci.db", "ci.key", "web1.req", "--as=leaf", check=False)
    assert "do not allow the command destroy" in refused.err
    ask("info", "-n", "mail", "--permission=info", "--only-host=b.example.org")
    refused = ca("sign", "ci.pem", "ci.db", "ci.key", "mail.req", "--as=leaf", check=False)
    assert "hosts b.example.org" in refused.err
    ask("console", "web2")
    ca("sign", "ci.pem", "ci.db", "ci.key", "web2.req", "--as=leaf")


def test_p38_a_delegation_for_one_host_is_refused_on_another(dev: Path, ca: Program, ask: Program) -> None:
    ask("delegation", "one", 1, "--mem=32", "--only-host=one.example.org")
    sign_dev(ca, "one.req", "--as=delegation")
    ask("info")
    ca("sign", "one.pem", "one.db", "one.key", "path-info.req", "--as=leaf")
    there = ca("verify", "path-info.pem", "--ca=cacert.pem", "--host=one.example.org")
    assert there.out.endswith("accepted\n")
    elsewhere = ca("verify", "path-info.pem", "--ca=cacert.pem", "--host=two.example.org", check=False)
    assert elsewhere.status == 116
    assert "allow only the hosts one.example.org" in elsewhere.out


def test_a_permission_certificate_adds_nothing_to_the_path(dev: Path, ca: Program, ask: Program) -> None:
    ask("permissions", "ci", "-p", "all")
    sign_dev(ca, "ci.req", "--as=delegation")
    ask("info", "-n", "hello")
    assert "signing leaf dev:hello" in ca("sign", "ci.pem", "ci.db", "ci.key", "hello.req", "--as=leaf").err
    ask("delegation", "more", 1, "--mem=32")
    refused = ca("sign", "ci.pem", "ci.db", "ci.key", "more.req", "--as=delegation", check=False)
    assert "permission certificate" in refused.err


# once, unbound


def constraints_in(path: str) -> bool:
    return CONSTRAINTS_OID in read(path)[0].present


@pytest.mark.parametrize(
    ("words", "once"),
    [
        (("destroy", "x"), True),
        (("create", "x", HELLO), True),
        (("create-block", "x", 1), True),
        (("stop", "x"), True),
        (("info", "-n", "x"), False),
        (("console", "x"), False),
        (("dump-block", "x"), False),
    ],
)
def test_p35_what_changes_something_is_signed_for_once(
    dev: Path, ca: Program, ask: Program, words: tuple[object, ...], once: bool
) -> None:
    ask(*words)
    sign_dev(ca, "x.req", "--as=leaf")
    constraints = read("x.pem")[0].constraints
    assert (constraints is not None and constraints.once) is once
    sign_dev(ca, "x.req", "--as=leaf", "--reusable", "--force")
    assert not constraints_in("x.pem")


def test_an_image_that_nothing_binds_is_signed_only_on_demand(dev: Path, ca: Program) -> None:
    create = UnikernelCreate(UnikernelConfig(b"", Settings()))
    write_request("web.req", "web", *((e.value, e.critical) for e in command_extensions(create)))
    refused = sign_dev(ca, "web.req", "--as=leaf", check=False)
    assert refused.status == 124
    assert "--unbound" in refused.err
    sign_dev(ca, "web.req", "--as=leaf", "--unbound")
    assert ca("verify", "web.pem", "--ca=cacert.pem", check=False).status == 116
    assert ca("verify", "web.pem", "--ca=cacert.pem", "--accept-unbound-images").status == 0


# P32


def test_p32_signing_works_at_any_depth_with_bundles_as_written(ca: Program, ask: Program, workplace: Path) -> None:
    ca("generate", "ca", "db")
    above, depth = ("cacert.pem", "db", "ca.key"), 7
    for number in range(depth):
        label = f"d{number}"
        ask("delegation", label, 1, "--mem=32", f"--path-length={depth - 1 - number}")
        ca("sign", *above, f"{label}.req", "--as=delegation")
        above = (f"{label}.pem", f"{label}.db", f"{label}.key")
    ask("info", "-n", "hello")
    ca("sign", *above, "hello.req", "--as=leaf")
    assert [facts.common_name for facts in read("hello.pem")] == ["hello", *(f"d{n}" for n in reversed(range(depth)))]
    assert '"name": "d0:d1:d2:d3:d4:d5:d6:hello"' in ca("verify", "hello.pem", "--ca=cacert.pem", "--json").out


def test_p32_signing_needs_no_root_at_hand(dev: Path, ca: Program, ask: Program) -> None:
    """A developer has a bundle, which has no root in it; what would be refused is refused all the same."""
    os.rename("cacert.pem", "elsewhere.pem")
    ask("info")
    sign_dev(ca, "path-info.req", "--as=leaf")
    assert ca("verify", "path-info.pem", "--ca=elsewhere.pem").out.endswith("accepted\n")
    ask("permissions", "ci", "-p", "info")
    sign_dev(ca, "ci.req", "--as=delegation")
    ask("destroy", "x")
    refused = ca("sign", "ci.pem", "ci.db", "ci.key", "x.req", "--as=leaf", check=False)
    assert "do not allow the command destroy" in refused.err


def test_p32_a_root_in_the_bundle_is_not_handed_on(dev: Path, ca: Program, ask: Program) -> None:
    Path("whole.pem").write_bytes(Path("dev.pem").read_bytes() + Path("cacert.pem").read_bytes())
    ask("info")
    ca("sign", "whole.pem", "dev.db", "dev.key", "path-info.req", "--as=leaf")
    assert [facts.common_name for facts in read("path-info.pem")] == [".", "dev"]


def test_p32_key_and_certificate_are_checked_against_each_other(dev: Path, ca: Program, ask: Program) -> None:
    ask("info")
    refused = ca("sign", "dev.pem", "dev.db", "ca.key", "path-info.req", "--as=leaf", check=False)
    assert "doesn't match private key" in refused.err
    ask("delegation", "below", 1, "--mem=32")
    sign_dev(ca, "below.req", "--as=delegation")
    refused = ca("sign", "below.pem", "x.db", "dev.key", "path-info.req", "--as=leaf", check=False)
    assert 'the key belongs to certificate number 2, "dev"' in refused.err
    assert not Path("x.db").exists()


def test_a_leaf_cannot_sign(dev: Path, ca: Program, ask: Program) -> None:
    ask("info", "-n", "x")
    sign_dev(ca, "x.req", "--as=leaf")
    refused = ca("sign", "x.pem", "x.db", "x.key", "x.req", "--as=leaf", "-o", "y.pem", check=False)
    assert "is not a CA" in refused.err


# P15, P16


def test_p15_no_server_stands_below_a_delegation(dev: Path, ca: Program, ask: Program) -> None:
    ask("server", "srv", "--server-name=srv.example.org")
    refused = sign_dev(ca, "srv.req", "--as=server", check=False)
    assert "cannot stand below a delegation" in refused.err
    sign_root(ca, "srv.req", "--as=server")
    assert read("srv.pem")[0].dns_names == ("srv.example.org",)


def test_p15_a_native_server_has_names(dev: Path, ca: Program, ask: Program) -> None:
    ask("server", "srv")
    assert "--server-name HOST" in sign_root(ca, "srv.req", "--as=server", check=False).err
    sign_root(ca, "srv.req", "--as=server", "--dialect=upstream")


def test_p16_nothing_is_signed_below_a_plain_ca_unless_accepted(ca: Program, ask: Program, workplace: Path) -> None:
    root = Authority.root()
    plain = root.plain("plain")
    Path("plain.pem").write_bytes(plain.chain_pem)
    Path("plain.key").write_bytes(plain.key_pem)
    Path("cacert.pem").write_bytes(root.pem)
    ask("info")
    refused = ca("sign", "plain.pem", "db", "plain.key", "path-info.req", "--as=leaf", check=False)
    assert "neither a policy nor constraints" in refused.err
    assert "nothing was signed: a server would refuse this certificate" in refused.err
    assert not Path("path-info.pem").exists()
    ca("sign", "plain.pem", "db", "plain.key", "path-info.req", "--as=leaf", "--accept-plain-intermediates")


def test_what_a_server_would_refuse_is_not_recorded(dev: Path, ca: Program, ask: Program) -> None:
    ask("permissions", "ci", "-p", "info")
    sign_dev(ca, "ci.req", "--as=delegation")
    ask("destroy", "x")
    ca("sign", "ci.pem", "ci.db", "ci.key", "x.req", "--as=leaf", check=False)
    assert not Path("ci.db.ledger").exists()
    assert not Path("ci.db").exists()


def test_extensions_asked_for_beside_are_shown_and_left_out(dev: Path, ca: Program) -> None:
    usage = x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.3.6.1.5.5.7.3.3")])
    write_request("srv.req", "srv", (usage, True))
    said = sign_root(ca, "srv.req", "--as=server", "--server-name=localhost")
    assert "left out, though asked for: 2.5.29.37" in said.err
    assert read("srv.pem")[0].extended_key_usage == frozenset({"1.3.6.1.5.5.7.3.1"})


def test_existing_certificates_are_replaced_only_with_force(dev: Path, ca: Program) -> None:
    content = Path("dev.pem").read_bytes()
    assert "--force" in sign_root(ca, "dev.req", "--as=delegation", check=False).err
    assert Path("dev.pem").read_bytes() == content
    sign_root(ca, "dev.req", "--as=delegation", "--force")
    assert Path("dev.pem").read_bytes() != content


def test_an_expired_issuer_signs_nothing(ca: Program, ask: Program, workplace: Path) -> None:
    past = datetime.now(UTC) - timedelta(days=2)
    old = Authority.root().delegate("old", policy(), not_before=past, not_after=past + timedelta(days=1))
    Path("old.pem").write_bytes(old.chain_pem)
    Path("old.key").write_bytes(key_pem(old.key))
    ask("info")
    assert "not valid now" in ca("sign", "old.pem", "db", "old.key", "path-info.req", "--as=leaf", check=False).err


@pytest.mark.parametrize(
    "name", ["", "ä", "*.example.org", "a b", "a..b", "-a", "1.2.3.4.5 ", "fe80::1%eth0", "x" * 64]
)
def test_names_that_nobody_can_dial_are_refused(dev: Path, ca: Program, ask: Program, name: str) -> None:
    assert ask("server", "srv", f"--server-name={name}", check=False).status == 124
    ask("server", "srv")
    refused = sign_root(ca, "srv.req", "--as=server", f"--server-name={name}", check=False)
    assert refused.status == 124
    assert "neither a host's name nor an address" in refused.err


def test_the_dialect_is_stored_with_the_ca(ca: Program, ask: Program, workplace: Path) -> None:
    ca("generate", "ca", "db", "--dialect=upstream")
    assert read("server.pem")[0].dns_names == ()
    ask("delegation", "dev", 1, "--mem=32")
    sign_root(ca, "dev.req", "--as=delegation")
    assert read("dev.pem")[0].path_length is None
    assert read("dev.pem")[0].extended_key_usage is None
    ask("permissions", "ci", "-p", "info")
    assert "upstream dialect" in sign_root(ca, "ci.req", "--as=delegation", check=False).err
    sign_root(ca, "ci.req", "--as=delegation", "--dialect=native")


def test_a_request_in_another_version_is_refused(dev: Path, ca: Program) -> None:
    older = command_extensions(UnikernelInfoRequest())[0]
    assert isinstance(older.value, x509.UnrecognizedExtension)
    value = older.value.value.replace(b"\x02\x01\x05", b"\x02\x01\x04", 1)
    write_request("web.req", "web", (x509.UnrecognizedExtension(older.value.oid, value), False))
    refused = sign_dev(ca, "web.req", "--as=leaf", check=False)
    assert "unknown version 4" in refused.err
