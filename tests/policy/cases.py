"""Chains, right and wrong, as data: one function per defect, its id from its name, its description its docstring.

``@accepted()`` and ``@refused(rule, …)`` register a case; a refused one names *every* rule that must fail, and no
other may. ``all_cases()`` gives them all, for whoever wants to show them to another judge.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from albatross_pki.policy.chain import DEFAULT_OPTIONS, Judgement, JudgeOptions, judge_bundle, read_anchors
from tests.pki_builder import NOW, Authority, Issued

MODULES = ("cases_path", "cases_extensions", "cases_delegation", "cases_leaf", "cases_revocation")


@dataclass(frozen=True)
class Presented:
    """What a client presents (DER, leaf first), the roots it is judged by, and with which options."""

    ders: Sequence[bytes]
    roots: Sequence[Issued]
    options: JudgeOptions = DEFAULT_OPTIONS

    def judgement(self) -> Judgement:
        anchors = read_anchors([root.der for root in self.roots])
        return judge_bundle(self.ders, anchors, now=NOW, options=self.options)


@dataclass(frozen=True)
class Case:
    name: str
    description: str
    make: Callable[[], Presented]
    failing: frozenset[str]  # the rules that must fail; empty if the chain must be accepted
    text: str  # stands in one of the reasons


_cases: dict[str, Case] = {}


def _register(make: Callable[[], Presented], failing: frozenset[str], text: str) -> Callable[[], Presented]:
    name = make.__name__.replace("_", "-")
    if name in _cases:
        raise RuntimeError(f"two cases are called {name}")
    _cases[name] = Case(name, (make.__doc__ or "").strip(), make, failing, text)
    return make


def accepted() -> Callable[[Callable[[], Presented]], Callable[[], Presented]]:
    return lambda make: _register(make, frozenset(), "")


def refused(*rules: str, text: str = "") -> Callable[[Callable[[], Presented]], Callable[[], Presented]]:
    if not rules:
        raise TypeError("a refused case names the rules that refuse it")
    return lambda make: _register(make, frozenset(rules), text)


def all_cases() -> list[Case]:
    """Every case, in the order of the files."""
    for module in MODULES:
        importlib.import_module(f"tests.policy.{module}")
    return list(_cases.values())


def shown(leaf: Issued, *roots: Issued, options: JudgeOptions | None = None) -> Presented:
    """A leaf with its own chain, judged by its own root if no other is given."""
    own = Authority(leaf.anchor, None, (), leaf.anchor)
    return Presented(leaf.ders, roots or (own,), options or DEFAULT_OPTIONS)
