"""What is in use below every path, as running totals, and whether one more thing fits.

What this module decides: ``admit`` and ``admit_block``: usage plus request within the effective policy of *every* path
from the one that the name is in up to and including the root. Siblings therefore cannot jointly exceed their parent,
and a policy-less path in the middle hides nothing.

How things are charged:

1. a unikernel counts as soon as it is wanted: running, waiting to be restarted, or stopped;
2. its memory, CPUs and bridges count unless it is stopped;
3. while one configuration is being exchanged for another (force-create, restart), it holds the larger of both, until
   ``settle`` says which one it is;
4. block devices count with their size, attached or not.

A request is charged for what it adds to what its name holds already. So an exchange for something no larger is
possible where an operator has lowered a limit below what is in use, and nothing else is.

Names and paths are different things: a unikernel ``dev:web`` is in the path ``dev`` and not in the path ``dev:web``.
Every operation costs O(depth of the path), however much is in the tree. Not safe for threads; ``reserve`` checks and
charges in one call, so that of many requests for the last place one wins.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.policy.rules import Violation, comma_list
from albatross_pki.unikernels import Settings

Counted = TypeVar("Counted", int, str)
EffectivePolicy = Callable[[Path], Policy | None]  # None: no limit at this path


@dataclass(frozen=True, slots=True)
class Charge:
    """What one unikernel holds. ``memory_mb`` in multiples of 2**20 octets."""

    memory_mb: int
    cpuids: frozenset[int]
    bridges: frozenset[str]

    @classmethod
    def of(cls, settings: Settings, *, stopped: bool = False) -> "Charge":
        if stopped:
            return cls(0, frozenset(), frozenset())
        bridges = frozenset(interface.host_bridge for interface in settings.interfaces)
        return cls(max(0, settings.memory_mb), settings.cpuids, bridges)

    def or_larger(self, other: "Charge") -> "Charge":
        """The charge while either of two may be the one that stays."""
        return Charge(max(self.memory_mb, other.memory_mb), self.cpuids | other.cpuids, self.bridges | other.bridges)


@dataclass(slots=True)
class Usage:
    """Totals at and below one path. ``cpuids`` and ``bridges`` count the unikernels that use each."""

    unikernels: int = 0
    memory_mb: int = 0
    block_mb: int = 0
    cpuids: Counter[int] = field(default_factory=Counter)
    bridges: Counter[str] = field(default_factory=Counter)

    @property
    def is_empty(self) -> bool:
        return not (self.unikernels or self.memory_mb or self.block_mb or self.cpuids or self.bridges)

    def copy(self) -> "Usage":
        return Usage(self.unikernels, self.memory_mb, self.block_mb, Counter(self.cpuids), Counter(self.bridges))


class ResourceTree:
    """The totals of a host: unikernels and block devices by name, usage by path."""

    def __init__(self) -> None:
        self._usage: dict[Path, Usage] = {}
        self._unikernels: dict[Name, Charge] = {}
        self._blocks: dict[Name, int] = {}

    # questions

    def usage(self, path: Path) -> Usage:
        """What is in use at and below ``path``; a copy, O(CPUs and bridges in use there)."""
        found = self._usage.get(path)
        return Usage() if found is None else found.copy()

    def block_size_mb(self, name: Name) -> int | None:
        """The size of a block device, ``None`` if there is none of this name."""
        return self._blocks.get(name)

    def paths(self) -> Iterator[Path]:
        """Every path with anything in use at or below it."""
        return iter(self._usage)

    def admit(self, name: Name, settings: Settings, effective: EffectivePolicy) -> list[Violation]:
        """Every limit, of every path from the name's own up to the root, that this unikernel would exceed.

        ``effective`` gives a path's policy, ``None`` for no limit. Nothing is changed.
        """
        held, asked = self._unikernels.get(name), Charge.of(settings)
        after = asked if held is None else held.or_larger(asked)
        added_memory = after.memory_mb - (0 if held is None else held.memory_mb)
        found: list[Violation] = []
        told_cpuids: set[int] = set()
        told_bridges: set[str] = set()
        for path in name.path.ancestors():
            policy = effective(path)
            if policy is None:
                continue
            usage, where = self._usage.get(path, _NOTHING), _where(path, name)
            if held is None and usage.unikernels + 1 > policy.unikernels:
                text = f"maximum amount of unikernels ({policy.unikernels}) reached{where}"
                found.append(Violation("unikernels", policy.unikernels, usage.unikernels + 1, text))
            if added_memory > 0 and usage.memory_mb + added_memory > policy.memory_mb:
                text = (
                    f"maximum allowed memory ({policy.memory_mb}, used {usage.memory_mb}) "
                    f"would be exceeded (requesting {added_memory}){where}"
                )
                found.append(Violation("memory", policy.memory_mb, added_memory, text))
            if cpuids := asked.cpuids - policy.cpuids - told_cpuids:
                text = f"CPUids {comma_list(sorted(cpuids))} are not allowed by policy{where}"
                found.append(Violation("cpuids", policy.cpuids, asked.cpuids, text))
                told_cpuids |= cpuids
            if bridges := asked.bridges - policy.bridges - told_bridges:
                text = f"bridges {comma_list(sorted(bridges))} not allowed by policy{where}"
                found.append(Violation("bridges", policy.bridges, asked.bridges, text))
                told_bridges |= bridges
        return found

    def admit_block(self, name: Name, size_mb: int, effective: EffectivePolicy) -> list[Violation]:
        """Every limit, of every path up to the root, that a new block device of ``size_mb`` would exceed."""
        found = []
        for path in name.path.ancestors():
            policy = effective(path)
            if policy is None:
                continue
            used, where = self._usage.get(path, _NOTHING).block_mb, _where(path, name)
            if policy.block_mb is None:
                text = f"no block devices are allowed by policy{where}"
                found.append(Violation("block", 0, size_mb, text))
            elif used + size_mb > policy.block_mb:
                text = (
                    f"block device policy limit of {policy.block_mb} MB (used {used} MB) "
                    f"would be exceeded by the request ({size_mb} MB){where}"
                )
                found.append(Violation("block", policy.block_mb, size_mb, text))
        return found

    # changes

    def reserve(self, name: Name, settings: Settings, effective: EffectivePolicy) -> list[Violation]:
        """``admit``, and if nothing is exceeded ``hold``; nothing can come in between."""
        violations = self.admit(name, settings, effective)
        if not violations:
            self.hold(name, settings)
        return violations

    def hold(self, name: Name, settings: Settings) -> None:
        """Charge a unikernel whatever the limits say; one that is there already holds the larger of both."""
        asked, held = Charge.of(settings), self._unikernels.get(name)
        self._charge(name, asked if held is None else held.or_larger(asked))

    def settle(self, name: Name, settings: Settings | None, *, stopped: bool = False) -> None:
        """Charge exactly these settings from now on; ``None`` when the unikernel is gone."""
        self._charge(name, None if settings is None else Charge.of(settings, stopped=stopped))

    def add(self, name: Name, settings: Settings, *, stopped: bool = False) -> None:
        """Charge a unikernel that is not in the tree yet; ``RuntimeError`` if it is."""
        if name in self._unikernels:
            raise RuntimeError(f"{name} is in the tree already")
        self.settle(name, settings, stopped=stopped)

    def remove(self, name: Name) -> None:
        """Take a unikernel out; ``RuntimeError`` if it is not there."""
        if name not in self._unikernels:
            raise RuntimeError(f"{name} is not in the tree")
        self.settle(name, None)

    def add_block(self, name: Name, size_mb: int) -> None:
        """Charge a block device; ``RuntimeError`` if it is in the tree already."""
        if name in self._blocks:
            raise RuntimeError(f"block device {name} is in the tree already")
        self._blocks[name] = size_mb
        for path in name.path.ancestors():
            self._at(path).block_mb += size_mb

    def remove_block(self, name: Name) -> None:
        """Take a block device out; ``RuntimeError`` if it is not there."""
        if name not in self._blocks:
            raise RuntimeError(f"block device {name} is not in the tree")
        size_mb = self._blocks.pop(name)
        for path in name.path.ancestors():
            self._at(path).block_mb -= size_mb
            self._drop_if_empty(path)

    def _charge(self, name: Name, charge: Charge | None) -> None:
        if name.is_path:
            raise TypeError(f"{name} is a path, and a unikernel has a name")
        held = self._unikernels.pop(name, None)
        if charge is not None:
            self._unikernels[name] = charge
        for path in name.path.ancestors():
            usage = self._at(path)
            if held is not None:
                _apply(usage, held, -1)
            if charge is not None:
                _apply(usage, charge, 1)
            self._drop_if_empty(path)

    def _at(self, path: Path) -> Usage:
        return self._usage.setdefault(path, Usage())

    def _drop_if_empty(self, path: Path) -> None:
        if self._usage[path].is_empty:
            del self._usage[path]


_NOTHING = Usage()


def _where(path: Path, name: Name) -> str:
    """Nothing for the limit of the name's own path, else whose limit it is."""
    if path == name.path:
        return ""
    return " on the whole host" if path.is_root else f" for {path}"


def _apply(usage: Usage, charge: Charge, sign: int) -> None:
    usage.unikernels += sign
    usage.memory_mb += sign * charge.memory_mb
    _count(usage.cpuids, charge.cpuids, sign)
    _count(usage.bridges, charge.bridges, sign)


def _count(counter: Counter[Counted], items: frozenset[Counted], sign: int) -> None:
    for item in items:
        counter[item] += sign
        if not counter[item]:
            del counter[item]
