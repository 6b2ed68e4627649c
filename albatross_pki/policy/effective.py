"""Which policy is in force for a path, and which policies an operator may set.

What this module decides:

1. ``effective``: the meet of what the operator set, the newest valid and unrevoked policy that chains brought for this
   path, and this request's own policy for it; nothing at all is no limit;
2. ``RememberedPolicies``: which policies of chains are kept, and which of them is the newest. They come only from
   commands that succeeded and changed something, stay until they expire, and are at most 256 below one top-level
   delegation. Newest is by the beginning of validity; of equally new ones the meet counts;
3. ``insertable``: what an operator may set beside what is set already: above it (the host's own policy at the root
   excepted, so that one delegation works on hosts of different sizes) and below it;
4. ``over``: where what is in use exceeds a policy. An operator may lower a limit below what is in use; nothing new is
   admitted then, and this is what is told.

Policies of chains take no part in what an operator may set. Persisting, and telling what is revoked, is the caller's.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce

from albatross_pki.authorised import CertificateId, ChainPolicy
from albatross_pki.names import Path
from albatross_pki.policies import Policy
from albatross_pki.policy.rules import Violation, comma_list, meet, shrinks
from albatross_pki.policy.tree import Usage

MOST_REMEMBERED = 256  # below one top-level delegation


def effective(operator: Policy | None, remembered: Policy | None, own: Policy | None) -> Policy | None:
    """The policy in force for one path; ``None`` if nobody limits it."""
    known = [policy for policy in (operator, remembered, own) if policy is not None]
    return reduce(meet, known) if known else None


def own_policy(policies: Iterable[ChainPolicy], path: Path) -> Policy | None:
    """What a request's own chain says for ``path``; ``None`` if it says nothing."""
    found = [entry.policy for entry in policies if entry.path == path]
    return reduce(meet, found) if found else None


def _never_revoked(_: CertificateId) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class RememberedPolicies:
    """The policies of chains that took effect. A value: remembering gives a new one."""

    by_path: Mapping[Path, tuple[ChainPolicy, ...]] = field(default_factory=dict)

    def newest(
        self, path: Path, now: datetime, is_revoked: Callable[[CertificateId], bool] = _never_revoked
    ) -> Policy | None:
        """The policy of the newest certificate for ``path`` that is valid now and not revoked."""
        valid = [
            entry
            for entry in self.by_path.get(path, ())
            if entry.not_before <= now < entry.not_after and not is_revoked(entry.certificate)
        ]
        if not valid:
            return None
        newest = max(entry.not_before for entry in valid)
        return reduce(meet, [entry.policy for entry in valid if entry.not_before == newest])

    def remember(self, policies: Iterable[ChainPolicy], now: datetime) -> tuple["RememberedPolicies", list[Violation]]:
        """With the policies of a chain that took effect; unchanged, with a violation, where there is no room.

        Before anything is refused, expired policies go, and then those that a newer one of the same path supersedes.
        """
        wanted = [entry for entry in policies if entry not in self.by_path.get(entry.path, ())]
        if not wanted:
            return self, []
        merged = {path: kept for path, entries in self.by_path.items() if (kept := _valid(entries, now))}
        for entry in wanted:
            merged[entry.path] = (*merged.get(entry.path, ()), entry)
        violations = []
        for top in dict.fromkeys(entry.path.labels[:1] for entry in wanted):
            if _count_below(merged, top) > MOST_REMEMBERED:
                _drop_superseded(merged, top)
            if (count := _count_below(merged, top)) > MOST_REMEMBERED:
                text = f"too many delegations below {Path(top)}: {count} are remembered, at most {MOST_REMEMBERED}"
                violations.append(Violation("delegations", MOST_REMEMBERED, count, text))
        return (self, violations) if violations else (RememberedPolicies(merged), [])

    def without_expired(self, now: datetime) -> "RememberedPolicies":
        return RememberedPolicies({path: kept for path, all_ in self.by_path.items() if (kept := _valid(all_, now))})

    def without(self, forgotten: Collection[ChainPolicy]) -> "RememberedPolicies":
        """Without these, whichever of them are there."""
        left = {
            path: tuple(entry for entry in entries if entry not in forgotten) for path, entries in self.by_path.items()
        }
        return RememberedPolicies({path: entries for path, entries in left.items() if entries})

    def all(self) -> tuple[ChainPolicy, ...]:
        return tuple(entry for entries in self.by_path.values() for entry in entries)


def _valid(entries: Iterable[ChainPolicy], now: datetime) -> tuple[ChainPolicy, ...]:
    return tuple(entry for entry in entries if now < entry.not_after)


def _count_below(by_path: Mapping[Path, tuple[ChainPolicy, ...]], top: tuple[str, ...]) -> int:
    return sum(len(entries) for path, entries in by_path.items() if path.labels[:1] == top)


def _drop_superseded(by_path: dict[Path, tuple[ChainPolicy, ...]], top: tuple[str, ...]) -> None:
    for path, entries in by_path.items():
        if path.labels[:1] == top:
            newest = max(entry.not_before for entry in entries)
            by_path[path] = tuple(entry for entry in entries if entry.not_before == newest)


def insertable(path: Path, policy: Policy, operator: Mapping[Path, Policy]) -> list[Violation]:
    """Every reason why an operator may not set ``policy`` for ``path`` beside the policies set already.

    The one that is set for the same path is replaced and not compared.
    """
    found = []
    for above in path.parent.ancestors() if not path.is_root else ():
        if not above.is_root and above in operator:
            found += _at(above, shrinks(operator[above], policy))
    for below, other in sorted(operator.items()):
        if below != path and path.contains(below) and not path.is_root:
            found += _at(below, shrinks(policy, other))
    return found


def _at(path: Path, violations: Iterable[Violation]) -> list[Violation]:
    return [Violation(v.field, v.limit, v.asked, f"{v.text} ({path})") for v in violations]


def over(policy: Policy, usage: Usage) -> list[Violation]:
    """Every limit of ``policy`` that what is in use at and below its path exceeds."""
    found = []
    cpuids, bridges = frozenset(usage.cpuids), frozenset(usage.bridges)
    if missing := cpuids - policy.cpuids:
        text = f"policy does not allow CPUids {comma_list(sorted(missing))}"
        found.append(Violation("cpuids", policy.cpuids, cpuids, text))
    if not bridges <= policy.bridges:
        text = (
            f"policy allows bridges {comma_list(sorted(policy.bridges))}, "
            f"which is not a superset of {comma_list(sorted(bridges))}"
        )
        found.append(Violation("bridges", policy.bridges, bridges, text))
    if usage.unikernels > policy.unikernels:
        text = (
            f"unikernel would exceed running unikernel limit set by policy to {policy.unikernels}, "
            f"running {usage.unikernels}"
        )
        found.append(Violation("unikernels", policy.unikernels, usage.unikernels, text))
    if usage.memory_mb > policy.memory_mb:
        text = (
            f"unikernel would exceed running memory limit set by policy to {policy.memory_mb} MB, "
            f"used {usage.memory_mb} MB"
        )
        found.append(Violation("memory", policy.memory_mb, usage.memory_mb, text))
    if usage.block_mb > (policy.block_mb or 0):
        text = (
            f"unikernel would exceed running block storage limit set by policy to {policy.block_mb or 0} MB, "
            f"used {usage.block_mb} MB"
        )
        found.append(Violation("block", policy.block_mb or 0, usage.block_mb, text))
    return found
