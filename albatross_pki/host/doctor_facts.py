"""The machine as ``doctor`` judges it: everything is looked up, nothing is changed. See ``doctor.Facts``.

Whether somebody listens is found out by connecting, for which systemd starts a daemon that does not run yet.
"""

import contextlib
import ctypes
import grp
import os
import platform
import pwd
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from albatross_pki.daemon_log import DEFAULT_TMPDIR
from albatross_pki.errors import AlbatrossError
from albatross_pki.host.doctor import GROUPS, TENDER_ABI, USERS, DiskFact, Facts, KvmFact, SocketFact, TenderFact
from albatross_pki.host.limits import MEBIBYTE
from albatross_pki.host.ownership import ForeignFile, check_owned
from albatross_pki.host.tenders import told_version
from albatross_pki.text import printable

DEFAULT_DBDIR = "/var/lib/albatross" if sys.platform == "linux" else "/var/db/albatross"
KEPT_CGROUP = "/sys/fs/cgroup/albatross.slice/albatross-unikernels.service"  # packaging/systemd
SOCKETS = (  # file, program, what makes it, whether it is for people too
    ("console.sock", "albatross-console", "albatross-console.socket", True),
    ("vmmd.sock", "albatrossd", "albatrossd.socket", True),
    ("extended.sock", "albatrossd, authorised requests", "albatrossd-extended.socket", True),
    ("authorise.sock", "albatross-authorise", "albatross-authorise.socket", False),
)
_KVM, _TUN = "/dev/kvm", "/dev/net/tun"
_FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
_MODULES = {"vmx": "kvm_intel", "svm": "kvm_amd"}
_TIMEX_OCTETS = 512  # struct timex has 208 on Linux with 64 bits
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


def gather(directory: str | None = None) -> Facts:
    """Look at everything; ``directory`` is one of ``albatross-host``, without it the host of this machine."""
    tmpdir, dbdir = DEFAULT_TMPDIR, DEFAULT_DBDIR
    if directory is not None:
        directory = os.path.abspath(directory)
        tmpdir, dbdir = os.path.join(directory, "run"), os.path.join(directory, "db")
    users = frozenset(each for each in USERS if _known(pwd.getpwnam, each))
    installed = directory is None and len(users) == len(USERS) and os.path.isdir(os.path.join(tmpdir, "util"))
    cpuinfo = _read("/proc/cpuinfo") or ""
    return Facts(
        python=(sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        openssl=_openssl(),
        root=os.geteuid() == 0,
        user=_own_name(),
        machine=platform.machine(),
        tenders=tuple(_tender(name, dbdir) for name in TENDER_ABI),
        kvm=_kvm(),
        virtualisation=next((module for flag, module in _MODULES.items() if f" {flag} " in cpuinfo), None),
        memfd_noexec=_read("/proc/sys/vm/memfd_noexec") == "2",
        tun=sys.platform != "linux" or os.path.exists(_TUN),
        cgroups=_cgroups(installed),
        large_certificates=_certificate_lists(),
        bridges=_bridges(),
        forwarding=tuple(_forwarding()),
        groups=frozenset(each for each in GROUPS if _known(grp.getgrnam, each)),
        users=users,
        own_groups=frozenset(_own_groups()),
        installed=installed,
        directory=directory,
        sockets=tuple(_sockets(tmpdir)) if directory is not None or installed else (),
        now=datetime.now(UTC),
        synchronised=_synchronised(),
        disk=_disk(dbdir),
    )


def _openssl() -> str:
    import ssl

    return ssl.OPENSSL_VERSION


def _own_name() -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_name
    return str(os.geteuid())


def _own_groups() -> Iterator[str]:
    for number in {os.getegid(), *os.getgroups()}:
        with contextlib.suppress(KeyError):
            yield grp.getgrgid(number).gr_name


def _known(look_up: object, name: str) -> bool:
    try:
        look_up(name)  # type: ignore[operator]
    except KeyError:
        return False
    return True


def _tender(name: str, dbdir: str) -> TenderFact:
    """As albatrossd looks for one: by ABI version, then by name, in its state directory, then in PATH."""
    for candidate in (f"{name}.{TENDER_ABI[name]}", name):
        own = os.path.join(dbdir, candidate)
        path = own if os.path.isfile(own) and os.access(own, os.X_OK) else shutil.which(candidate)
        if path is None:
            continue
        try:  # it is about to be executed, as root perhaps; who owns a directory can put another one there
            for each in (path, *((dbdir, os.path.dirname(dbdir)) if path == own else ())):
                check_owned(each)
        except (ForeignFile, OSError) as error:
            return TenderFact(name, path, trouble=f"it was not asked, {printable(str(error), 200)}")
        return _asked(name, path)
    return TenderFact(name)


def _asked(name: str, path: str) -> TenderFact:
    try:
        version, output, status = told_version(path)
    except (OSError, subprocess.TimeoutExpired) as error:
        return TenderFact(name, path, trouble=printable(str(error), 200))
    if version is None:
        return TenderFact(name, path, trouble=printable(output.strip() or f"exit status {status}", 200))
    return TenderFact(name, path, abi=version)


def _kvm() -> KvmFact | None:
    try:
        status = os.stat(_KVM)
    except OSError:
        return None
    group = str(status.st_gid)
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(status.st_gid).gr_name
    usable = os.access(_KVM, os.R_OK | os.W_OK)
    return KvmFact(group, status.st_gid, stat.S_IMODE(status.st_mode), usable)


def _cgroups(installed: bool) -> str | None:
    if not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return "no cgroup v2"
    if installed:
        return None if os.path.isdir(KEPT_CGROUP) else f"{KEPT_CGROUP} is not there"
    own = (_read("/proc/self/cgroup") or "").partition("::")[2]
    return None if os.access(f"/sys/fs/cgroup{own}", os.W_OK) else f"none may be made below {own or '/'}"


def _certificate_lists() -> bool:
    import ssl

    from albatross_pki.transport.openssl import raise_certificate_list_limit

    return bool(raise_certificate_list_limit(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), 1 << 20))


def _bridges() -> frozenset[str] | None:
    from albatross_pki.host.network import NoNetwork

    with contextlib.suppress(AlbatrossError, OSError):
        return frozenset(NoNetwork().bridges())
    return None


def _forwarding() -> Iterator[tuple[str, bool]]:
    for name in _FORWARDING:
        value = _read("/proc/sys/" + name.replace(".", "/"))
        if value is not None:
            yield name, value != "0"


def _sockets(tmpdir: str) -> Iterator[SocketFact]:
    for name, program, unit, people in SOCKETS:
        path = os.path.join(tmpdir, "util", name)
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except OSError:
            yield SocketFact(path, program, unit)
            continue
        answers, denied = _answers(path)
        yield SocketFact(path, program, unit, exists=True, answers=answers, denied=denied, mode=mode, people=people)


def _answers(path: str) -> tuple[bool, bool]:
    """Whether somebody listens at ``path``, and whether we may not know."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except PermissionError:
            return False, True
        except OSError:
            return False, False
    return True, False


def _synchronised() -> bool | None:
    """Whether the kernel says that somebody keeps the clock right: adjtimex(2) with nothing to change."""
    if sys.platform != "linux":
        return None
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_OCTETS))
    return None if state < 0 else bool(state != _TIME_ERROR)


def _disk(dbdir: str) -> DiskFact | None:
    place = dbdir
    while not os.path.isdir(place):  # not made yet: where it will be
        place = os.path.dirname(place)
    try:
        system, status = os.statvfs(place), os.stat(place)
    except OSError:
        return None
    foreign = None
    if place == dbdir:
        if status.st_uid not in (0, os.geteuid()):
            foreign = f"belongs to user {status.st_uid}"
        elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            foreign = "can be written by others"
    return DiskFact(
        path=place,
        free_mb=system.f_bavail * system.f_frsize // MEBIBYTE,
        total_mb=system.f_blocks * system.f_frsize // MEBIBYTE,
        free_inodes=system.f_ffree if system.f_files else None,
        foreign=foreign,
    )


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None
