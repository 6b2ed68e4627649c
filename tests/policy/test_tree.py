import itertools
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.policy.effective import over
from albatross_pki.policy.rules import Violation
from albatross_pki.policy.tree import Charge, EffectivePolicy, ResourceTree, Usage
from albatross_pki.unikernels import NetworkInterface, Settings
from tests.pki_builder import policy
from tests.policy import strategies

DEV, SUB = Path(("dev",)), Path(("dev", "sub"))


def limits(**by_path: Policy) -> EffectivePolicy:
    """Policies by path text: ``root`` and ``dev__sub`` for the root and dev:sub."""
    table = {Path(() if text == "root" else tuple(text.split("__"))): found for text, found in by_path.items()}
    return table.get


def small(memory_mb: int = 16, *, cpuids: Iterable[int] = (0,), bridges: Iterable[str] = ()) -> Settings:
    interfaces = tuple(NetworkInterface(f"net{number}", bridge) for number, bridge in enumerate(bridges))
    return Settings(frozenset(cpuids), memory_mb, interfaces=interfaces)


def texts(violations: Iterable[Violation]) -> list[str]:
    return [violation.text for violation in violations]


class TreeAgainstRecount(RuleBasedStateMachine):
    """Whatever happens, the running totals are what counting everything again gives."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = ResourceTree()
        self.unikernels: dict[Name, Charge] = {}
        self.blocks: dict[Name, int] = {}

    @rule(name=strategies.names, settings=strategies.settings, stopped=st.booleans())
    def settle(self, name: Name, settings: Settings, stopped: bool) -> None:
        self.tree.settle(name, settings, stopped=stopped)
        self.unikernels[name] = Charge.of(settings, stopped=stopped)

    @rule(name=strategies.names, settings=strategies.settings)
    def hold(self, name: Name, settings: Settings) -> None:
        self.tree.hold(name, settings)
        charge = Charge.of(settings)
        self.unikernels[name] = self.unikernels[name].or_larger(charge) if name in self.unikernels else charge

    @rule(name=strategies.names)
    def take_out(self, name: Name) -> None:
        self.tree.settle(name, None)
        self.unikernels.pop(name, None)

    @rule(name=strategies.names, size_mb=st.integers(1, 9))
    def block(self, name: Name, size_mb: int) -> None:
        if name in self.blocks:
            self.tree.remove_block(name)
            del self.blocks[name]
        else:
            self.tree.add_block(name, size_mb)
            self.blocks[name] = size_mb

    @invariant()
    def totals_are_the_sums(self) -> None:
        everywhere = {p for name in (*self.unikernels, *self.blocks) for p in name.path.ancestors()}
        assert set(self.tree.paths()) == everywhere
        for path in everywhere | {Path(("nowhere",))}:
            charges = [charge for name, charge in self.unikernels.items() if path.contains(name.path)]
            assert self.tree.usage(path) == Usage(
                len(charges),
                sum(charge.memory_mb for charge in charges),
                sum(size for name, size in self.blocks.items() if path.contains(name.path)),
                Counter(itertools.chain.from_iterable(charge.cpuids for charge in charges)),
                Counter(itertools.chain.from_iterable(charge.bridges for charge in charges)),
            )


TestTreeAgainstRecount = TreeAgainstRecount.TestCase
TestTreeAgainstRecount.settings = hypothesis_settings(max_examples=30, stateful_step_count=15, deadline=None)


class NobodyExceeds(RuleBasedStateMachine):
    """P11: whatever is asked for, in whatever order, no path is ever over the policy that is in force for it."""

    @initialize(policies=st.dictionaries(strategies.paths, strategies.policies, max_size=6))
    def begin(self, policies: dict[Path, Policy]) -> None:
        self.tree = ResourceTree()
        self.policies = policies
        self.running: dict[Name, Settings] = {}
        self.exchanged: dict[Name, Settings] = {}

    @rule(name=strategies.names, settings=strategies.settings)
    def ask(self, name: Name, settings: Settings) -> None:
        if name not in self.exchanged and not self.tree.reserve(name, settings, self.policies.get):
            (self.exchanged if name in self.running else self.running)[name] = settings

    @rule(keep_new=st.booleans())
    def decide_an_exchange(self, keep_new: bool) -> None:
        if self.exchanged:
            name, settings = self.exchanged.popitem()
            self.running[name] = settings if keep_new else self.running[name]
            self.tree.settle(name, self.running[name])

    @rule()
    def destroy(self) -> None:
        for name in list(self.running)[:1]:
            if name not in self.exchanged:
                del self.running[name]
                self.tree.remove(name)

    @rule(name=strategies.names, size_mb=st.integers(1, 3))
    def add_block(self, name: Name, size_mb: int) -> None:
        if self.tree.block_size_mb(name) is None and not self.tree.admit_block(name, size_mb, self.policies.get):
            self.tree.add_block(name, size_mb)

    @invariant()
    def nobody_is_over(self) -> None:
        for path, limit in getattr(self, "policies", {}).items():
            assert over(limit, self.tree.usage(path)) == []


TestP11NobodyExceeds = NobodyExceeds.TestCase
TestP11NobodyExceeds.settings = hypothesis_settings(max_examples=60, stateful_step_count=20, deadline=None)


class TestAdmission:
    def test_upstreams_words_for_the_own_path(self) -> None:
        tree = ResourceTree()
        tree.add(Name(DEV, "one"), small(48))
        asked = small(32, cpuids=(0, 3), bridges=("service", "secret"))
        found = tree.admit(Name(DEV, "two"), asked, limits(dev=policy(1, 64, bridges=["service"])))
        assert texts(found) == [
            "maximum amount of unikernels (1) reached",
            "maximum allowed memory (64, used 48) would be exceeded (requesting 32)",
            "CPUids 3 are not allowed by policy",
            "bridges secret not allowed by policy",
        ]

    def test_no_policy_is_no_limit(self) -> None:
        assert ResourceTree().admit(Name(DEV, "x"), small(1 << 40), lambda path: None) == []

    def test_exactly_the_limit_fits(self) -> None:
        tree = ResourceTree()
        tree.add(Name(DEV, "one"), small(32))
        assert tree.admit(Name(DEV, "two"), small(32), limits(dev=policy(2, 64))) == []

    def test_p11_siblings_cannot_jointly_exceed_their_parent(self) -> None:
        tree = ResourceTree()
        effective = limits(dev=policy(2, 64), dev__a=policy(2, 64), dev__b=policy(2, 64))
        tree.add(Name(DEV.child("a"), "x"), small(40))
        found = tree.admit(Name(DEV.child("b"), "y"), small(40), effective)
        assert texts(found) == ["maximum allowed memory (64, used 40) would be exceeded (requesting 40) for dev"]

    def test_p11_the_root_policy_binds_everybody(self) -> None:
        tree = ResourceTree()
        tree.add(Name(Path(("other",)), "x"), small(100))
        found = tree.admit(Name(SUB, "y"), small(40), limits(root=policy(9, 128), dev__sub=policy(9, 64)))
        assert texts(found) == [
            "maximum allowed memory (128, used 100) would be exceeded (requesting 40) on the whole host"
        ]

    def test_p11_a_path_without_policy_in_the_middle_hides_nothing(self) -> None:
        tree = ResourceTree()
        tree.add(Name(SUB.child("deep"), "x"), small())
        assert tree.admit(Name(SUB.child("deeper"), "y"), small(), limits(dev=policy(1, 64))) != []

    def test_p11_of_fifty_requests_for_the_last_place_one_wins(self) -> None:
        tree, effective = ResourceTree(), limits(dev=policy(1, 64))
        answers = [tree.reserve(Name(DEV, f"u{number}"), small(), effective) for number in range(50)]
        assert sum(not violations for violations in answers) == 1

    def test_p11_a_stopped_one_keeps_its_place_and_gives_its_memory_back(self) -> None:
        tree, effective = ResourceTree(), limits(dev=policy(2, 64))
        tree.add(Name(DEV, "one"), small(64))
        tree.settle(Name(DEV, "one"), small(64), stopped=True)
        assert tree.reserve(Name(DEV, "two"), small(64), effective) == []
        assert texts(tree.admit(Name(DEV, "three"), small(1), effective)) == [
            "maximum amount of unikernels (2) reached",
            "maximum allowed memory (64, used 64) would be exceeded (requesting 1)",
        ]
        assert texts(tree.admit(Name(DEV, "one"), small(64), effective)) == [
            "maximum allowed memory (64, used 64) would be exceeded (requesting 64)"
        ]

    def test_p11_an_exchange_holds_the_larger_of_both_until_it_is_decided(self) -> None:
        tree, effective, name = ResourceTree(), limits(dev=policy(1, 64, [0, 1])), Name(DEV, "one")
        tree.add(name, small(48))
        assert tree.reserve(name, small(16, cpuids=(1,)), effective) == []
        assert tree.usage(DEV) == Usage(1, 48, 0, Counter({0: 1, 1: 1}))
        tree.settle(name, small(16, cpuids=(1,)))
        assert tree.usage(DEV) == Usage(1, 16, 0, Counter({1: 1}))

    def test_p11_an_exchange_is_charged_for_what_it_adds(self) -> None:
        tree, name = ResourceTree(), Name(DEV, "one")
        tree.add(name, small(48))
        assert tree.admit(name, small(64), limits(dev=policy(1, 64))) == []
        assert tree.admit(name, small(65), limits(dev=policy(1, 64))) != []

    def test_p12_below_a_lowered_limit_nothing_is_added(self) -> None:
        tree, name, lowered = ResourceTree(), Name(DEV, "one"), limits(dev=policy(1, 32))
        tree.add(name, small(48))
        tree.add(Name(DEV, "two"), small(48))
        assert tree.admit(name, small(48), lowered) == []
        assert tree.admit(name, small(49), lowered) != []
        assert tree.admit(Name(DEV, "three"), small(1), lowered) != []

    def test_p10_names_and_paths_are_different_things(self) -> None:
        """A unikernel called like a path one level up is neither counted there nor limited by it."""
        tree = ResourceTree()
        tree.add(Name(Path(), "x"), small(48))
        assert tree.usage(Path(("x",))) == Usage()
        assert tree.admit(Name(Path(("x",)), "y"), small(64), limits(x=policy(1, 64))) == []
        assert tree.admit(Name(Path(), "x2"), small(64), limits(x=policy(0, 0))) == []

    def test_blocks(self) -> None:
        tree = ResourceTree()
        tree.add_block(Name(DEV.child("a"), "disk"), 8)
        effective = limits(dev=policy(block_mb=10), dev__b=policy(block_mb=None))
        assert texts(tree.admit_block(Name(DEV.child("b"), "disk"), 3, effective)) == [
            "no block devices are allowed by policy",
            "block device policy limit of 10 MB (used 8 MB) would be exceeded by the request (3 MB) for dev",
        ]
        assert tree.admit_block(Name(DEV.child("a"), "more"), 2, effective) == []

    def test_misuse(self) -> None:
        tree = ResourceTree()
        with pytest.raises(TypeError):
            tree.hold(Name.of_path(DEV), small())
        tree.add(Name(DEV, "one"), small())
        with pytest.raises(RuntimeError):
            tree.add(Name(DEV, "one"), small())
        with pytest.raises(RuntimeError):
            tree.remove(Name(DEV, "two"))
        tree.add_block(Name(DEV, "disk"), 1)
        with pytest.raises(RuntimeError):
            tree.add_block(Name(DEV, "disk"), 1)
        tree.remove_block(Name(DEV, "disk"))
        with pytest.raises(RuntimeError):
            tree.remove_block(Name(DEV, "disk"))
