import pytest

from albatross_pki.policy.chain import judge_found
from albatross_pki.policy.paths import LONGEST_LIST, NoPath, find_path
from tests.pki_builder import DAY, NOW, Authority, make_key

ROOT = Authority.root()


def test_leaf_first_without_the_root() -> None:
    leaf = ROOT.delegate("dev").leaf()
    found = find_path(leaf.ders, [ROOT.facts])
    assert [certificate.der for certificate in found.path] == leaf.ders
    assert (found.anchor.der, found.unused) == (ROOT.der, ())


def test_any_order_after_the_first_with_the_root_and_duplicates() -> None:
    leaf = ROOT.delegate("a").delegate("b").delegate("c").leaf()
    shuffled = [leaf.ders[0], leaf.ders[3], ROOT.der, leaf.ders[1], leaf.ders[1], leaf.ders[2]]
    assert [certificate.der for certificate in find_path(shuffled, [ROOT.facts]).path] == leaf.ders


def test_the_shortest_path_wins_and_the_rest_is_reported() -> None:
    key = make_key()
    short = ROOT.delegate("dev", key=key)
    long_way = ROOT.plain("x").delegate("dev", key=key)
    leaf = short.leaf()
    found = find_path([leaf.der, *long_way.ders, short.der], [ROOT.facts])
    assert [certificate.der for certificate in found.path] == [leaf.der, short.der]
    assert {certificate.der for certificate in found.unused} == set(long_way.ders)


def test_names_alone_make_a_path_that_is_refused_with_the_reason() -> None:
    """A namesake of the root: the judgement, not the search, says what is wrong."""
    namesake = Authority.root()
    leaf = namesake.delegate("dev").leaf()
    found = find_path(leaf.ders, [ROOT.facts])
    assert [certificate.der for certificate in found.path] == leaf.ders
    judgement = judge_found(found, now=NOW)
    assert 'delegation "dev": not signed by the certificate above ("ca")' in judgement.reasons


def test_signatures_come_before_names() -> None:
    """Of two namesakes the one that signed is on the path, and the other one beside it."""
    first, second = ROOT.delegate("dev"), ROOT.delegate("dev")
    leaf = second.leaf()
    found = find_path([leaf.der, first.der, second.der], [ROOT.facts])
    assert [certificate.der for certificate in found.path] == leaf.ders
    assert [certificate.der for certificate in found.unused] == [first.der]


def test_another_root() -> None:
    with pytest.raises(NoPath, match=r'no path from "hello" to a trusted root \("other"\)'):
        find_path(ROOT.leaf().ders, [Authority.root("other").facts])


def test_circles_end() -> None:
    one, two = make_key(), make_key()
    a, b = Authority.root("a", key=one), Authority.root("b", key=two)
    a_by_b, b_by_a = b.plain("a", key=one), a.plain("b", key=two)
    with pytest.raises(NoPath):
        find_path([a.leaf().der, a_by_b.der, b_by_a.der], [ROOT.facts])


def test_of_two_roots_that_fit_the_valid_one() -> None:
    old = Authority.root(key=ROOT.key, not_before=NOW - 2 * DAY, not_after=NOW - DAY)
    for anchors in ([old.facts, ROOT.facts], [ROOT.facts, old.facts]):
        assert find_path(ROOT.leaf().ders, anchors, NOW).anchor.der == ROOT.der


def test_lists_are_bounded() -> None:
    with pytest.raises(NoPath, match="too many"):
        find_path([ROOT.leaf().der] * (LONGEST_LIST + 1), [ROOT.facts])


@pytest.mark.parametrize(("ders", "anchors"), [([], [ROOT.facts]), ([ROOT.der], [ROOT.facts]), ([ROOT.leaf().der], [])])
def test_nothing_to_find(ders: list[bytes], anchors: list) -> None:  # type: ignore[type-arg]
    with pytest.raises(NoPath):
        find_path(ders, anchors)
