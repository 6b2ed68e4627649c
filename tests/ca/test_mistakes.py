"""What goes wrong in an operator's hands: absurd numbers, the wrong database, places that cannot be written."""

import errno
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from albatross_pki.ca import certify, cli_sign
from albatross_pki.ca.ledger import stored_dialect
from albatross_pki.errors import Refused
from albatross_pki.journal.log import read_entries
from albatross_pki.policy.roles import Dialect
from tests.ca.programs import Program


@pytest.mark.parametrize("span", ["999999999w", "999999999d"])
def test_spans_beyond_all_calendars_are_very_long_ones(dev: Path, ca: Program, span: str) -> None:
    assert "delegation" in ca("list", "db", f"--expiring={span}").out
    assert ca("needs-renewal", "dev.pem", f"--expires-in={span}").status == 0


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_times_beyond_all_calendars_are_refused(dev: Path, ca: Program, time: str) -> None:
    said = ca("verify", "dev.pem", "--ca=cacert.pem", f"--at={time}", check=False)
    assert said.status == 124
    assert "couldn't parse timestamp" in said.err


def test_needs_renewal_never_answers_what_was_not_asked(dev: Path, ca: Program) -> None:
    for wrong in ((), ("--fly",), ("dev.pem", "dev.pem")):
        said = ca("needs-renewal", *wrong, check=False)
        assert said.status == 255
        assert "hint: albatross-provision-ca needs-renewal --help" in said.err


def test_p14_a_list_is_not_made_from_a_database_that_knows_nothing_of_its_issuer(
    dev: Path, ca: Program, ask: Program
) -> None:
    """Its number would be the highest there is, and it would take every revocation back."""
    ca("revoke", "db", "dev")
    said = ca("crl", "cacert.pem", "typo", "ca.key", check=False)
    assert said.status == 124
    assert 'has nothing that "ca" issued' in said.err
    assert not Path("typo.ledger").exists(), "a slip of the finger leaves nothing behind"
    ask("info")
    ca("sign", "dev.pem", "dev.db", "dev.key", "path-info.req", "--as=leaf")
    assert ca("crl", "cacert.pem", "dev.db", "ca.key", check=False).status == 124
    assert not Path("ca.crl").exists()
    ca("crl", "dev.pem", "other.db", "dev.key", "--first")
    ca("crl", "dev.pem", "other.db", "dev.key")
    assert ca("crl", "cacert.pem", "db", "ca.key").err.count("revokes 1 certificate") == 1


def test_p14_a_list_is_not_made_from_a_ledger_that_was_changed(dev: Path, ca: Program) -> None:
    ca("revoke", "db", "dev")
    ca("crl", "cacert.pem", "db", "ca.key")
    lines = Path("db.ledger").read_text().splitlines(keepends=True)
    Path("db.ledger").write_text("".join(line for line in lines if '"revoked"' not in line))
    said = ca("crl", "cacert.pem", "db", "ca.key", check=False)
    assert said.status == 124
    assert "the ledger does not verify" in said.err


@pytest.mark.parametrize("key", ["server.key", "dev.key"])
def test_a_backup_holds_the_key_of_its_certificate(dev: Path, ca: Program, key: str) -> None:
    said = ca("backup", "cacert.pem", "db", key, "ca.backup", check=False)
    assert said.status == 124
    assert "doesn't match" in said.err
    assert not Path("ca.backup").exists()


def test_a_backup_holds_the_ledger_of_its_certificate(dev: Path, ca: Program) -> None:
    said = ca("backup", "cacert.pem", "typo", "ca.key", "ca.backup", check=False)
    assert said.status == 124
    assert 'has nothing that "ca" issued' in said.err
    assert not Path("ca.backup").exists()
    assert not Path("typo.ledger").exists()


def test_a_backup_that_is_there_is_not_replaced_and_no_option_is_promised(dev: Path, ca: Program) -> None:
    ca("backup", "cacert.pem", "db", "ca.key", "ca.backup")
    said = ca("backup", "cacert.pem", "db", "ca.key", "ca.backup", check=False)
    assert "exists already" in said.err
    assert "--force" not in said.err
    assert "--force" not in ca("renew", "cacert.pem", "db", "ca.key", "dev.pem", "--new-key=dev.key", check=False).err


@pytest.mark.parametrize("place", ["nowhere/x", "locked/x"])
def test_what_could_not_be_written_is_not_recorded(dev: Path, ca: Program, place: str) -> None:
    Path("locked").mkdir(mode=0o500)
    if place.startswith("locked") and os.geteuid() == 0:
        Path("locked").rmdir()
        Path("locked").write_text("for root, no directory is locked: this one is a file")
    before = list(read_entries("db.ledger"))
    for words in (
        ("sign", "cacert.pem", "db", "ca.key", "dev.req", "--as=delegation"),
        ("renew", "cacert.pem", "db", "ca.key", "dev.pem"),
        ("crl", "cacert.pem", "db", "ca.key"),
    ):
        said = ca(*words, "-o", place, check=False)
        assert said.status == 124
        assert place in said.err
        assert ".new-" not in said.err
    assert list(read_entries("db.ledger")) == before


def test_a_place_that_cannot_be_written_is_named_as_it_was_asked_for(workplace: Path, ask: Program) -> None:
    said = ask("info", "--key-type=p256", "-o", "nowhere/info.req", check=False)
    assert said.err == "error: nowhere/info.req: no such file or directory\n"


def test_the_database_of_another_ca_is_noticed(dev: Path, ca: Program, ask: Program) -> None:
    ask("info")
    said = ca("sign", "dev.pem", "db", "dev.key", "path-info.req", "--as=leaf")
    assert 'note: db.ledger has nothing that "dev" issued so far' in said.err
    again = ca("sign", "dev.pem", "db", "dev.key", "path-info.req", "--as=leaf", "--force")
    assert "so far" not in again.err


def test_only_audit_logs_are_reconciled(dev: Path, ca: Program) -> None:
    """What is no audit log shows no thief, and that must not look like good news."""
    said = ca("ledger", "reconcile", "cacert.pem", "db", "db.ledger", check=False)
    assert said.status == 124
    assert "db.ledger: is the ledger of a CA, not an audit log" in said.err


@pytest.mark.parametrize(
    ("file", "holds"),
    [
        ("cacert.pem", "a certificate"),
        ("ca.key", "a private key"),
        ("db", "nothing in PEM"),
        ("/dev/null", "nothing in PEM"),
    ],
)
def test_a_file_in_the_wrong_place_is_called_what_it_is(dev: Path, ca: Program, file: str, holds: str) -> None:
    said = ca("sign", "cacert.pem", "db", "ca.key", file, "--as=delegation", check=False)
    assert f"{file}: a signing request is wanted, and it holds {holds}" in said.err


def test_hints_name_the_database_at_hand(dev: Path, ca: Program) -> None:
    assert "hint: albatross-provision-ca list db\n" in ca("revoke", "db", "nobody", check=False).err


def test_a_full_disk_is_named(dev: Path, ca: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, octets: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("albatross_pki.files.os.write", full)
        said = ca("sign", "cacert.pem", "db", "ca.key", "dev.req", "--as=delegation", "--force", check=False)
    assert said.err.endswith("error: db.ledger: no space left on device\n")
    assert ca("ledger", "verify", "db").status == 0


def test_a_signer_without_room_below_it_is_told_how_to_get_some(dev: Path, ca: Program, ask: Program) -> None:
    ask("delegation", "low", 1, "--mem=32")
    ca("sign", "dev.pem", "dev.db", "dev.key", "low.req", "--as=delegation")
    ask("permissions", "ci", "--permission=info")
    said = ca("sign", "low.pem", "low.db", "low.key", "ci.req", "--as=delegation", check=False)
    assert said.errors == ['"low" may not sign delegations: its path length is used up']
    assert 'hint: have "low" signed again with --path-length 1 or more' in said.err
    assert not Path("low.db.ledger").exists()


def test_a_clock_that_was_set_back_makes_no_list(dev: Path, ca: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    monkeypatch.setattr("albatross_pki.ca.cli_options.utc_now", lambda: now - timedelta(days=400))
    said = ca("crl", "cacert.pem", "db", "ca.key", check=False)
    assert "clock" in said.err
    assert not Path("ca.crl").exists()


@pytest.mark.parametrize(
    "verb", ["sign cacert.pem db ca.key hello.req --as=leaf", "renew cacert.pem db ca.key dev.pem"]
)
def test_a_clock_behind_the_ledger_is_noticed(
    dev: Path, ca: Program, ask: Program, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A narrower renewal that begins before the wider one would not be in force."""
    now = datetime.now(UTC)
    ask("destroy", "hello")
    ask("delegation", "web", 1, "--mem=32")
    with monkeypatch.context() as patch:
        patch.setattr("albatross_pki.ca.cli_options.utc_now", lambda: now + timedelta(hours=2))
        assert "clock" not in ca("sign", "cacert.pem", "db", "ca.key", "web.req", "--as=delegation").err
    said = ca(*verb.split()).err
    assert "this machine's clock is at" in said
    assert "is the clock right?" in said


def test_a_certificate_that_cannot_be_handed_out_is_told_about(
    dev: Path, ca: Program, ask: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full just then: the ledger has it, and nobody else."""
    ask("info", "--name=hello")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "hello.pem")

    monkeypatch.setattr(cli_sign, "make_file", full)
    said = ca("sign", "cacert.pem", "db", "ca.key", "hello.req", "--as=leaf", check=False)
    assert said.status == 124
    assert "error: hello.pem: no space left on device" in said.err
    serial = list(read_entries("db.ledger"))[-1]["serial"]
    assert f"note: serial {serial} is recorded and nobody has it" in said.err
    ca("revoke", "db", serial)


def test_p31_every_number_of_a_policy_that_is_none_is_named(workplace: Path, ask: Program) -> None:
    said = ask("delegation", "big", 10**11, f"--mem={10**11}", "--cpu=-1", "--block=-5", check=False)
    assert [error.split()[0] for error in said.errors] == ["UNIKERNELS", "--mem", "--block", "--cpu"]


def everything_in(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


REFUSED_GENERATES = [
    (("--server-name=two words",), "neither a host's name nor an address"),
    (("--server=ca",), "cannot both be called ca"),
    (("--server=CA",), "cannot both be called ca"),
    (("--server=../x",), "invalid label"),
    (("--key=ca.key",), "--key takes a pkcs11: URI"),
]


@pytest.mark.parametrize(("options", "reason"), REFUSED_GENERATES, ids=[reason for _, reason in REFUSED_GENERATES])
def test_a_refused_generate_leaves_nothing(ca: Program, workplace: Path, options: tuple[str, ...], reason: str) -> None:
    said = ca("generate", "ca", "db", *options, check=False)
    assert said.status == 124
    assert reason in said.err
    assert everything_in(workplace) == {}


@pytest.mark.parametrize("judge", ["fold", "OpenSSL"])
def test_what_only_the_last_judge_refuses_leaves_nothing(
    dev: Path, ca: Program, ask: Program, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a ledger with a first line, where the database is new."""
    ask("info", "--name=hello")
    before = everything_in(dev)
    if judge == "fold":

        def refuse(*_: object, **__: object) -> None:
            raise Refused(["no server would take it"])

        monkeypatch.setattr(certify, "check_new", refuse)
    else:
        monkeypatch.setattr(cli_sign, "openssl_refuses", lambda *_: "certificate is strange")
    said = ca("sign", "dev.pem", "new", "dev.key", "hello.req", "--as=leaf", check=False)
    assert said.status == 124
    assert "no server would take it" in said.err or "certificate is strange" in said.err
    assert everything_in(dev) == before


def test_revoking_with_a_database_that_is_not_there_leaves_nothing(dev: Path, ca: Program) -> None:
    before = everything_in(dev)
    assert ca("revoke", "mistyped", "dev", check=False).status == 124
    assert everything_in(dev) == before


def test_the_dialect_survives_a_crash_in_the_ledgers_first_line(ca: Program, workplace: Path) -> None:
    """What the crash left is cut off and told about in line 1; the dialect then stands in line 2."""
    Path("db.ledger").write_bytes(b'{"n":1,"previous":"00')
    ca("generate", "ca", "db", "--dialect=upstream")
    assert [entry["kind"] for entry in read_entries("db.ledger")] == ["recovered", "opened", "issued", "issued"]
    assert stored_dialect("db") is Dialect.UPSTREAM
    ca("ledger", "verify", "db")


@pytest.mark.parametrize("wrong", ["cacert.pem", "dev.req", "db.ledger", "ca.crl", "ca.key"])
@pytest.mark.parametrize(
    "words",
    [
        "sign cacert.pem {} ca.key dev.req --as=delegation --force",
        "renew cacert.pem {} ca.key dev.pem",
        "crl cacert.pem {} ca.key --first",
        "revoke {} dev",
        "generate other {} --server=other-server --force",
    ],
    ids=lambda words: words.split()[0],
)
def test_another_file_in_place_of_the_database_is_not_written_to(
    dev: Path, ca: Program, words: str, wrong: str
) -> None:
    ca("crl", "cacert.pem", "db", "ca.key")
    before = everything_in(dev)
    said = ca(*words.format(wrong).split(), check=False)
    assert said.status == 124
    assert f"error: {wrong} is not a database of certificates" in said.err
    assert everything_in(dev) == before


@pytest.mark.parametrize("lines", [b"", b"\n", b"00ac9044 user\n", b"17 user\n", b"1795228270 two words\n", b"00a"])
def test_databases_of_all_kinds_are_continued(ca: Program, workplace: Path, lines: bytes) -> None:
    """Hexadecimal serials, decimal ones of earlier years, nothing yet, and what a crash left."""
    Path("db").write_bytes(lines)
    ca("generate", "ca", "db")
    assert Path("db").read_bytes().startswith(lines)
