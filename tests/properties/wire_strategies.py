"""Every value of the vocabulary that has an encoding, for hypothesis: one strategy per type."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from albatross_pki import authorised as a
from albatross_pki import commands as c
from albatross_pki import extensions as e
from albatross_pki import replies as r
from albatross_pki.commands import Version
from albatross_pki.messages import Header, Message, StateDump
from albatross_pki.names import Name, Path
from albatross_pki.policies import Policy
from albatross_pki.text import from_octets
from albatross_pki.unikernels import (
    BlockDevice,
    BlockDeviceInfo,
    BlockInfo,
    FailBehaviour,
    InterfaceInfo,
    NetworkInterface,
    Settings,
    UnikernelConfig,
    UnikernelInfo,
    UnikernelType,
)

# elements

octets = st.binary(max_size=40)
texts = st.binary(max_size=12).map(from_octets) | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
labels = st.from_regex(r"[a-z0-9.][a-z0-9.-]{0,62}", fullmatch=True) | st.sampled_from(["a", "b", "a.b", "0-"])
paths = st.lists(labels, max_size=4).map(lambda items: Path(tuple(items)))
names = st.builds(Name, paths, st.none() | labels)
times = st.datetimes(timezones=st.just(UTC)).map(
    lambda time: time - timedelta(microseconds=time.microsecond % 1000)
) | st.sampled_from([datetime(1, 1, 1, tzinfo=UTC), datetime(2026, 2, 28, 23, 59, 59, 500_000, UTC)])
ints = st.integers(-(2**62), 2**62 - 1) | st.integers(-300, 300)
naturals = st.integers(0, 2**62 - 1) | st.sampled_from([0, 1, 127, 128, 255, 256, 2**62 - 1])
megabytes = st.integers(0, 2**42 - 1) | st.integers(0, 2000)
counters = st.integers(0, 2**64 - 1)
unsigned32 = st.integers(0, 2**32 - 1) | st.sampled_from([0, 127, 128, 2**31 - 1, 2**31, 2**32 - 1])
signed64 = st.integers(-(2**63), 2**63 - 1)
cpuid_sets = st.frozensets(st.integers(0, 300) | st.integers(0, 2**31 - 1), max_size=6)
levels = st.integers(0, 9)
macs = st.binary(min_size=6, max_size=6)
digests = st.binary(min_size=32, max_size=32)
digest_sets = st.frozensets(digests, max_size=3)


def tuples_of(strategy: st.SearchStrategy[Any], most: int = 4) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, max_size=most).map(tuple)


arguments = st.none() | tuples_of(texts)
policies = st.builds(Policy, cpuid_sets, naturals, naturals, st.none() | naturals, st.frozensets(texts, max_size=4))
policy_entries = tuples_of(st.tuples(names, policies))

# unikernels

fail_behaviours = st.builds(FailBehaviour, st.none() | st.frozensets(ints, max_size=6))
blocks = st.builds(BlockDevice, texts, st.none() | texts, st.none() | st.integers(1, 2**31 - 1))
interfaces = st.builds(NetworkInterface, texts, st.none() | texts, st.none() | macs)
cpus = st.integers(1, 2**31 - 1)
settings = st.builds(
    Settings,
    cpuids=cpuid_sets,
    memory_mb=megabytes,
    fail_behaviour=fail_behaviours,
    startup=st.none() | ints,
    add_name=st.booleans(),
    blocks=tuples_of(blocks),
    interfaces=tuples_of(interfaces),
    arguments=arguments,
    cpus=cpus,
    linux_boot_partition=st.none() | texts,
)
types = st.sampled_from(UnikernelType)
configs = st.builds(UnikernelConfig, octets, settings, st.booleans(), types)
infos = st.builds(
    UnikernelInfo,
    cpuids=cpuid_sets,
    memory_mb=naturals,
    digest=octets,
    fail_behaviour=fail_behaviours,
    startup=st.none() | ints,
    blocks=tuples_of(st.builds(BlockDeviceInfo, texts, texts, naturals, naturals)),
    interfaces=tuples_of(st.builds(InterfaceInfo, texts, texts, macs)),
    arguments=arguments,
    started=st.none() | times,
    cpus=cpus,
    linux_boot_partition=st.none() | texts,
    typ=types,
)

# commands

_subscriptions = st.builds(c.ConsoleSubscribe, since=times) | st.builds(
    c.ConsoleSubscribe, count=st.integers(0, 2**31 - 1)
)
commands: st.SearchStrategy[c.Command] = st.one_of(
    st.builds(c.ConsoleAdd, naturals),
    _subscriptions,
    st.builds(c.StatsAdd, texts, st.integers(1, 2**31 - 1), tuples_of(st.tuples(texts, texts))),
    st.builds(c.UnikernelCreate, configs, st.booleans(), st.sampled_from([Version.CURRENT, Version.V3, Version.V4])),
    st.builds(c.UnikernelRestart, settings, st.sampled_from([Version.CURRENT, Version.V0, Version.V1])),
    st.builds(c.UnikernelInfoRequest, st.sampled_from([Version.CURRENT, Version.OLD4, Version.OLD5])),
    st.builds(c.UnikernelGet, levels),
    st.builds(c.PolicyAdd, policies),
    st.builds(c.BlockAdd, megabytes),
    st.builds(c.BlockAddOld, megabytes, st.booleans(), st.none() | octets),
    st.builds(c.BlockSet, st.booleans()),
    st.builds(c.BlockSetOld, st.booleans(), octets),
    st.builds(c.BlockDump, levels),
    st.builds(c.BlockDumpOld, levels),
    st.sampled_from(
        [
            *(c.ConsoleInactive(), c.StatsRemove(), c.StatsSubscribe(), c.StatsInitial()),
            *(c.UnikernelRestart(), c.UnikernelDestroy(), c.PolicyInfo(), c.PolicyRemove()),
            *(c.BlockInfoRequest(), c.BlockRemove()),
        ]
    ),
)

# answers

info_versions = st.sampled_from([Version.CURRENT, Version.OLD4, Version.OLD5])
answers: st.SearchStrategy[Any] = st.one_of(
    st.just(r.Empty()),
    st.builds(r.Text, texts),
    st.builds(r.Failure, texts),
    st.builds(r.Policies, policy_entries),
    st.builds(r.BlockDevices, tuples_of(st.builds(BlockInfo, names, naturals, st.booleans()))),
    st.builds(r.UnikernelImage, st.booleans(), octets),
    st.builds(r.BlockImageOld, st.booleans(), octets),
    st.builds(r.BlockImage, st.booleans()),
    st.builds(r.Consoles, tuples_of(names)),
    st.builds(r.Unikernels, tuples_of(st.tuples(names, infos)), info_versions),
)
_timevals = st.builds(r.Timeval, signed64, naturals)
_usages = st.builds(r.ResourceUsage, _timevals, _timevals, *[counters] * 14)
_memories = st.builds(r.ProcessMemory, *[counters] * 6, naturals, _timevals)
_interface_stats = st.builds(r.InterfaceStats, texts, *[unsigned32] * 5, *[counters] * 12)
streamed: st.SearchStrategy[Any] = st.one_of(
    st.builds(r.ConsoleLine, times, octets),
    st.builds(r.BlockChunk, st.none() | octets),
    st.builds(
        r.Statistics,
        _usages,
        tuples_of(_interface_stats, 2),
        st.none() | tuples_of(st.tuples(texts, counters)),
        st.none() | _memories,
    ),
)

# what stands on its own

headers = st.builds(Header, names, signed64)
messages = st.builds(Message, headers, st.one_of(commands, answers, streamed))
extensions = st.builds(e.AlbatrossExtension, commands)


def _different_names(entries: tuple[tuple[Name, Any], ...]) -> bool:
    return len({name for name, _ in entries}) == len(entries)


states = st.builds(
    StateDump,
    tuples_of(st.tuples(names, configs), 3).filter(_different_names),
    policy_entries.filter(_different_names),
)

patterns = st.from_regex(r"[a-z0-9./-]{1,20}\*?|\*", fullmatch=True)
hosts = st.from_regex(r"[A-Za-z0-9.:-]{1,30}", fullmatch=True)
constraints = st.builds(
    e.Constraints,
    st.none() | st.frozensets(st.sampled_from(sorted(e.COMMAND_WORDS)), max_size=4),
    st.none() | digest_sets,
    st.none() | st.frozensets(patterns, max_size=3),
    st.none() | st.frozensets(hosts, max_size=3),
    st.none() | digest_sets,
    st.booleans(),
).filter(lambda one: one != e.Constraints())
bindings = st.builds(e.ImageBinding, digests, st.integers(1, 2**62 - 1))
extended_commands: st.SearchStrategy[e.ExtendedCommand] = st.one_of(
    st.builds(e.Events, st.none() | times),
    st.sampled_from([e.CrlUpdate(), e.Rollback(), e.HostInfo(), e.Stop(), e.Start(), e.Status()]),
)

_shapes = ["single", "read", "dump"]
certificate_ids = st.builds(a.CertificateId, digests, st.integers(0, 2**160 - 1))
_chain_policies = st.builds(a.ChainPolicy, paths, policies, certificate_ids, times, times)
side_messages: st.SearchStrategy[a.SideMessage] = st.one_of(
    st.builds(
        a.AuthorisedRequest,
        name=names,
        command=st.one_of(commands, extended_commands),
        policies=tuples_of(_chain_policies, 3),
        leaf=certificate_ids,
        not_after=times,
        images=st.none() | digest_sets,
        deployments=st.none() | digest_sets,
        binding=st.none() | bindings,
        may_get=st.booleans(),
    ),
    st.builds(a.Outcome, st.booleans(), st.sampled_from(a.Effect), texts),
    st.builds(a.JudgeRequest, texts, tuples_of(octets)),
    st.builds(
        a.Verdict,
        names,
        tuples_of(texts),
        st.sampled_from(a.Stream),
        naturals,
        st.sampled_from(["single", "read", "dump"]),
    ),
    st.builds(a.ExecuteRequest, naturals, st.just(b"") | digests),
    st.just(a.Executing()),
    st.builds(a.LocalRequest, names, extended_commands),
    st.builds(a.AskRemembered, st.none() | certificate_ids),
    st.builds(a.Remembered, tuples_of(certificate_ids)),
    st.builds(a.Revoked, tuples_of(certificate_ids), st.booleans()),
)
