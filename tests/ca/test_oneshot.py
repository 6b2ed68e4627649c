"""One leaf for one command, made in memory: at any depth, narrow, judged before it is used."""

from datetime import UTC, datetime, timedelta

import pytest

from albatross_pki.ca.issuer import WrongKey
from albatross_pki.ca.oneshot import issue_oneshot
from albatross_pki.commands import PolicyAdd, PolicyRemove, UnikernelCreate, UnikernelDestroy, UnikernelInfoRequest
from albatross_pki.errors import Refused
from albatross_pki.extensions import Constraints, ImageBinding, Status
from albatross_pki.policies import Policy
from albatross_pki.policy.certificates import read_certificate
from albatross_pki.policy.chain import judge_bundle, read_anchors
from albatross_pki.policy.roles import Dialect
from albatross_pki.unikernels import NetworkInterface, Settings, UnikernelConfig
from tests.pki_builder import Authority, policy

ROOT = Authority.root()
DEV = ROOT.delegate("dev", policy(unikernels=4, memory_mb=512), path_length=None)
BINDING = ImageBinding(bytes(32), 100)


def create(**settings: object) -> UnikernelCreate:
    return UnikernelCreate(UnikernelConfig(b"", Settings(**settings)))  # type: ignore[arg-type]


@pytest.mark.parametrize("key_type", ["ed25519", "p256", "p384", "p521", "rsa2048"])
def test_a_leaf_is_accepted_where_it_goes(key_type: str) -> None:
    chain, key = issue_oneshot(DEV.chain_pem, DEV.key, "hello", UnikernelDestroy(), key_type=key_type)
    judgement = judge_bundle(chain, read_anchors([ROOT.der]), now=datetime.now(UTC))
    assert judgement.accepted, judgement.reasons
    assert str(judgement.name) == "dev:hello"
    leaf = read_certificate(chain[0])
    assert leaf.parsed.public_key() == key.public_key()
    assert leaf.not_after - datetime.now(UTC) <= timedelta(seconds=300)


def test_p32_at_any_depth_and_below_the_root_itself() -> None:
    authority = DEV
    for depth in range(6):
        authority = authority.delegate(f"d{depth}", policy(unikernels=1), path_length=None)
        chain, _ = issue_oneshot(authority.chain_pem, authority.key, None, UnikernelInfoRequest(), roots=[ROOT.der])
        assert len(chain) == depth + 3
    chain, _ = issue_oneshot(ROOT.pem, ROOT.key, "hello", UnikernelDestroy())
    assert len(chain) == 1


def test_p32_the_key_must_be_that_of_the_certificate() -> None:
    with pytest.raises(WrongKey):
        issue_oneshot(DEV.chain_pem, ROOT.key, None, UnikernelInfoRequest())


def test_p35_once_is_the_default_for_changes() -> None:
    def once(**options: bool) -> bool:
        chain, _ = issue_oneshot(DEV.chain_pem, DEV.key, "x", UnikernelDestroy(), **options)  # type: ignore[arg-type]
        constraints = read_certificate(chain[0]).constraints
        return constraints is not None and constraints.once

    assert once()
    assert not once(once=False)


def test_p30_p31_a_create_beyond_the_policy_is_refused_with_everything_wrong() -> None:
    command = create(memory_mb=1000, cpuids=frozenset({9}), interfaces=(NetworkInterface("net", "nowhere"),))
    with pytest.raises(Refused) as refused:
        issue_oneshot(DEV.chain_pem, DEV.key, "hello", command, BINDING)
    assert len(refused.value.reasons) == 3


@pytest.mark.parametrize(
    ("label", "command", "binding", "reason"),
    [
        (None, UnikernelDestroy(), None, "is about one name"),
        ("x", PolicyRemove(), None, "cannot be in a certificate"),
        ("x", PolicyAdd(Policy(frozenset({0}), 1, 32)), None, "a leaf cannot hold"),
        ("x", create(), None, "neither in the request nor bound"),
        ("a:b", UnikernelDestroy(), None, "invalid label"),
    ],
)
def test_p30_what_cannot_work_is_refused_here(label, command, binding, reason) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Refused, match=reason):
        issue_oneshot(DEV.chain_pem, DEV.key, label, command, binding)


def test_constraints_above_are_obeyed() -> None:
    narrow = DEV.permit("ci", Constraints(commands=frozenset({"info"}), names=frozenset({"web*"})))
    issue_oneshot(narrow.chain_pem, narrow.key, "web1", UnikernelInfoRequest())
    with pytest.raises(Refused) as refused:
        issue_oneshot(narrow.chain_pem, narrow.key, "mail", UnikernelDestroy())
    assert len(refused.value.reasons) == 2


@pytest.mark.parametrize(
    ("command", "binding", "reason"),
    [(create(), BINDING, "embed it"), (create(), None, "embed it"), (Status(), None, "not one of upstream's")],
)
def test_the_upstream_dialect_refuses_and_never_drops(command, binding, reason) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Refused, match=reason):
        issue_oneshot(DEV.chain_pem, DEV.key, "x", command, binding, dialect=Dialect.UPSTREAM, unbound=True)


def test_the_upstream_dialect_refuses_below_constraints() -> None:
    narrow = DEV.permit("ci", Constraints(commands=frozenset({"info"})))
    with pytest.raises(Refused, match="constraints cannot be passed on"):
        issue_oneshot(narrow.chain_pem, narrow.key, None, UnikernelInfoRequest(), dialect=Dialect.UPSTREAM)


def test_an_image_too_big_for_tls_is_refused() -> None:
    big = UnikernelCreate(UnikernelConfig(bytes(2**24), Settings()))
    with pytest.raises(Exception, match="too big for TLS"):
        issue_oneshot(DEV.chain_pem, DEV.key, "x", big, dialect=Dialect.UPSTREAM)
