"""FreeBSD's part of the host, without FreeBSD: its command lines, what they answer, and the supervisor above them.

Facts: what Albatross 2.7.2 runs there (bhyve, its loaders, ifconfig), and the manual pages of ifconfig(8) and ps(1).
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath

import pytest

from albatross_pki.commands import BlockAdd, UnikernelCreate, UnikernelDestroy, UnikernelInfoRequest
from albatross_pki.host import bhyve, platforms
from albatross_pki.host.network import DuplicateMac, NetworkRefused, NoSuchBridge, Tap, alias_of
from albatross_pki.host.network_freebsd import FreeBSDNetwork
from albatross_pki.host.platform_freebsd import BhyveMachines, FreeBSDPlatform, PolledProcess
from albatross_pki.host.processes import Sought, boot_id, end
from albatross_pki.host.restarts import Exit
from albatross_pki.host.runner import CommandFailed, SystemRunner
from albatross_pki.names import Name
from albatross_pki.replies import Failure, Text, Unikernels
from albatross_pki.unikernels import BlockDevice, NetworkInterface, Settings, UnikernelConfig, UnikernelType
from tests.host.running import inside

MAC = bytes.fromhex("02aabbccddee")
DISK = BlockDevice("0", "disk")
SLEEP = ["/bin/sleep", "600"]


class Recorder:
    """A machine whose programs are a table: the first pattern that fits the command answers it."""

    def __init__(self, answers: dict[str, str | Exception] | None = None, spawned: Sequence[str] = SLEEP) -> None:
        self.ran: list[str] = []
        self.answers = answers or {}
        self.spawned = spawned

    def run(self, *command: str) -> str:
        line = " ".join(command)
        self.ran.append(line)
        for pattern, answer in self.answers.items():
            if re.fullmatch(pattern, line):
                if isinstance(answer, Exception):
                    raise answer
                return answer
        return ""

    def spawn(self, command: Sequence[str], console: int) -> int:
        self.ran.append(" ".join(command))
        return SystemRunner().spawn(self.spawned, console)


# command lines


def test_bhyve_s_command_line_is_the_one_that_albatross_has() -> None:
    settings = Settings(memory_mb=512, cpus=2, cpuids=frozenset({3, 1}))
    line = bhyve.run_command(settings, "alba-4711", [("tap0", MAC), ("tap7", MAC)], ["/d/a", "/d/b"])
    assert line[:3] == ["cpuset", "-l", "1,3"]
    assert " ".join(line[3:]) == (
        "bhyve -A -H -P -s0,hostbridge -s1,lpc -s2,virtio-net,tap0,mac=02:aa:bb:cc:dd:ee "
        "-s3,virtio-net,tap7,mac=02:aa:bb:cc:dd:ee -s4,virtio-blk,/d/a -s5,virtio-blk,/d/b "
        "-lcom1,stdio -c2 -m512M alba-4711"
    )


def test_loaders_end_in_time() -> None:
    plain = bhyve.load_command(Settings(memory_mb=64), "alba-1", "/dev/zvol/a", "/tmp/map")
    assert " ".join(plain) == "timeout 1s bhyveload -m64m -d/dev/zvol/a alba-1"
    linux = bhyve.load_command(Settings(memory_mb=64, linux_boot_partition="gpt1"), "alba-1", "/disk", "/tmp/map")
    assert " ".join(linux) == "timeout 1s grub-bhyve -m/tmp/map -rhd0,gpt1 -M64 alba-1"
    assert bhyve.device_map("/disk") == "(hd0) /disk\n"
    assert " ".join(bhyve.destroy_command("alba-1")) == "bhyvectl --destroy --vm=alba-1"


def test_a_machine_s_name_is_found_again_by_its_token() -> None:
    assert bhyve.machine_name("0000000a") == "alba-10"
    assert re.fullmatch(r"alba-[0-9]{1,5}", bhyve.machine_name("ffffffff"))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Settings(), "couldn't find initial block device"),
        (Settings(blocks=(BlockDevice("0"),)), "no name for initial disk"),
        (
            Settings(blocks=(DISK,), interfaces=(NetworkInterface("1", "br"),)),
            "network device on br with name 1 not in ascending order (expected 0)",
        ),
        (
            Settings(blocks=(DISK, BlockDevice("2", "other"))),
            "block device other with name 2 not in ascending order (expected 1)",
        ),
        (Settings(blocks=(DISK,), cpus=0), "a virtual machine with 0 CPUs cannot run"),
        (Settings(blocks=(DISK,), linux_boot_partition="gpt1 -x"), "the partition gpt1 -x is not one"),
    ],
)
def test_what_bhyve_cannot_run_is_refused_with_albatross_words(settings: Settings, reason: str) -> None:
    (found,) = bhyve.violations(settings)
    assert found.startswith(reason)


def test_what_bhyve_can_run_is_not_refused() -> None:
    good = Settings(blocks=(DISK,), interfaces=(NetworkInterface("0", "br"),), linux_boot_partition="gpt1")
    assert bhyve.violations(good) == []


def test_grub_is_told_of_its_disk_in_a_file_that_is_gone_afterwards() -> None:
    seen = []

    class Looking(Recorder):
        def run(self, *command: str) -> str:
            place = next(word[2:] for word in command if word.startswith("-m/"))
            seen.append((place, FilePath(place).read_text()))
            return super().run(*command)

    settings = Settings(memory_mb=64, linux_boot_partition="gpt1")
    BhyveMachines(Looking()).load(settings, "0000000a", "/disk")
    ((place, text),) = seen
    assert text == "(hd0) /disk\n"
    assert not os.path.exists(place)


# networks

BRIDGE = "bridge0: flags=8843<UP> metric 0 mtu 1400\n\tether 58:9c:fc:10:00:01\n\tmember: tap3 flags=1\n"
NAME = Name.parse("dev:web")


def described(mac: bytes = MAC) -> str:
    return f"tap3: flags=8903<UP> metric 0 mtu 1400\n\tdescription: {alias_of('bridge0', mac, NAME, '0')}\n"


def network(**more: "str | Exception") -> tuple[FreeBSDNetwork, Recorder]:
    answers: dict[str, str | Exception] = {
        "ifconfig -g bridge": "bridge0\nservice\n",
        "ifconfig -g tap": "tap3\ntap9\n",
        "ifconfig bridge0": BRIDGE,
        "ifconfig service": "service: flags=8843<UP> metric 0 mtu 1500\n",
        "ifconfig bridge0 addr": "02:00:00:00:00:01 Vlan1 tap3 1178 flags=0<>\n",
        "ifconfig tap create": "tap4\n",
        "ifconfig tap3": described(),
        "ifconfig tap9": "tap9: flags=8903<UP> metric 0 mtu 1500\n\tdescription: somebody else's\n",
    }
    recorder = Recorder(more | {key: value for key, value in answers.items() if key not in more})
    return FreeBSDNetwork(recorder), recorder


def test_a_tap_is_made_marked_and_attached() -> None:
    networks, recorder = network()
    tap = networks.create_tap("bridge0", MAC, unikernel=NAME, device="0", owner_uid=0, isolate=True)
    assert tap == Tap("tap4", 0, "bridge0", MAC, 1400, None, True)
    networks.attach(tap)
    changing = [line for line in recorder.ran if len(line.split()) > 3 or "create" in line or line.endswith("up")]
    assert changing == [
        "ifconfig tap create",
        f"ifconfig tap4 description {alias_of('bridge0', MAC, NAME, '0')} mtu 1400",
        "ifconfig bridge0 addm tap4 -learn tap4 private tap4",
        "ifconfig bridge0 static tap4 02:aa:bb:cc:dd:ee",
        "ifconfig tap4 up",
    ]


def test_p39_an_address_that_is_on_the_bridge_is_refused() -> None:
    networks, recorder = network()
    mac = bytes.fromhex("020000000001")
    with pytest.raises(DuplicateMac, match="at tap3"):
        networks.create_tap("bridge0", mac, unikernel=NAME, device="0", owner_uid=None)
    assert "ifconfig tap create" not in recorder.ran
    networks.create_tap("bridge0", mac, unikernel=NAME, device="0", owner_uid=None, replacing=["tap3"])
    assert any("not filtered" in gap for gap in networks.gaps())


def test_p26_a_tap_that_cannot_be_marked_is_removed_again() -> None:
    failed = CommandFailed(["ifconfig"], 1, "no such thing\x1b[2J")
    networks, recorder = network(**{"ifconfig tap4 description .*": failed})
    with pytest.raises(NetworkRefused, match=r"ended with 1: no such thing\\x1b"):
        networks.create_tap("bridge0", MAC, unikernel=NAME, device="0", owner_uid=None)
    assert recorder.ran[-1] == "ifconfig tap4 destroy"


def test_a_bridge_that_is_not_there_names_those_that_are() -> None:
    networks, _ = network()
    with pytest.raises(NoSuchBridge, match="there are: bridge0, service"):
        networks.create_tap("em0", MAC, unikernel=NAME, device="0", owner_uid=None)


def test_only_taps_of_ours_are_listed_and_removed() -> None:
    networks, recorder = network()
    (owned,) = networks.taps()
    assert (owned.name, owned.bridge, owned.unikernel, owned.attached) == ("tap3", "bridge0", NAME, "bridge0")
    networks.remove_tap("tap3")
    assert recorder.ran[-1] == "ifconfig tap3 destroy"
    for name in ("tap9", "bridge0"):
        with pytest.raises(NetworkRefused, match="is not a tap of ours"):
            networks.remove_tap(name)
    with pytest.raises(NetworkRefused, match="not the name of an interface"):
        networks.remove_tap("-l")


def test_a_tap_that_is_gone_is_fine() -> None:
    networks, recorder = network(**{"ifconfig tap5": CommandFailed(["ifconfig"], 1, "does not exist")})
    networks.remove_tap("tap5")
    assert not any("destroy" in line for line in recorder.ran)


# processes

PS = "Sat Nov 28 05:00:00 2026"
STARTED = 1795842000  # the same, in seconds since 1970


def test_a_process_is_known_by_its_pid_and_start() -> None:
    platform = FreeBSDPlatform(
        Recorder({"ps -o ppid=,lstart= -p 17": f"1 {PS}\n", "ps .* 18": CommandFailed(["ps"], 1, "")})
    )
    assert platform.start_time(17) == STARTED
    assert platform.start_time(18) is None
    assert platform.find_again(17, STARTED + 1) is None


async def test_a_machine_whose_pid_was_never_recorded_is_found_by_its_name() -> None:
    listing = (
        f" 17 {PS} bhyve: alba-10\n 18 {PS} vi alba-10\n 19 {PS} /usr/sbin/bhyve -A alba-11\n junk\n"
        f" 20 {PS} /usr/sbin/bhyve -A -m1M alba-12\n"
    )
    platform = FreeBSDPlatform(Recorder({"ps -axww .*": listing, "ps -o .*": f"1 {PS}\n"}))
    found = platform.strays([Sought("0000000a", 0, None), Sought("0000000c", 0, None), Sought("0000000d", 0, None)])
    assert {token: process.pid for token, process in found.items()} == {"0000000a": 17, "0000000c": 20}
    for process in found.values():
        process.release()
    assert platform.strays([]) == {}


@pytest.mark.parametrize(("code", "ended"), [("exit 7", Exit(code=7)), ("kill -KILL $$", Exit(signal=9))])
async def test_the_end_of_a_child_is_told_once_with_its_status(code: str, ended: Exit) -> None:
    process = PolledProcess(SystemRunner().spawn(["/bin/sh", "-c", code], 2), child=True)
    told: list[Exit] = []
    process.when_ended(told.append)
    async with asyncio.timeout(20):
        assert await process.ended() == ended
    await asyncio.sleep(0)
    assert told == [ended]
    assert not process.alive


async def test_a_child_is_told_to_end() -> None:
    process = PolledProcess(SystemRunner().spawn(SLEEP, 2), child=True)
    assert await end(process, grace=20, kill_grace=20) == Exit(signal=15)


async def test_p26_nobody_else_is_signalled() -> None:
    """An adopted process is looked at again right before a signal: its pid may be another's by now."""
    with subprocess.Popen(SLEEP) as other:
        adopted = PolledProcess(other.pid, child=False, still=lambda: False)
        adopted.signal(signal.SIGKILL)
        assert other.poll() is None
        adopted.release()
        known = PolledProcess(other.pid, child=False, still=lambda: True)
        known.signal(signal.SIGTERM)
        other.wait(20)
        async with asyncio.timeout(20):
            assert await known.ended() == Exit()


def test_programs_that_fail_are_said_with_what_they_said(tmp_path: FilePath) -> None:
    runner = SystemRunner()
    assert runner.run("/bin/echo", "a b", "$HOME") == "a b $HOME\n"
    with pytest.raises(CommandFailed, match="ended with 3: oops"):
        runner.run("/bin/sh", "-c", "echo oops >&2; exit 3")
    with pytest.raises(CommandFailed, match="did not run: no such file"):
        runner.run(str(tmp_path / "nothing"))
    with pytest.raises(CommandFailed, match="did not run"):
        runner.spawn([str(tmp_path / "nothing")], 2)


# the whole supervisor


class Elsewhere(FreeBSDPlatform):
    """FreeBSD's part above this machine's clock and boot."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder)
        self.recorder = recorder

    def boot_id(self) -> str:
        return boot_id()


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    answers: dict[str, str | Exception] = {
        "ifconfig -g bridge": "service\n",
        "ifconfig service": "service: flags=8843<UP> metric 0 mtu 1500\n",
        "ifconfig tap create": "tap4\n",
        "ifconfig tap4": f"tap4:\n\tdescription: {alias_of('service', MAC, NAME, '0')}\n",
        "ps -o ppid=,lstart= .*": f"{os.getpid()} {PS}\n",
    }
    made = Recorder(answers)
    elsewhere = Elsewhere(made)
    monkeypatch.setattr("albatross_pki.host.surroundings.current", lambda: elsewhere)
    return iter([made])


def machine(**settings: object) -> UnikernelCreate:
    chosen = {"memory_mb": 64, "blocks": (DISK,), "interfaces": (NetworkInterface("0", "service", MAC),), **settings}
    return UnikernelCreate(UnikernelConfig(b"", Settings(**chosen), typ=UnikernelType.BHYVE))  # type: ignore[arg-type]


def kinds(lines: Sequence[str]) -> list[str]:
    """What was done, without what was only asked."""
    words = {"timeout": "load", "cpuset": "start", "bhyvectl": "destroy"}
    found = []
    for line in lines:
        first, *rest = line.split()
        if first in words:
            found.append(words[first])
        elif first == "ifconfig" and rest[-1] in ("create", "destroy", "up"):
            found.append(f"tap {rest[-1]}")
    return found


async def test_d13_a_machine_lives_and_is_destroyed(tmp_path: FilePath, recorder: Iterator[Recorder]) -> None:
    made = next(recorder)
    async with inside(tmp_path) as host:
        assert await host.ask("dev:disk", BlockAdd(1)) == Text("added block device")
        assert await host.ask("dev:web", machine()) == Text("created unikernel")
        assert kinds(made.ran) == ["tap create", "load", "tap up", "start"]
        start = next(line for line in made.ran if line.startswith("cpuset"))
        assert start.startswith("cpuset -l 0 bhyve -A -H -P -s0,hostbridge -s1,lpc -s2,virtio-net,tap4,mac=02:aa:")
        assert f"-s3,virtio-blk,{tmp_path}" in start
        info = await host.ask("dev:", UnikernelInfoRequest())
        assert isinstance(info, Unikernels)
        ((_, shown),) = info.unikernels
        assert shown.digest.decode() == start.split()[-1]
        assert shown.typ is UnikernelType.BHYVE
        made.ran.clear()
        assert await host.ask("dev:web", UnikernelDestroy()) == Text("destroyed unikernel")
        assert kinds(made.ran) == ["destroy", "tap destroy"]


async def test_p26_a_machine_that_cannot_be_loaded_leaves_nothing(
    tmp_path: FilePath, recorder: Iterator[Recorder]
) -> None:
    made = next(recorder)
    made.answers["timeout .*"] = CommandFailed(["bhyveload"], 124, "")
    async with inside(tmp_path) as host:
        await host.ask("dev:disk", BlockAdd(1))
        answer = await host.ask("dev:web", machine())
        assert isinstance(answer, Failure)
        assert "ended with 124" in answer.text
        assert kinds(made.ran) == ["tap create", "load", "destroy", "tap destroy"]
        assert not host.supervisor.host.blocks.in_use(Name.parse("dev:disk"))


async def test_all_that_is_wrong_with_a_machine_is_said_at_once(
    tmp_path: FilePath, recorder: Iterator[Recorder]
) -> None:
    made = next(recorder)
    async with inside(tmp_path) as host:
        wrong = machine(blocks=(BlockDevice("1", "gone"),), interfaces=(NetworkInterface("7", "service", MAC),))
        answer = await host.ask("dev:web", wrong)
        assert isinstance(answer, Failure)
        for part in ("expected 0", "block device dev:gone not found"):
            assert part in answer.text
        assert kinds(made.ran) == []


async def test_p27_a_machine_that_outlived_its_daemon_is_adopted(
    tmp_path: FilePath, recorder: Iterator[Recorder]
) -> None:
    made = next(recorder)
    async with inside(tmp_path, keep_running=True) as host:
        await host.ask("dev:disk", BlockAdd(1))
        assert await host.ask("dev:web", machine(interfaces=())) == Text("created unikernel")
    made.ran.clear()
    async with inside(tmp_path) as host:
        assert host.phase("dev:web") == "running"
        assert kinds(made.ran) == []
        assert await host.ask("dev:web", UnikernelDestroy()) == Text("destroyed unikernel")
        assert kinds(made.ran) == ["destroy"]


# this machine


def test_this_machine_has_its_platform() -> None:
    assert platforms.current().name == {"linux": "Linux"}.get(sys.platform, "FreeBSD")
    assert platforms.current() is platforms.current()


def test_p09_what_starts_programs_is_not_even_loaded_on_linux() -> None:
    probe = (
        "import sys, albatross_pki.host.daemon, albatross_pki.host.platforms as platforms; platforms.current(); "
        "print([each for each in ('runner', 'bhyve', 'platform_freebsd', 'network_freebsd', 'preparation_machines') "
        "if f'albatross_pki.host.{each}' in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert (loaded.returncode, loaded.stdout) == (0, "[]\n"), loaded.stderr


def test_another_system_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "plan9")
    with pytest.raises(platforms.NoPlatform, match="Linux and FreeBSD, not on plan9"):
        platforms.current.__wrapped__()


async def test_on_linux_a_machine_is_refused_and_nothing_is_started(tmp_path: FilePath) -> None:
    async with inside(tmp_path) as host:
        answer = await host.ask("dev:web", machine())
        assert isinstance(answer, Failure)
        assert "unikernels of type bhyve need FreeBSD" in answer.text
