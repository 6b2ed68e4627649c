"""What the authoriser must not forget."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from albatross_pki.authorised import CertificateId
from albatross_pki.endpoint.replay import SCHEMA_VERSION, AlreadyUsed, ReplayStore, StoreUnusable, TooManyUsed

NOW = datetime.now(UTC).replace(microsecond=0)
LEAF = CertificateId(b"k" * 32, 2**159 + 1)


def store(directory: Path, most: int = 100) -> ReplayStore:
    return ReplayStore(str(directory / "state.sqlite"), most_per_holder=most)


def test_p35_a_leaf_is_used_once_until_it_is_released(tmp_path: Path) -> None:
    first = store(tmp_path)
    first.consume(LEAF, NOW, "dev")
    with pytest.raises(AlreadyUsed):
        first.consume(LEAF, NOW, "dev")
    first.consume(CertificateId(b"o" * 32, LEAF.serial), NOW, "dev")  # another issuer's key, the same serial
    first.release(LEAF)
    first.consume(LEAF, NOW, "dev")
    first.close()
    second = store(tmp_path)
    assert second.used(LEAF)
    second.close()


def test_p35_what_has_expired_is_forgotten_and_the_clock_going_back_brings_nothing_back(tmp_path: Path) -> None:
    one = store(tmp_path)
    one.consume(LEAF, NOW + timedelta(hours=1), "dev")
    one.see(NOW + timedelta(hours=2))
    assert one.used(LEAF)
    one.see(NOW + timedelta(days=2))
    assert not one.used(LEAF)
    one.see(NOW)
    assert one.latest == NOW + timedelta(days=2)
    one.close()


def test_p40_one_delegation_cannot_fill_the_store_however_many_cas_it_makes(tmp_path: Path) -> None:
    one = store(tmp_path, most=3)
    for serial in range(3):
        one.consume(CertificateId(bytes((serial,)) * 32, serial), NOW + timedelta(hours=1), "dev")
    with pytest.raises(TooManyUsed, match="3 one-time certificates of dev are kept until they expire"):
        one.consume(CertificateId(b"n" * 32, 3), NOW, "dev")
    one.consume(CertificateId(b"o" * 32, 3), NOW, "other")
    one.consume(CertificateId(b"r" * 32, 3), NOW, "")
    one.release(CertificateId(bytes(32), 0))
    one.consume(CertificateId(b"n" * 32, 3), NOW, "dev")
    one.close()
    again = store(tmp_path, most=3)
    with pytest.raises(TooManyUsed):
        again.consume(CertificateId(b"n" * 32, 4), NOW, "dev")
    again.see(NOW + timedelta(days=3))
    again.consume(CertificateId(b"n" * 32, 4), NOW, "dev")
    again.close()


def test_a_store_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "state.sqlite")
    database.executescript(
        """CREATE TABLE used (issuer_key BLOB NOT NULL, serial BLOB NOT NULL, not_after INTEGER NOT NULL,
                              PRIMARY KEY (issuer_key, serial)) WITHOUT ROWID;
           CREATE INDEX used_not_after ON used (not_after);
           CREATE TABLE clock (latest INTEGER NOT NULL); INSERT INTO clock VALUES (0);
           CREATE TABLE crl_numbers (issuer_key BLOB NOT NULL, issuer BLOB NOT NULL, number BLOB NOT NULL,
                                     PRIMARY KEY (issuer_key, issuer)) WITHOUT ROWID;
           PRAGMA user_version=1;"""
    )
    row = (LEAF.issuer_key, LEAF.serial.to_bytes(21, "big"), int(NOW.timestamp()) + 3600)
    database.execute("INSERT INTO used VALUES (?, ?, ?)", row)
    database.commit()
    database.close()
    taken_over = store(tmp_path)
    assert taken_over.used(LEAF)
    with pytest.raises(AlreadyUsed):
        taken_over.consume(LEAF, NOW, "dev")
    taken_over.release(LEAF)
    taken_over.consume(LEAF, NOW, "dev")
    taken_over.close()


def test_the_highest_number_of_a_list_stays(tmp_path: Path) -> None:
    one = store(tmp_path)
    assert one.crl_number(b"k", b"n") is None
    for number in (5, 2**159, 7):
        one.see_crl(b"k", b"n", number)
    assert one.crl_number(b"k", b"n") == 2**159
    one.see_crl(b"other", b"n", 0)
    assert one.crl_number(b"other", b"n") == 0
    one.forget_crls()
    assert one.crl_number(b"k", b"n") is None
    one.close()


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "state.sqlite")
    database.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    database.close()
    with pytest.raises(StoreUnusable, match="newer version"):
        store(tmp_path)


def test_octets_that_are_no_store_are_refused(tmp_path: Path) -> None:
    (tmp_path / "state.sqlite").write_bytes(b"not a database at all, but long enough to be looked at" * 10)
    with pytest.raises(StoreUnusable):
        store(tmp_path)
