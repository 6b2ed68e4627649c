"""What servers saw against what the ledger knows: a serial that it lacks means that somebody else has the CA's key.

An audit log (``docs/endpoint.md``) lists for every request the chain that was presented, leaf first, without the root:
each with serial and SHA-256. Of each chain, the certificates that *this* CA's key issued are looked at:

* for a root, the topmost one of a chain that ends at this root (servers may trust the roots of several operators);
* for a delegation, the one below any certificate of the ledger's own issuer, whose digests the caller gives.

An entry that names no root, because none was found, is nobody's and says nothing about any root.

Pure: entries in, findings out. Whether an audit log is whole is ``journal.verify``'s question.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from albatross_pki.ca.ledger import LedgerView, read_time


@dataclass(frozen=True, slots=True)
class Finding:
    """A certificate that was used and that the ledger does not know as it is."""

    serial: str
    digest: str
    subject: str
    problem: str
    first_seen: str


def reconcile(
    view: LedgerView,
    issuer_keys: frozenset[str],
    own_digests: frozenset[str],
    audits: Iterable[Mapping[str, Any]],
    *,
    is_root: bool,
) -> tuple[int, list[Finding]]:
    """How many different certificates of this CA were seen, and what is wrong with any of them.

    ``own_digests`` are those of the CA's own certificates.
    """
    known = {item.serial: item.digest for item in view.issued if item.issuer in issuer_keys}
    revoked = {serial: entry for (key, serial), entry in view.revocations.items() if key in issuer_keys}
    seen: set[tuple[str, str]] = set()
    findings = []
    for entry in audits:
        for used in _issued_here(entry, own_digests, is_root):
            serial, digest = str(used.get("serial")), str(used.get("sha256"))
            if (serial, digest) in seen:
                continue
            seen.add((serial, digest))
            problem = _problem(known.get(serial), digest)
            if problem is None and serial in revoked and _done_after(entry, revoked[serial].time):
                problem = "was used after it had been revoked"
            if problem is not None:
                subject, time = str(used.get("subject", "")), str(entry.get("time", ""))
                findings.append(Finding(serial, digest, subject, problem, time))
    return len(seen), findings


def _done_after(entry: Mapping[str, Any], revocation: str) -> bool:
    """Whether the entry is about something that was allowed, later than a time of the ledger."""
    if entry.get("kind") != "intent":
        return False
    try:
        return datetime.fromisoformat(str(entry.get("time"))) > read_time(revocation)
    except (ValueError, TypeError):
        return True  # a time that cannot be read is worth a look


def _problem(known: str | None, digest: str) -> str | None:
    if known is None:
        return "is not in the ledger"
    return None if known == digest else "has a serial of the ledger, and is another certificate"


def _issued_here(entry: Mapping[str, Any], own_digests: frozenset[str], is_root: bool) -> Iterator[Mapping[str, Any]]:
    chain = entry.get("chain")
    if not isinstance(chain, list) or not all(isinstance(link, dict) for link in chain):
        return
    if is_root:
        if entry.get("anchor") in own_digests:
            yield from chain[-1:]
        return
    for below, link in pairwise(chain):
        if link.get("sha256") in own_digests:
            yield below
