"""What a unikernel's process inherits: nothing but its console and its devices. As root also: another user."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from albatross_pki.host.spt.attached import AttachedBlock, Confinement
from albatross_pki.host.spt.compose import compose
from albatross_pki.host.spt.errors import CannotStart
from albatross_pki.host.spt.spawn import spawn
from albatross_pki.image.solo5 import parse_image
from tests.host.spt.conftest import Start, example, example_path
from tests.solo5_builder import EXIT_WITH_RESULT, LOAD_BYTE, build_image, call, load

UID, GID = 190123, 190124
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a unikernel a user of its own")


def descriptors(pid: int) -> dict[int, str]:
    directory = f"/proc/{pid}/fd"
    return {int(name): os.readlink(f"{directory}/{name}") for name in os.listdir(directory)}


def test_p33_no_descriptor_but_console_and_devices(start: Start, tmp_path: Path) -> None:
    secret, other = socket.socketpair()
    high = os.dup2(secret.fileno(), 700, inheritable=True)  # as a careless library might leave one
    os.set_inheritable(other.fileno(), True)
    disk = os.open(tmp_path / "disk", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.ftruncate(disk, 1 << 20)
    try:
        guest = start("block", "--wait", devices=[AttachedBlock("storage", disk, 1 << 20, 512)])
        guest.read_line()
        seen = descriptors(guest.pid)
    finally:
        os.close(high)
        os.close(disk)
        secret.close()
        other.close()
    assert sorted(seen) == [0, 1, 2, 3, 4, 5]
    assert seen[0] == "/dev/null"
    assert seen[1] == seen[2]
    assert seen[1].startswith("pipe:")
    assert seen[3] == str(tmp_path / "disk")
    assert (seen[4], seen[5]) == ("anon_inode:[eventpoll]", "anon_inode:[timerfd]")


def test_devices_whose_numbers_are_each_others_targets_are_not_mixed_up(machine_code: None, tmp_path: Path) -> None:
    names = [f"d{index}" for index in range(6)]
    octets = build_image(
        code=call(17, 8, 0x180000, 512, 0) + load("rax", 0x180000) + LOAD_BYTE + EXIT_WITH_RESULT,
        devices=[(name, "BLOCK_BASIC") for name in names],
    )
    files = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for name in names]
    for index, each in enumerate(files):
        os.write(each, bytes([index + 1]) * 512)
    for rotation in range(6):
        order = files[rotation:] + files[:rotation]  # whatever numbers they have, some rotation collides
        devices = [AttachedBlock(name, each, 512, 512) for name, each in zip(names, order, strict=True)]
        composed = compose(parse_image(octets), octets, 2, b"", devices, Confinement())
        pid = spawn(composed, console_fd=2, devices=devices)
        os.close(composed)
        expected = os.pread(order[5], 1, 0)[0]  # descriptor 8 is the last device
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == expected
    for each in files:
        os.close(each)


def test_no_signal_is_blocked_and_none_ignored_but_sigpipe(start: Start) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    handler = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        guest = start("hello")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGUSR2, handler)
    guest.read_line()
    state = guest.state()
    assert int(state["SigBlk"], 16) == 0
    of_the_c_library = 3 << 31  # 32 and 33: it keeps them for itself when it starts a process
    assert int(state["SigIgn"], 16) & ~of_the_c_library == 1 << (signal.SIGPIPE - 1)


def test_nothing_is_known_of_arguments_and_environment(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALBATROSS_SECRET", "hidden")
    guest = start("hello", "--key=secret")
    guest.read_line()
    assert Path(f"/proc/{guest.pid}/cmdline").read_bytes() == b""
    assert Path(f"/proc/{guest.pid}/environ").read_bytes() == b""


def test_it_has_a_session_and_a_name_of_its_own(start: Start) -> None:
    guest = start("hello", confinement=Confinement(title="dev:hello and more", inspectable=True))
    guest.read_line()
    assert os.getsid(guest.pid) == guest.pid
    assert Path(f"/proc/{guest.pid}/comm").read_text() == "dev:hello and m\n"


def test_any_title_is_possible(start: Start) -> None:
    guest = start("hello", "--exit=0", confinement=Confinement(title="\udcff\0ä" * 100))
    assert guest.wait() == 0


def test_p33_no_capability_no_new_privilege_no_core_dump(start: Start) -> None:
    guest = start("hello")
    guest.read_line()
    state = guest.state()
    for field in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(state[field], 16) == 0, field
    assert state["NoNewPrivs"] == "1"
    assert state["Seccomp"] == "2"
    (core,) = [line for line in Path(f"/proc/{guest.pid}/limits").read_text().splitlines() if "core file" in line]
    assert core.split()[-3:] == ["0", "0", "bytes"]


def test_p33_it_is_the_first_to_go_when_memory_is_short(start: Start) -> None:
    guest = start("hello")
    guest.read_line()
    own = int(Path("/proc/self/oom_score_adj").read_text())
    assert int(Path(f"/proc/{guest.pid}/oom_score_adj").read_text()) >= min(500, own + 1)


def test_it_runs_on_the_cpus_that_it_was_given_and_no_other(start: Start) -> None:
    cpu = max(os.sched_getaffinity(0))
    guest = start("hello", confinement=Confinement(cpuids=frozenset({cpu}), inspectable=True))
    guest.read_line()
    assert os.sched_getaffinity(guest.pid) == {cpu}
    assert guest.state()["Cpus_allowed_list"] == str(cpu)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may inspect every process")
def test_debuggers_are_shut_out(start: Start) -> None:
    guest = start("hello", confinement=Confinement())
    guest.read_line()
    with pytest.raises(PermissionError):
        os.readlink(f"/proc/{guest.pid}/exe")


@needs_root
def test_p33_a_user_and_a_group_of_its_own(start: Start) -> None:
    guest = start("hello", confinement=Confinement(uid=UID, gid=GID))
    guest.read_line()
    state = guest.state()
    assert state["Uid"].split() == [str(UID)] * 4
    assert state["Gid"].split() == [str(GID)] * 4
    assert state["Groups"] == ""
    for field in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(state[field], 16) == 0, field
    assert os.stat(f"/proc/{guest.pid}/mem").st_uid == 0  # not even its own user may look into it


@needs_root
def test_p33_the_group_is_the_users_number_unless_said_otherwise(start: Start) -> None:
    guest = start("hello", confinement=Confinement(uid=UID))
    guest.read_line()
    assert guest.state()["Gid"].split() == [str(UID)] * 4


@needs_root
def test_p33_a_disk_that_only_root_may_open_can_be_used(start: Start, tmp_path: Path) -> None:
    disk = os.open(tmp_path / "disk", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.ftruncate(disk, 1 << 20)
    device = AttachedBlock("storage", disk, 1 << 20, 512)
    try:
        assert start("block", devices=[device], confinement=Confinement(uid=UID)).wait() == 0
        assert os.pread(disk, 1, 0) == b"\1"
    finally:
        os.close(disk)


@needs_root
def test_p33_a_cgroup_is_entered_before_the_first_instruction(start: Start) -> None:
    groups = next(
        (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if " cgroup2 " in line), None
    )
    if groups is None:
        pytest.skip("no cgroup2 hierarchy is mounted here")
    group = Path(groups, f"albatross-test-{os.getpid()}")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"the cgroup hierarchy cannot be written here: {error}")
    try:
        guest = start("hello", confinement=Confinement(uid=UID, cgroup=str(group)))
        guest.read_line()
        assert (group / "cgroup.procs").read_text() == f"{guest.pid}\n"
        os.kill(guest.pid, signal.SIGKILL)
        guest.wait()
    finally:
        group.rmdir()


def test_p33_a_cgroup_that_is_not_there_is_a_reason_on_the_console(start: Start, tmp_path: Path) -> None:
    guest = start("hello", confinement=Confinement(cgroup=str(tmp_path)))
    assert guest.wait() == 125
    assert guest.output == b"tender: cannot enter its cgroup\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may become any user")
def test_p33_without_root_another_user_is_a_reason_on_the_console(start: Start) -> None:
    guest = start("hello", confinement=Confinement(uid=UID))
    assert guest.wait() == 125
    assert guest.output == b"tender: cannot leave its groups\n"


def test_what_is_no_program_cannot_be_started() -> None:
    empty = os.memfd_create("empty", os.MFD_CLOEXEC)
    before = sorted(os.listdir("/proc/self/fd"))
    try:
        with pytest.raises(CannotStart) as refused:
            spawn(empty, console_fd=2)
        assert refused.value.errno == errno.ENOEXEC
        assert refused.value.hint
        assert sorted(os.listdir("/proc/self/fd")) == before
    finally:
        os.close(empty)


NO_EXECUTABLE_MEMORY_FILES = """
with open("/proc/sys/vm/memfd_noexec", "w") as file:
    file.write("2")
import sys
from albatross_pki.host.spt.attached import Confinement
from albatross_pki.host.spt.compose import compose
from albatross_pki.host.spt.errors import CannotStart
from albatross_pki.image.solo5 import parse_image
octets = open(sys.argv[1], "rb").read()
try:
    compose(parse_image(octets), octets, 2, b"", (), Confinement())
except CannotStart as error:
    print(error.message)
    print(error.hint)
"""


@needs_root
def test_a_host_that_forbids_executable_memory_files_is_named_as_the_reason() -> None:
    """The setting belongs to a process namespace: one is made for it."""
    if not os.path.exists("/proc/sys/vm/memfd_noexec"):
        pytest.skip("this kernel does not have vm.memfd_noexec")
    namespace = ["unshare", "--pid", "--fork", "--mount-proc"]
    command = [*namespace, sys.executable, "-c", NO_EXECUTABLE_MEMORY_FILES, str(example_path("hello"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    if "unshare failed" in run.stderr:
        pytest.skip(f"no process namespace can be made: {run.stderr.strip()}")
    assert run.stdout.splitlines() == [
        "cannot start the unikernel: permission denied",
        "memory files must be executable on this host: sysctl vm.memfd_noexec must not be 2",
    ], run.stderr


def test_a_descriptor_that_is_not_open_cannot_be_given() -> None:
    with pytest.raises(CannotStart, match="cannot start the unikernel: bad file descriptor"):
        spawn(10**6, console_fd=2)


def test_p26_the_callers_descriptors_stay_as_they_were() -> None:
    octets = example("hello")
    composed = compose(parse_image(octets), octets, 2, b"--exit=4", (), Confinement())
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    before = sorted(os.listdir("/proc/self/fd"))
    try:
        pids = [spawn(composed, console_fd=null) for _ in range(2)]  # the same descriptor may be used again
        assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [4, 4]
        assert sorted(os.listdir("/proc/self/fd")) == before
        assert not os.get_inheritable(composed)
    finally:
        os.close(composed)
        os.close(null)
