"""What is remembered about CAs never changes a verdict: not for any chain, nor at another time or with other lists."""

import ast
import inspect
import textwrap

import pytest

from albatross_pki.policy import lasting
from albatross_pki.policy.chain import ALL_RULES, JudgeOptions, judge
from albatross_pki.policy.judgement import Judgement, Place, Rule
from albatross_pki.policy.revocation import Revocations
from tests.pki_builder import AUTHORITY_KEY_ID, HOUR, NOW, Authority, Issued, policy
from tests.policy.cases import Case, all_cases

OF_A_MOMENT = {"now", "revocations", "require_crl", "namesakes"}
OF_THE_HOST = {"hosts", "accept_unbound_images"}


def judged(leaf: Issued, **options: object) -> Judgement:
    return judge(leaf.path, leaf.anchor_facts, now=NOW, options=JudgeOptions(**options))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def forgotten() -> None:
    lasting._remembered.cache_clear()


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
def test_a_second_judgement_is_the_first_one(case: Case) -> None:
    presented = case.make()
    assert presented.judgement() == presented.judgement()


@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: rule.word)
def test_what_looks_at_the_moment_is_asked_every_time(rule: Rule) -> None:
    """Read from the rules themselves: which attributes do they name?"""
    tree = ast.parse(textwrap.dedent(inspect.getsource(rule.check)))
    named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert rule.momentary == bool(named & OF_A_MOMENT)
    if set(rule.places) != {Place.LEAF} and not rule.momentary:
        assert not named & OF_THE_HOST, "the memory knows nothing of these"


def test_p14_a_list_that_comes_later_revokes_what_is_remembered() -> None:
    root = Authority.root()
    dev = root.delegate("dev")
    sub = dev.delegate("sub")
    leaf = sub.leaf()
    assert judged(leaf).accepted
    for issuer, revoked in ((root, dev), (dev, sub), (sub, leaf)):
        lists, _ = Revocations().accept(issuer.read_crl([revoked]), issuer.facts, NOW)
        assert [result.rule for result in judged(leaf, revocations=lists).rules if not result.ok] == ["revoked"]
    assert judged(leaf).accepted


def test_time_goes_on_for_what_is_remembered() -> None:
    leaf = Authority.root().delegate("dev", not_after=NOW + HOUR).leaf()
    options = JudgeOptions()
    for hours, accepted in ((0, True), (1, False), (0, True), (-48, False)):
        assert judge(leaf.path, leaf.anchor_facts, now=NOW + hours * HOUR, options=options).accepted == accepted


def test_a_leaf_called_like_an_issuer_is_looked_at_every_time() -> None:
    """Whether names can be mistaken depends on the whole chain, the leaf included."""
    dev = Authority.root().delegate("dev", drop=[AUTHORITY_KEY_ID])
    assert judged(dev.leaf("hello")).accepted
    assert "key-ids" in {result.rule for result in judged(dev.leaf("ca")).rules if not result.ok}
    assert judged(dev.leaf("hello")).accepted


def test_a_ca_is_judged_anew_in_another_place() -> None:
    """A path length that suffices for leaves does not for a delegation below."""
    dev = Authority.root().delegate("dev", path_length=0)
    assert judged(dev.leaf()).accepted
    assert [result.rule for result in judged(dev.delegate("sub").leaf()).rules if not result.ok] == ["path-length"]
    assert judged(dev.leaf()).accepted


def test_a_ca_is_judged_anew_below_another_issuer() -> None:
    """The same octets below a namesake of their issuer with another key: not signed by it."""
    root, other = Authority.root(), Authority.root()
    leaf = root.delegate("dev").leaf()
    assert judged(leaf).accepted
    judgement = judge(leaf.path, other.facts, now=NOW)
    assert "signature" in {result.rule for result in judgement.rules if not result.ok}
    assert judged(leaf).accepted


def test_an_option_of_the_operator_is_not_remembered_for_others() -> None:
    leaf = Authority.root().plain("x").leaf()
    for accepted in (False, True, False):
        assert judged(leaf, accept_plain_intermediates=accepted).accepted == accepted


def test_p04_the_memory_is_bounded() -> None:
    bounds = lasting._remembered.cache_parameters()
    assert bounds["maxsize"] == 512
    wide = policy(1, 1, bridges=[f"bridge{number:05}" for number in range(2000)])
    large = Authority.root().delegate("dev", wide)
    assert len(large.der) > 16 * 1024
    for _ in range(2):
        assert judged(large.delegate("sub", policy(1, 1)).leaf()).accepted
    assert lasting._remembered.cache_info().currsize == 1, "the root alone"
