"""What this machine offers to a host, and which promises are not in force on it.

Each finding is looked up, nothing is changed. ``examine`` returns them in the order in which they are shown; what
they are compared with stands beside each.
"""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

TENDERS = ("solo5-hvt", "solo5-spt")
EMBEDDED_MACHINES = ("x86_64", "aarch64")
_MEMFD_NOEXEC = "/proc/sys/vm/memfd_noexec"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: whether it is as it should be, and what follows if it is not."""

    subject: str
    good: bool
    text: str


def examine(directory: str | None = None) -> Iterator[Finding]:
    """Everything worth knowing before a host is run, or while one runs in ``directory``."""
    yield _python()
    yield _user()
    yield Finding(
        "separation",
        False,
        "albatross-host runs all programs as one user: what P37 needs of users is in force only where endpoint and "
        "authoriser are started with users of their own (--user)",
    )
    yield from _tenders()
    yield _embedded_tender()
    yield _kvm()
    yield _cgroups()
    yield _certificate_lists()
    if directory is not None:
        yield from _listening(directory)


def _python() -> Finding:
    import ssl

    return Finding("python", sys.version_info >= (3, 11), f"{platform.python_version()}, {ssl.OPENSSL_VERSION}")


def _user() -> Finding:
    if os.geteuid() == 0:
        return Finding("user", True, "root: unikernels get users of their own")
    return Finding(
        "user",
        False,
        "not root: directories of root's own, a user per unikernel (P18 in part, P19, P33) are not in force; "
        "no bridges and taps",
    )


def _tenders() -> Iterator[Finding]:
    for tender in TENDERS:
        found = shutil.which(tender)
        if found:
            yield Finding(tender, True, found)
        elif tender == "solo5-hvt":
            yield Finding(tender, False, "not installed: images for hvt cannot run (Debian: see https://solo5.org)")
        else:
            yield Finding(tender, True, "not installed, the embedded tender takes its place")


def _embedded_tender() -> Finding:
    machine = platform.machine()
    if machine not in EMBEDDED_MACHINES:
        return Finding("embedded tender", False, f"not for {machine}, only for {' and '.join(EMBEDDED_MACHINES)}")
    if _read(_MEMFD_NOEXEC) == "2":
        return Finding("embedded tender", False, "the kernel forbids to execute memfds (sysctl vm.memfd_noexec=2)")
    return Finding("embedded tender", True, f"spt for {machine}")


def _kvm() -> Finding:
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        return Finding("kvm", True, "/dev/kvm may be used")
    there = os.path.exists("/dev/kvm")
    return Finding("kvm", False, f"/dev/kvm {'may not be used' if there else 'is not there'}: hvt images cannot run")


def _cgroups() -> Finding:
    if not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return Finding("cgroups", False, "no cgroup v2: memory and weight of unikernels are bounded by rlimits alone")
    own = (_read("/proc/self/cgroup") or "").partition("::")[2]
    if os.access(f"/sys/fs/cgroup{own}", os.W_OK):
        return Finding("cgroups", True, f"may be made below {own or '/'}")
    return Finding("cgroups", False, f"may not be made below {own or '/'}: unikernels are bounded by rlimits alone")


def _certificate_lists() -> Finding:
    import ssl

    from albatross_pki.transport.openssl import raise_certificate_list_limit

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    raised = raise_certificate_list_limit(context, 1 << 20)
    text = "can be raised" if raised else "stay at 100 kB with this OpenSSL: images must be streamed"
    return Finding("large certificates", bool(raised), text)


def _listening(directory: str) -> Iterator[Finding]:
    from albatross_pki.host.ensemble import Listening

    util = os.path.join(os.path.abspath(directory), "run", "util")
    for name, word in (
        ("console.sock", "albatross-console"),
        ("vmmd.sock", "albatrossd"),
        ("extended.sock", "albatrossd, authorised requests"),
        ("authorise.sock", "albatross-authorise"),
    ):
        answers = Listening(os.path.join(util, name)).answers()
        yield Finding(word, answers, "listens" if answers else f"does not listen on {os.path.join(util, name)}")


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return None
