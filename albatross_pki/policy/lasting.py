"""What the rules say about the CA certificates of a chain, remembered, because they stand above one request after the
other.

What is remembered, and why that is sound: most rules are functions of octets alone. Whether one certificate's key made
another's signature, whether a policy lies within the one above, what a delegation may sign: the same certificates give
the same answer for ever. Those answers are kept by the certificate's octets, by the answers about *everything* above it
up to the root, by its place, and by the one option that such rules look at. A chain that differs in one octet is judged
anew. What may change from one moment to the next is never kept: a ``momentary`` rule is asked every time (validity,
revocation lists, names below that can be mistaken for an issuer's).

Refusals are remembered like everything else. Leaves are not: each comes once. At most ``_REMEMBERED`` CAs are kept, of
at most ``_REMEMBERED_OCTETS`` each; whoever brings more than that costs what judging costs.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from albatross_pki.policy.certificates import CertificateFacts
from albatross_pki.policy.delegation_rules import DELEGATION_RULES, is_delegation, is_permission, standing_below
from albatross_pki.policy.judgement import NOTHING_ABOVE, JudgeOptions, Link, Place, Rule, RuleResult, Standing
from albatross_pki.policy.path_rules import PATH_RULES

_CA_RULES = (*PATH_RULES, *DELEGATION_RULES)
_REMEMBERED = 512
_REMEMBERED_OCTETS = 16 * 1024
_NO_MOMENT = datetime.min.replace(tzinfo=UTC)  # the rules that look at it are momentary, and not asked


@dataclass(frozen=True, slots=True, eq=False)
class Lasting:
    """What is said for good about a CA: its ``title``; in the order of the rules their results or, of momentary ones,
    the rules themselves; and the standing of what it issues. Two are the same if they are one object."""

    certificate: CertificateFacts
    title: str
    said: tuple[RuleResult | Rule, ...]
    below: Standing
    remembered: bool

    def results(self, link: Link) -> list[RuleResult]:
        """Everything that is said about the CA in this moment."""
        results: list[RuleResult] = []
        for said in self.said:
            if isinstance(said, Rule):
                results += said.results(link, self.title)
            else:
                results.append(said)
        return results


def lasting(link: Link, above: Lasting | None) -> Lasting:
    """What is said for good about the CA of ``link``; ``above`` is that about its issuer, ``None`` if it is a root."""
    small = len(link.certificate.der) <= _REMEMBERED_OCTETS and (above is None or above.remembered)
    judge = _remembered if small else _judged
    return judge(
        link.certificate, above, link.index, link.cas_below, link.options.accept_plain_intermediates, remembered=small
    )


def _judged(
    certificate: CertificateFacts,
    above: Lasting | None,
    index: int,
    cas_below: int,
    accept_plain: bool,
    *,
    remembered: bool,
) -> Lasting:
    """Pure: the answer follows from the arguments alone."""
    link = Link(
        certificate,
        certificate if above is None else above.certificate,
        Place.ANCHOR if above is None else Place.CA,
        index,
        cas_below,
        _NO_MOMENT,
        options=JudgeOptions(accept_plain_intermediates=accept_plain),
        standing=NOTHING_ABOVE if above is None else above.below,
    )
    title = title_of(link)
    said: list[RuleResult | Rule] = []
    for rule in _CA_RULES:
        if rule.applies(link):
            said += [rule] if rule.momentary else rule.results(link, title)
    below = NOTHING_ABOVE if above is None else standing_below(link)
    return Lasting(certificate, title, tuple(said), below, remembered)


_remembered = lru_cache(maxsize=_REMEMBERED)(_judged)


def title_of(link: Link) -> str:
    """How a person recognises a certificate in a chain: what it is, and its common name."""
    match link.place:
        case Place.ANCHOR:
            kind = "root"
        case Place.LEAF:
            kind = "leaf"
        case Place.CA if is_delegation(link.certificate):
            kind = "delegation"
        case Place.CA if is_permission(link.certificate):
            kind = "permission certificate"
        case _:
            kind = "CA"
    return f"{kind} {link.certificate.title}"
