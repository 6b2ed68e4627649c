"""Labels, paths and names: what is one, what is not, and that names and paths never meet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatross_pki.errors import InvalidName
from albatross_pki.names import Name, Path, derived_mac, parse_label

labels = st.from_regex(r"[a-z0-9.][a-z0-9.-]{0,62}", fullmatch=True)
paths = st.lists(labels, max_size=9).map(lambda items: Path(tuple(items)))
names = st.builds(Name, paths, st.none() | labels)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("foo", ":foo"), (":foo", ":foo"), ("a:b:", "a:b:"), (":", ":"), ("A:B:c", "a:b:c"), (":a:b", "a:b")],
)
def test_every_spelling_has_one_canonical_text(text: str, canonical: str) -> None:
    assert str(Name.parse(text)) == canonical


@pytest.mark.parametrize("text", ["", "::", "a::b", "::foo", "-a", "a_b", "a" * 64, "a:ä", "a\n", "a:b::"])
def test_what_is_not_a_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidName):
        Name.parse(text)


@pytest.mark.parametrize("text", ["a:", "a::b", ":", "_"])
def test_what_is_not_a_path_is_refused(text: str) -> None:
    if text == ":":
        assert Path.parse("") == Path()
    with pytest.raises(InvalidName):
        Path.parse(text if text != ":" else "::")


def test_p10_a_name_and_the_path_of_the_same_labels_are_different() -> None:
    name, path = Name.parse("a:b"), Name.parse("a:b:")
    assert name != path
    assert str(name) != str(path)
    assert len({name, path}) == 2
    assert not name.is_path
    assert path.is_path


@given(names)
def test_parse_is_the_inverse_of_text(name: Name) -> None:
    assert Name.parse(str(name)) == name


@given(names, paths)
def test_relative_is_the_inverse_of_below(name: Name, path: Path) -> None:
    assert name.below(path).relative_to(path) == name


@given(paths)
def test_ancestors_end_at_the_root_and_contain_the_path(path: Path) -> None:
    ancestors = path.ancestors()
    assert ancestors[0] == path
    assert ancestors[-1].is_root
    assert all(ancestor.contains(path) for ancestor in ancestors)
    assert len(ancestors) == len(path.labels) + 1


def test_a_path_made_from_labels_is_checked_like_one_made_from_text() -> None:
    with pytest.raises(InvalidName):
        Path(("Upper",))
    with pytest.raises(InvalidName):
        Name(Path(), "a:b")


@given(st.text(max_size=80))
def test_only_invalid_name_leaves_the_parser(text: str) -> None:
    for parse in (Name.parse, Path.parse, parse_label):
        try:
            parse(text)
        except InvalidName:
            continue


@pytest.mark.parametrize(
    ("netif", "name", "mac"),
    [
        ("service0", "q:net", "00804163137d"),
        ("default", "foo:bar", "0080419a6f39"),
        ("eth0", "foo:net", "00804134bc0a"),
    ],
)
def test_macs_are_those_that_upstream_derives(netif: str, name: str, mac: str) -> None:
    assert derived_mac(netif, Name.parse(name)).hex() == mac
