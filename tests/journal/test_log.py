"""The journal: what was appended is there, in order, provably; what a crash left is cut off and said."""

import errno
import json
import os
from pathlib import Path

import pytest

from albatross_pki.files import Disk
from albatross_pki.journal import log
from albatross_pki.journal.log import GENESIS, BadJournal, Journal, read_entries, verify


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal")


def fill(path: str, count: int) -> str:
    with Journal.open(path) as journal:
        for number in range(count):
            journal.append({"kind": "test", "value": number})
        return journal.head


def test_entries_come_back_in_order_with_their_numbers(path: str) -> None:
    fill(path, 3)
    fill(path, 2)
    assert [(entry["n"], entry["value"]) for entry in read_entries(path)] == [(1, 0), (2, 1), (3, 2), (4, 0), (5, 1)]
    assert verify(path).good
    assert verify(path).entries == 5


def test_the_first_line_follows_from_nothing(path: str) -> None:
    fill(path, 1)
    assert json.loads(Path(path).read_bytes())["previous"] == GENESIS


def test_the_mode_is_the_one_asked_for(path: str) -> None:
    fill(path, 1)
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_changed_entry_is_found(path: str) -> None:
    fill(path, 4)
    octets = Path(path).read_bytes()
    Path(path).write_bytes(octets.replace(b'"value":1', b'"value":7'))
    assert verify(path).problems == ("line 3: does not follow from the line before it",)


def test_a_missing_entry_is_found(path: str) -> None:
    fill(path, 4)
    lines = Path(path).read_bytes().splitlines(keepends=True)
    Path(path).write_bytes(b"".join(lines[:1] + lines[2:]))
    assert not verify(path).good


def test_a_cut_end_is_found_by_who_kept_a_head(path: str) -> None:
    head = fill(path, 4)
    lines = Path(path).read_bytes().splitlines(keepends=True)
    Path(path).write_bytes(b"".join(lines[:3]))
    assert verify(path).good
    assert not verify(path, known_head=head).good


def test_a_kept_head_in_the_middle_is_recognised(path: str) -> None:
    head = fill(path, 2)
    fill(path, 2)
    assert verify(path, known_head=head).good


def test_a_torn_last_line_is_cut_off_and_said(path: str) -> None:
    fill(path, 2)
    with open(path, "ab") as file:
        file.write(b'{"n":3,"prev')
    assert verify(path).torn == 12
    assert len(list(read_entries(path))) == 2
    with Journal.open(path) as journal:
        journal.append({"kind": "test", "value": "after"})
    entries = list(read_entries(path))
    assert [entry.get("kind") for entry in entries] == ["test", "test", "recovered", "test"]
    assert entries[2]["octets"] == 12
    assert verify(path).good


def test_a_journal_of_nothing_but_a_torn_line_begins_anew(path: str) -> None:
    Path(path).write_bytes(b'{"n":1')
    with Journal.open(path) as journal:
        assert journal.entries == 1
    assert verify(path).good


@pytest.mark.parametrize("last", [b"[]\n", b"text\n", b'{"n":"1"}\n', b'{"n":true}\n', b'{"n":0}\n', b"{}\n", b"\n\n"])
def test_what_cannot_be_continued_is_refused(path: str, last: bytes) -> None:
    Path(path).write_bytes(last)
    with pytest.raises(BadJournal):
        Journal.open(path)
    assert Path(path).read_bytes() == last


def test_a_link_is_not_followed(path: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"")
    os.symlink(tmp_path / "elsewhere", path)
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        Journal.open(path)


def test_two_writers_at_once_are_refused(path: str) -> None:
    with Journal.open(path), pytest.raises(BadJournal, match="another process is writing"):
        Journal.open(path, wait=False)
    Journal.open(path, wait=False).close()


class FullDisk(Disk):
    """Has room for eleven more octets."""

    def write(self, descriptor: int, octets: bytes) -> None:
        os.write(descriptor, octets[:11])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_write_is_an_error_and_the_journal_goes_on_later(path: str) -> None:
    fill(path, 1)
    with Journal.open(path, disk=FullDisk()) as journal:
        with pytest.raises(OSError, match="No space"):
            journal.append({"kind": "lost"})
        with pytest.raises(BadJournal, match="earlier write failed"):
            journal.append({"kind": "lost too"})
    fill(path, 1)
    assert [entry["kind"] for entry in read_entries(path)] == ["test", "recovered", "test"]
    assert verify(path).good


def test_a_long_last_line_is_found(path: str) -> None:
    with Journal.open(path) as journal:
        journal.append({"text": "x" * 300_000})
        head = journal.head
    with Journal.open(path) as journal:
        assert (journal.head, journal.entries) == (head, 1)


def test_members_of_the_journal_cannot_be_given(path: str) -> None:
    with Journal.open(path) as journal, pytest.raises(TypeError):
        journal.append({"previous": "mine"})


def test_any_text_stays_on_its_line(path: str) -> None:
    text = "a\nb\u2028c\udcffd\x00"
    with Journal.open(path) as journal:
        journal.append({"text": text})
    assert next(read_entries(path))["text"] == text
    assert Path(path).read_bytes().count(b"\n") == 1


def test_a_journal_without_entries_is_discarded_by_who_made_it(path: str) -> None:
    with Journal.open(path) as journal:
        journal.discard_if_empty()
    assert not os.path.exists(path)
    Path(path).touch()
    with Journal.open(path) as journal:
        journal.discard_if_empty()
    assert os.path.exists(path), "somebody else made it"
    fill(path, 1)
    with Journal.open(path) as journal:
        journal.discard_if_empty()
    assert len(list(read_entries(path))) == 1


def test_who_waited_for_a_journal_that_was_discarded_makes_another(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it wrote into the file without a name would be lost."""
    lock = log._lock
    waited: list[bool] = []

    def lock_late(path: str, descriptor: int, wait: bool) -> None:
        if not waited:
            waited.append(True)
            os.unlink(path)
        lock(path, descriptor, wait)

    monkeypatch.setattr(log, "_lock", lock_late)
    fill(path, 1)
    assert len(list(read_entries(path))) == 1
