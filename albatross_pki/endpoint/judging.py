"""From certificates to a verdict: the judgement of ``policy.chain`` with what this host brings to it.

In this order: 1. the certificates are read, at most as many as a chain can have; 2. the trust anchor is found, among
those that are valid; 3. the revocation lists of the CAs are looked up; 4. the fold judges; 5. of an accepted request it
is decided what has to be streamed, how much of it at most, and how its answers are shaped. Pure but for the lists.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from albatross_pki.authorised import AuthorisedRequest, Stream, Verdict
from albatross_pki.commands import (
    BlockAddOld,
    BlockDump,
    BlockSet,
    BlockSetOld,
    ConsoleSubscribe,
    StatsSubscribe,
    UnikernelCreate,
)
from albatross_pki.endpoint.bounds import MEBIBYTE, AuthoriserBounds
from albatross_pki.endpoint.revocation import RevocationLists
from albatross_pki.extensions import AnyCommand, CrlUpdate, Events
from albatross_pki.messages import ROOT
from albatross_pki.policy.certificates import CertificateFacts
from albatross_pki.policy.chain import (
    MOST_CERTIFICATES,
    BadCertificate,
    Judgement,
    JudgeOptions,
    judge,
    read_certificate,
)
from albatross_pki.policy.constraints import command_word
from albatross_pki.policy.judgement import refusal
from albatross_pki.unikernels import UnikernelType

READING = frozenset(
    {
        *("info", "status", "get", "events", "host-info", "console", "consoles", "stats"),
        *("policy-info", "block-info", "block-dump"),
    }
)
DUMPING = frozenset({"block-dump", "get"})  # answers that are whole disks and images
_CACHED_OCTETS = 16 * 1024  # larger certificates hold images and are leaves, seen once
_SLACK = 64 * 1024
_MOST_REASONS = 128  # of one refusal; one certificate can be wrong in a hundred thousand ways
_REASON_OCTETS = 2048


@dataclass(frozen=True, slots=True)
class Judged:
    """A judgement with the chain it is about, and the numbers of the lists that were looked at (root side first)."""

    judgement: Judgement
    path: tuple[CertificateFacts, ...]
    anchor: CertificateFacts | None
    crl_numbers: tuple[int | None, ...] = ()

    @property
    def cas(self) -> tuple[CertificateFacts, ...]:
        return (*self.path[1:], self.anchor) if self.anchor is not None else self.path[1:]


def judge_certificates(
    certificates: Sequence[bytes],
    anchors: Sequence[CertificateFacts],
    lists: RevocationLists,
    *,
    now: datetime,
    options: JudgeOptions,
) -> Judged:
    """Judge the verified path that an endpoint presents (DER, leaf first, without the anchor); never raises for it."""
    if not 0 < len(certificates) <= MOST_CERTIFICATES:
        text = f"certificate chain too long ({len(certificates)} below the root, at most {MOST_CERTIFICATES})"
        return Judged(refusal("chain", text if certificates else "there is no certificate", "Albatross AV5"), (), None)
    try:
        path = tuple(_read(der) for der in certificates)
    except BadCertificate as error:
        return Judged(refusal("chain", error.message, "RFC 5280 4.1"), (), None)
    anchor = _anchor_of(path[-1], anchors, now)
    if anchor is None:
        return Judged(refusal("chain", "the chain does not end at a root that this host trusts"), path, None)
    return judge_path(path, anchor, lists, now=now, options=options)


def judge_path(
    path: tuple[CertificateFacts, ...],
    anchor: CertificateFacts,
    lists: RevocationLists,
    *,
    now: datetime,
    options: JudgeOptions,
) -> Judged:
    """Judge a path that was read before, at another time or with other lists."""
    issuers = (*path[1:], anchor)
    view = lists.view(issuers, now)
    judgement = judge(path, anchor, now=now, options=replace(options, revocations=view))
    found = [view.find(issuer.spki_sha256, issuer.subject) for issuer in reversed(issuers)]
    return Judged(judgement, path, anchor, tuple(None if crl is None else crl.number for crl in found))


def _read(der: bytes) -> CertificateFacts:
    return _read_cached(der) if len(der) <= _CACHED_OCTETS else read_certificate(der)


@functools.lru_cache(maxsize=512)
def _read_cached(der: bytes) -> CertificateFacts:
    return read_certificate(der)


def _anchor_of(top: CertificateFacts, anchors: Sequence[CertificateFacts], now: datetime) -> CertificateFacts | None:
    """The root that signed ``top``; of several with one name and key, one that is valid now.

    Where only one has the name, the fold looks at its signature.
    """
    fitting = [anchor for anchor in anchors if anchor.subject == top.issuer]
    if len(fitting) == 1:
        return fitting[0]
    fitting = [anchor for anchor in fitting if _signed(top, anchor)]
    fitting.sort(key=lambda anchor: not anchor.not_before <= now < anchor.not_after)
    return fitting[0] if fitting else None


def _signed(lower: CertificateFacts, upper: CertificateFacts) -> bool:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        lower.parsed.verify_directly_issued_by(upper.parsed)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def verdict_of(judgement: Judgement, bounds: AuthoriserBounds) -> Verdict:
    """What the endpoint is told."""
    name = judgement.name if judgement.name is not None else ROOT
    if judgement.authorised is None:
        return Verdict(name, told_reasons(judgement.reasons) or ("the chain allows nothing",))
    stream, limit = wanted_stream(judgement.authorised, bounds)
    return Verdict(name, (), stream, limit, answers_of(judgement.authorised.command))


def told_reasons(reasons: Sequence[str]) -> tuple[str, ...]:
    """Every reason as long as that fits into an answer; else the first ones, and how many more there are."""
    told = tuple(reason if len(reason) <= _REASON_OCTETS else f"{reason[:_REASON_OCTETS]}…" for reason in reasons)
    if len(told) <= _MOST_REASONS:
        return told
    return (*told[:_MOST_REASONS], f"and {len(told) - _MOST_REASONS} more")


def wanted_stream(authorised: AuthorisedRequest, bounds: AuthoriserBounds) -> tuple[Stream, int]:
    """What follows the handshake, and how many octets of it are spooled at most."""
    match authorised.command:
        case UnikernelCreate(config=config) if not config.image and config.typ is UnikernelType.SOLO5:
            return Stream.IMAGE, _image_limit(authorised, config.settings.memory_mb, config.compressed)
        case BlockSet():
            return Stream.BLOCK, 0
        case BlockAddOld(content=content) | BlockSetOld(content=content) if content == b"":
            return Stream.IMAGE, bounds.inline_octets  # filled in: today's daemons read no stream for these
        case CrlUpdate():
            return Stream.CRL, bounds.crl_octets
    return Stream.NOTHING, 0


def _image_limit(authorised: AuthorisedRequest, memory_mb: int, compressed: bool) -> int:
    """No image is larger than the memory it runs in; zlib adds a thousandth to what it cannot shrink (RFC 1951 2)."""
    most = min([memory_mb, *(policy.policy.memory_mb for policy in authorised.policies)]) * MEBIBYTE
    if authorised.binding is not None:
        most = min(most, authorised.binding.size)
    return most + most // 1000 + _SLACK if compressed else most


def answers_of(command: AnyCommand) -> str:
    """``single``, ``read`` or ``dump``: how many messages answer a command, and what ends them."""
    match command:
        case ConsoleSubscribe() | StatsSubscribe() | Events():
            return "read"
        case BlockDump():
            return "dump"
    return "single"


def changes_something(command: AnyCommand) -> bool:
    return command_word(command) not in READING


def dumps_something(command: AnyCommand) -> bool:
    return command_word(command) in DUMPING
