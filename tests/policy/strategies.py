"""Hypothesis strategies for policies, constraints, names and settings: small worlds, so that things collide."""

from hypothesis import strategies as st

from albatross_pki.extensions import COMMAND_WORDS, Constraints
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.unikernels import NetworkInterface, Settings

CPUIDS = st.frozensets(st.integers(0, 3))
BRIDGES = st.frozensets(st.sampled_from(["internal", "service", "ext"]))

policies = st.builds(
    Policy,
    cpuids=CPUIDS,
    unikernels=st.integers(0, 4),
    memory_mb=st.integers(0, 64),
    block_mb=st.none() | st.integers(0, 3),
    bridges=BRIDGES,
)
settings = st.builds(
    Settings,
    cpuids=st.frozensets(st.integers(0, 3), min_size=1),
    memory_mb=st.integers(1, 64),
    interfaces=BRIDGES.map(lambda names: tuple(NetworkInterface(f"net{bridge}", bridge) for bridge in sorted(names))),
)
labels = st.sampled_from(["a", "b", "ab", "web", "."])
paths = st.lists(labels, max_size=3).map(lambda found: Path(tuple(found)))
names = st.builds(Name, paths, labels)

patterns = st.sampled_from(["*", "a*", "ab*", "abc*", "a", "ab", "abc", "b", "b*", "web"])
words = st.sampled_from(["a", "ab", "abc", "abd", "b", "ba", "web", "x"])
digests = st.sampled_from([bytes([number]) * 32 for number in range(4)])
constraints = st.builds(
    Constraints,
    commands=st.none() | st.frozensets(st.sampled_from(sorted(COMMAND_WORDS)), max_size=4),
    images=st.none() | st.frozensets(digests),
    names=st.none() | st.frozensets(patterns, max_size=4),
    hosts=st.none() | st.frozensets(st.sampled_from(["one.example", "TWO.example", "three"])),
    deployments=st.none() | st.frozensets(digests),
    once=st.booleans(),
)
