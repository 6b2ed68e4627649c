"""The operator's directory of lists: what is half written or gone takes nothing back."""

from pathlib import Path

import pytest

from albatross_pki.endpoint.bounds import AuthoriserBounds
from albatross_pki.endpoint.replay import ReplayStore
from albatross_pki.endpoint.revocation import DirectoryUnusable, RevocationLists
from tests.pki_builder import NOW, Authority


def opened(tmp_path: Path) -> RevocationLists:
    store = ReplayStore(str(tmp_path / "state.sqlite"), most_per_holder=10)
    return RevocationLists(str(tmp_path / "crls"), str(tmp_path / "pushed"), store, AuthoriserBounds())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "crls").mkdir()
    return tmp_path / "crls"


def revokes(lists: RevocationLists, root: Authority, who: Authority) -> bool:
    lists.refresh()
    found = lists.view([root.facts], NOW).find(root.facts.spki_sha256, root.facts.subject)
    return found is not None and who.facts.serial in found.serials


def test_p14_a_list_that_is_being_written_leaves_the_one_before_in_force(tmp_path: Path, directory: Path) -> None:
    root = Authority.root()
    dev, other = root.delegate("dev"), root.delegate("other")
    file = directory / "root.crl"
    file.write_bytes(root.crl([dev]))
    lists = opened(tmp_path)
    assert revokes(lists, root, dev)
    newer = root.crl([dev, other], number=2)
    for size in (0, 1, len(newer) // 2, len(newer) - 1):
        file.write_bytes(newer[:size])
        assert revokes(lists, root, dev), size
    file.write_bytes(newer)
    assert revokes(lists, root, other)
    file.unlink()
    assert not revokes(lists, root, dev), "the operator took it away"


def test_p14_a_directory_that_goes_away_takes_nothing_back(tmp_path: Path, directory: Path) -> None:
    root = Authority.root()
    dev = root.delegate("dev")
    (directory / "root.crl").write_bytes(root.crl([dev]))
    lists = opened(tmp_path)
    assert revokes(lists, root, dev)
    directory.rename(tmp_path / "away")
    assert revokes(lists, root, dev)
    (tmp_path / "away").rename(directory)
    (directory / "dangling.crl").symlink_to("nowhere")
    assert revokes(lists, root, dev)


def test_without_its_directory_nothing_starts(tmp_path: Path) -> None:
    with pytest.raises(DirectoryUnusable, match="cannot be read"):
        opened(tmp_path)
