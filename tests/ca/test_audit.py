"""What an auditor and an operator ask: list, inspect, verify, needs-renewal, ledger, reconcile, backup, restore."""

import json
import os
import stat
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from albatross_pki.ca.cli_list import _row_as_json, parse_duration
from albatross_pki.endpoint.audit import chain_entry
from albatross_pki.errors import AlbatrossError
from albatross_pki.journal.log import Journal
from albatross_pki.pem import bundle, certificates
from albatross_pki.policy.certificates import read_certificate
from albatross_pki.policy.revocation import read_crl
from tests.ca.programs import HELLO, Program

VECTORS = Path(__file__).parent.parent / "vectors"


@pytest.fixture
def leaf(dev: Path, ca: Program, ask: Program) -> Path:
    """A leaf ``hello`` below ``dev``, with its root a year and more."""
    ask("create", "hello", HELLO, "--arg=--key=\x1b[2J")
    ca("sign", "dev.pem", "dev.db", "dev.key", "hello.req", "--as=leaf")
    return dev


# list


def test_the_list_is_a_table_or_json(leaf: Path, ca: Program) -> None:
    table = ca("list", "db").out.splitlines()
    assert table[0].split() == ["SERIAL", "KIND", "NAME", "COMMAND", "UNTIL", "STATE"]
    assert [line.split()[1:3] for line in table[1:]] == [["root", "ca"], ["server", "server"], ["delegation", "dev"]]
    rows = json.loads(ca("list", "dev.db", "--json").out)
    assert [(row["role"], row["path"], row["label"], row["word"], row["state"]) for row in rows] == [
        ("leaf", "dev:", "hello", "create", "good")
    ]


def test_the_list_of_what_ends_soon(leaf: Path, ca: Program) -> None:
    assert ca("list", "dev.db", "--expiring=2d").out.count("\n") == 2
    assert ca("list", "dev.db", "--expiring=2h").out == "nothing\n"
    assert ca("list", "db", "--expiring=300d").out == "nothing\n"
    ca("revoke", "dev.db", "hello")
    assert ca("list", "dev.db", "--expiring=2d").out == "nothing\n"
    assert "revoked" in ca("list", "dev.db").out


@pytest.mark.parametrize("text", ["", "d", "3", "-3d", "3 d", "3y", "٣d", "9999999999d"])
def test_spans_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(AlbatrossError):
        parse_duration(text)


def test_without_a_ledger_there_is_a_hint(workplace: Path, ca: Program) -> None:
    refused = ca("list", "nowhere", check=False)
    assert refused.errors == ["there is no ledger nowhere.ledger"]
    assert "hint: " in refused.err


# needs-renewal


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("dev.pem",), 1),
        (("hello.pem",), 1),
        (("dev.pem", "--expires-in=366d"), 0),
        (("dev.pem", "--expires-in=99%"), 1),
        (("dev.pem", "--expires-in=100%"), 0),
        (("nothing.pem",), 2),
        (("hello.req",), 255),
        (("dev.pem", "--expires-in=soon"), 255),
    ],
)
def test_needs_renewal_tells_by_its_status(leaf: Path, ca: Program, arguments: tuple[str, ...], status: int) -> None:
    assert ca("needs-renewal", *arguments, check=False).status == status


def test_any_text_survives_json() -> None:
    for text in ('a"b', "a\\b", "a\nb", "ä", "plain", '", "x": "'):
        values = ("s", *[text] * 12)
        assert list(json.loads(_row_as_json(values)).values()) == list(values)


# inspect


def test_everything_that_lies_around_is_explained(leaf: Path, ca: Program) -> None:
    ca("crl", "cacert.pem", "db", "ca.key")
    ca("crl", "dev.pem", "dev.db", "dev.key", "--pem")
    files = ("hello.pem", "hello.req", "dev.key", "ca.crl", "dev.crl", VECTORS / "state" / "full.der")
    documents = json.loads(ca("inspect", *files, "--json").out)
    assert [document["kind"] for document in documents] == [
        *("certificate", "certificate", "signing request", "private key", "revocation list", "revocation list"),
        "state dump",
    ]
    assert "alice:bob:hello" in documents[-1]["unikernels"]


def test_inspect_computes_what_only_deployment_takes(leaf: Path, ca: Program, ask: Program) -> None:
    document = json.loads(ca("inspect", "hello.req", "--json").out)[0]
    digest, image = document["deployment"], document["image"]
    ask("permissions", "ci", "-p", "create", f"--only-deployment={digest}", f"--only-image={image}")
    ca("sign", "dev.pem", "dev.db", "dev.key", "ci.req", "--as=delegation")
    ca("sign", "ci.pem", "ci.db", "ci.key", "hello.req", "--as=leaf", "-o", "again.pem")
    ask("create", "other", HELLO, "--mem=16")
    refused = ca("sign", "ci.pem", "ci.db", "ci.key", "other.req", "--as=leaf", check=False)
    assert "do not allow the deployment" in refused.err


def test_what_strangers_wrote_is_escaped(leaf: Path, ca: Program) -> None:
    for words in (("inspect", "hello.pem"), ("inspect", "hello.req"), ("verify", "hello.pem", "--ca=cacert.pem")):
        said = ca(*words)
        assert "\x1b" not in said.out + said.err
        assert "\\x1b[2J" in said.out


@pytest.mark.parametrize("content", [b"", b"hello", b"\x30\x00", b"-----BEGIN X-----\n", b"\x30" + bytes(40)])
def test_what_is_nothing_is_refused(workplace: Path, ca: Program, content: bytes) -> None:
    Path("file").write_bytes(content)
    refused = ca("inspect", "file", check=False)
    assert refused.status == 124
    assert refused.errors


@pytest.mark.parametrize("name", sorted(str(p.relative_to(VECTORS)) for p in (VECTORS / "negative").glob("*.pem")))
def test_bad_certificates_are_shown_as_they_are(workplace: Path, ca: Program, name: str) -> None:
    assert ca("inspect", VECTORS / name).out.startswith("certificate (")


# verify


def test_verify_lists_every_rule_and_the_tree(leaf: Path, ca: Program) -> None:
    out = ca("verify", "hello.pem", "--ca=cacert.pem").out
    assert out.count("\n  ok ") > 40
    assert "FAIL" not in out
    assert "2 unikernels, cpu 0, 64 MB memory, no block storage, no network" in out
    assert out.index('delegation "dev"') < out.index('leaf "hello"')


def test_verify_judges_as_of_a_time(leaf: Path, ca: Program) -> None:
    later = (datetime.now(UTC) + timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    refused = ca("verify", "hello.pem", "--ca=cacert.pem", "--at", later, "--json", check=False)
    document = json.loads(refused.out)
    assert refused.status == 116
    assert not document["accepted"]
    assert [rule["rule"] for rule in document["rules"] if not rule["ok"]] == ["validity"]
    assert "expired" in document["openssl"]


def test_verify_without_a_path_is_a_refusal(leaf: Path, ca: Program) -> None:
    refused = ca("verify", "hello.pem", "--ca", VECTORS / "pki" / "p256" / "cacert.pem", check=False)
    assert refused.status == 116
    Path("alone.pem").write_bytes(bundle(certificates(Path("hello.pem").read_bytes(), "x")[:1]))
    refused = ca("verify", "alone.pem", "--ca=cacert.pem", check=False)
    assert refused.status == 116
    assert refused.errors


def test_verify_takes_upstreams_certificates_as_they_are(workplace: Path, ca: Program) -> None:
    pki = VECTORS / "pki" / "ed25519"
    out = ca("verify", pki / "leaf" / "create.bundle.pem", "--ca", pki / "cacert.pem", "--at=2026-11-22").out
    assert "alice" in out
    assert out.endswith("accepted\n")


def test_p15_verify_judges_servers_as_clients_do(dev: Path, ca: Program) -> None:
    assert "accepted by clients" in ca("verify", "server.pem", "--ca=cacert.pem", "--host=localhost").out
    refused = ca("verify", "server.pem", "--ca=cacert.pem", "--host=other.example.org", check=False)
    assert refused.status == 116
    assert "not for other.example.org" in refused.out
    assert "--host NAME" in ca("verify", "server.pem", "--ca=cacert.pem", check=False).err


# ledger


def test_the_ledger_is_shown_and_verified(leaf: Path, ca: Program) -> None:
    shown = [json.loads(line) for line in ca("ledger", "show", "db", "--json").out.splitlines()]
    assert [entry["kind"] for entry in shown] == ["opened", "issued", "issued", "issued"]
    head = ca("ledger", "verify", "db").out.split()[-1]
    ca("revoke", "db", "dev")
    ca("ledger", "verify", "db", "--head", head)
    lines = Path("db.ledger").read_bytes().splitlines(keepends=True)
    Path("db.ledger").write_bytes(b"".join(lines[:3]))
    assert "lines were taken away" in ca("ledger", "verify", "db", "--head", head, check=False).err


def test_a_changed_ledger_is_found(leaf: Path, ca: Program) -> None:
    octets = Path("db.ledger").read_bytes()
    Path("db.ledger").write_bytes(octets.replace(b'"label":"server"', b'"label":"serwer"'))
    assert "does not follow" in ca("ledger", "verify", "db", check=False).err


def test_text_with_escapes_is_read_as_json(leaf: Path, ca: Program) -> None:
    """Everything else of the ledger is read as it always is."""
    plain = ca("list", "db").out
    with Journal.open("db.ledger") as journal:
        journal.append({"kind": "note", "text": '\u00e4\n"'})
    assert ca("list", "db").out == plain


def test_a_line_break_in_a_value_is_refused(leaf: Path, ca: Program) -> None:
    octets = Path("db.ledger").read_bytes()
    Path("db.ledger").write_bytes(octets.replace(b'"label":"dev"', b'"label":"d\nv"'))
    assert "goes on in another line" in ca("list", "db", check=False).err


def test_a_certificate_beside_the_ledger_is_found(leaf: Path, ca: Program) -> None:
    with open("db", "a") as database:
        database.write("00deadbeef ghost\n")
    assert "00deadbeef, which the ledger lacks" in ca("ledger", "verify", "db", check=False).err


def test_a_database_of_earlier_years_is_taken_over(workplace: Path, ca: Program) -> None:
    Path("db").write_text("00aa11 old\n1234 older")
    ca("generate", "ca", "db")
    lines = Path("db").read_text().splitlines()
    assert lines[:2] == ["00aa11 old", "1234 older"]
    assert lines[2].endswith(" server")
    ca("ledger", "verify", "db")


def write_audit(name: str, *entries: dict[str, object]) -> None:
    with Journal.open(name) as journal:
        for entry in entries:
            journal.append(entry)


def seen(
    bundle: str, kind: str = "intent", time: str = "2026-11-21T10:00:00.123456+00:00", root: str = "cacert.pem"
) -> dict[str, object]:
    facts = [read_certificate(der) for der in certificates(Path(bundle).read_bytes(), bundle)]
    (anchor,) = certificates(Path(root).read_bytes(), root)
    return {"kind": kind, "time": time, "chain": chain_entry(facts), "anchor": read_certificate(anchor).digest.hex()}


def test_reconcile_finds_what_a_thief_signed(leaf: Path, ca: Program, ask: Program) -> None:
    write_audit("good.log", seen("hello.pem"), seen("dev.pem", "refused"), {"kind": "started"})
    assert "1 certificates" in ca("ledger", "reconcile", "cacert.pem", "db", "good.log").out
    assert "1 certificates" in ca("ledger", "reconcile", "dev.pem", "dev.db", "good.log").out
    ask("delegation", "evil", 1)
    ca("sign", "cacert.pem", "thief.db", "ca.key", "evil.req", "--as=delegation")
    ask("info", "-n", "spy")
    ca("sign", "dev.pem", "thief.db", "dev.key", "spy.req", "--as=leaf")
    write_audit("bad.log", seen("evil.pem"), seen("spy.pem"))
    found = ca("ledger", "reconcile", "cacert.pem", "db", "good.log", "bad.log", check=False)
    assert found.status == 116
    assert "(evil) is not in the ledger" in found.out
    assert "spy" not in found.out, "that is for the ledger of dev"
    assert "(spy) is not in the ledger" in ca("ledger", "reconcile", "dev.pem", "dev.db", "bad.log", check=False).out


def test_reconcile_finds_what_was_used_after_its_revocation(leaf: Path, ca: Program) -> None:
    ca("revoke", "db", "dev")
    later = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    write_audit("late.log", seen("hello.pem", time=later))
    assert "after it had been revoked" in ca("ledger", "reconcile", "cacert.pem", "db", "late.log", check=False).out
    write_audit("early.log", seen("hello.pem", time="2020-01-01T00:00:00+00:00"), seen("hello.pem", "refused", later))
    assert ca("ledger", "reconcile", "cacert.pem", "db", "early.log").status == 0


def test_reconcile_takes_all_roots_that_there_were(leaf: Path, ca: Program) -> None:
    ca("renew", "cacert.pem", "db", "ca.key", "cacert.pem", "--new-key=ca-2.key", "-o", "cacert-2.pem")
    write_audit("audit.log", seen("hello.pem"))
    ca("renew", "cacert-2.pem", "db", "ca-2.key", "dev.pem", "-o", "dev-2.pem")
    write_audit("audit.log", seen("dev-2.pem", root="cacert-2.pem"))
    Path("roots.pem").write_bytes(Path("cacert.pem").read_bytes() + Path("cacert-2.pem").read_bytes())
    old = ca("ledger", "reconcile", "cacert.pem", "db", "audit.log")
    assert (old.status, "1 certificates" in old.out) == (0, True)
    assert "1 entries are of chains that end at other roots" in old.err
    both = ca("ledger", "reconcile", "roots.pem", "db", "audit.log")
    assert (both.status, "2 certificates" in both.out, "other roots" in both.err) == (0, True, False)


def test_reconcile_tells_operators_roots_apart(leaf: Path, ca: Program, ask: Program) -> None:
    Path("cacert.pem").rename("ours.pem")
    ca("generate", "other", "other.db", "--server=elsewhere")
    Path("cacert.pem").rename("other.pem")
    Path("ours.pem").rename("cacert.pem")
    ca("sign", "other.pem", "other.db", "other.key", "dev.req", "--as=delegation", "-o", "theirs.pem")
    unknown = {**seen("theirs.pem", "refused"), "anchor": None}
    write_audit("audit.log", seen("hello.pem"), seen("theirs.pem", root="other.pem"), unknown)
    assert ca("ledger", "reconcile", "cacert.pem", "db", "audit.log").status == 0, "theirs is not a thief's"
    assert ca("ledger", "reconcile", "other.pem", "other.db", "audit.log").status == 0
    write_audit("stolen.log", seen("theirs.pem"))
    assert "is not in the ledger" in ca("ledger", "reconcile", "cacert.pem", "db", "stolen.log", check=False).out


def test_reconcile_refuses_an_audit_log_that_was_changed(leaf: Path, ca: Program) -> None:
    write_audit("audit.log", seen("hello.pem"), seen("hello.pem"))
    Path("audit.log").write_bytes(Path("audit.log").read_bytes().replace(b'"intent"', b'"reject"', 1))
    assert ca("ledger", "reconcile", "cacert.pem", "db", "audit.log", check=False).status == 124


# backup


def test_a_ca_comes_back_from_its_backup(leaf: Path, ca: Program, ask: Program) -> None:
    ca("crl", "cacert.pem", "db", "ca.key")
    kept = ca("backup", "cacert.pem", "db", "ca.key", "ca.backup").out.split()[-1]
    assert stat.S_IMODE(os.stat("ca.backup").st_mode) == 0o400
    ca("revoke", "db", "dev")
    ca("crl", "cacert.pem", "db", "ca.key")
    number = read_crl(Path("ca.crl").read_bytes()).number
    ca("restore", "ca.backup", "again")
    assert sorted(os.listdir("again")) == ["ca.key", "cacert.pem", "db", "db.ledger"]
    assert stat.S_IMODE(os.stat("again/ca.key").st_mode) == 0o400
    ca("ledger", "verify", "again/db", "--head", kept)
    ca("revoke", "again/db", "dev")
    ca("crl", "again/cacert.pem", "again/db", "again/ca.key")
    assert read_crl(Path("ca.crl").read_bytes()).number >= number, "servers take the list of the restored CA"
    assert "exists already" in ca("restore", "ca.backup", "again", check=False).err


def test_p20_a_backup_writes_nowhere_else(leaf: Path, ca: Program) -> None:
    with tarfile.open("evil.tar", "w") as tar:
        for name in ("cacert.pem", "db", "db.ledger", "../../escaped"):
            tar.add("cacert.pem", name)
    refused = ca("restore", "evil.tar", "there", check=False)
    assert "not a backup" in refused.err
    assert not Path("there").exists()
    with tarfile.open("link.tar", "w") as tar:
        entry = tarfile.TarInfo("db")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    assert "not a backup" in ca("restore", "link.tar", "there", check=False).err


def test_a_backup_of_a_broken_ledger_is_not_made(leaf: Path, ca: Program) -> None:
    octets = Path("db.ledger").read_bytes()
    Path("db.ledger").write_bytes(octets.replace(b'"label":"server"', b'"label":"serwer"'))
    assert "does not verify" in ca("backup", "cacert.pem", "db", "ca.key", "ca.backup", check=False).err
    assert not Path("ca.backup").exists()


def test_a_backup_that_was_changed_is_not_restored(leaf: Path, ca: Program) -> None:
    ca("backup", "cacert.pem", "db", "ca.key", "ca.backup")
    octets = Path("ca.backup").read_bytes()
    Path("changed.backup").write_bytes(octets.replace(b'"label":"server"', b'"label":"serwer"'))
    said = ca("restore", "changed.backup", "new-laptop", check=False)
    assert "error: the ledger in changed.backup does not verify: line" in said.err
    assert not Path("new-laptop").exists()
