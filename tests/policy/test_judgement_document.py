"""``docs/judgement.md`` and the docstrings list every rule, in order, with its number."""

import re
from pathlib import Path

from albatross_pki.policy import delegation_rules, leaf_rules, path_rules
from albatross_pki.policy.chain import ALL_RULES

DOCUMENT = Path(__file__).parents[2] / "docs" / "judgement.md"
NUMBERED = [(number, rule.word) for number, rule in enumerate(ALL_RULES, 1)]


def test_the_document_lists_them() -> None:
    rows = re.findall(r"^\| (\d+) \| `([a-z-]+)` \| .+ \| .+ \|$", DOCUMENT.read_text(), re.MULTILINE)
    assert [(int(number), word) for number, word in rows] == NUMBERED


def test_the_modules_list_them() -> None:
    text = "\n".join(module.__doc__ or "" for module in (path_rules, delegation_rules, leaf_rules))
    listed = re.findall(r"^ ?(\d+)\. ([a-z-]+): ", text, re.MULTILINE)
    assert [(int(number), word) for number, word in listed] == NUMBERED


def test_each_function_repeats_its_number() -> None:
    for number, rule in enumerate(ALL_RULES, 1):
        assert (rule.check.__doc__ or "").startswith(f"{number}. "), rule.word
        assert rule.statement
        assert rule.source
