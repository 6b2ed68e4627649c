"""Lists that CAs push: bounded for each delegation, and gone with their issuers."""

import os
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from albatross_pki.endpoint.bounds import AuthoriserBounds
from albatross_pki.endpoint.replay import ReplayStore
from albatross_pki.endpoint.revocation import RevocationLists
from albatross_pki.errors import Refused
from tests.pki_builder import DAY, HOUR, NOW, Authority


@pytest.fixture
def lists(tmp_path: Path) -> RevocationLists:
    store = ReplayStore(str(tmp_path / "state.sqlite"), most_per_holder=10)
    bounds = AuthoriserBounds(crl_octets_per_delegation=1000)
    return RevocationLists(None, str(tmp_path / "pushed"), store, bounds)


def files(directory: Path) -> list[str]:
    return os.listdir(directory / "pushed")


def push(lists: RevocationLists, who: Authority, number: int, now: datetime = NOW) -> None:
    lists.push(who.crl(number=number), [who.facts], "dev", now)


def test_p40_many_certificates_of_one_key_have_one_list(lists: RevocationLists, tmp_path: Path) -> None:
    """Each certificate ends at another time, as a delegation that wants to fill the disk would make them."""
    root = Authority.root()
    first = root.delegate("dev")
    push(lists, first, 1)
    for number in range(2, 40):
        renewed = root.delegate("dev", key=first.key, not_after=NOW + DAY + timedelta(seconds=number))
        push(lists, renewed, number)
        assert len(files(tmp_path)) == 1
    assert lists.view([first.facts], NOW).find(first.facts.spki_sha256, first.facts.subject).number == 39  # type: ignore[union-attr]


def test_p40_lists_of_expired_issuers_make_room(lists: RevocationLists, tmp_path: Path) -> None:
    root = Authority.root()
    size = len(root.delegate("dev").crl(number=1))
    for _ in range(1000 // size):
        push(lists, root.delegate("dev", not_after=NOW + HOUR), 1)
    with pytest.raises(Refused, match="would be over 1000 octets"):
        push(lists, root.delegate("dev", not_after=NOW + HOUR), 1)
    push(lists, root.delegate("dev"), 1, now=NOW + 2 * HOUR)
    assert len(files(tmp_path)) == 1


def test_p40_namesakes_do_not_make_others_look_at_their_lists(
    lists: RevocationLists, caplog: pytest.LogCaptureFixture
) -> None:
    root = Authority.root()
    victim, enemy = root.delegate("dev"), root.delegate("enemy")
    for number in range(3):
        push(lists, enemy.delegate("dev"), number + 100)
    push(lists, victim, 1)
    caplog.clear()
    found = lists.view([victim.facts], NOW).find(victim.facts.spki_sha256, victim.facts.subject)
    assert found is not None
    assert found.number == 1
    assert caplog.messages == []


def test_p04_issuers_without_lists_are_not_remembered_for_ever(lists: RevocationLists) -> None:
    issuer = Authority.root().facts
    for number in range(10_000):
        lists.view([replace(issuer, spki_sha256=number.to_bytes(32, "big"))], NOW)
    assert len(lists._resolved) <= 4096
