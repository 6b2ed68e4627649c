"""What this machine offers to a host, what is missing, and the command that mends it: pure judgements of ``Facts``.

``doctor_facts.gather`` looks, and changes nothing; ``examine`` judges in the order in which findings are shown:

1. the ground: Python and its OpenSSL, the user, whether programs are kept apart by users;
2. what runs images: tenders with their ABI, the embedded one, KVM, cgroups;
3. what they are given: bridges, forwarding, the disk;
4. the host itself: users and groups, its sockets, the clock that certificates are judged by.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from albatross_pki.host.limits import DISK_RESERVE, MEBIBYTE

TENDER_ABI = {"solo5-hvt": 2, "solo5-spt": 2}  # what MirageOS 4 builds images for (Solo5 from 0.9)
EMBEDDED_MACHINES = ("x86_64", "aarch64")
LITTLE_MB = 1024  # free space that a few images and their successors need
GROUPS = ("albatross", "albatross-watch")
USERS = ("albatross-console", "albatross-stats", "albatross-influx", "albatross-authorise", "albatross-tls")
BUILD_SOLO5 = "git clone https://github.com/Solo5/solo5 && cd solo5 && ./configure.sh && make && make install"
SYSUSERS = "systemd-sysusers albatross.conf"  # of packaging/systemd
OLDEST_CLOCK = datetime(2024, 1, 1, tzinfo=UTC)  # this program is younger
OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: whether it is as it should be, what follows if not, and what to type then."""

    subject: str
    good: bool
    text: str
    mend: str | None = None


@dataclass(frozen=True, slots=True)
class TenderFact:
    """A tender by its name; ``abi`` is the version that it says it has, or ``trouble`` why it says none."""

    name: str
    path: str | None = None
    abi: int | None = None
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class KvmFact:
    """/dev/kvm: its group's number and name, its permission bits, and whether we may use it."""

    group: str
    group_id: int
    mode: int
    usable: bool


@dataclass(frozen=True, slots=True)
class SocketFact:
    """A socket of the host: whether its file is there, whether somebody answers, or that we may not ask.

    ``people``: whether there are people who may, and not programs alone.
    """

    path: str
    program: str
    unit: str
    exists: bool = False
    answers: bool = False
    denied: bool = False
    mode: int = 0
    people: bool = True


@dataclass(frozen=True, slots=True)
class DiskFact:
    """The file system of the state: megabytes, inodes, and who could write to the directory."""

    path: str
    free_mb: int
    total_mb: int
    free_inodes: int | None
    foreign: str | None = None  # why its owner or mode is wrong, None if they are right


@dataclass(frozen=True, slots=True)
class Facts:
    """A machine as it was found. ``None``: it could not be found out, or does not apply."""

    python: tuple[int, int, int]
    openssl: str
    root: bool
    user: str
    machine: str
    tenders: tuple[TenderFact, ...]
    kvm: KvmFact | None
    virtualisation: str | None  # the module that this processor needs: kvm_intel, kvm_amd
    memfd_noexec: bool
    tun: bool
    cgroups: str | None  # why there are none for unikernels, None if there are
    large_certificates: bool
    bridges: frozenset[str] | None
    forwarding: tuple[tuple[str, bool], ...]  # (sysctl, whether it is on)
    groups: frozenset[str]  # those of ours that there are
    users: frozenset[str]
    own_groups: frozenset[str]
    installed: bool  # as a server, with users of its own
    directory: str | None  # of albatross-host
    sockets: tuple[SocketFact, ...]
    now: datetime
    synchronised: bool | None
    disk: DiskFact | None


def examine(facts: Facts) -> list[Finding]:
    """Everything worth knowing, in order."""
    return [
        _python(facts),
        _user(facts),
        _separation(facts),
        *(_tender(tender) for tender in facts.tenders),
        _embedded_tender(facts),
        _kvm(facts),
        _cgroups(facts),
        _certificate_lists(facts),
        *_networks(facts),
        *_disk(facts),
        *_groups(facts),
        *(_socket(each, facts) for each in facts.sockets),
        _clock(facts),
    ]


def mends(findings: Sequence[Finding]) -> list[str]:
    """The commands of all findings, each once, in order."""
    return list(dict.fromkeys(each.mend for each in findings if each.mend is not None))


def _python(facts: Facts) -> Finding:
    version = ".".join(map(str, facts.python))
    if facts.python[:2] >= OLDEST_PYTHON:
        return Finding("python", True, f"{version}, {facts.openssl}")
    needed = ".".join(map(str, OLDEST_PYTHON))
    return Finding("python", False, f"{version} is older than {needed}", f"apt install python{needed}")


def _user(facts: Facts) -> Finding:
    if facts.root:
        return Finding("user", True, "root: unikernels get users of their own")
    return Finding(
        "user",
        False,
        "not root: directories of root's own, a user per unikernel (P18 in part, P19, P33) are not in force; "
        "no bridges and taps",
        "sudo albatross-host doctor" + (f" {facts.directory}" if facts.directory else ""),
    )


def _separation(facts: Facts) -> Finding:
    if facts.installed:
        return Finding("separation", True, "every program has a user of its own")
    if facts.root:
        return Finding("separation", True, "albatross-host, as root, gives every program a user of its own")
    return Finding(
        "separation",
        False,
        "without root, albatross-host runs all programs as one user: what P37 needs of users is not in force",
    )


def _tender(tender: TenderFact) -> Finding:
    wanted = TENDER_ABI[tender.name]
    if tender.path is None:
        if tender.name == "solo5-spt":
            return Finding(tender.name, True, "not installed, the embedded tender takes its place")
        text = "not installed: images for hvt cannot run (Debian has no package; it is built from the sources)"
        return Finding(tender.name, False, text, BUILD_SOLO5)
    if tender.abi is None:
        text = f"{tender.path} says no ABI version: {tender.trouble}"
        return Finding(tender.name, False, text, f"{tender.path} --version")
    if tender.abi != wanted:
        text = f"{tender.path} has ABI version {tender.abi}; images of today need {wanted}, as {tender.name}.{wanted}"
        return Finding(tender.name, False, text, BUILD_SOLO5)
    return Finding(tender.name, True, f"{tender.path}, ABI version {tender.abi}")


def _embedded_tender(facts: Facts) -> Finding:
    if facts.machine not in EMBEDDED_MACHINES:
        text = f"not for {facts.machine}, only for {' and '.join(EMBEDDED_MACHINES)}"
        return Finding("embedded tender", False, text)
    if facts.memfd_noexec:
        text = "the kernel forbids to execute memfds (sysctl vm.memfd_noexec=2)"
        return Finding("embedded tender", False, text, "sysctl -w vm.memfd_noexec=1")
    return Finding("embedded tender", True, f"spt for {facts.machine}, ABI version 2")


def _kvm(facts: Facts) -> Finding:
    kvm = facts.kvm
    if kvm is None:
        if facts.virtualisation is None:
            text = "/dev/kvm is not there, nor virtualisation in this processor, unless it is off in the firmware"
            return Finding("kvm", False, f"{text}: hvt images cannot run, build for spt")
        mend = f"modprobe {facts.virtualisation}"
        return Finding("kvm", False, "/dev/kvm is not there: hvt images cannot run", mend)
    shared = kvm.mode & 0o006 == 0o006 or (kvm.mode & 0o060 == 0o060 and kvm.group_id != 0)
    if not shared:  # root may use it, the users of unikernels may not
        text = "/dev/kvm is for root alone, and unikernels do not run as root: hvt images cannot run"
        return Finding("kvm", False, text, "chgrp kvm /dev/kvm && chmod 0660 /dev/kvm")
    if not kvm.usable:
        text = f"/dev/kvm may not be used by {facts.user}: hvt images cannot run"
        return Finding("kvm", False, text, f"usermod -aG {kvm.group} {facts.user}")
    return Finding("kvm", True, "/dev/kvm may be used")


def _cgroups(facts: Facts) -> Finding:
    if facts.cgroups is None:
        return Finding("cgroups", True, "unikernels are bounded by them")
    text = f"{facts.cgroups}: memory and weight of unikernels are bounded by rlimits alone"
    mend = "systemctl start albatross-unikernels albatrossd" if facts.installed else None
    return Finding("cgroups", False, text, mend)


def _certificate_lists(facts: Facts) -> Finding:
    text = "can be raised" if facts.large_certificates else "stay at 100 kB with this OpenSSL: images must be streamed"
    return Finding("large certificates", facts.large_certificates, text)


def _networks(facts: Facts) -> Iterator[Finding]:
    if not facts.tun:
        yield Finding("taps", False, "/dev/net/tun is not there: no networks for unikernels", "modprobe tun")
    if facts.bridges is None:
        yield Finding("bridges", False, "cannot be listed on this system")
        return
    if not facts.bridges:
        yield Finding(
            "bridges",
            False,
            "there is none: unikernels with networks cannot run",
            "albatross-host bridge add service --address 10.0.0.1/24 --nat",
        )
        return
    yield Finding("bridges", True, ", ".join(sorted(facts.bridges)))
    off = [name for name, on in facts.forwarding if not on]
    if not off or len(off) < len(facts.forwarding):  # one family of addresses may be all that is wanted
        yield Finding("forwarding", True, "is on" + (f", but for {', '.join(off)}" if off else ""))
        return
    text = f"is off: unikernels reach no network but their bridge ({', '.join(off)})"
    yield Finding("forwarding", False, text, f"sysctl -w {' '.join(f'{each}=1' for each in off)}")


def _disk(facts: Facts) -> Iterator[Finding]:
    disk = facts.disk
    if disk is None:
        return
    free = f"{disk.free_mb} of {disk.total_mb} MB free at {disk.path}"
    look = f"du -xsm {disk.path}/*"
    reserve = DISK_RESERVE // MEBIBYTE
    if disk.free_mb <= reserve:
        yield Finding("disk", False, f"{free}: nothing can be deployed, {reserve} MB stay free", look)
    elif disk.free_mb < LITTLE_MB:
        yield Finding("disk", False, f"{free}: little for images and their successors", look)
    elif disk.free_inodes == 0:
        yield Finding("disk", False, f"no inode is free at {disk.path}: no file can be made", look)
    else:
        yield Finding("disk", True, free)
    if disk.foreign is not None:
        text = f"{disk.path} {disk.foreign}: P19 is not in force"
        owner = "root" if facts.root else facts.user
        yield Finding("state directory", False, text, f"chown {owner}: {disk.path} && chmod 0700 {disk.path}")


def _groups(facts: Facts) -> Iterator[Finding]:
    if facts.directory is not None and not facts.installed:
        return
    missing = [each for each in (*GROUPS, *USERS) if each not in facts.groups | facts.users]
    if missing:
        yield Finding("groups", False, f"there is no {', '.join(missing)}", SYSUSERS)
    elif not facts.root and "albatross" not in facts.own_groups:
        text = f"{facts.user} is not in the group albatross, and may not use albatross-client-local here"
        yield Finding("groups", False, text, f"usermod -aG albatross,albatross-watch {facts.user}")
    else:
        yield Finding("groups", True, "users and groups of the host are there")


def _socket(each: SocketFact, facts: Facts) -> Finding:
    restart = f"systemctl restart {each.unit}"
    if facts.directory is not None:
        restart = f"albatross-host start {facts.directory}"
    if each.exists and each.mode & 0o002 and facts.directory is None:
        return Finding(each.program, False, f"anybody may connect to {each.path}", restart)
    if each.answers:
        return Finding(each.program, True, "listens")
    if each.denied and not each.people:
        return Finding(each.program, True, "is there, for programs alone")
    if each.denied:
        text = f"{facts.user} may not connect to {each.path}"
        return Finding(each.program, False, text, f"usermod -aG albatross,albatross-watch {facts.user}")
    return Finding(each.program, False, f"does not listen on {each.path}", restart)


def _clock(facts: Facts) -> Finding:
    now = facts.now.strftime("%Y-%m-%d %H:%M:%S UTC")
    if facts.now < OLDEST_CLOCK:
        text = f"{now} was before this program: every certificate is refused as not valid yet"
        return Finding("clock", False, text, "timedatectl set-ntp true")
    if facts.synchronised is False:
        text = f"{now}, not kept right by anybody: certificates and lists are judged by it"
        return Finding("clock", False, text, "timedatectl set-ntp true")
    return Finding("clock", True, now)
