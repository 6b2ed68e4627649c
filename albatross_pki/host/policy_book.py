"""Which policies this host knows: what its operator set, what chains brought, and what the machine itself allows.

The rules are in ``policy.effective``; here is the memory of one daemon. The root's policy is discovered from the
machine at every start and never stored; an operator may replace it until the next start. Admission asks for the
machine's memory less a reserve for the host, so that unikernels cannot starve the daemons.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from datetime import datetime

from albatross_pki.authorised import ChainPolicy
from albatross_pki.errors import Refused
from albatross_pki.host.limits import MAX_OPERATOR_POLICIES
from albatross_pki.host.records import ChainPolicies
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.policy.effective import RememberedPolicies, effective, insertable, over, own_policy
from albatross_pki.policy.rules import Violation
from albatross_pki.policy.tree import EffectivePolicy, ResourceTree

ROOT = Path()


class PolicyBook:
    """Policies by path. ``reserve_mb`` of the root's memory are kept for the host."""

    def __init__(self, root: Policy, *, reserve_mb: int = 0) -> None:
        self.reserve_mb = reserve_mb
        self.operator: dict[Path, Policy] = {ROOT: root}
        self._discovered = root
        self.remembered = RememberedPolicies()

    def load(self, operator: Iterable[tuple[Path, Policy]], remembered: Iterable[ChainPolicy], now: datetime) -> None:
        """Take over what the state holds; what has expired is left out."""
        self.operator.update((path, policy) for path, policy in operator if not path.is_root)
        by_path: dict[Path, tuple[ChainPolicy, ...]] = {}
        for each in remembered:
            by_path[each.path] = (*by_path.get(each.path, ()), each)
        self.remembered = RememberedPolicies(by_path).without_expired(now)

    def bridges_are(self, bridges: Collection[str]) -> None:
        """The host has these bridges now; this counts unless the operator has replaced the root's policy."""
        if self.operator.get(ROOT) == self._discovered:
            self._discovered = self.operator[ROOT] = replace(self._discovered, bridges=frozenset(bridges))

    def effective_at(self, now: datetime, own: tuple[ChainPolicy, ...] = ()) -> EffectivePolicy:
        """The policy in force for each path, for a request whose chain has the policies ``own``."""

        def lookup(path: Path) -> Policy | None:
            found = effective(self.operator.get(path), self.remembered.newest(path, now), own_policy(own, path))
            if found is not None and path.is_root:
                return replace(found, memory_mb=max(0, found.memory_mb - self.reserve_mb))
            return found

        return lookup

    def remembering(self, own: tuple[ChainPolicy, ...], now: datetime) -> tuple[ChainPolicies, Callable[[], None]]:
        """What would change in what is remembered, and the function to call once that is on disk.

        Raises ``Refused`` if there is no room for it.
        """
        if not own:
            return ChainPolicies(), _nothing
        after, violations = self.remembered.remember(own, now)
        if violations:
            raise Refused([violation.text for violation in violations])
        known, kept = frozenset(self.remembered.all()), frozenset(after.all())
        change = ChainPolicies(tuple(kept - known), tuple(known - kept))

        def confirm() -> None:
            # another request may have been remembered meanwhile: this chain is added to what is known now
            merged, refused = self.remembered.remember(own, now)
            self.remembered = after if refused else merged

        return change, confirm

    def forgetting(self, entries: Collection[ChainPolicy]) -> tuple[ChainPolicies, Callable[[], None]]:
        """What changes if ``entries`` are forgotten, and the function to call once that is on disk."""

        def confirm() -> None:
            self.remembered = self.remembered.without(entries)

        return ChainPolicies(stale=tuple(entries)), confirm

    def insertion(self, path: Path, policy: Policy) -> list[Violation]:
        """Every reason why the operator may not set ``policy``; what is in use is no reason (it is told as *over*)."""
        found = insertable(path, policy, self.operator)
        if path not in self.operator and len(self.operator) >= MAX_OPERATOR_POLICIES:
            text = f"this host keeps at most {MAX_OPERATOR_POLICIES} policies"
            found.append(Violation("policies", MAX_OPERATOR_POLICIES, len(self.operator) + 1, text))
        return found

    def at_and_below(self, path: Path) -> list[tuple[Name, Policy]]:
        """The operator's policies at and below ``path``, relative to it, siblings in descending order.

        Where only chains have brought a policy it is shown too: it is in force.
        """
        known = set(self.operator) | set(self.remembered.by_path)
        below = sorted((each for each in known if path.contains(each)), key=_descending)
        shown = []
        for each in below:
            policy = self.operator.get(each) or self._chain_policy(each)
            if policy is not None:
                shown.append((Name(Path(each.labels[len(path.labels) :])), policy))
        return shown

    def exceeded(self, tree: ResourceTree, path: Path, now: datetime) -> list[Violation]:
        """Every limit of the policy in force for ``path`` that what is in use exceeds."""
        policy = self.effective_at(now)(path)
        return [] if policy is None else over(policy, tree.usage(path))

    def _chain_policy(self, path: Path) -> Policy | None:
        entries = self.remembered.by_path.get(path, ())
        return max(entries, key=lambda each: each.not_before).policy if entries else None


def _nothing() -> None:
    """What there is to confirm for a request without a chain."""


def _descending(path: Path) -> tuple[tuple[int, ...], ...]:
    """Sort key: a node before its children, siblings in descending order of their labels."""
    return tuple((*(-ord(character) for character in label), 1) for label in path.labels)
