from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from albatross_pki.policies import Policy
from albatross_pki.policy.rules import Violation, config_fits, meet, shrinks, usable
from albatross_pki.unikernels import NetworkInterface, Settings
from tests.policy.strategies import policies

ABOVE = Policy(frozenset({0, 1}), 4, 256, 100, frozenset({"internal", "service"}))


def texts(violations: Iterable[Violation]) -> list[str]:
    return [violation.text for violation in violations]


class TestUsable:
    def test_every_reason_is_named_at_once(self) -> None:
        found = texts(usable(Policy(frozenset(), 0, 16, -1)))
        assert found == [
            "Unusable policy with no unikernels",
            "Unusable policy with no CPUids",
            "Unusable policy with memory 16 MB <= 16 MB",
            "Unusable policy with block -1 MB < 0 MB",
        ]

    def test_the_smallest_usable_one(self) -> None:
        assert usable(Policy(frozenset({0}), 1, 17, 0)) == []
        assert usable(Policy(frozenset({0}), 1, 17, None)) == []


class TestShrinks:
    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"unikernels": 5}, "policy above allows 4 unikernels, which is fewer than 5"),
            ({"memory_mb": 257}, "policy above allows 256 MB memory, which is fewer than 257 MB"),
            ({"cpuids": frozenset({1, 7, 3})}, "policy above does not allow CPUids 3, 7"),
            (
                {"bridges": frozenset({"service", "secret"})},
                "policy above allows bridge(s) internal, service, which is not a superset of secret, service",
            ),
            ({"block_mb": 101}, "policy above allows 100 MB block storage, which is fewer than 101 MB"),
        ],
    )
    def test_one_field_beyond_the_limit(self, change: dict[str, Any], text: str) -> None:
        assert texts(shrinks(ABOVE, replace(ABOVE, **change))) == [text]

    def test_equal_is_allowed(self) -> None:
        assert shrinks(ABOVE, ABOVE) == []

    def test_absent_block_storage_lies_below_any_and_above_none(self) -> None:
        none = replace(ABOVE, block_mb=None)
        assert shrinks(ABOVE, none) == []
        assert shrinks(none, none) == []
        assert texts(shrinks(none, replace(ABOVE, block_mb=0))) == [
            "policy above allows 0 MB block storage, which is fewer than 0 MB"
        ]

    def test_p31_all_fields_at_once_with_limit_and_what_was_asked_for(self) -> None:
        wide = Policy(frozenset({0, 9}), 5, 512, 200, frozenset({"secret"}))
        found = {violation.field: (violation.limit, violation.asked) for violation in shrinks(ABOVE, wide)}
        assert found == {
            "unikernels": (4, 5),
            "memory": (256, 512),
            "cpuids": (frozenset({0, 1}), frozenset({0, 9})),
            "bridges": (ABOVE.bridges, frozenset({"secret"})),
            "block": (100, 200),
        }

    @given(policies)
    def test_is_reflexive(self, one: Policy) -> None:
        assert not shrinks(one, one)

    @given(policies, policies)
    def test_is_antisymmetric(self, one: Policy, two: Policy) -> None:
        if not shrinks(one, two) and not shrinks(two, one):
            assert one == two

    @given(policies, policies, policies)
    def test_is_transitive(self, one: Policy, two: Policy, three: Policy) -> None:
        if not shrinks(one, two) and not shrinks(two, three):
            assert not shrinks(one, three)


class TestMeet:
    @given(policies, policies)
    def test_is_a_lower_bound(self, one: Policy, two: Policy) -> None:
        below = meet(one, two)
        assert not shrinks(one, below)
        assert not shrinks(two, below)

    @given(policies, policies, policies)
    def test_is_the_greatest_lower_bound(self, one: Policy, two: Policy, other: Policy) -> None:
        if not shrinks(one, other) and not shrinks(two, other):
            assert not shrinks(meet(one, two), other)

    @given(policies, policies)
    def test_order_does_not_matter(self, one: Policy, two: Policy) -> None:
        assert meet(one, two) == meet(two, one)


class TestConfigFits:
    POLICY = Policy(frozenset({1}), 2, 64, 10, frozenset({"service"}))

    def test_within(self) -> None:
        inside = Settings(
            frozenset({1}), 64, interfaces=(NetworkInterface("service"), NetworkInterface("x", "service"))
        )
        assert config_fits(self.POLICY, inside) == []

    def test_p31_three_at_once(self) -> None:
        """A request that exceeds its policy in three ways is told all three."""
        asked = Settings(
            frozenset({0, 1, 2}),
            65,
            interfaces=(
                NetworkInterface("b", "secret"),
                NetworkInterface("a", "internal"),
                NetworkInterface("c", "secret"),
            ),
        )
        assert texts(config_fits(self.POLICY, asked)) == [
            "the CPUids 0, 2 requested by the unikernel are not allowed by policy",
            "65 MB memory assigned to unikernel exceeds policy (64MB)",
            "Bridge(s) secret, internal not allowed by policy (available: service)",
        ]

    def test_the_bridge_of_an_interface_is_its_own_name_if_it_gives_none(self) -> None:
        assert texts(config_fits(self.POLICY, Settings(frozenset({1}), interfaces=(NetworkInterface("net"),)))) == [
            "Bridge(s) net not allowed by policy (available: service)"
        ]

    def test_a_unikernel_pinned_nowhere_would_run_everywhere(self) -> None:
        assert texts(config_fits(self.POLICY, Settings(frozenset()))) == ["the unikernel is not pinned to any CPUid"]

    def test_what_comes_from_outside_is_escaped(self) -> None:
        hostile = Settings(frozenset({1}), interfaces=(NetworkInterface("x\x1b[2J\n"),))
        assert "\x1b" not in config_fits(self.POLICY, hostile)[0].text
