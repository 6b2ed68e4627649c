"""``albatross-host audit``: what an auditor sees, and that a changed log is told."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from albatross_pki.errors import Refused
from albatross_pki.host.audit_cli import audit
from albatross_pki.journal.log import Journal


@pytest.fixture
def host(tmp_path: Path) -> Path:
    (tmp_path / "authorise").mkdir()
    with Journal.open(str(tmp_path / "authorise" / "audit.log")) as journal:
        journal.append({"kind": "started", "time": "2026-11-21T10:00:00+00:00", "pid": 1})
        chain = [
            {"serial": "1", "sha256": "aa", "subject": "hello"},
            {"serial": "2", "sha256": "bb", "subject": "d\x1b"},
        ]
        journal.append({"kind": "refused", "time": "t", "request": "1-1", "chain": chain, "reasons": ["a\nb"]})
    return tmp_path


def asked(*arguments: str) -> Result:
    return CliRunner().invoke(audit, arguments)


def test_entries_are_shown_in_order_and_nothing_moves_the_cursor(host: Path) -> None:
    shown = asked("show", str(host)).stdout.splitlines()
    assert [line.split()[2] for line in shown] == ["started", "refused"]
    assert "chain=hello<-d\\x1b" in shown[1]
    assert all(line.isprintable() for line in shown)


def test_entries_of_one_kind_as_json(host: Path) -> None:
    (entry,) = (
        json.loads(line) for line in asked("show", str(host), "--json", "--kind", "refused").stdout.splitlines()
    )
    assert entry["reasons"] == ["a\nb"]


def test_a_log_is_verified_and_a_kept_head_found_again(host: Path) -> None:
    verified = asked("verify", str(host))
    assert verified.exit_code == 0
    head = verified.stdout.split()[-1]
    assert asked("verify", str(host / "authorise" / "audit.log"), "--head", head).exit_code == 0
    assert asked("verify", str(host), "--head", "0" * 63 + "1").exit_code != 0


def test_a_changed_entry_is_told_with_its_line(host: Path) -> None:
    log = host / "authorise" / "audit.log"
    log.write_bytes(log.read_bytes().replace(b'"pid":1', b'"pid":2'))
    refused = asked("verify", str(host)).exception
    assert isinstance(refused, Refused)
    assert any("line 2" in reason for reason in refused.reasons)


def test_a_directory_without_a_log_is_an_error_with_a_hint(tmp_path: Path) -> None:
    error = asked("show", str(tmp_path)).exception
    assert "no audit log" in str(error)
