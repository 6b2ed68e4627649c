"""As root, in a network namespace of the test's own: unikernels on a bridge, each as a user of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path as FilePath

import pytest

from albatross_pki.commands import UnikernelCreate, UnikernelDestroy
from albatross_pki.host.confinement import FIRST_UID, NoUserLeft, Users
from albatross_pki.replies import Text
from albatross_pki.unikernels import NetworkInterface
from tests.host.running import EXAMPLES, Daemon, create, daemon, hello, text_of

CLONE_NEWNET = 0x40000000
ECHO = (EXAMPLES / "echo-net.spt").read_bytes()
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="bridges and other users need root")

# the daemon's own network namespace, with a bridge that has an address
NAMESPACE = f"""
import ctypes, sys
if ctypes.CDLL(None, use_errno=True).unshare({CLONE_NEWNET}):
    sys.exit("no network namespace")
from pyroute2 import IPRoute
with IPRoute() as netlink:
    netlink.link("add", ifname="br0", kind="bridge")
    index = netlink.link_lookup(ifname="br0")[0]
    netlink.addr("add", index=index, address="10.0.0.1", prefixlen=24)
    netlink.link("set", index=index, state="up")
    netlink.link("set", index=netlink.link_lookup(ifname="lo")[0], state="up")
"""

# sent from inside the namespace of the daemon: one echo request, and who answered
PING = """
import ctypes, os, socket, struct, sys, time
descriptor = os.open(f"/proc/{sys.argv[1]}/ns/net", os.O_RDONLY)
assert ctypes.CDLL(None).setns(descriptor, 0) == 0
ping = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
ping.settimeout(0.2)
body = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + b"x" * 32
total = sum(struct.unpack(f"!{len(body) // 2}H", body))
total = (total & 0xFFFF) + (total >> 16)
body = body[:2] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + body[4:]
end = time.monotonic() + 10
while time.monotonic() < end:
    ping.sendto(body, (sys.argv[2], 0))
    try:
        octets, sender = ping.recvfrom(2000)
    except TimeoutError:
        continue
    if octets[20] == 0:
        print(sender[0])
        break
"""


def ping(host: Daemon, address: str) -> str:
    assert host.process is not None
    return subprocess.run(
        [sys.executable, "-c", PING, str(host.process.pid), address], capture_output=True, text=True, timeout=30
    ).stdout.strip()


def interfaces(host: Daemon) -> set[str]:
    """The interfaces that are ports of the bridge in the daemon's namespace."""
    assert host.process is not None
    code = (
        "import ctypes, os, sys\n"
        "assert ctypes.CDLL(None).setns(os.open(f'/proc/{sys.argv[1]}/ns/net', os.O_RDONLY), 0) == 0\n"
        "from pyroute2 import IPRoute\n"
        "with IPRoute() as n: print(*(l.get_attr('IFLA_IFNAME') for l in n.get_links()))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(host.process.pid)], capture_output=True, text=True, timeout=30
    )
    return {each for each in ran.stdout.split() if each.startswith("vmmtap")}


def echo(address: str, *, force: bool = False) -> UnikernelCreate:
    interface = NetworkInterface("service", "br0")
    return UnikernelCreate(hello(f"--ipv4={address}", image=ECHO, interfaces=(interface,)), force=force)


@needs_root
def test_a_unikernel_on_a_bridge_answers_and_leaves_no_tap(tmp_path: FilePath) -> None:
    with daemon(tmp_path, before=NAMESPACE) as host:
        name = f"dev:{host.label()}"
        assert host.ask(name, echo("10.0.0.2")) == Text("created unikernel"), host.log()
        assert ping(host, "10.0.0.2") == "10.0.0.2"
        assert len(interfaces(host)) == 1
        assert host.ask(name, echo("10.0.0.3", force=True)) == Text("created unikernel")  # with the same MAC address
        assert ping(host, "10.0.0.3") == "10.0.0.3"
        assert len(interfaces(host)) == 1
        assert host.ask(name, UnikernelDestroy()) == Text("destroyed unikernel")
        assert interfaces(host) == set()


@needs_root
def test_a_bridge_that_is_not_there_is_refused_with_those_that_are(tmp_path: FilePath) -> None:
    with daemon(tmp_path, before=NAMESPACE) as host:
        command = UnikernelCreate(hello(image=ECHO, interfaces=(NetworkInterface("service", "br7"),)))
        answer = text_of(host.ask(f"dev:{host.label()}", command))
        assert "br7" in answer
        assert interfaces(host) == set()


@needs_root
def test_p26_a_failed_create_leaves_no_tap(tmp_path: FilePath) -> None:
    broken = NAMESPACE + "\nimport os\ndef refuse(*_, **__): raise MemoryError('no memory')\nos.mkfifo = refuse\n"
    with daemon(tmp_path, before=broken) as host:
        assert "no memory" in text_of(host.ask(f"dev:{host.label()}", echo("10.0.0.2"))).lower()
        assert interfaces(host) == set()


@needs_root
def test_p33_every_unikernel_has_a_user_of_its_own_and_no_privilege(tmp_path: FilePath) -> None:
    with daemon(tmp_path, before=NAMESPACE) as host:
        for letter in "ab":
            host.ask(f"dev:{host.label(letter)}", create())
        host.ask(f"dev:{host.label('c')}", echo("10.0.0.2"))
        deadline = time.monotonic() + 10
        while any(status(pid)["Seccomp"].strip() != "2" for pid in host.unikernels()):  # the last thing given up
            assert time.monotonic() < deadline
            time.sleep(0.01)
        statuses = [status(pid) for pid in host.unikernels()]
        assert len({each["Uid"] for each in statuses}) == 3
        for each in statuses:
            uids = {int(uid) for uid in each["Uid"].split()}
            assert len(uids) == 1
            assert FIRST_UID <= uids.pop() < FIRST_UID + 0x10000
            assert each["Groups"].strip() == ""
            assert all(int(each[field], 16) == 0 for field in ("CapInh", "CapPrm", "CapEff", "CapAmb"))
            assert each["NoNewPrivs"].strip() == "1"
            assert each["Seccomp"].strip() == "2"
        for pid in host.unikernels():
            score = FilePath(f"/proc/{pid}/oom_score_adj").read_text()
            assert int(score) > 0
            descriptors = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
            foreign = [
                each for each in descriptors if not each.startswith(("anon_inode:", "/dev/null", "/dev/net/tun"))
            ]
            assert {each.removesuffix(" (deleted)").rpartition("/")[0] for each in foreign} == {
                os.path.join(host.tmpdir, "fifo")
            }


def status(pid: int) -> dict[str, str]:
    lines = FilePath(f"/proc/{pid}/status").read_text().splitlines()
    return {field: value for field, _, value in (line.partition(":") for line in lines)}


def test_users_are_given_once_and_given_back() -> None:
    users = Users(1000, 3, root=True)
    assert [users.take() for _ in range(3)] == [1000, 1001, 1002]
    with pytest.raises(NoUserLeft):
        users.take()
    users.give_back(1001)
    assert users.take() == 1001
    users.give_back(1000)
    users.adopt(1000)
    users.give_back(1002)
    assert users.take() == 1002


def test_without_root_there_are_no_users_to_give() -> None:
    users = Users(root=False)
    assert users.take() is None
    users.give_back(None)
    assert not users.in_force


@needs_root
def test_taps_of_a_daemon_that_crashed_are_reclaimed(tmp_path: FilePath) -> None:
    """Both daemons share the namespace of a third process, as they would share the host's."""
    keeper = subprocess.Popen([sys.executable, "-c", NAMESPACE + "\nprint('up', flush=True)\nsys.stdin.read()"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == b"up\n"
    join = (
        "import ctypes, os\n"
        f"assert ctypes.CDLL(None).setns(os.open('/proc/{keeper.pid}/ns/net', os.O_RDONLY), 0) == 0\n"
    )
    try:
        with daemon(tmp_path, before=join) as host:
            name = f"dev:{host.label()}"
            host.ask(name, echo("10.0.0.2"))
            host.kill()
            host.start()
            assert name in host.running()
            assert ping(host, "10.0.0.2") == "10.0.0.2"
            host.kill()
            for pid in host.unikernels():
                os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 10
            while host.unikernels():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            host.start()
            while name not in host.running():
                assert time.monotonic() < deadline + 10
                time.sleep(0.02)
            assert len(interfaces(host)) == 1
            host.ask(name, UnikernelDestroy())
            assert interfaces(host) == set()
    finally:
        keeper.kill()
        keeper.communicate()
