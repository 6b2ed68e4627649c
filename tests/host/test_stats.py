"""Who gets whose statistics, and what a sample says."""

import os
import resource
import subprocess
import time

import pytest

from albatross_pki.errors import OutOfRange
from albatross_pki.host.network_links import Counters, Link
from albatross_pki.host.stats import MAX_SUBSCRIBERS, Audience, Watched, checked
from albatross_pki.host.stats_sampling import (
    TICKS,
    NoProcess,
    ProcessOctets,
    read_process,
    start_ticks,
    statistics,
)
from albatross_pki.names import Name
from albatross_pki.replies import InterfaceStats, Timeval

SOMEBODY = Watched(1, 1, ())


class Listening:
    def close(self) -> None:
        raise AssertionError("closing is the caller's")


def shown(audience: Audience[Listening], text: str) -> list[str]:
    return sorted(str(name) for name, _ in audience.listeners(Name.parse(text)))


@pytest.mark.parametrize(
    ("subscription", "unikernel", "as_seen"),
    [
        (":", "foo:a:net", ["foo:a:net"]),
        (":", "net", [":net"]),
        ("foo:", "foo:net", [":net"]),
        ("foo:", "foo:a:net", ["a:net"]),
        ("foo:", "foobar:net", []),
        ("foo:net", "foo:net", [":net"]),
        ("foo:net", "foo:other", []),
    ],
)
def test_a_subscription_gets_what_is_below_it(subscription: str, unikernel: str, as_seen: list[str]) -> None:
    audience: Audience[Listening] = Audience()
    audience.subscribe(Name.parse(subscription), Listening())
    assert shown(audience, unikernel) == as_seen


@pytest.mark.parametrize(("subscription", "unikernel"), [("foo:", "foo"), ("foo", "foo:net"), ("a:b", "a:b:c")])
def test_p10_a_path_and_a_name_of_the_same_text_are_different_things(subscription: str, unikernel: str) -> None:
    audience: Audience[Listening] = Audience()
    audience.subscribe(Name.parse(subscription), Listening())
    assert shown(audience, unikernel) == []


def test_one_unikernel_may_have_several_subscribers_at_different_levels() -> None:
    audience: Audience[Listening] = Audience()
    for text in (":", "foo:", "foo:a:", "foo:a:net", "bar:"):
        audience.subscribe(Name.parse(text), Listening())
    assert shown(audience, "foo:a:net") == [":net", ":net", "a:net", "foo:a:net"]


def test_p04_beyond_the_limit_of_a_name_a_new_subscriber_replaces_the_oldest() -> None:
    audience: Audience[Listening] = Audience()
    name = Name.parse("foo:")
    several = [Listening() for _ in range(MAX_SUBSCRIBERS)]
    assert [audience.subscribe(name, each) for each in several] == [None] * MAX_SUBSCRIBERS
    newest = Listening()
    assert audience.subscribe(name, newest) is several[0]
    audience.unsubscribe(name, several[0])
    assert [subscriber for _, subscriber in audience.listeners(Name.parse("foo:x"))] == [*several[1:], newest]
    for each in (*several, newest):
        audience.unsubscribe(name, each)
    audience.watch(Name.parse("foo:x"), SOMEBODY)
    assert audience.wanted() == []


def test_only_what_somebody_listens_to_is_sampled() -> None:
    audience: Audience[Listening] = Audience()
    for text in ("foo:a", "foo:b", "bar:c"):
        audience.watch(Name.parse(text), SOMEBODY)
    assert audience.wanted() == []
    audience.subscribe(Name.parse("foo:"), Listening())
    assert [str(name) for name in audience.wanted()] == ["foo:a", "foo:b"]


def test_a_name_that_is_watched_already_is_watched_anew() -> None:
    audience: Audience[Listening] = Audience()
    audience.watch(Name.parse("a"), SOMEBODY)
    audience.watch(Name.parse("a"), Watched(2, 2, ()))
    assert len(audience) == 1
    assert audience.find(Name.parse("a")) == Watched(2, 2, ())
    assert audience.forget(Name.parse("a"))
    assert not audience.forget(Name.parse("a"))


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1, 2**62])
def test_p01_a_pid_has_a_range(pid: int) -> None:
    with pytest.raises(OutOfRange):
        checked(pid, ())


def test_p04_the_number_of_interfaces_has_a_limit() -> None:
    with pytest.raises(OutOfRange):
        checked(1, (("service", "vmmtap0"),) * 64)


STAT = (
    b"4242 (a ) (b) c) S 1 2 3 4 5 6 77 8 99 10 123 456 15 16 17 18 19 20 555 46755840 449 "
    + b" ".join(b"%d" % number for number in range(25, 53))
    + b"\n"
)
STATUS = b"Name:\tx\nvoluntary_ctxt_switches:\t21\nnonvoluntary_ctxt_switches:\t34\n"


def test_a_sample_has_what_proc_says_in_albatross_units() -> None:
    octets = ProcessOctets(STAT, b"11414 449 100 5 0 2138 0\n", STATUS, 1_750_000_000_123_456_789)
    sample = statistics(octets, ())
    assert (sample.usage.utime, sample.usage.stime) == (
        Timeval(123 // TICKS, 123 % TICKS * 1_000_000 // TICKS),
        Timeval(456 // TICKS, 456 % TICKS * 1_000_000 // TICKS),
    )
    assert (sample.usage.minflt, sample.usage.majflt, sample.usage.maxrss, sample.usage.nswap) == (77, 99, 449, 36)
    assert (sample.usage.nvcsw, sample.usage.nivcsw) == (21, 34)
    assert sample.memory is not None
    assert (sample.memory.vsize, sample.memory.rss) == (46755840, 449)
    assert (sample.memory.tsize, sample.memory.dsize, sample.memory.ssize) == (5, 2138, 2138)
    assert sample.memory.runtime == 579 * 1_000_000 // TICKS
    assert sample.memory.start == Timeval(1_750_000_000, 123_456)
    assert start_ticks(octets) == 555


def test_a_tap_is_seen_from_the_host() -> None:
    counters = Counters(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    link = Link(3, "vmmtap0", 0x1003, 1500, b"", 0, "tun", "", counters)
    octets = ProcessOctets(STAT, b"1 2 3 4 5 6 7", STATUS, 0)
    first, second = statistics(octets, [("a", link), ("b", link)]).interfaces
    assert (first.name, second.name) == ("b", "a")  # as Albatross orders them
    assert second == InterfaceStats(
        name="a",
        flags=0x1003,
        send_length=0,
        max_send_length=0,
        send_drops=0,
        mtu=1500,
        baudrate=0,
        input_packets=1,
        input_errors=5,
        output_packets=2,
        output_errors=6,
        collisions=10,
        input_bytes=3,
        output_bytes=4,
        input_mcast=9,
        output_mcast=0,
        input_dropped=7,
        output_dropped=8,
    )


@pytest.mark.parametrize(
    ("stat", "statm"),
    [
        (b"", b"1 2 3 4 5 6 7"),
        (b"1 (x) S 1 2", b"1 2 3 4 5 6 7"),
        (STAT, b"1 2"),
        (STAT.replace(b"77", b"x"), b"1 " * 7),
    ],
)
def test_files_that_are_not_as_expected_are_no_process(stat: bytes, statm: bytes) -> None:
    with pytest.raises(NoProcess):
        statistics(ProcessOctets(stat, statm, STATUS, 0), ())


def test_a_sample_agrees_with_what_the_kernel_tells_the_process_itself() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF)
    sample = statistics(read_process(os.getpid()), ())
    after = resource.getrusage(resource.RUSAGE_SELF)
    tick = 1.5 / TICKS
    for ours, least, most in (
        (sample.usage.utime, before.ru_utime, after.ru_utime),
        (sample.usage.stime, before.ru_stime, after.ru_stime),
    ):
        assert least - tick <= ours.seconds + ours.microseconds / 1e6 <= most + tick
    assert before.ru_minflt <= sample.usage.minflt <= after.ru_minflt
    assert sample.memory is not None
    assert 0 < time.time() - sample.memory.start.seconds < 86400 * 365
    assert sample.memory.rss > 100


def test_a_process_that_is_gone_is_no_process() -> None:
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    with pytest.raises(NoProcess, match="no such file"):
        read_process(process.pid)
