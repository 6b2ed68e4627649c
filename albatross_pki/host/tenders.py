"""Which tender runs an image, and starting it.

For an image with ABI version V the candidates are ``solo5-hvt.V``, then ``solo5-hvt`` (or ``solo5-spt``), each first
in the state directory, then in PATH; the first one found is asked for its ``--version``, once for each file, and must
know ABI version V. Where no ``solo5-spt`` is installed, the embedded tender runs images for ``spt``. ``hvt`` has no
such way out: the refusal says how to get ``solo5-hvt``.

``embedded`` and ``installed`` make a ``Starter``: everything that can fail is done when it is made, ``start`` only
makes the process.
"""

import asyncio
import fcntl
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from albatross_pki.errors import AlbatrossError
from albatross_pki.host.cgroups import enter
from albatross_pki.host.limits import VERSION_OUTPUT, VERSION_TIMEOUT
from albatross_pki.host.ownership import check_owned
from albatross_pki.host.spt.attached import AttachedBlock, AttachedDevice, AttachedNet, Confinement
from albatross_pki.image.solo5 import Abi, Solo5Image, Target
from albatross_pki.text import printable
from albatross_pki.unikernels import Settings

EMBEDDED = "embedded spt"
EMBEDDED_ABI = Abi(Target.SPT, 2)
KVM = "/dev/kvm"
TUN = "/dev/net/tun"  # by udev's rules everybody may open it: what it gives depends on the interface's owner
_NO_KVM = "hvt needs KVM: enable it on this machine, or build the unikernel for spt"
_VERSION = re.compile(r"^ABI version ([0-9]{1,9})$", re.MULTILINE)
_LOOK_AGAIN = 1.0  # seconds
_NAMES = {Target.HVT: "solo5-hvt", Target.SPT: "solo5-spt"}
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class NoTender(AlbatrossError):
    """Nothing on this host can run the image."""


@dataclass(frozen=True, slots=True)
class Tender:
    """``path`` is the program, ``None`` for the embedded tender; ``word`` is what people are told."""

    word: str
    abi: Abi
    path: str | None = None


class Starter(Protocol):
    """A unikernel that is ready to start."""

    def start(self, console: int) -> int:
        """Make the process, with ``console`` as its output, and return its pid."""

    def close(self) -> None:
        """Let go of what the start needed."""


class Tenders:
    """The tenders of this host; ``directory`` is looked at before PATH."""

    def __init__(self, directory: str, search_path: str | None = None, *, embedded: bool = True) -> None:
        self._embedded = embedded
        self._directory = directory
        self._search_path = search_path
        self._places: dict[str, tuple[float, str | None]] = {}
        self._versions: dict[tuple[str, int, int], int] = {}

    async def choose(self, abi: Abi) -> Tender:
        """The tender for ``abi``; raises ``NoTender``."""
        if abi.target not in _NAMES:
            raise NoTender(
                f"unsupported solo5 target {abi.target.name.lower()}", hint="build the unikernel for hvt or spt"
            )
        candidates = self._candidates(abi)
        path = next((found for candidate in candidates if (found := self._find(candidate))), None)
        if path is None:
            if self._embedded and abi == EMBEDDED_ABI:
                return Tender(EMBEDDED, abi)
            raise NoTender(_nothing_found(self._directory, candidates), hint=_hint(abi))
        version = await self._version(path)
        if version != abi.version:
            raise NoTender(
                f"{path} knows ABI version {version}, the image needs {abi.version}",
                hint=f"install a {_NAMES[abi.target]} for ABI version {abi.version} as {candidates[0]}",
            )
        return Tender(os.path.basename(path), abi, path)

    def installed(self) -> tuple[str, ...]:
        """The paths of all tenders found now, for people; the versions are not asked for."""
        names = [name for target in _NAMES for name in self._candidates(Abi(target, 2))]
        return tuple(found for name in names if (found := self._find(name)))

    def _candidates(self, abi: Abi) -> tuple[str, str]:
        base = _NAMES[abi.target]
        return f"{base}.{abi.version}", base

    def _find(self, name: str) -> str | None:
        """Where ``name`` is; looked up at most once a second, because a start of many asks for each."""
        now = time.monotonic()
        if name not in self._places or now - self._places[name][0] > _LOOK_AGAIN:
            self._places[name] = (now, self._look_for(name))
        return self._places[name][1]

    def _look_for(self, name: str) -> str | None:
        own = os.path.join(self._directory, name)
        if os.path.isfile(own) and os.access(own, os.X_OK):
            return own
        return shutil.which(name, path=self._search_path)

    async def _version(self, path: str) -> int:
        check_owned(path)  # it is about to be executed by this daemon
        status = os.stat(path)
        key = (path, status.st_ino, status.st_mtime_ns)
        if key not in self._versions:
            self._versions[key] = await asyncio.to_thread(_ask_version, path)
        return self._versions[key]


def told_version(path: str) -> tuple[int | None, str, int]:
    """What the tender at ``path`` says of itself: its ABI version (``None``: it names none), output, and exit status.

    Raises ``OSError`` if it cannot be executed, ``subprocess.TimeoutExpired`` if it does not end.
    """
    asked = subprocess.run(
        [path, "--version"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=VERSION_TIMEOUT,
        check=False,
        env={},
    )
    output = asked.stdout[:VERSION_OUTPUT].decode("utf-8", "replace")
    found = _VERSION.search(output)
    return None if asked.returncode or found is None else int(found[1]), output, asked.returncode


def _ask_version(path: str) -> int:
    try:
        version, output, status = told_version(path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoTender(f"{path} --version failed: {printable(str(error), 200)}") from error
    if version is None:
        raise NoTender(
            "unexpected solo5 tender --version output, expected one line with 'ABI version N', "
            f"got {printable(output, 200)} ({path}, exit {status})"
        )
    return version


def _nothing_found(directory: str, candidates: tuple[str, str]) -> str:
    looked = [place for name in candidates for place in (os.path.join(directory, name), name)]
    return f"tender does not exist, looked for {', '.join(looked)}"


def _hint(abi: Abi) -> str:
    if abi.target is Target.HVT:
        return (
            "install Solo5's solo5-hvt in PATH or the state directory (built from github.com/Solo5/solo5),"
            " or build the unikernel for spt"
        )
    return (
        f"the embedded tender knows spt ABI version {EMBEDDED_ABI.version}; rebuild the unikernel with a current Solo5"
    )


class _Embedded:
    def __init__(self, composed: int, devices: Sequence[AttachedDevice]) -> None:
        self._composed = composed
        self._devices = devices

    def start(self, console: int) -> int:
        from albatross_pki.host.spt.spawn import spawn

        return spawn(self._composed, console_fd=console, devices=self._devices)

    def close(self) -> None:
        os.close(self._composed)


def embedded(
    image: Solo5Image,
    octets: memoryview,
    settings: Settings,
    command_line: Sequence[bytes],
    devices: Sequence[AttachedDevice],
    confinement: Confinement,
) -> Starter:
    """Compose the unikernel for the embedded tender; raises ``AlbatrossError`` with every reason why it cannot run."""
    from albatross_pki.host.spt.compose import compose

    line = b" ".join(command_line)
    return _Embedded(compose(image, octets, settings.memory_mb, line, devices, confinement), devices)


class _Installed:
    def __init__(
        self,
        program: int,
        arguments: list[bytes],
        image: int,
        inherited: tuple[int, ...],
        confinement: Confinement,
        groups: Sequence[int],
    ) -> None:
        self._program = program
        self._arguments = arguments
        self._groups = groups
        self._image = image
        self._inherited = inherited
        self._confinement = confinement

    def start(self, console: int) -> int:
        """The daemon's thread takes on the unikernel's CPUs for the moment in which the child inherits them."""
        before = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, self._confinement.cpuids)
            pid = self._start(console)
        except OSError as error:
            raise AlbatrossError(f"cannot start the tender: {os.strerror(error.errno or 0).lower()}") from error
        finally:
            os.sched_setaffinity(0, before)
        self._enter_cgroup(pid)
        return pid

    def _enter_cgroup(self, pid: int) -> None:
        if self._confinement.cgroup is None:
            return
        try:
            enter(self._confinement.cgroup, pid)
        except AlbatrossError:
            os.kill(pid, signal.SIGKILL)  # our unreaped child: the number is its
            os.waitpid(pid, 0)
            raise

    def close(self) -> None:
        os.close(self._program)
        os.close(self._image)

    def _start(self, console: int) -> int:
        uid, gid = self._confinement.uid, self._confinement.gid
        made = subprocess.Popen(
            self._arguments,
            executable=f"/proc/self/fd/{self._program}",
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            pass_fds=self._inherited,
            env={},
            cwd="/",
            start_new_session=True,
            user=uid,
            group=uid if gid is None else gid,
            extra_groups=None if uid is None else self._groups,
        )
        pid = made.pid
        made.returncode = 0  # the pid is the caller's from here on: this object must not wait for it
        return pid


def installed(
    tender: Tender,
    octets: memoryview,
    settings: Settings,
    command_line: Sequence[bytes],
    devices: Sequence[tuple[AttachedDevice, str | None]],
    confinement: Confinement,
) -> Starter:
    """Make the command line of an installed tender. A tap is named by its interface, a block device by descriptor.

    The image is handed over as a sealed memory file: what the tender opens is what was checked. A tender opens block
    devices itself, so those become files of its user. Raises ``AlbatrossError`` if its user may not use what it needs.
    """
    if tender.path is None:
        raise TypeError("the embedded tender has no program")
    groups = [*_groups(tender, confinement), *_network_groups(confinement, any(name for _, name in devices))]
    for device, _ in devices:
        if isinstance(device, AttachedBlock) and confinement.uid is not None:
            _give(device, confinement.uid)
    program = _open_program(tender.path)
    try:
        image = _sealed(octets)
    except BaseException:
        os.close(program)
        raise
    options: list[str] = [f"--mem={settings.memory_mb}"]
    inherited = [image, program]
    for device, interface in devices:
        if isinstance(device, AttachedNet):
            options += [f"--net:{device.name}={interface}", f"--net-mac:{device.name}={device.mac.hex(':')}"]
        else:
            options.append(f"--block:{device.name}=/proc/self/fd/{device.descriptor}")
            options.append(f"--block-sector-size:{device.name}={device.sector_size}")
            inherited.append(device.descriptor)
    arguments = [os.fsencode(tender.path), *(option.encode() for option in options)]
    arguments += [b"--", f"/proc/self/fd/{image}".encode(), *command_line]
    return _Installed(program, arguments, image, tuple(inherited), confinement, groups)


def _open_program(path: str) -> int:
    """A tender is executed by descriptor, which it inherits: its user need not reach the directory where it lies."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NoTender(f"{path}: {os.strerror(error.errno or 0).lower()}") from error


def _give(device: AttachedBlock, uid: int) -> None:
    try:
        os.fchown(device.descriptor, uid, -1)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise AlbatrossError(f"block device '{device.name}' cannot be given to the tender's user: {reason}") from error


def _sealed(octets: memoryview) -> int:
    descriptor = os.memfd_create("unikernel image", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = octets
        while view:
            view = view[os.write(descriptor, view) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _groups(tender: Tender, confinement: Confinement) -> list[int]:
    """The groups of the tender's user: for hvt the one that may use /dev/kvm, which must not be root's."""
    if confinement.uid is None or tender.abi.target is not Target.HVT:
        return []
    hint = f"chgrp kvm {KVM} && chmod 0660 {KVM}"
    return _device_groups(KVM, hint, missing=_NO_KVM)


def _network_groups(confinement: Confinement, has_interfaces: bool) -> list[int]:
    """The groups of a tender's user that opens its taps by name: the one that may use /dev/net/tun."""
    if confinement.uid is None or not has_interfaces:
        return []
    return _device_groups(TUN, f"chmod 0666 {TUN}", missing="modprobe tun")


def _device_groups(path: str, hint: str, *, missing: str) -> list[int]:
    """The group by which a user of no other group may read and write a device, none if everybody may."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise NoTender(f"{path}: {os.strerror(error.errno or 0).lower()}", hint=missing) from error
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o006 == 0o006:
        return []
    if mode & 0o060 == 0o060 and status.st_gid:
        return [status.st_gid]
    raise NoTender(f"{path} is for root alone, and unikernels do not run as root", hint=hint)
