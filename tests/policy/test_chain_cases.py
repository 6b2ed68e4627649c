"""Every chain of ``cases_*.py`` gets the verdict that stands there, for the reasons that stand there and no other."""

import pytest

from tests.policy.cases import Case, all_cases


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
def test_verdict(case: Case) -> None:
    judgement = case.make().judgement()
    failing = frozenset(result.rule for result in judgement.rules if not result.ok)
    assert failing == case.failing, judgement.reasons
    assert judgement.accepted == (judgement.authorised is not None) == (not case.failing)
    assert any(case.text in reason for reason in (*judgement.reasons, "")), judgement.reasons
    assert case.description


def test_every_rule_refuses_something() -> None:
    """No rule is without a chain that it alone refuses, but those whose breach no other rule can miss."""
    from albatross_pki.policy.chain import ALL_RULES

    alone = {rule for case in all_cases() if len(case.failing) == 1 for rule in case.failing}
    seen_by_others = {"version"}  # a leaf of version 1 has no command
    assert {rule.word for rule in ALL_RULES} - alone <= seen_by_others
