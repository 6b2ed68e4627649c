from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from albatross_pki.authorised import CertificateId, ChainPolicy
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.policy.effective import (
    MOST_REMEMBERED,
    RememberedPolicies,
    effective,
    insertable,
    over,
    own_policy,
)
from albatross_pki.policy.rules import meet, shrinks
from albatross_pki.policy.tree import ResourceTree, Usage
from albatross_pki.unikernels import Settings
from tests.pki_builder import policy
from tests.policy.strategies import policies

DEV, SUB = Path(("dev",)), Path(("dev", "sub"))
DAY = timedelta(days=1)
NOW = datetime(2026, 11, 21, tzinfo=UTC)
NOTHING = RememberedPolicies()


def entry(
    limit: Policy, path: Path = DEV, *, serial: int = 1, since: datetime = NOW - DAY, until: datetime = NOW + DAY
) -> ChainPolicy:
    return ChainPolicy(path, limit, CertificateId(b"k" * 32, serial), since, until)


def remembered(*entries: ChainPolicy) -> RememberedPolicies:
    kept = NOTHING
    for one in entries:
        kept, violations = kept.remember([one], NOW)
        assert not violations
    return kept


class TestEffective:
    @given(*(st.none() | policies for _ in range(3)))
    def test_nobody_is_exceeded(self, operator: Policy | None, seen: Policy | None, own: Policy | None) -> None:
        found = effective(operator, seen, own)
        for limit in (operator, seen, own):
            if limit is not None:
                assert found is not None
                assert not shrinks(limit, found)

    def test_absent_is_no_limit(self) -> None:
        assert effective(None, None, None) is None
        assert effective(None, policy(), None) == policy()

    def test_p12_what_an_operator_lowered_no_certificate_raises(self) -> None:
        lowered, wide = policy(1, 32), policy(9, 512, [0, 1])
        assert effective(lowered, wide, wide) == meet(lowered, wide) == lowered

    def test_own_policy_is_the_one_for_this_path(self) -> None:
        chain = (entry(policy(9), DEV), entry(policy(1), SUB))
        assert own_policy(chain, SUB) == policy(1)
        assert own_policy(chain, Path()) is None


class TestRemembered:
    def test_p12_an_older_delegation_does_not_come_back(self) -> None:
        narrow = entry(policy(1), serial=2, since=NOW - DAY / 2)
        wide = entry(policy(9), serial=1)
        assert remembered(narrow, wide).newest(DEV, NOW) == remembered(wide, narrow).newest(DEV, NOW) == policy(1)

    def test_of_equally_new_ones_the_meet_counts(self) -> None:
        kept = remembered(entry(policy(1, 128)), entry(policy(9, 32), serial=2))
        assert kept.newest(DEV, NOW) == policy(1, 32)

    def test_p12_withdrawn_ones_count_no_more(self) -> None:
        old, new = entry(policy(3), serial=1), entry(policy(9), serial=2, since=NOW)
        kept = remembered(old, new)
        assert kept.newest(DEV, NOW, lambda certificate: certificate == new.certificate) == policy(3)
        assert kept.newest(DEV, NOW, lambda certificate: True) is None

    def test_expired_and_future_ones_do_not_count(self) -> None:
        kept = remembered(entry(policy(3)), entry(policy(9), serial=2, since=NOW + DAY / 2, until=NOW + 2 * DAY))
        assert kept.newest(DEV, NOW) == policy(3)
        assert kept.newest(DEV, NOW + DAY / 2) == policy(9)
        assert kept.newest(DEV, NOW + 2 * DAY) is None
        assert kept.without_expired(NOW + DAY).all() == remembered(kept.all()[1]).all()

    def test_p13_they_are_bounded_below_each_top_level_delegation(self) -> None:
        kept, violations = NOTHING.remember(
            [entry(policy(), DEV.child(f"x{number}")) for number in range(MOST_REMEMBERED)], NOW
        )
        assert not violations
        again, violations = kept.remember([entry(policy(), DEV.child("one-more"))], NOW)
        assert again is kept
        assert [violation.field for violation in violations] == ["delegations"]
        _, violations = kept.remember([entry(policy(), Path(("ops",)))], NOW)
        assert not violations

    def test_room_is_made_by_what_expired_and_by_what_is_superseded(self) -> None:
        kept, _ = NOTHING.remember(
            [entry(policy(), DEV.child(f"x{number}"), until=NOW + DAY) for number in range(MOST_REMEMBERED)], NOW
        )
        after, violations = kept.remember([entry(policy(), SUB, until=NOW + 3 * DAY)], NOW + DAY)
        assert not violations
        assert len(after.all()) == 1
        renewals = [entry(policy(number), serial=number, since=NOW - DAY + number * DAY / 500) for number in range(300)]
        kept = remembered(*renewals)
        assert len(kept.all()) <= MOST_REMEMBERED
        assert kept.newest(DEV, NOW) == policy(299)

    def test_p13_a_chain_is_remembered_as_a_whole_or_not_at_all(self) -> None:
        kept, _ = NOTHING.remember([entry(policy(), DEV.child(f"x{number}")) for number in range(MOST_REMEMBERED)], NOW)
        after, violations = kept.remember([entry(policy(), Path(("ops",))), entry(policy(), DEV.child("more"))], NOW)
        assert violations
        assert after is kept

    def test_the_same_chain_again_changes_nothing(self) -> None:
        kept = remembered(entry(policy()))
        assert kept.remember([entry(policy())], NOW) == (kept, [])


class TestInsertable:
    def test_above_and_below_in_upstreams_words(self) -> None:
        operator = {DEV: policy(4), SUB.child("x"): policy(3)}
        assert [str(violation) for violation in insertable(SUB, policy(5), operator)] == [
            "policy above allows 4 unikernels, which is fewer than 5 (dev)"
        ]
        assert [str(violation) for violation in insertable(SUB, policy(2), operator)] == [
            "policy above allows 2 unikernels, which is fewer than 3 (dev:sub:x)"
        ]
        assert insertable(SUB, policy(3), operator) == []

    def test_the_hosts_own_policy_takes_no_part(self) -> None:
        operator = {Path(): policy(1), DEV: policy(9)}
        assert insertable(DEV, policy(5), operator) == []
        assert insertable(Path(), policy(2), operator) == []

    def test_the_one_that_is_replaced_and_strangers_take_no_part(self) -> None:
        operator = {DEV: policy(1), Path(("development",)): policy(9)}
        assert insertable(DEV, policy(5), operator) == []


class TestOver:
    def test_everything_that_exceeds_is_told(self) -> None:
        tree = ResourceTree()
        tree.add(Name(DEV, "one"), Settings(frozenset({0, 5}), 64))
        tree.add_block(Name(DEV, "disk"), 3)
        assert [violation.text for violation in over(policy(0, 32), tree.usage(Path()))] == [
            "policy does not allow CPUids 5",
            "unikernel would exceed running unikernel limit set by policy to 0, running 1",
            "unikernel would exceed running memory limit set by policy to 32 MB, used 64 MB",
            "unikernel would exceed running block storage limit set by policy to 0 MB, used 3 MB",
        ]

    def test_nothing_in_use_is_over_nothing(self) -> None:
        assert over(policy(0, 0, ()), Usage()) == []
