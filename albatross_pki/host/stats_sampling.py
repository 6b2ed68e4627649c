"""What a process and its taps have used, from ``/proc`` and netlink, as AV5 tells it.

Reading is one function, what the octets mean another, pure one. Fields without a source on Linux are 0; ``maxrss``,
``rss`` and the sizes of text and data are in pages, ``vsize`` in octets, ``runtime`` in microseconds, as Albatross has
them on Linux. A tap is seen from the host: what it received is what the unikernel sent.

Sources: proc_pid_stat(5), proc_pid_statm(5), proc_pid_status(5).
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from albatross_pki.errors import AlbatrossError
from albatross_pki.host.network_links import Link
from albatross_pki.replies import InterfaceStats, ProcessMemory, ResourceUsage, Statistics, Timeval

TICKS = os.sysconf("SC_CLK_TCK")
_MICRO = 1_000_000
_LARGEST = 1 << 16  # octets of one file in /proc; they are a few hundred


class NoProcess(AlbatrossError):
    """The process is gone, or is not the one that was meant."""


@dataclass(frozen=True, slots=True)
class ProcessOctets:
    """The files of one process as they were read, and when it was started, in nanoseconds since 1970."""

    stat: bytes
    statm: bytes
    status: bytes
    started: int


def read_process(pid: int) -> ProcessOctets:
    """Read ``/proc/pid``; raises ``NoProcess``."""
    directory = f"/proc/{pid}"
    try:
        stat, statm, status = (_read(f"{directory}/{name}") for name in ("stat", "statm", "status"))
        return ProcessOctets(stat, statm, status, os.stat(directory).st_ctime_ns)
    except OSError as error:
        raise NoProcess(f"process {pid}: {(error.strerror or str(error)).lower()}") from error


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _LARGEST)
    finally:
        os.close(descriptor)


def start_ticks(octets: ProcessOctets) -> int:
    """When the process began, in ticks since boot: with its pid this says which process it is."""
    return _stat_fields(octets.stat)[19]


def statistics(octets: ProcessOctets, interfaces: Sequence[tuple[str, Link]]) -> Statistics:
    """One sample; ``interfaces`` are the unikernel's names of its devices and their taps. Raises ``NoProcess``."""
    fields = _stat_fields(octets.stat)
    pages = _numbers(octets.statm)
    if len(pages) < 7:
        raise NoProcess("statm has too few numbers")
    minflt, majflt, utime, stime, vsize, rss, nswap = (fields[index] for index in (7, 9, 11, 12, 20, 21, 33))
    usage = ResourceUsage(
        utime=_timeval(utime),
        stime=_timeval(stime),
        maxrss=rss,
        ixrss=0,
        idrss=0,
        isrss=0,
        minflt=minflt,
        majflt=majflt,
        nswap=nswap,
        inblock=0,
        outblock=0,
        msgsnd=0,
        msgrcv=0,
        nsignals=0,
        nvcsw=_after(octets.status, b"\nvoluntary_ctxt_switches:"),
        nivcsw=_after(octets.status, b"\nnonvoluntary_ctxt_switches:"),
    )
    memory = ProcessMemory(
        vsize=vsize,
        rss=rss,
        tsize=pages[3],
        dsize=pages[5],
        ssize=pages[5],
        runtime=(utime + stime) * _MICRO // TICKS,
        cow=0,
        start=Timeval(*divmod(octets.started // 1000, _MICRO)),
    )
    return Statistics(usage, tuple(_interface(name, link) for name, link in reversed(interfaces)), memory=memory)


def _stat_fields(stat: bytes) -> list[int]:
    """The numbers from the third field on, index 0; the second is a name that may hold blanks and parentheses."""
    _, _, rest = stat.rpartition(b")")
    numbers = _numbers(rest.strip()[1:])  # the third field is a letter
    if len(numbers) < 49:
        raise NoProcess("stat has too few fields")
    return [0, *numbers]


def _numbers(octets: bytes) -> list[int]:
    try:
        return [int(word) for word in octets.split()]
    except ValueError as error:
        raise NoProcess("a file in /proc is not as expected") from error


def _timeval(ticks: int) -> Timeval:
    seconds, rest = divmod(ticks, TICKS)
    return Timeval(seconds, rest * _MICRO // TICKS)


def _after(octets: bytes, label: bytes) -> int:
    """The number behind a label, 0 if it is not there."""
    _, _, rest = octets.partition(label)
    word = rest[:32].split(None, 1)
    return int(word[0]) if word and word[0].isdigit() else 0


def _interface(name: str, link: Link) -> InterfaceStats:
    counters = link.counters
    if counters is None:
        raise NoProcess(f"{link.name} has no counters")
    return InterfaceStats(
        name=name,
        flags=link.flags,
        send_length=0,
        max_send_length=0,
        send_drops=0,
        mtu=link.mtu,
        baudrate=0,
        input_packets=counters.rx_packets,
        input_errors=counters.rx_errors,
        output_packets=counters.tx_packets,
        output_errors=counters.tx_errors,
        collisions=counters.collisions,
        input_bytes=counters.rx_bytes,
        output_bytes=counters.tx_bytes,
        input_mcast=counters.multicast,
        output_mcast=0,
        input_dropped=counters.rx_dropped,
        output_dropped=counters.tx_dropped,
    )
