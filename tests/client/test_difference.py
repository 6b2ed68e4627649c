"""Plans: done to a model of a host they give what is wanted, and without ``prune`` nothing is ever destroyed."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albatross_pki.client.comparison import Present
from albatross_pki.client.difference import Action, Difference, Kind, Step, difference
from albatross_pki.client.wanted import Wanted, WantedBlock, WantedUnikernel, device_of, wanted_of
from albatross_pki.errors import Refused
from albatross_pki.names import Name, Path, derived_mac
from albatross_pki.policies import Policy
from albatross_pki.policy.effective import insertable
from albatross_pki.unikernels import (
    DEFAULT_SECTOR_SIZE,
    QUIT,
    BlockDevice,
    BlockDeviceInfo,
    FailBehaviour,
    InterfaceInfo,
    NetworkInterface,
    Settings,
    UnikernelInfo,
    UnikernelType,
)

BASE = Path(("dev",))


def info_of(name: Name, unikernel: WantedUnikernel, blocks: dict[Name, int]) -> UnikernelInfo:
    """What a host of the path ``BASE`` shows when a unikernel runs as it was wanted."""
    asked = unikernel.settings
    return UnikernelInfo(
        asked.cpuids,
        asked.memory_mb,
        unikernel.digest,
        asked.fail_behaviour,
        asked.startup,
        tuple(
            BlockDeviceInfo(
                each.name,
                each.host_device,
                each.sector_size or DEFAULT_SECTOR_SIZE,
                blocks[device_of(name, each.host_device)],
            )
            for each in asked.blocks
        ),
        tuple(
            InterfaceInfo(each.name, each.host_bridge, each.mac or derived_mac(each.name, name.below(BASE)))
            for each in asked.interfaces
        ),
        asked.arguments,
    )


class Model:
    """A host: it refuses what a host refuses, and counts what it was told to destroy."""

    def __init__(self, present: Present) -> None:
        self.policies = dict(present.policies)
        self.blocks = dict(present.blocks)
        self.unikernels = dict(present.unikernels)
        self.destroyed: list[Step] = []

    def present(self) -> Present:
        return Present(self.policies, self.blocks, self.unikernels, full=BASE)

    def do(self, step: Step) -> None:
        if step.action in (Action.DESTROY, Action.REMOVE):
            self.destroyed.append(step)
        match step.kind, step.subject:
            case Kind.POLICY, Policy() as policy:
                # the path of the file has a parent, so its own policy is not the root's
                absolute = {Path((*BASE.labels, *path.labels)): each for path, each in self.policies.items()}
                assert insertable(Path((*BASE.labels, *step.name.path.labels)), policy, absolute) == []
                self.policies[step.name.path] = policy
            case Kind.POLICY, None:
                del self.policies[step.name.path]
            case Kind.BLOCK, WantedBlock(size_mb):
                assert step.name not in self.blocks
                self.blocks[step.name] = size_mb
            case Kind.BLOCK, None:
                assert step.name not in self.users()
                del self.blocks[step.name]
            case Kind.UNIKERNEL, WantedUnikernel() as unikernel:
                assert (step.name in self.unikernels) is (step.action is Action.REPLACE)
                for block in unikernel.settings.blocks:
                    device = device_of(step.name, block.host_device)
                    assert device in self.blocks
                    assert self.users().get(device, step.name) == step.name
                self.unikernels[step.name] = info_of(step.name, unikernel, self.blocks)
            case Kind.UNIKERNEL, None:
                del self.unikernels[step.name]
            case _:
                raise AssertionError(step)

    def users(self) -> dict[Name, Name]:
        return {
            device_of(name, each.host_device): name for name, info in self.unikernels.items() for each in info.blocks
        }


# things to want, few enough that they meet

LABELS = st.sampled_from(("a", "b", "c"))
PATHS = st.lists(LABELS, max_size=2).map(lambda labels: Path(tuple(labels)))
NAMES = st.builds(Name, st.sampled_from((Path(), Path(("a",)))), LABELS)
NUMBERS = st.frozensets(st.integers(0, 2), min_size=1)
POLICIES = st.builds(
    Policy,
    NUMBERS,
    st.integers(1, 3),
    st.integers(17, 20),
    st.none() | st.integers(0, 2),
    st.frozensets(st.sampled_from(("br0", "br1"))),
)
SETTINGS = st.builds(
    Settings,
    cpuids=NUMBERS,
    memory_mb=st.integers(1, 2),
    fail_behaviour=st.sampled_from((QUIT, FailBehaviour(frozenset()), FailBehaviour(frozenset({3})))),
    startup=st.none() | st.sampled_from((0, 50, 60)),
    add_name=st.booleans(),
    blocks=st.lists(
        st.builds(
            BlockDevice, st.just("disk"), st.none() | st.sampled_from(("a", "b", "disk")), st.sampled_from((None, 512))
        ),
        max_size=1,
    ).map(tuple),
    interfaces=st.lists(
        st.builds(NetworkInterface, st.just("net"), st.none() | st.just("br0"), st.none() | st.just(bytes(6))),
        max_size=1,
    ).map(tuple),
    arguments=st.none() | st.just(()) | st.just(("--x",)),
)
UNIKERNELS = st.builds(WantedUnikernel, SETTINGS, st.just("image"), st.sampled_from((bytes(32), b"\1" * 32)))


def _narrowed(policies: dict[Path, Policy]) -> dict[Path, Policy]:
    """Only policies that stand below all those above them, as a file and a host have them."""
    kept: dict[Path, Policy] = {}
    for path, policy in sorted(policies.items()):
        absolute = {Path((*BASE.labels, *each.labels)): other for each, other in kept.items()}
        if not insertable(Path((*BASE.labels, *path.labels)), policy, absolute):
            kept[path] = policy
    return kept


@st.composite
def worlds(draw: st.DrawFn) -> Wanted:
    """What is wanted without contradictions: every block device has one user, and is made."""
    blocks = draw(st.dictionaries(NAMES, st.builds(WantedBlock, st.integers(1, 2)), max_size=4))
    unikernels: dict[Name, WantedUnikernel] = {}
    taken: set[Name] = set()
    for name, unikernel in draw(st.dictionaries(NAMES, UNIKERNELS, max_size=5)).items():
        devices = {device_of(name, each.host_device) for each in unikernel.settings.blocks}
        if devices <= set(blocks) - taken:
            taken |= devices
            unikernels[name] = unikernel
    return Wanted(BASE, _narrowed(draw(st.dictionaries(PATHS, POLICIES, max_size=4))), blocks, unikernels)


def present_of(world: Wanted) -> Present:
    """The host on which all of this is there already."""
    blocks = {name: block.size_mb for name, block in world.blocks.items()}
    unikernels = {name: info_of(name, each, blocks) for name, each in world.unikernels.items()}
    return Present(world.policies, blocks, unikernels, full=BASE)


def any_order(data: st.DataObject, found: Difference) -> Iterable[Step]:
    """The steps in any order that their numbers allow."""
    left, done = list(found.steps), set[int]()
    while left:
        ready = [step for step in left if step.after <= done]
        assert ready, "steps wait for each other"
        step = data.draw(st.sampled_from(ready))
        left.remove(step)
        done.add(step.number)
        yield step


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_plan_done_to_a_host_gives_what_is_wanted(data: st.DataObject) -> None:
    wanted, before, prune = data.draw(worlds()), present_of(data.draw(worlds())), data.draw(st.booleans())
    try:
        found = difference(wanted, before, prune=prune)
    except Refused:
        return  # told before anything is done; the other tests say for what
    host = Model(before)
    for step in any_order(data, found):
        host.do(step)
    assert {path: host.policies[path] for path in wanted.policies} == wanted.policies
    assert {name: host.blocks[name] for name in wanted.blocks} == {
        name: block.size_mb for name, block in wanted.blocks.items()
    }
    assert all(name in host.unikernels for name in wanted.unikernels)
    again = difference(wanted, host.present(), prune=prune)
    assert again.steps == ()
    if not prune:
        assert host.destroyed == []
        assert set(before.unikernels) <= set(host.unikernels)
        assert before.blocks.items() <= host.blocks.items()
        assert set(before.policies) <= set(host.policies)
    else:
        places = {name.path for name in (*wanted.unikernels, *wanted.blocks)}
        assert {name for name in host.unikernels if name.path in places} <= set(wanted.unikernels)
    mentioned = {*wanted.unikernels, *(each.name for each in host.destroyed)}
    untouched = set(before.unikernels) - mentioned
    assert {name: host.unikernels[name] for name in untouched} == {name: before.unikernels[name] for name in untouched}


@given(worlds())
@settings(deadline=None)
def test_a_host_that_has_it_all_needs_nothing(world: Wanted) -> None:
    for prune in (False, True):
        assert difference(world, present_of(world), prune=prune) == Difference()


@given(worlds())
@settings(deadline=None)
def test_an_empty_host_can_be_furnished(world: Wanted) -> None:
    host = Model(Present(full=BASE))
    found = difference(world, host.present())
    for step in found.steps:
        host.do(step)
    assert (host.policies, host.unikernels) == (world.policies, present_of(world).unikernels)


# one by one


def unikernel(**settings: object) -> WantedUnikernel:
    return WantedUnikernel(replace(Settings(), **settings), "image", bytes(32))  # type: ignore[arg-type]


A, B, VOL = Name.parse("a"), Name.parse("b"), Name.parse("vol")
DISK = (BlockDevice("disk", "vol"),)


def steps(found: Difference) -> list[str]:
    return [f"{each.number} {each.action.value} {each.name} after {sorted(each.after)}" for each in found.steps]


def test_the_startup_order_and_what_must_be_there_first() -> None:
    wanted = Wanted(
        policies={Path(): Policy(frozenset({0}), 3, 64)},
        blocks={VOL: WantedBlock(1)},
        unikernels={A: unikernel(startup=60), B: unikernel(startup=10, blocks=DISK), Name.parse("c"): unikernel()},
    )
    assert steps(difference(wanted, Present())) == [
        "1 set : after []",
        "2 create :vol after [1]",
        "3 create :b after [1, 2]",
        "4 create :c after [1, 3]",
        "5 create :a after [1, 4]",
    ]


def test_a_block_device_goes_from_one_to_the_other() -> None:
    before = Wanted(blocks={VOL: WantedBlock(1)}, unikernels={A: unikernel(blocks=DISK)})
    after = replace(before, unikernels={A: unikernel(startup=60), B: unikernel(startup=10, blocks=DISK)})
    assert steps(difference(after, present_of(before))) == ["1 replace :a after []", "2 create :b after [1]"]


def test_two_that_exchange_block_devices_are_refused() -> None:
    other = (BlockDevice("disk", "other"),)
    blocks = {VOL: WantedBlock(1), Name.parse("other"): WantedBlock(1)}
    before = Wanted(blocks=blocks, unikernels={A: unikernel(blocks=DISK), B: unikernel(blocks=other)})
    after = Wanted(blocks=blocks, unikernels={A: unikernel(blocks=other), B: unikernel(blocks=DISK)})
    with pytest.raises(Refused, match="a, b: each waits for a block device of another"):
        difference(after, present_of(before))


def test_p31_all_that_stands_against_a_file_is_said_at_once() -> None:
    before = Present(
        {Path(("x",)): Policy(frozenset({0}), 9, 64)}, {VOL: 1}, {B: info_of(B, unikernel(blocks=DISK), {VOL: 1})}
    )
    wanted = Wanted(
        policies={Path(): Policy(frozenset({0}), 1, 64)},
        blocks={VOL: WantedBlock(2)},
        unikernels={A: unikernel(blocks=DISK), Name.parse("c"): unikernel(blocks=(BlockDevice("nowhere"),))},
    )
    with pytest.raises(Refused) as refused:
        difference(wanted, before)
    assert [reason.partition(": ")[0] for reason in refused.value.reasons] == [
        "policy :",
        "block vol has 1 MB, the file wants 2 MB",
        "unikernel a wants the block device vol, which b uses",
        "unikernel c wants the block device nowhere, which nobody makes",
    ]


def test_what_is_not_listed_goes_only_when_it_is_said() -> None:
    world = Wanted(
        policies={Path(("x",)): Policy(frozenset({0}), 1, 64), Path(("x", "y")): Policy(frozenset({0}), 1, 64)},
        blocks={VOL: WantedBlock(1)},
        unikernels={A: unikernel(blocks=DISK), Name.parse("x:deep"): unikernel()},
    )
    present = replace(present_of(world), dormant={B: "stopped"})
    kept = difference(Wanted(), present)
    assert kept.steps == ()
    assert [str(name) for _, name in kept.kept] == ["x:", ":vol", ":a", ":b"]
    assert steps(difference(Wanted(), present, prune=True)) == [
        "1 destroy :a after []",
        "2 destroy :b after []",
        "3 remove x: after []",
        "4 remove :vol after [1, 2]",
    ]


def test_a_policy_waits_for_the_end_of_those_that_it_does_not_fit() -> None:
    """Above it and below it, all in the way of what is wanted."""
    small, large = Policy(frozenset({0}), 1, 32), Policy(frozenset({0}), 2, 64)
    above, path, below = (Path(("x", "y", "z")[:length]) for length in (1, 2, 3))
    wanted = Wanted(
        policies={path: large}, unikernels={Name.parse("x:u"): unikernel(), Name.parse("x:y:u"): unikernel()}
    )
    present = present_of(replace(wanted, policies={above: small, below: small}))
    assert steps(difference(wanted, present, prune=True)) == [
        "1 remove x:y:z: after []",
        "2 remove x: after [1]",
        "3 set x:y: after [1, 2]",
    ]


def test_pruning_leaves_what_is_used() -> None:
    wanted = Wanted(unikernels={A: unikernel(blocks=DISK)})
    assert steps(difference(wanted, Present(blocks={VOL: 1}), prune=True)) == ["1 create :a after []"]


def test_a_stopped_unikernel_is_replaced_and_says_why() -> None:
    (step,) = difference(Wanted(unikernels={A: unikernel()}), Present(dormant={A: "backing off"})).steps
    assert (step.action, step.changes[0].present, step.changes[0].wanted) == (Action.REPLACE, "backing off", "running")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"memory_mb": 16}, "memory_mb"),
        ({"cpuids": frozenset({1})}, "cpuids"),
        ({"arguments": ("--x",)}, "arguments"),
        ({"fail_behaviour": FailBehaviour(frozenset({3}))}, "restart"),
        ({"startup": 3}, "startup"),
        ({"blocks": (BlockDevice("disk", "vol", 1024),)}, "blocks"),
        ({"interfaces": (NetworkInterface("net", "br1"),)}, "networks"),
        ({"interfaces": (NetworkInterface("net", "br0", bytes(6)),)}, "networks"),
    ],
)
def test_every_field_that_a_host_shows_is_compared(change: dict[str, object], field: str) -> None:
    settings_before: dict[str, object] = {"blocks": DISK, "interfaces": (NetworkInterface("net", "br0"),)}
    before = Wanted(blocks={VOL: WantedBlock(1)}, unikernels={A: unikernel(**settings_before)})
    after = replace(before, unikernels={A: unikernel(**(settings_before | change))})
    (step,) = difference(after, present_of(before)).steps
    assert [each.field for each in step.changes] == [field]
    assert difference(before, present_of(before)).steps == ()


def test_what_a_host_does_not_show_is_not_compared() -> None:
    hidden = replace(present_of(Wanted(unikernels={A: unikernel()})), arguments_shown=False)
    wanted = Wanted(unikernels={A: unikernel(arguments=("--secret",), add_name=False)})
    assert difference(wanted, hidden).steps == ()


def test_a_vm_in_the_place_of_a_unikernel_is_replaced() -> None:
    vm = UnikernelInfo(frozenset({0}), 32, b"alba-1", typ=UnikernelType.BHYVE)
    (step,) = difference(Wanted(unikernels={A: unikernel()}), Present(unikernels={A: vm})).steps
    assert step.action is Action.REPLACE


# the file


def mistakes_of(document: dict[str, object]) -> list[str]:
    mistakes: list[str] = []
    wanted_of(document, "", mistakes)
    return mistakes


def test_p31_every_mistake_of_a_file_is_said_with_its_place() -> None:
    assert mistakes_of(
        {
            "path": "a_b",
            "nonsense": 1,
            "policies": {"x": {"unikernels": 0, "memory_mb": 64, "block_mb": "1"}, "y": {}},
            "blocks": {"v": {"size_mb": 0}, "a_b": {"size_mb": 1, "size": 1}, "V": {"size_mb": True}},
            "unikernels": {
                "u": {"image": 1, "restart": [], "cpuids": [-1], "networks": ["x@y", "a", "a:b"], "blocks": "x"},
                "p:": {"image": "i", "arguments": [1], "add_name": 1},
                "w": 5,
            },
        }
    ) == [
        "'nonsense' is not known here",
        "path: invalid path: invalid label (only [a-zA-Z0-9-.] allowed, 1 to 63 chars)",
        "policies.x: 'block_mb' is no number",
        "policies.x: Unusable policy with no unikernels",
        "policies.y: 'unikernels' is missing",
        "policies.y: 'memory_mb' is missing",
        "policies.y: Unusable policy with no unikernels",
        "policies.y: Unusable policy with memory 0 MB <= 16 MB",
        "blocks.v: size_mb must be between 1 and 2147483647, not 0",
        "blocks.a_b: invalid name",
        "blocks.a_b: 'size' is not known here",
        "blocks.V: 'size_mb' is no number",
        "unikernels.u: cpuids must be between 0 and 2147483647, not -1",
        "unikernels.u: an empty 'restart' says nothing; true is after every failure, false never",
        "unikernels.u: 'blocks' is no list of texts",
        "unikernels.u: networks: format is [name:]bridge[@mac], a mac is six octets such as 00:80:41:1b:18:52",
        "unikernels.u: 'networks' must be a set: each one is another device of the image",
        "unikernels.u: 'image' is no text",
        "unikernels.p:: is a path, and this is about one name below it",
        "unikernels.p:: 'add_name' is no truth value",
        "unikernels.p:: 'arguments' is no list of texts",
        "unikernels.w is no table",
    ]


def test_entries_that_contradict_each_other() -> None:
    policy = {"unikernels": 1, "memory_mb": 64}
    disk = {"image": "i", "blocks": ["disk:vol"]}
    assert mistakes_of(
        {
            "path": "dev",
            "policies": {"": policy, "x": {**policy, "unikernels": 2}, "x:y": {**policy, "cpuids": [0, 1]}},
            "unikernels": {"a": disk, "b": disk, "x:c": disk},
        }
    ) == [
        "blocks.vol: wanted by a and b, and a block device has one user",
        "policies.x: policy above allows 1 unikernels, which is fewer than 2 (the path itself)",
        'policies."x:y": policy above does not allow CPUids 1 (x)',
        'policies."x:y": policy above does not allow CPUids 1 (the path itself)',
    ]


def test_a_bhyve_unikernel_in_a_file_is_refused_with_the_reason() -> None:
    mistakes = mistakes_of({"unikernels": {"vm": {"image": "i", "typ": "bhyve", "linux_boot": "hd0"}}})
    why = "BHyve unikernels are not applied: a host tells nothing of their disk that could be compared"
    assert mistakes == [f"unikernels.vm: 'typ': {why}", f"unikernels.vm: 'linux_boot': {why}"]


def test_a_file_is_read_as_it_is_documented() -> None:
    mistakes: list[str] = []
    document: dict[str, object] = {
        "path": "dev",
        "policies": {"web": {"unikernels": 2, "memory_mb": 64, "cpuids": [0], "block_mb": 8, "bridges": ["service"]}},
        "blocks": {"vol": {"size_mb": 2, "content": "disk.img"}},
        "unikernels": {
            "hello": {
                "image": "hello.spt",
                "memory_mb": 32,
                "cpuids": [0],
                "arguments": ["--greeting=hi"],
                "networks": ["net:service"],
                "blocks": ["disk:vol@512"],
                "restart": [3],
                "startup": 10,
                "add_name": False,
            }
        },
    }
    wanted = wanted_of(document, "/place", mistakes)
    assert mistakes == []
    assert wanted == Wanted(
        Path(("dev",)),
        {Path(("web",)): Policy(frozenset({0}), 2, 64, 8, frozenset({"service"}))},
        {VOL: WantedBlock(2, "/place/disk.img")},
        {
            Name.parse("hello"): WantedUnikernel(
                Settings(
                    frozenset({0}),
                    32,
                    FailBehaviour(frozenset({3})),
                    10,
                    False,
                    (BlockDevice("disk", "vol", 512),),
                    (NetworkInterface("net", "service"),),
                    ("--greeting=hi",),
                ),
                "/place/hello.spt",
            )
        },
    )
