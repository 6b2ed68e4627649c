"""Policies: whether one is usable, shrinks on the way down, and leaves room for a configuration.

What this module decides, one function each:

1. ``usable``: may a policy be handed out at all;
2. ``shrinks``: does a policy below allow no more than the one above, field by field;
3. ``config_fits``: do a unikernel's settings lie within a policy;
4. ``meet``: the widest policy that two policies both allow.

``shrinks`` is a partial order and ``meet`` its greatest lower bound. An absent block limit lies below a limit of 0:
it allows no more, and says less. Every function reports *all* violations, in the words that Albatross users know from
upstream. What is in use on a host is not looked at here but in ``policy.tree``.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from albatross_pki.policies import Policy
from albatross_pki.text import printable
from albatross_pki.unikernels import Settings

MOST_SHOWN = 128  # items of one list in one sentence
SMALLEST_USABLE_MEMORY_MB = 16  # a policy needs more than this: less than 16 MB starts no Solo5 unikernel of use


@dataclass(frozen=True, slots=True)
class Violation:
    """One field in which a request exceeds a limit: both values, and a sentence for people."""

    field: str
    limit: object
    asked: object
    text: str

    def __str__(self) -> str:
        return self.text


def comma_list(items: Iterable[object]) -> str:
    """``items`` as text, in the order given, separated by ``, ``; of very many, how many there are."""
    shown = list(items)
    rest = f", … ({len(shown)} in all)" if len(shown) > MOST_SHOWN else ""
    return ", ".join(printable(str(item)) for item in shown[:MOST_SHOWN]) + rest


def usable(policy: Policy) -> list[Violation]:
    """Why a policy can never admit anything; asked before one is requested or signed, never on a host."""
    found = []
    if policy.unikernels <= 0:
        found.append(Violation("unikernels", 1, policy.unikernels, "Unusable policy with no unikernels"))
    if not policy.cpuids:
        found.append(Violation("cpuids", None, policy.cpuids, "Unusable policy with no CPUids"))
    if policy.memory_mb <= SMALLEST_USABLE_MEMORY_MB:
        text = f"Unusable policy with memory {policy.memory_mb} MB <= {SMALLEST_USABLE_MEMORY_MB} MB"
        found.append(Violation("memory", SMALLEST_USABLE_MEMORY_MB, policy.memory_mb, text))
    if policy.block_mb is not None and policy.block_mb < 0:
        text = f"Unusable policy with block {policy.block_mb} MB < 0 MB"
        found.append(Violation("block", 0, policy.block_mb, text))
    return found


def shrinks(above: Policy, below: Policy) -> list[Violation]:
    """Every field in which ``below`` allows more than ``above``; none if it may stand below it."""
    found = []
    if above.unikernels < below.unikernels:
        text = f"policy above allows {above.unikernels} unikernels, which is fewer than {below.unikernels}"
        found.append(Violation("unikernels", above.unikernels, below.unikernels, text))
    if above.memory_mb < below.memory_mb:
        text = f"policy above allows {above.memory_mb} MB memory, which is fewer than {below.memory_mb} MB"
        found.append(Violation("memory", above.memory_mb, below.memory_mb, text))
    if missing := below.cpuids - above.cpuids:
        text = f"policy above does not allow CPUids {comma_list(sorted(missing))}"
        found.append(Violation("cpuids", above.cpuids, below.cpuids, text))
    if not below.bridges <= above.bridges:
        text = (
            f"policy above allows bridge(s) {comma_list(sorted(above.bridges))}, "
            f"which is not a superset of {comma_list(sorted(below.bridges))}"
        )
        found.append(Violation("bridges", above.bridges, below.bridges, text))
    if below.block_mb is not None and (above.block_mb is None or above.block_mb < below.block_mb):
        text = f"policy above allows {above.block_mb or 0} MB block storage, which is fewer than {below.block_mb} MB"
        found.append(Violation("block", above.block_mb, below.block_mb, text))
    return found


def config_fits(policy: Policy, settings: Settings) -> list[Violation]:
    """Every way in which a unikernel's settings alone, with nothing else running, exceed ``policy``.

    A unikernel that names no CPU would be pinned to none and run on all of them, so it exceeds every policy.
    """
    found = []
    if not settings.cpuids:
        found.append(Violation("cpuids", policy.cpuids, settings.cpuids, "the unikernel is not pinned to any CPUid"))
    if missing := settings.cpuids - policy.cpuids:
        text = f"the CPUids {comma_list(sorted(missing))} requested by the unikernel are not allowed by policy"
        found.append(Violation("cpuids", policy.cpuids, settings.cpuids, text))
    if settings.memory_mb > policy.memory_mb:
        text = f"{settings.memory_mb} MB memory assigned to unikernel exceeds policy ({policy.memory_mb}MB)"
        found.append(Violation("memory", policy.memory_mb, settings.memory_mb, text))
    asked = tuple(dict.fromkeys(interface.host_bridge for interface in settings.interfaces))
    if foreign := [bridge for bridge in asked if bridge not in policy.bridges]:
        available = comma_list(sorted(policy.bridges)) or "none"
        text = f"Bridge(s) {comma_list(foreign)} not allowed by policy (available: {available})"
        found.append(Violation("bridges", policy.bridges, asked, text))
    return found


def meet(first: Policy, second: Policy) -> Policy:
    """The widest policy that shrinks both."""
    blocks = (first.block_mb, second.block_mb)
    return Policy(
        cpuids=first.cpuids & second.cpuids,
        unikernels=min(first.unikernels, second.unikernels),
        memory_mb=min(first.memory_mb, second.memory_mb),
        block_mb=None if blocks[0] is None or blocks[1] is None else min(blocks[0], blocks[1]),
        bridges=first.bridges & second.bridges,
    )
