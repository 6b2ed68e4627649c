"""The judgement of a chain: one fold from the root to the leaf, every rule for every certificate.

What is decided here, in this order:

1. the path is not empty and has at most nine certificates below the root;
2. for each certificate, from the root down: the rules of ``policy.path_rules`` (1 to 18), then, for the CAs below the
   root, those of ``policy.delegation_rules`` (19 to 23), and for the leaf those of ``policy.leaf_rules`` (24 to 30);
   every rule sees what the certificates above grant, and all violations are collected (what is said about CAs for
   good is remembered, ``policy.lasting``);
3. only if every rule of every certificate holds there is an ``AuthorisedRequest``.

Nothing here raises for what a stranger sent. The caller keeps time (a clock that went back is its affair), keeps the
revocation lists, checks replay (``Judgement.once``) and, on a host, what is in use.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from albatross_pki.authorised import AuthorisedRequest
from albatross_pki.policy.certificates import BadCertificate, CertificateFacts, read_certificate
from albatross_pki.policy.delegation_rules import DELEGATION_RULES
from albatross_pki.policy.judgement import (
    NOTHING_ABOVE,
    Judgement,
    JudgeOptions,
    Link,
    Place,
    Purpose,
    Rule,
    RuleResult,
    apply,
    refusal,
)
from albatross_pki.policy.lasting import Lasting, lasting, title_of
from albatross_pki.policy.leaf_rules import LEAF_RULES, command_of, constraints_in_force, name_of
from albatross_pki.policy.path_rules import PATH_RULES, path_notes
from albatross_pki.policy.paths import FoundPath, NoPath, find_path

__all__ = [
    "ALL_RULES",
    "DEFAULT_OPTIONS",
    "MOST_CERTIFICATES",
    "BadCertificate",
    "FoundPath",
    "JudgeOptions",
    "Judgement",
    "NoPath",
    "Place",
    "Purpose",
    "RuleResult",
    "find_path",
    "judge",
    "judge_bundle",
    "judge_found",
    "links",
    "read_anchors",
    "read_certificate",
    "title_of",
]

MOST_CERTIFICATES = 9  # below the root, the leaf included, as upstream has it
ALL_RULES: tuple[Rule, ...] = (*PATH_RULES, *DELEGATION_RULES, *LEAF_RULES)
DEFAULT_OPTIONS = JudgeOptions()


def judge(
    path: Sequence[CertificateFacts],
    anchor: CertificateFacts,
    *,
    now: datetime,
    options: JudgeOptions = DEFAULT_OPTIONS,
    end: Place = Place.LEAF,
) -> Judgement:
    """Judge a path, leaf first and without its anchor, at the time ``now`` (aware UTC).

    With ``end=Place.CA`` the path ends in a delegation or permission certificate: it is judged as something that a
    leaf will stand below, and nothing is authorised.
    """
    if problem := _wrong_length(path):
        return refusal("chain", problem, "Albatross AV5")
    results = [
        RuleResult("chain", 0, True, f"at most {MOST_CERTIFICATES} certificates below the root", "Albatross AV5")
    ]
    notes: list[str] = []
    above: Lasting | None = None
    for link in links(path, anchor, now=now, options=options, end=end):
        if link.place is Place.LEAF:
            break
        above = lasting(link, above)
        results += above.results(link)
        notes += path_notes(link, above.title)
    standing = NOTHING_ABOVE if above is None else above.below
    if end is Place.CA:
        return Judgement(tuple(results), None, None, standing.policies, standing.constraints, tuple(notes))
    leaf = replace(link, standing=standing)
    title = title_of(leaf)
    results += apply(ALL_RULES, leaf, title)
    notes += path_notes(leaf, title)
    return _conclude(leaf, results, notes, min(certificate.not_after for certificate in (*path, anchor)))


def _wrong_length(path: Sequence[CertificateFacts]) -> str | None:
    if not path:
        return "there is no certificate"
    if len(path) > MOST_CERTIFICATES:
        return f"certificate chain too long ({len(path)} below the root, at most {MOST_CERTIFICATES})"
    return None


def _conclude(leaf: Link, results: list[RuleResult], notes: list[str], not_after: datetime) -> Judgement:
    """The judgement of a whole chain, with an authorised request if and only if everything holds."""
    command, name, in_force = command_of(leaf.certificate), name_of(leaf), constraints_in_force(leaf)
    judgement = Judgement(tuple(results), None, name, leaf.standing.policies, in_force, tuple(notes))
    if not judgement.accepted or command is None or name is None:
        return judgement
    authorised = AuthorisedRequest(
        name=name,
        command=command,
        policies=leaf.standing.policies,
        leaf=leaf.certificate.id_below(leaf.issuer),
        not_after=not_after,
        images=in_force.images,
        deployments=in_force.deployments,
        binding=leaf.certificate.binding,
        may_get=in_force.commands is None or "get" in in_force.commands,
    )
    return replace(judgement, authorised=authorised)


def links(
    path: Sequence[CertificateFacts],
    anchor: CertificateFacts,
    *,
    now: datetime,
    options: JudgeOptions,
    purpose: Purpose = Purpose.CLIENT,
    end: Place = Place.LEAF,
) -> list[Link]:
    """Every certificate of a chain in its place, from the root down, with nothing said about its standing yet.

    Of a path that ends in a CA, that CA counts as one below the others: a leaf will stand below it.
    """
    whole = (*path, anchor)
    ends_in_leaf = end is Place.LEAF
    found = []
    for index in range(len(path), -1, -1):
        place = Place.ANCHOR if index == len(path) else Place.CA if index else end
        cas_below = max(0, index - 1) if ends_in_leaf else index
        issuer = whole[min(index + 1, len(path))]
        namesakes = tuple(
            other
            for other in whole
            if other.loose_subject == whole[index].loose_issuer and other.spki_sha256 != issuer.spki_sha256
        )
        found.append(Link(whole[index], issuer, place, index, cas_below, now, purpose, options, namesakes))
    return found


def read_anchors(ders: Sequence[bytes]) -> tuple[CertificateFacts, ...]:
    """The trusted roots; raises ``BadCertificate``. Whether one is fit to be a root, each judgement says."""
    return tuple(read_certificate(der) for der in dict.fromkeys(ders))


def judge_bundle(
    ders: Sequence[bytes],
    anchors: Sequence[CertificateFacts],
    *,
    now: datetime,
    options: JudgeOptions = DEFAULT_OPTIONS,
    end: Place = Place.LEAF,
) -> Judgement:
    """Find the path through a bundle (DER, the leaf first) and judge it; never raises for what is in the bundle."""
    try:
        found = find_path(ders, anchors, now)
    except (NoPath, BadCertificate) as error:
        return refusal("chain", error.message, "RFC 5280 6.1")
    return judge_found(found, now=now, options=options, end=end)


def judge_found(
    found: FoundPath, *, now: datetime, options: JudgeOptions = DEFAULT_OPTIONS, end: Place = Place.LEAF
) -> Judgement:
    """Judge a path that was found; certificates beside it refuse the whole bundle."""
    judgement = judge(found.path, found.anchor, now=now, options=options, end=end)
    if not found.unused:
        return judgement
    extra = tuple(
        RuleResult("unused", 0, False, f"certificate {other.title} is not on the path to the root", "docs/judgement.md")
        for other in found.unused
    )
    return replace(judgement, rules=(*extra, *judgement.rules), authorised=None)
