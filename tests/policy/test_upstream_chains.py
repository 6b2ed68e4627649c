"""Chains that upstream's own programs made are good as they are, and the wrong ones get the verdict they should.

``tests/vectors/pki``: keys, delegations and leaves by upstream's tools, each key type. ``tests/vectors/negative``:
chains with one defect each, and what upstream's endpoint did about them in ``tests/vectors/remote/index.json``.
"""

import json
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path as FilePath

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from albatross_pki.policy.chain import Judgement, JudgeOptions, judge_bundle, read_anchors, read_certificate

VECTORS = FilePath(__file__).parents[1] / "vectors"
NOW = datetime(2026, 11, 25, tzinfo=UTC)  # within the validity of all that is meant to be valid

# Commands that upstream's client writes into leaves and its endpoint refuses; so do we.
REFUSED_LEAVES = {"policy-add-path", "policy-remove", "stats-add", "stats-remove"}

ACCEPTED = {
    "chain-9": "l0:l1:l2:l3:l4:l5:l6:l7:hello",
    "cn-63": "alice:bob:" + "a" * 63,
    "cn-colon": "alice:bob:",
    "cn-dot": "alice:bob:",
    "cn-dots": "alice:bob:a.b.c",
    "cn-empty": "alice:bob:",
    "cn-uppercase": "alice:bob:hello",
    "duplicate-intermediate": "alice:bob:hello",
    "leaf-no-eku": "alice:bob:hello",
    "with-root": "alice:bob:hello",
    "wrong-order": "alice:bob:hello",
}
REFUSED = {
    "chain-10": "chain",
    "chain-11": "chain",
    "cn-64": "name",
    "cn-colon-path": "name",
    "cn-leading-dash": "name",
    "cn-underscore": "name",
    "create-bad-bridge": "settings",
    "create-bad-cpu": "settings",
    "create-too-much-memory": "settings",
    "expired-intermediate": "validity",
    "expired-leaf": "validity",
    "intermediate-bad-label": "label",
    "intermediate-info": "kind",
    "intermediate-no-cn": "label",
    "intermediate-no-extension": "kind",
    "intermediate-not-ca": "ca",
    "leaf-critical-extension": "known",
    "leaf-garbage-extension": "readable",
    "leaf-is-ca": "ca",
    "leaf-is-delegation": "command",
    "leaf-no-extension": "one-command",
    "leaf-only-depth3": "chain",
    "leaf-policy-add": "command",
    "leaf-policy-remove": "command",
    "leaf-stats-add": "command",
    "leaf-stats-remove": "command",
    "leaf-trailing-bytes": "readable",
    "leaf-version-0": "readable",
    "leaf-version-127": "readable",
    "leaf-version-4": "readable",
    "leaf-version-6": "readable",
    "missing-intermediate": "chain",
    "not-yet-valid-leaf": "validity",
    "other-ca": "signature",
    "other-ca-leaf-only": "signature",
    "over-block.create": "policy",
    "over-block.info": "policy",
    "over-bridge.create": "policy",
    "over-bridge.info": "policy",
    "over-cpu.create": "policy",
    "over-cpu.info": "policy",
    "over-memory.create": "policy",
    "over-memory.info": "policy",
    "over-unikernels.console": "policy",
    "over-unikernels.create": "policy",
    "over-unikernels.info": "policy",
}
# Where we refuse what upstream's endpoint lets pass, and why.
STRICTER = {
    "intermediate-no-extension": "P16: a CA with neither policy nor constraints needs the operator's word",
    "over-unikernels.console": "P14: policies are judged for console commands too",
}


def ders(file: FilePath) -> list[bytes]:
    return [
        certificate.public_bytes(Encoding.DER) for certificate in x509.load_pem_x509_certificates(file.read_bytes())
    ]


def judged(bundle: FilePath, root: FilePath, options: JudgeOptions | None = None) -> Judgement:
    return judge_bundle(ders(bundle), read_anchors(ders(root)), now=NOW, options=options or JudgeOptions())


def negative(name: str, options: JudgeOptions | None = None) -> Judgement:
    return judged(VECTORS / "negative" / f"{name}.bundle.pem", VECTORS / "pki/ed25519/cacert.pem", options)


LEAVES = sorted((VECTORS / "pki").glob("*/leaf/*.bundle.pem"))


def leaf_name(bundle: FilePath) -> str:
    return bundle.name.removesuffix(".bundle.pem")


@pytest.mark.parametrize("bundle", LEAVES, ids=lambda found: f"{found.parts[-3]}-{leaf_name(found)}")
def test_every_chain_that_upstream_accepts(bundle: FilePath) -> None:
    judgement = judged(bundle, bundle.parents[1] / "cacert.pem")
    assert judgement.accepted == (leaf_name(bundle) not in REFUSED_LEAVES), judgement.reasons


def test_the_vectors_are_there() -> None:
    assert len(LEAVES) > 50
    assert {found.name.removesuffix(".bundle.pem") for found in (VECTORS / "negative").glob("*.bundle.pem")} == {
        *ACCEPTED,
        *REFUSED,
    }


@pytest.mark.parametrize("name", ACCEPTED)
def test_odd_and_accepted(name: str) -> None:
    judgement = negative(name)
    assert judgement.accepted, judgement.reasons
    assert judgement.authorised is not None
    assert str(judgement.authorised.name) == ACCEPTED[name]


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_and_refused(name: str) -> None:
    judgement = negative(name)
    assert judgement.authorised is None
    assert REFUSED[name] in {result.rule for result in judgement.rules if not result.ok}, judgement.reasons


def test_nothing_is_accepted_that_upstreams_endpoint_refuses() -> None:
    """And what we refuse beyond it stands in a list, with the reason."""
    answered: dict[str, bool] = {}
    for record in json.loads((VECTORS / "remote/index.json").read_text()):
        if (record["bundle"] or "").startswith("negative/") and not record["label"].startswith("create-"):
            name = FilePath(record["bundle"]).name.removesuffix(".bundle.pem")
            reply = record["frames"] > 0 and not (name.startswith("over-") and "console" not in name)
            answered[name] = answered.get(name, False) or reply
    assert {name for name in answered if negative(name).accepted} <= {name for name, reply in answered.items() if reply}
    assert {name for name, reply in answered.items() if reply and not negative(name).accepted} == set(STRICTER)


def test_p16_plain_intermediates_pass_where_the_operator_accepts_them() -> None:
    judgement = negative("intermediate-no-extension", JudgeOptions(accept_plain_intermediates=True))
    assert judgement.accepted
    assert str(judgement.name) == "alice:hello"


def test_the_policies_of_a_chain_from_the_root_down() -> None:
    judgement = judged(VECTORS / "pki/ed25519/leaf/create.bundle.pem", VECTORS / "pki/ed25519/cacert.pem")
    assert judgement.authorised is not None
    assert [(str(entry.path), entry.policy.unikernels) for entry in judgement.authorised.policies] == [
        ("alice", 4),
        ("alice:bob", 2),
    ]


ONE_SHOT = sorted((VECTORS / "oneshot").glob("*.bundle.pem"))
# A leaf with a policy command; an empty common name, which is not the absence of one.
REFUSED_ONE_SHOT = {"policy-add-root": "command", "policy-remove-root": "command", "policy-info-alice": "name"}


@pytest.mark.parametrize("bundle", ONE_SHOT, ids=leaf_name)
def test_chains_of_one_shot_commands_while_they_were_valid(bundle: FilePath) -> None:
    prefix = leaf_name(bundle).split("-")[0]
    key_type = prefix if (VECTORS / "pki" / prefix).is_dir() else "ed25519"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryptography warns about the empty common name, and reads it
        chain = ders(bundle)
    now = read_certificate(chain[0]).not_before + timedelta(minutes=1)
    judgement = judge_bundle(chain, read_anchors(ders(VECTORS / "pki" / key_type / "cacert.pem")), now=now)
    refused = REFUSED_ONE_SHOT.get(leaf_name(bundle))
    assert {result.rule for result in judgement.rules if not result.ok} == ({refused} if refused else set())


def test_the_chains_of_one_shot_commands_are_there() -> None:
    assert len(ONE_SHOT) == 15
