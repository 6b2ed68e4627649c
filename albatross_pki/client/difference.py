"""What has to be done so that a host has what is wanted: steps, and which of them wait for which. Pure.

``difference`` decides, in this order, and every step waits only for steps before it:

1. what the file does not list is destroyed or removed, only with ``prune`` and only in places that the file speaks
   about (``_places``); never the policy of the file's own path, nor a block device that a wanted unikernel uses;
2. policies grow, from the top down, so that none exceeds the one above it at any moment;
3. block devices are made. None is ever resized: that would lose what is on it;
4. unikernels are created, or replaced where a field differs, in the order of their startup priority. Those of one
   priority do not wait for each other, but one that takes over another's block device waits for it to let go;
5. policies shrink, from the bottom up, when nothing that they no longer allow is left.

A policy that grows in one field and shrinks in another is set twice. What cannot be reached this way is refused with
every reason at once (``Refused``). Without ``prune`` nothing is ever destroyed.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby

from albatross_pki.client.comparison import (
    Change,
    Present,
    new_unikernel,
    policy_changes,
    policy_fields,
    unikernel_changes,
)
from albatross_pki.client.wanted import Wanted, WantedBlock, WantedUnikernel, device_of, shown
from albatross_pki.errors import Refused
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.policy.rules import shrinks
from albatross_pki.unikernels import DEFAULT_STARTUP

Fits = Callable[[Name], bool]


class Kind(Enum):
    POLICY = "policy"
    BLOCK = "block"
    UNIKERNEL = "unikernel"


class Action(Enum):
    SET = "set"
    CREATE = "create"
    REPLACE = "replace"
    REMOVE = "remove"
    DESTROY = "destroy"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do; ``after`` are the numbers of the steps that have to succeed before it.

    ``subject`` is what is set or created: a policy, a block device or a unikernel; ``None`` where something goes.
    """

    number: int
    action: Action
    kind: Kind
    name: Name
    changes: tuple[Change, ...] = ()
    after: frozenset[int] = frozenset()
    subject: Policy | WantedBlock | WantedUnikernel | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """Steps in an order in which they can be done, and what the file does not list and that stays."""

    steps: tuple[Step, ...] = ()
    kept: tuple[tuple[Kind, Name], ...] = ()


def difference(wanted: Wanted, present: Present, *, prune: bool = False) -> Difference:
    """The steps from ``present`` to ``wanted``; raises ``Refused`` with everything that stands against it."""
    surplus = _surplus(wanted, present)
    gone = surplus if prune else _Surplus()
    problems = [*_policy_problems(wanted, present, gone), *_block_problems(wanted, present, gone)]
    order, circle = _order(wanted, present)
    if circle:
        names = ", ".join(shown(name) for name in circle)
        problems.append(f"{names}: each waits for a block device of another, destroy one of them first")
    if problems:
        raise Refused(problems)
    steps = _Steps()
    for name in sorted(gone.unikernels):
        steps.add(Action.DESTROY, Kind.UNIKERNEL, name)
    for path in sorted(gone.policies, reverse=True):  # a path after those below it
        below = steps.of(Kind.POLICY, _is_at_or_below(path))
        steps.add(Action.REMOVE, Kind.POLICY, Name.of_path(path), after=below)
    _grow(steps, wanted, present)
    late = _release(steps, gone, wanted, present)
    _make_blocks(steps, wanted, present)
    _make_unikernels(steps, order, wanted, present)
    for block in late:
        holders = {holder for holder, devices in _held(present).items() if block in devices}
        steps.add(Action.REMOVE, Kind.BLOCK, block, after=steps.of(Kind.UNIKERNEL, holders.__contains__))
    _shrink(steps, wanted, present)
    return Difference(tuple(steps.found), () if prune else surplus.listed())


@dataclass
class _Steps:
    """Steps as they are found."""

    found: list[Step] = field(default_factory=list)
    _by_kind: dict[Kind, list[Step]] = field(default_factory=lambda: {kind: [] for kind in Kind})

    def add(
        self,
        action: Action,
        kind: Kind,
        name: Name,
        subject: Policy | WantedBlock | WantedUnikernel | None = None,
        *,
        changes: tuple[Change, ...] = (),
        after: Iterable[int] = (),
    ) -> None:
        self.found.append(Step(len(self.found) + 1, action, kind, name, changes, frozenset(after), subject))
        self._by_kind[kind].append(self.found[-1])

    def of(self, kind: Kind, fits: Fits, actions: Iterable[Action] = Action) -> set[int]:
        """The numbers of those steps so far that are about a name that ``fits``."""
        wanted = set(actions)
        return {each.number for each in self._by_kind[kind] if each.action in wanted and fits(each.name)}


# 1. what is not listed


@dataclass(frozen=True, slots=True)
class _Surplus:
    unikernels: frozenset[Name] = frozenset()
    blocks: frozenset[Name] = frozenset()
    policies: frozenset[Path] = frozenset()

    def listed(self) -> tuple[tuple[Kind, Name], ...]:
        return (
            *((Kind.POLICY, Name.of_path(path)) for path in sorted(self.policies)),
            *((Kind.BLOCK, name) for name in sorted(self.blocks)),
            *((Kind.UNIKERNEL, name) for name in sorted(self.unikernels)),
        )


def _places(wanted: Wanted) -> set[Path]:
    """The paths that a file speaks about: its own, and those that its entries are in or are the policy of."""
    entries = [*wanted.unikernels, *wanted.blocks]
    return {Path(), *(name.path for name in entries), *wanted.policies, *(path.parent for path in wanted.policies)}


def _surplus(wanted: Wanted, present: Present) -> _Surplus:
    places = _places(wanted)
    used = {device for name, each in wanted.unikernels.items() for device in _devices(name, each)}
    return _Surplus(
        frozenset(
            name for name in {*present.unikernels, *present.dormant} - set(wanted.unikernels) if name.path in places
        ),
        frozenset(name for name in set(present.blocks) - set(wanted.blocks) - used if name.path in places),
        frozenset(
            path for path in set(present.policies) - set(wanted.policies) if not path.is_root and path.parent in places
        ),
    )


# 2. and 5. policies


def _policy_problems(wanted: Wanted, present: Present, gone: _Surplus) -> list[str]:
    """Wanted policies against those that the file does not list and that stay: the host compares them, too."""
    others = {
        path: policy
        for path, policy in present.policies.items()
        if path not in wanted.policies and path not in gone.policies
    }
    # the root's policy is the machine's, and stands beside those of delegations
    machines = Path() if present.full is not None and present.full.is_root else None
    found = []
    for path, policy in sorted(wanted.policies.items()):
        for other, limit in sorted(others.items()):
            if machines in (path, other):
                continue
            if other.contains(path):
                found += [f"policy {_words(path)}: {each.text} ({_words(other)})" for each in shrinks(limit, policy)]
            elif path.contains(other):
                staying = f"({_words(other)}, which stays)"
                found += [f"policy {_words(path)}: {each.text} {staying}" for each in shrinks(policy, limit)]
    return found


def _words(path: Path) -> str:
    return str(path) or ":"


def _join(old: Policy | None, new: Policy) -> Policy:
    """The narrowest policy that allows all that either of two allows."""
    if old is None:
        return new
    blocks = [each for each in (old.block_mb, new.block_mb) if each is not None]
    return Policy(
        cpuids=old.cpuids | new.cpuids,
        unikernels=max(old.unikernels, new.unikernels),
        memory_mb=max(old.memory_mb, new.memory_mb),
        block_mb=max(blocks, default=None),
        bridges=old.bridges | new.bridges,
    )


def _grow(steps: _Steps, wanted: Wanted, present: Present) -> None:
    for path, policy in sorted(wanted.policies.items()):  # a path before those below it
        old = present.policies.get(path)
        wide = _widest(path, policy, wanted, present)
        if old is None or policy_fields(wide) != policy_fields(old):
            after = steps.of(Kind.POLICY, _is_at_or_above(path))  # set, so that this one fits, or removed
            after |= steps.of(Kind.POLICY, _is_at_or_below(path), [Action.REMOVE])
            changes = policy_changes(old, wide)
            steps.add(Action.SET, Kind.POLICY, Name.of_path(path), wide, changes=changes, after=after)


def _widest(path: Path, policy: Policy, wanted: Wanted, present: Present) -> Policy:
    """What stands at ``path`` in between: nothing there or below it exceeds that, neither now nor later."""
    wide = _join(present.policies.get(path), policy)
    for below, old in present.policies.items():
        if below in wanted.policies and below != path and path.contains(below):
            wide = _join(old, wide)
    return wide


def _shrink(steps: _Steps, wanted: Wanted, present: Present) -> None:
    for path, policy in sorted(wanted.policies.items(), reverse=True):
        wide = _widest(path, policy, wanted, present)
        if policy_fields(wide) != policy_fields(policy):
            below = {each.number for each in steps.found if path.contains(each.name.path)}
            changes = policy_changes(wide, policy)
            steps.add(Action.SET, Kind.POLICY, Name.of_path(path), policy, changes=changes, after=below)


# 3. block devices


def _devices(name: Name, unikernel: WantedUnikernel) -> set[Name]:
    return {device_of(name, block.host_device) for block in unikernel.settings.blocks}


def _held(present: Present) -> dict[Name, set[Name]]:
    """The block devices of every unikernel that runs."""
    return {
        name: {Name(name.path, block.host_device.lower()) for block in info.blocks}
        for name, info in present.unikernels.items()
    }


def _block_problems(wanted: Wanted, present: Present, gone: _Surplus) -> list[str]:
    found = []
    for name, block in sorted(wanted.blocks.items()):
        size = present.blocks.get(name)
        if size is not None and size != block.size_mb:
            found.append(
                f"block {shown(name)} has {size} MB, the file wants {block.size_mb} MB: "
                "a block device is never resized, its content would be lost"
            )
    held = {device: holder for holder, devices in _held(present).items() for device in devices}
    giving = {*wanted.unikernels, *gone.unikernels}
    for name, unikernel in sorted(wanted.unikernels.items()):
        for device in sorted(_devices(name, unikernel)):
            holder = held.get(device)
            if device not in wanted.blocks and device not in present.blocks:
                found.append(f"unikernel {shown(name)} wants the block device {shown(device)}, which nobody makes")
            elif holder is not None and holder not in giving:
                found.append(
                    f"unikernel {shown(name)} wants the block device {shown(device)}, which {shown(holder)} uses"
                )
    return found


def _release(steps: _Steps, gone: _Surplus, wanted: Wanted, present: Present) -> list[Name]:
    """Remove block devices that nobody uses, or whose users are destroyed; those of other users come later."""
    late = []
    staying = {device: name for name, held in _held(present).items() if name in wanted.unikernels for device in held}
    for block in sorted(gone.blocks):
        if block in staying:
            late.append(block)
        else:
            destroyed = steps.of(Kind.UNIKERNEL, _is_in(block.path))
            steps.add(Action.REMOVE, Kind.BLOCK, block, after=destroyed)
    return late


def _make_blocks(steps: _Steps, wanted: Wanted, present: Present) -> None:
    removed = steps.of(Kind.BLOCK, _any)
    for name, block in sorted(wanted.blocks.items()):
        if name not in present.blocks:
            allowed = steps.of(Kind.POLICY, _is_at_or_above(name.path), [Action.SET])
            changes: tuple[Change, ...] = (Change("size_mb", None, block.size_mb),)
            if block.content is not None:
                changes += (Change("content", None, block.content),)
            steps.add(Action.CREATE, Kind.BLOCK, name, block, changes=changes, after=allowed | removed)


# 4. unikernels


def _make_unikernels(steps: _Steps, order: list[Name], wanted: Wanted, present: Present) -> None:
    destroyed = steps.of(Kind.UNIKERNEL, _any)
    givers = _givers(wanted, present)
    before: set[int] = set()
    for _, group in groupby(order, key=lambda name: _startup(wanted.unikernels[name])):
        now: set[int] = set()
        for name in group:
            unikernel = wanted.unikernels[name]
            changes = _unikernel_changes(name, unikernel, present)
            if not changes:
                continue
            after = destroyed | before | steps.of(Kind.POLICY, _is_at_or_above(name.path), [Action.SET])
            after |= steps.of(Kind.BLOCK, _devices(name, unikernel).__contains__, [Action.CREATE])
            if givers[name]:
                after |= steps.of(Kind.UNIKERNEL, givers[name].__contains__)
            action = Action.REPLACE if name in present.unikernels or name in present.dormant else Action.CREATE
            steps.add(action, Kind.UNIKERNEL, name, unikernel, changes=changes, after=after)
            now.add(steps.found[-1].number)
        before = now or before


def _unikernel_changes(name: Name, unikernel: WantedUnikernel, present: Present) -> tuple[Change, ...]:
    info = present.unikernels.get(name)
    if info is not None:
        return unikernel_changes(name, info, unikernel, present)
    if name in present.dormant:
        return (Change("actual", present.dormant[name], "running"), *new_unikernel(unikernel))
    return new_unikernel(unikernel)


def _startup(unikernel: WantedUnikernel) -> int:
    return DEFAULT_STARTUP if unikernel.settings.startup is None else unikernel.settings.startup


def _givers(wanted: Wanted, present: Present) -> Mapping[Name, set[Name]]:
    """For each wanted unikernel those others of them whose block devices it takes over."""
    held = {device: holder for holder, devices in _held(present).items() for device in devices}
    return {
        name: {
            holder
            for device in _devices(name, unikernel)
            if (holder := held.get(device)) is not None and holder != name and holder in wanted.unikernels
        }
        for name, unikernel in wanted.unikernels.items()
    }


def _order(wanted: Wanted, present: Present) -> tuple[list[Name], list[Name]]:
    """Wanted unikernels by startup and name, who gives before who takes; and those that wait for each other."""
    givers = _givers(wanted, present)
    left = sorted(wanted.unikernels, key=lambda name: (_startup(wanted.unikernels[name]), name))
    order: dict[Name, None] = {}
    while left:
        ready = next((name for name in left if givers[name] <= order.keys()), None)
        if ready is None:
            return list(order), left
        order[ready] = None
        left.remove(ready)
    return list(order), []


# which steps


def _any(_: Name) -> bool:
    return True


def _is_in(path: Path) -> Fits:
    return lambda name: name.path == path


def _is_at_or_above(path: Path) -> Fits:
    return lambda name: name.path.contains(path)


def _is_at_or_below(path: Path) -> Fits:
    return lambda name: path.contains(name.path)
