"""The words of a judgement: rule, link of a chain, what stands above a link, result.

This module decides nothing. A *rule* looks at one *link* (a certificate in its place in a chain) and gives a
sentence for everything that is wrong; a *standing* is what the certificates above a link grant; a *judgement* is the
result of every rule for every link, so that it can be shown to a person line by line.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from functools import cache

from albatross_pki.authorised import AuthorisedRequest, ChainPolicy
from albatross_pki.extensions import Constraints
from albatross_pki.names import Name, Path
from albatross_pki.policy.certificates import CertificateFacts
from albatross_pki.policy.constraints import NO_CONSTRAINTS
from albatross_pki.policy.revocation import NO_REVOCATIONS, RevocationView


class Place(Enum):
    """Where in a chain a certificate stands."""

    ANCHOR = "root"
    CA = "CA"
    LEAF = "leaf"


class Purpose(Enum):
    """What a chain is presented for; the value is the extended key usage that RFC 5280 4.2.1.12 has for it."""

    CLIENT = "1.3.6.1.5.5.7.3.2"
    SERVER = "1.3.6.1.5.5.7.3.1"


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """What the judging side brings with it.

    ``hosts`` are the names that this host goes by. ``require_crl`` refuses where a CA of the chain has no list, or
    an expired one. The two ``accept`` switches are an operator's, and weaken what a chain proves.
    """

    hosts: frozenset[str] = frozenset()
    revocations: RevocationView = NO_REVOCATIONS
    require_crl: bool = False
    accept_plain_intermediates: bool = False
    accept_unbound_images: bool = False


ROOT_PATH = Path()


@dataclass(frozen=True, slots=True)
class Standing:
    """What the certificates above a link grant: path, policies from the root down, constraints in force."""

    path: Path = ROOT_PATH
    policies: tuple[ChainPolicy, ...] = ()
    constraints: Constraints = NO_CONSTRAINTS
    below_permission: bool = False


NOTHING_ABOVE = Standing()


@dataclass(frozen=True, slots=True)
class Link:
    """One certificate in its place.

    ``index`` counts from the end of the chain (0) to the anchor, which is its own issuer. ``cas_below`` is the number
    of CA certificates that this one has, or will have, below it. ``namesakes`` are certificates of the chain that have
    the issuer's name, loosely compared, and another key.
    """

    certificate: CertificateFacts
    issuer: CertificateFacts
    place: Place
    index: int
    cas_below: int
    now: datetime
    purpose: Purpose = Purpose.CLIENT
    options: JudgeOptions = field(default_factory=JudgeOptions)
    namesakes: tuple[CertificateFacts, ...] = ()
    standing: Standing = NOTHING_ABOVE


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: the word it goes by, its source, the places it looks at, and the check that gives violations.

    ``reads_extensions`` rules have nothing to say about a certificate whose extensions cannot be read, which other
    rules report. What a ``momentary`` rule says depends on the time, on revocation lists or on certificates below; all
    others look at the certificate, at those above it, at its place and at ``accept_plain_intermediates`` alone.
    """

    word: str
    source: str
    check: Callable[[Link], Iterable[str]]
    places: tuple[Place, ...] = tuple(Place)
    reads_extensions: bool = False
    momentary: bool = False

    @property
    def statement(self) -> str:
        """What the rule demands: the first line of its docstring, without its number."""
        return _statement(self.check)

    def applies(self, link: Link) -> bool:
        return link.place in self.places and (link.certificate.extensions_known or not self.reads_extensions)

    def results(self, link: Link, title: str) -> "list[RuleResult]":
        """What it says about a link that it applies to: every violation, or that there is none."""
        violations = list(self.check(link))
        if not violations:
            return [RuleResult(self.word, link.index, True, self.statement, self.source, title)]
        return [RuleResult(self.word, link.index, False, text, self.source, title) for text in violations]


@cache
def _statement(check: Callable[[Link], Iterable[str]]) -> str:
    return (check.__doc__ or "").splitlines()[0].split(". ", 1)[1].rstrip(".")


@dataclass(frozen=True, slots=True)
class RuleResult:
    """What one rule says about one certificate; ``text`` is the violation, or what was found in order.

    ``certificate_index`` counts from the end of the chain (0) to the anchor.
    """

    rule: str
    certificate_index: int
    ok: bool
    text: str
    source: str = ""
    certificate: str = ""  # how a person recognises it

    @property
    def sentence(self) -> str:
        return f"{self.certificate}: {self.text}" if self.certificate else self.text


@dataclass(frozen=True, slots=True)
class Judgement:
    """Everything that was found out about a chain.

    ``authorised`` is there if and only if every rule holds and the chain ends in a leaf. ``name``, ``policies`` and
    ``constraints`` are what the chain says, for showing; nothing may be done on their strength. ``notes`` are worth
    telling and no reason to refuse. ``once`` tells whether the leaf has effect at most once.
    """

    rules: tuple[RuleResult, ...]
    authorised: AuthorisedRequest | None = None
    name: Name | None = None
    policies: tuple[ChainPolicy, ...] = ()
    constraints: Constraints = NO_CONSTRAINTS
    notes: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether every rule holds; no rule at all refuses."""
        return bool(self.rules) and all(result.ok for result in self.rules)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every violation as a sentence that names its certificate."""
        return tuple(result.sentence for result in self.rules if not result.ok)

    @property
    def once(self) -> bool:
        return self.constraints.once


def apply(rules: Iterable[Rule], link: Link, title: str) -> list[RuleResult]:
    """The results of every rule that applies to ``link``; a rule that finds several things gives several."""
    results: list[RuleResult] = []
    for rule in rules:
        if rule.applies(link):
            results += rule.results(link, title)
    return results


def refusal(rule: str, text: str, source: str = "") -> Judgement:
    """A judgement about something that is not even a chain."""
    return Judgement((RuleResult(rule, 0, False, text, source),))
