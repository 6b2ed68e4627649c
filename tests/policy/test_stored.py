"""Images by path: whatever happens, the totals are what counting everything again gives."""

import contextlib

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from albatross_pki.names import Name, Path
from albatross_pki.policy.stored import MEBIBYTE, StoredImages

DIGESTS = st.sampled_from([bytes([number]) * 32 for number in range(5)])
NAMES = st.sampled_from([Name.parse(text) for text in (":a", "x:a", "x:b", "x:y:a", "x:y:b", "y:a")])
WEB, API, OTHER = Name.parse("dev:web"), Name.parse("dev:api"), Name.parse("other:web")
ONE, TWO, THREE = (bytes([number]) * 32 for number in (1, 2, 3))


def size(digest: bytes) -> int:
    return 1000 + digest[0]


class AgainstRecount(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stored = StoredImages()
        self.kept: dict[Name, set[bytes]] = {}

    @rule(name=NAMES, digests=st.sets(DIGESTS))
    def settle(self, name: Name, digests: set[bytes]) -> None:
        self.stored.settle(name, {digest: size(digest) for digest in digests})
        self.kept[name] = digests

    @rule(name=NAMES, digest=DIGESTS, fails=st.booleans())
    def receive(self, name: Name, digest: bytes, fails: bool) -> None:
        with contextlib.suppress(ZeroDivisionError), self.stored.promised(name, 5000) as know:
            assert self.stored.octets(name.path) >= 5000
            know(size(digest), digest)
            assert self.stored.octets(name.path) == self.recount(name.path, {digest})
            if fails:
                raise ZeroDivisionError

    @invariant()
    def totals(self) -> None:
        for path in (Path(), Path(("x",)), Path(("x", "y")), Path(("y",)), Path(("z",))):
            assert self.stored.octets(path) == self.recount(path, set())

    def recount(self, path: Path, more: set[bytes]) -> int:
        below = (digests for name, digests in self.kept.items() if path.contains(name.path))
        return sum(map(size, more.union(*below)))


TestAgainstRecount = AgainstRecount.TestCase


def test_every_path_up_to_the_root_has_a_limit_and_all_are_told() -> None:
    stored = StoredImages()
    stored.settle(WEB, {ONE: 3 * MEBIBYTE})
    limits = {Path(("dev",)): 4 * MEBIBYTE, Path(): 5 * MEBIBYTE}
    found = stored.admit(API, 4 * MEBIBYTE, limits.get, digest=TWO, leaving={})
    assert [each.text for each in found] == [
        "images may take 4 MB (used 3 MB), which would be exceeded by this one (4 MB)",
        "images may take 5 MB (used 3 MB), which would be exceeded by this one (4 MB) on the whole host",
    ]
    assert stored.admit(API, MEBIBYTE, limits.get, digest=TWO, leaving={}) == []
    assert stored.admit(API, 1 << 60, lambda _: None, digest=TWO, leaving={}) == []


def test_the_same_image_costs_a_path_once() -> None:
    stored = StoredImages()
    stored.settle(WEB, {ONE: 3 * MEBIBYTE})
    limits = {Path(("dev",)): 3 * MEBIBYTE}
    assert stored.admit(API, 3 * MEBIBYTE, limits.get, digest=ONE, leaving={}) == []
    assert len(stored.admit(API, 3 * MEBIBYTE, limits.get, digest=None, leaving={})) == 1


def test_what_goes_makes_room_unless_somebody_else_keeps_it() -> None:
    stored = StoredImages()
    stored.settle(WEB, {ONE: 3 * MEBIBYTE})
    limits = {Path(("dev",)): 3 * MEBIBYTE}
    leaving = {ONE: 3 * MEBIBYTE}
    assert stored.admit(WEB, 3 * MEBIBYTE, limits.get, digest=TWO, leaving=leaving) == []
    stored.settle(API, {ONE: 3 * MEBIBYTE})
    assert len(stored.admit(WEB, 3 * MEBIBYTE, limits.get, digest=TWO, leaving=leaving)) == 1


def test_p34_a_full_host_does_not_tell_what_others_store() -> None:
    stored = StoredImages()
    stored.settle(OTHER, {ONE: 3 * MEBIBYTE})
    limits = {Path(): 3 * MEBIBYTE}
    known = stored.admit(WEB, MEBIBYTE, limits.get, digest=ONE, leaving={})
    unknown = stored.admit(WEB, MEBIBYTE, limits.get, digest=TWO, leaving={})
    assert known == unknown
    assert len(known) == 1
