"""Which decisions the audit log lists one by one, and which it only counts, so that nobody fills it for the others.

* What changes something is always listed, intent and outcome; ``allowances`` bounds how often that is.
* Reads and refusals are listed while the share of their topmost certificate lasts (a token bucket of octets), and all
  refusals together while theirs does. The topmost certificate is nothing that a tenant can make more of. What is over
  is counted, and once a minute the counts are an entry of their own (``counted``): the log says that it was done, how
  often and below which certificate, and does not say it at length.
* While less than ``audit_reserve`` octets of the log's disk are free, reads and refusals are only counted, and what
  each topmost certificate may still change there has a share of its own. So the last of the disk is used up by nobody
  alone; the operator, whose leaves stand directly below a root, has no such share and is held by the disk alone.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from albatross_pki.endpoint.audit import AuditLog, NotRecorded
from albatross_pki.endpoint.bounds import AuthoriserBounds
from albatross_pki.endpoint.rates import Rate, TokenBuckets
from albatross_pki.errors import Refused
from albatross_pki.policy.certificates import CertificateFacts
from albatross_pki.text import printable

_MINUTE = 60.0
_LOOK_SECONDS = 1.0  # how exactly it is known what is free
_MOST_COUNTED = 256  # certificates with a count of their own in one entry; those beyond share one

log = logging.getLogger(__name__)

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Whose request it is: the topmost certificate of its chain, and whether that is a leaf of the operator's own."""

    certificate: str  # SHA-256 of the DER, hexadecimal; empty without any
    title: str
    operator: bool

    @classmethod
    def of(cls, path: tuple[CertificateFacts, ...]) -> "Source":
        if not path:
            return cls("", "", False)
        return cls(path[-1].digest.hex(), printable(path[-1].common_name or "", 64), len(path) == 1)


class Recording:
    """The audit log, shared out. ``free`` gives the octets that are free on its disk; ``now`` is a steady clock."""

    def __init__(self, audit: AuditLog, bounds: AuthoriserBounds, free: Callable[[], int]) -> None:
        self._audit = audit
        self._free = free
        self._reserve = bounds.audit_reserve
        self._reserve_share = bounds.audit_reserve_per_path
        per_minute = bounds.audit_octets_per_path_per_minute / _MINUTE
        self._shares = TokenBuckets(Rate(bounds.audit_octets_per_path, per_minute))
        refused = bounds.audit_refused_octets_per_minute / _MINUTE
        self._refusals = TokenBuckets(Rate(bounds.audit_refused_octets, refused))
        self._counted: Counter[tuple[Source, str]] = Counter()
        self._since: datetime | None = None
        self._looked = -_LOOK_SECONDS
        self._low = False
        self._used_of_reserve: Counter[str] = Counter()

    def refused(self, source: Source, entry: Callable[[], Entry], time: datetime, now: float) -> bool:
        """List or count a refusal; whether it was listed."""
        return self._list(source, "refused", entry, time, now)

    def read(self, source: Source, entry: Callable[[], Entry], time: datetime, now: float) -> bool:
        """List or count a request that changes nothing; whether it was listed."""
        return self._list(source, "read", entry, time, now)

    async def change(self, source: Source, entry: Entry, now: float) -> None:
        """Have ``entry`` on disk; raises ``NotRecorded``, or ``Refused`` if what is left is kept for others."""
        if self._disk_is_low(now) and not source.operator:
            octets = _octets(entry)
            if self._used_of_reserve[source.certificate] + octets > self._reserve_share:
                raise Refused(
                    [
                        "the disk of the audit log is nearly full, and what is left of it for changes below "
                        f"{source.title} is used up ({self._reserve_share} octets, --audit-reserve-per-path)"
                    ]
                )
            self._used_of_reserve[source.certificate] += octets
        await self._audit.record(entry)

    def outcome(self, entry: Entry) -> None:
        """What came of something that was listed."""
        self._note(entry)

    def tell_counts(self, time: datetime) -> None:
        """Have what was counted written, as one entry; called once a minute, and at the end."""
        if not self._counted:
            return
        per_source: dict[tuple[str, str], Counter[str]] = {}
        for (source, what), count in self._counted.most_common():
            key = (source.certificate, source.title)
            if key not in per_source and len(per_source) >= _MOST_COUNTED:
                key = ("", "others")
            per_source.setdefault(key, Counter())[what] += count
        entry = {
            "kind": "counted",
            "time": time.isoformat(),
            "since": (self._since or time).isoformat(),
            "requests": [
                {"certificate": certificate or None, "subject": title, **counts}
                for (certificate, title), counts in per_source.items()
            ],
        }
        if self._note(entry):
            self._counted.clear()
            self._since = None

    def _list(self, source: Source, what: str, entry: Callable[[], Entry], time: datetime, now: float) -> bool:
        buckets = [(self._shares, source.certificate)]
        if what == "refused":
            buckets.append((self._refusals, ""))
        if not self._disk_is_low(now) and all(each.level(key, now) > 0 for each, key in buckets):
            made = entry()
            if self._note(made):
                octets = _octets(made)
                for each, key in buckets:
                    each.take(key, octets, now)
                return True
        self._since = self._since or time
        if len(self._counted) >= 2 * _MOST_COUNTED and (source, what) not in self._counted:
            source = Source("", "others", False)
        self._counted[source, what] += 1
        return False

    def _note(self, entry: Entry) -> bool:
        try:
            self._audit.note(entry)
        except NotRecorded:  # it cannot keep up, or says itself what is wrong
            return False
        return True

    def _disk_is_low(self, now: float) -> bool:
        if now >= self._looked + _LOOK_SECONDS:
            self._looked = now
            low = self._free() < self._reserve
            if low and not self._low:
                log.error("less than %d octets are free for the audit log: make room, or move it away", self._reserve)
            if not low:
                self._used_of_reserve.clear()
            self._low = low
        return self._low


def _octets(entry: Entry) -> int:
    return len(json.dumps(entry, separators=(",", ":")))
