"""Keys and labels that were there before: nothing older undoes what is narrower, nobody inherits a label unseen."""

from pathlib import Path

import pytest

from albatross_pki.journal.log import read_entries
from tests.ca.programs import Program, Result


@pytest.fixture
def team(ca: Program, ask: Program, workplace: Path) -> Path:
    """A root, and a delegation ``team`` of 4 unikernels."""
    ca("generate", "ca", "db")
    ask("delegation", "team", 4)
    ca("sign", "cacert.pem", "db", "ca.key", "team.req", "--as=delegation")
    return workplace


def sign(ca: Program, csr: str, *options: object, check: bool = True) -> Result:
    return ca("sign", "cacert.pem", "db", "ca.key", csr, "--as=delegation", "--force", *options, check=check)


def revoked() -> list[str]:
    return [entry["serial"] for entry in read_entries("db.ledger") if entry["kind"] == "revoked"]


def test_the_same_rights_for_the_same_key_are_a_renewal(team: Path, ca: Program) -> None:
    sign(ca, "team.req")
    assert revoked() == []


def test_p35_a_key_gets_other_rights_only_if_the_older_ones_go(team: Path, ca: Program, ask: Program) -> None:
    """A narrower renewal is worth nothing while the wider certificate of the same key is good."""
    ask("delegation", "team", 2, "--overwrite")
    refused = sign(ca, "team.req", check=False)
    assert refused.status == 124
    assert "which would stay good" in refused.err
    assert "--revoke-older" in refused.err
    assert revoked() == []
    older = next(e["serial"] for e in read_entries("db.ledger") if e.get("label") == "team")
    said = sign(ca, "team.req", "--revoke-older")
    assert "publish a new crl" in said.err
    assert revoked() == [older]


def test_p35_a_key_gets_another_path_only_if_the_older_one_goes(team: Path, ca: Program, ask: Program) -> None:
    ask("delegation", "other", 4, "--key=team.key")
    assert "which would stay good" in sign(ca, "other.req", check=False).err
    sign(ca, "other.req", "--revoke-older")


def test_a_key_of_a_leaf_does_not_become_a_delegation(team: Path, ca: Program, ask: Program) -> None:
    ask("info", "-n", "x")
    ca("sign", "cacert.pem", "db", "ca.key", "x.req", "--as=leaf")
    ask("delegation", "x", 1, "--overwrite")
    assert "already has the leaf x" in sign(ca, "x.req", check=False).err


def test_leaves_of_one_key_stand_beside_each_other(team: Path, ca: Program, ask: Program) -> None:
    for words in (("info", "-n", "web"), ("destroy", "web"), ("console", "web")):
        ask(*words, "--force")
        ca("sign", "team.pem", "team.db", "team.key", "web.req", "--as=leaf", "--force")


def test_the_key_that_signs_is_never_signed(team: Path, ca: Program, ask: Program) -> None:
    ask("delegation", "me", 1, "--key=ca.key")
    assert "the key that signs it" in sign(ca, "me.req", check=False).err


def test_a_label_belongs_to_its_key(team: Path, ca: Program, ask: Program) -> None:
    Path("team.key").rename("old.key")
    ask("delegation", "TEAM", 1, "--overwrite")
    refused = sign(ca, "team.req", check=False)
    assert "the label team belongs to another key" in refused.err
    assert "--share-label" in refused.err
    assert sign(ca, "team.req", "--reuse-label", check=False).status == 124, "it is in use: that is sharing"
    sign(ca, "team.req", "--share-label")


def test_a_label_that_is_free_again_is_given_away_knowingly(team: Path, ca: Program, ask: Program) -> None:
    ca("revoke", "db", "team")
    Path("team.key").rename("old.key")
    ask("delegation", "team", 1, "--overwrite")
    refused = sign(ca, "team.req", check=False)
    assert "was issued to another key before" in refused.err
    assert "--reuse-label" in refused.err
    sign(ca, "team.req", "--reuse-label")


def test_labels_below_different_issuers_are_different(team: Path, ca: Program, ask: Program) -> None:
    ask("delegation", "lead", 4, "--path-length=1")
    sign(ca, "lead.req")
    Path("team.key").rename("old.key")
    ask("delegation", "team", 1, "--overwrite")
    ca("sign", "lead.pem", "db", "lead.key", "team.req", "--as=delegation", "--force")
