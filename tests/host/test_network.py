"""Taps on real bridges in a network namespace of the test's own; what they may say to each other."""

import contextlib
import ctypes
import itertools
import json
import os
import select
import signal
import struct
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path as FilePath

import pytest

from albatross_pki.host import network_filter, network_links
from albatross_pki.host.network import (
    DuplicateMac,
    NetworkRefused,
    NoNetwork,
    NoSuchBridge,
    OwnedTap,
    Tap,
    alias_of,
    checked_mac,
    open_network,
    read_alias,
    tap_address,
    valid_interface,
)
from albatross_pki.host.network_linux import LinuxNetwork
from albatross_pki.host.network_netlink import NETFILTER, ROUTE, Netlink, NetlinkError
from albatross_pki.host.stats_sampling import read_process, statistics
from albatross_pki.names import Name, derived_mac

CLONE_NEWNET = 0x40000000
ALICE = bytes.fromhex("008041000001")
BOB = bytes.fromhex("008041000002")
EVE = bytes.fromhex("0080410000ee")
BROADCAST = b"\xff" * 6
HELLO = Name.parse("dev:hello")
libc = ctypes.CDLL(None, use_errno=True)


def _may_unshare() -> str | None:
    """Why networks cannot be made here, or ``None``."""
    if os.geteuid() != 0:
        return "needs root to make a network namespace"
    if not os.path.exists("/dev/net/tun"):
        return "needs /dev/net/tun"
    reasons: list[str] = []

    def attempt() -> None:
        if libc.unshare(CLONE_NEWNET):
            reasons.append(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}")

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return reasons[0] if reasons else None


CANNOT = _may_unshare()
needs_namespace = pytest.mark.skipif(CANNOT is not None, reason=CANNOT or "")


class Lan:
    """A bridge ``br0`` in a namespace that goes with the thread."""

    def __init__(self) -> None:
        self.netlink = Netlink(ROUTE)
        for name in ("br0", "br1"):
            network_links.add_bridge(self.netlink, name)
        self.network = LinuxNetwork()
        self._taps: list[Tap] = []

    def links(self) -> dict[str, network_links.Link]:
        return {link.name: link for link in network_links.links(self.netlink)}

    def tap(self, mac: bytes, unikernel: str = "dev:hello", *, bridge: str = "br0", isolate: bool = False) -> Tap:
        """An attached tap with a descriptor."""
        tap = self.network.create_tap(
            bridge, mac, unikernel=Name.parse(unikernel), device="service", owner_uid=None, isolate=isolate
        )
        self._taps.append(tap)
        self.network.attach(tap)
        return tap

    def close(self) -> None:
        for tap in self._taps:
            if tap.descriptor is not None:
                os.close(tap.descriptor)
        self.network.close()
        self.netlink.close()


def in_a_lan(test: Callable[[Lan], None]) -> Callable[[], None]:
    """Run ``test`` in a thread with a network namespace of its own."""

    def run() -> None:
        failures: list[BaseException] = []

        def body() -> None:
            try:
                assert libc.unshare(CLONE_NEWNET) == 0
                with contextlib.closing(Lan()) as lan:
                    test(lan)
            except BaseException as error:  # noqa: BLE001  handed to pytest's thread
                failures.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    return needs_namespace(run)


def frame(target: bytes, source: bytes, kind: int = 0x88B5, payload: bytes = b"") -> bytes:
    return target + source + struct.pack("!H", kind) + payload + bytes(64)


def send(tap: Tap, octets: bytes) -> None:
    assert tap.descriptor is not None
    os.write(tap.descriptor, octets)


def received(tap: Tap, marker: bytes) -> list[bytes]:
    """The frames that came up to the one with ``marker``, which is not among them."""
    assert tap.descriptor is not None
    frames: list[bytes] = []
    while select.select([tap.descriptor], [], [], 5.0)[0]:
        octets = os.read(tap.descriptor, 2048)
        if marker in octets:
            return frames
        if octets[6:12] in (ALICE, BOB, EVE):  # the host's own multicast reports are not the subject
            frames.append(octets)
    raise AssertionError("the marker did not come")


MARKERS = itertools.count()


def mark(sender: Tap) -> bytes:
    """Send a broadcast that is always allowed and that nobody has sent before."""
    marker = b"the marker %d." % next(MARKERS)
    send(sender, frame(BROADCAST, sender.mac, payload=marker))
    return marker


def passes(sender: Tap, receiver: Tap, octets: bytes) -> bool:
    """Whether a frame arrives, for which the kernel may cut what stands behind the packet."""
    send(sender, octets)
    return any(octets.startswith(each) for each in received(receiver, mark(sender)))


@in_a_lan
def test_taps_have_the_smallest_free_number_and_the_bridges_mtu(lan: Lan) -> None:
    first, second = lan.tap(ALICE), lan.tap(BOB)
    assert (first.name, second.name) == ("vmmtap0", "vmmtap1")
    assert first.descriptor is not None
    os.close(first.descriptor)
    lan._taps.remove(first)
    assert "vmmtap0" not in lan.links(), "it lives by its descriptor"
    third = lan.tap(ALICE)
    assert (third.name, third.mtu) == ("vmmtap0", 1500)
    link, bridge = lan.links()["vmmtap0"], lan.links()["br0"]
    assert (link.mtu, link.master, link.flags & 1) == (bridge.mtu, bridge.index, 1)
    assert not os.get_inheritable(third.descriptor or -1)
    assert not os.get_blocking(third.descriptor or -1)


@in_a_lan
def test_bridges_are_listed_and_a_missing_one_is_refused_with_those_that_exist(lan: Lan) -> None:
    assert lan.network.bridges() == NoNetwork().bridges() == {"br0", "br1"}
    for name in ("nowhere", "lo", "../evil", "vmm\x1b[2J", "", "x" * 300):
        with pytest.raises(NoSuchBridge) as refusal:
            lan.network.create_tap(name, ALICE, unikernel=HELLO, device="s", owner_uid=None)
        assert "there are: br0, br1" in str(refusal.value)
        assert "\x1b" not in str(refusal.value)
    assert lan.network.taps() == ()


@in_a_lan
def test_p26_a_tap_that_could_not_be_made_leaves_nothing(lan: Lan) -> None:
    before = set(lan.links())
    descriptors = os.listdir("/proc/self/fd")
    for mac in (b"", b"\x01" + bytes(5), bytes(6), BROADCAST, ALICE + b"x"):
        with pytest.raises(NetworkRefused, match="not the MAC address of one station"):
            lan.network.create_tap("br0", mac, unikernel=HELLO, device="s", owner_uid=None)
    assert set(lan.links()) == before
    assert len(os.listdir("/proc/self/fd")) == len(descriptors)


@in_a_lan
def test_a_persistent_tap_is_its_owners_and_stays_until_it_is_removed(lan: Lan) -> None:
    tap = lan.network.create_tap("br0", ALICE, unikernel=HELLO, device="service", owner_uid=4711)
    assert tap.descriptor is None
    assert lan.links()[tap.name].kind == "tun"
    assert lan.network.taps() == (OwnedTap("vmmtap0", "br0", ALICE, HELLO, "service", None),)
    lan.network.attach(tap)
    assert lan.network.taps()[0].attached == "br0"
    lan.network.remove_tap(tap.name)
    lan.network.remove_tap(tap.name)
    assert tap.name not in lan.links()
    assert lan.network.taps() == ()


@in_a_lan
def test_p20_only_interfaces_of_ours_are_removed(lan: Lan) -> None:
    for name in ("br0", "lo"):
        with pytest.raises(NetworkRefused, match="not a tap of ours"):
            lan.network.remove_tap(name)
    with pytest.raises(NetworkRefused, match="not the name of an interface"):
        lan.network.remove_tap("../../etc")
    assert {"br0", "lo"} <= set(lan.links())


@in_a_lan
def test_p39_a_mac_address_that_is_on_the_bridge_already_is_refused(lan: Lan) -> None:
    first = lan.tap(ALICE, "one:a")
    for mac in (ALICE, lan.links()["br0"].address, tap_address(ALICE)):
        with pytest.raises(DuplicateMac) as refusal:
            lan.tap(mac, "two:b")
        assert refusal.value.holder == "vmmtap0"  # a bridge without other ports takes the address of its first one
    lan.tap(ALICE, "two:b", bridge="br1")  # another bridge is another network
    prepared = lan.network.create_tap("br0", BOB, unikernel=HELLO, device="s", owner_uid=0)
    with pytest.raises(DuplicateMac):
        lan.tap(BOB, "two:b")
    lan.network.remove_tap(prepared.name)
    lan.tap(BOB, "two:b")
    assert first.name in lan.links()


@in_a_lan
def test_p39_an_address_learned_behind_somebody_elses_port_is_refused(lan: Lan) -> None:
    index = lan.links()["br0"].index
    other = lan.network.create_tap("br0", BOB, unikernel=HELLO, device="s", owner_uid=0)
    network_links.enslave(lan.netlink, other.index, index, isolated=False)
    network_links.forward(lan.netlink, other.index, EVE)
    with pytest.raises(DuplicateMac) as refusal:
        lan.tap(EVE)
    assert refusal.value.holder == other.name
    lan.network.remove_tap(other.name)


@in_a_lan
def test_p23_a_replacement_is_prepared_while_the_old_one_has_the_address(lan: Lan) -> None:
    old = lan.tap(ALICE)
    new = lan.network.create_tap("br0", ALICE, unikernel=HELLO, device="s", owner_uid=None, replacing=[old.name])
    lan._taps.append(new)
    watcher = lan.tap(BOB)
    assert passes(old, watcher, frame(BROADCAST, ALICE, payload=b"old still speaks"))
    lan.network.remove_tap(old.name)
    lan.network.attach(new)
    assert passes(new, watcher, frame(BROADCAST, ALICE, payload=b"new speaks"))
    assert passes(watcher, new, frame(ALICE, BOB, payload=b"and is heard"))


@in_a_lan
def test_neighbours_can_talk(lan: Lan) -> None:
    alice, bob = lan.tap(ALICE), lan.tap(BOB)
    assert passes(alice, bob, frame(BOB, ALICE, payload=b"unicast"))
    assert passes(alice, bob, frame(BROADCAST, ALICE, payload=b"broadcast"))
    assert passes(alice, bob, frame(BOB, ALICE, 0x86DD, ipv6(58, icmpv6(135))))
    assert passes(alice, bob, frame(BROADCAST, ALICE, 0x0806, arp(ALICE)))
    assert passes(alice, bob, frame(BROADCAST, ALICE, 0x0800, ipv4(17, udp(68, 67))))
    assert passes(alice, bob, frame(BROADCAST, ALICE, 0x86DD, ipv6(17, udp(546, 547))))


@in_a_lan
def test_p39_nobody_takes_anothers_address(lan: Lan) -> None:
    alice, bob, eve = lan.tap(ALICE), lan.tap(BOB), lan.tap(EVE)
    assert not passes(eve, bob, frame(BOB, ALICE, payload=b"I am alice"))
    assert not passes(eve, bob, frame(BROADCAST, ALICE, payload=b"I am alice"))
    assert not passes(eve, bob, frame(BROADCAST, EVE, 0x0806, arp(ALICE)))
    assert passes(bob, alice, frame(ALICE, BOB, payload=b"still for alice"))
    send(bob, frame(ALICE, BOB, payload=b"only for alice"))
    seen = received(eve, mark(bob))
    assert not any(b"for alice" in each for each in seen), "frames for others are not seen"


def ipv4(protocol: int, payload: bytes) -> bytes:
    """A packet with a right header checksum: bridges may look at it."""
    fields = [0x4500, 20 + len(payload), 0, 0, 0x4000 | protocol, 0, 0x0A00, 0x0001, 0xFFFF, 0xFFFF]
    total = sum(fields)
    total = (total & 0xFFFF) + (total >> 16)
    fields[5] = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return struct.pack("!10H", *fields) + payload


def ipv6(protocol: int, payload: bytes) -> bytes:
    return (
        struct.pack("!IHBB", 0x60000000, len(payload), protocol, 255) + bytes(15) + b"\1" + bytes(15) + b"\2" + payload
    )


def with_hop_by_hop(protocol: int, payload: bytes) -> bytes:
    return ipv6(0, bytes([protocol, 0, 1, 4, 0, 0, 0, 0]) + payload)


def udp(source: int, target: int) -> bytes:
    return struct.pack("!HHHH", source, target, 16, 0) + bytes(8)


def icmpv6(kind: int) -> bytes:
    return bytes([kind]) + bytes(23)


def arp(sender: bytes) -> bytes:
    return struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + sender + bytes(14)


FORBIDDEN = {
    "spanning tree": frame(b"\x01\x80\xc2\x00\x00\x00", EVE, 38, b"\x42\x42\x03"),
    "lldp": frame(b"\x01\x80\xc2\x00\x00\x0e", EVE, 0x88CC),
    "per-vlan spanning tree": frame(b"\x01\x00\x0c\xcc\xcc\xcd", EVE, 50),
    "vlan": frame(BROADCAST, EVE, 0x8100, b"\x00\x05\x88\xb5"),
    "service vlan": frame(BROADCAST, EVE, 0x88A8, b"\x00\x05\x88\xb5"),
    "router advertisement": frame(BROADCAST, EVE, 0x86DD, ipv6(58, icmpv6(134))),
    "router advertisement behind a header": frame(BROADCAST, EVE, 0x86DD, with_hop_by_hop(58, icmpv6(134))),
    "redirect": frame(BROADCAST, EVE, 0x86DD, ipv6(58, icmpv6(137))),
    "icmp router advertisement": frame(BROADCAST, EVE, 0x0800, ipv4(1, icmpv6(9))),
    "icmp redirect": frame(BROADCAST, EVE, 0x0800, ipv4(1, icmpv6(5))),
    "dhcp answer": frame(BROADCAST, EVE, 0x0800, ipv4(17, udp(67, 68))),
    "dhcp answer from another port": frame(BROADCAST, EVE, 0x0800, ipv4(17, udp(6767, 68))),
    "dhcpv6 answer": frame(BROADCAST, EVE, 0x86DD, ipv6(17, udp(547, 546))),
    "dhcpv6 answer behind a header": frame(BROADCAST, EVE, 0x86DD, with_hop_by_hop(17, udp(547, 546))),
}


@in_a_lan
def test_p39_nobody_speaks_as_bridge_router_or_dhcp_server(lan: Lan) -> None:
    if gaps := lan.network.gaps():
        pytest.skip("; ".join(gaps))
    eve, bob = lan.tap(EVE), lan.tap(BOB)
    assert {name for name, octets in FORBIDDEN.items() if passes(eve, bob, octets)} == set()


@in_a_lan
def test_what_is_forbidden_would_pass_without_the_filter(lan: Lan) -> None:
    """Else the test above could not fail. The bridge itself keeps LLDP back."""
    lan.network._filters = False
    eve, bob = lan.tap(EVE), lan.tap(BOB)
    assert {name for name, octets in FORBIDDEN.items() if not passes(eve, bob, octets)} == {"lldp"}


@in_a_lan
def test_p39_without_nftables_the_bridge_still_keeps_addresses_apart_and_the_gap_is_told(lan: Lan) -> None:
    lan.network._filters = False
    assert "router advertisements" in lan.network.gaps()[0]
    eve, bob = lan.tap(EVE), lan.tap(BOB)
    assert not passes(eve, bob, frame(BROADCAST, ALICE, payload=b"I am alice"))
    assert passes(eve, bob, frame(BROADCAST, EVE, payload=b"I am eve"))


@in_a_lan
def test_p39_isolated_neighbours_do_not_see_each_other(lan: Lan) -> None:
    alice, bob = lan.tap(ALICE, isolate=True), lan.tap(BOB, isolate=True)
    open_one = lan.tap(EVE)
    assert passes(alice, open_one, frame(BROADCAST, ALICE, payload=b"to the router"))
    send(alice, frame(BOB, ALICE, payload=b"psst"))
    send(alice, frame(BROADCAST, ALICE, payload=b"psst"))
    assert received(bob, mark(open_one)) == []


@in_a_lan
def test_p26_a_filter_whose_tap_is_gone_is_removed_at_the_next_start(lan: Lan) -> None:
    if gaps := lan.network.gaps():
        pytest.skip("; ".join(gaps))
    kept, gone = lan.tap(ALICE), lan.tap(BOB)
    assert gone.descriptor is not None
    os.close(gone.descriptor)  # as when the unikernel and its daemon were killed
    lan._taps.remove(gone)
    with contextlib.closing(Netlink(NETFILTER)) as netfilter:
        assert sorted(network_filter.filtered(netfilter)) == [kept.name, gone.name]
        LinuxNetwork().close()
        assert network_filter.filtered(netfilter) == [kept.name]


@in_a_lan
def test_counters_are_those_of_the_tap(lan: Lan) -> None:
    alice, bob = lan.tap(ALICE), lan.tap(BOB)
    for _ in range(5):
        assert passes(alice, bob, frame(BOB, ALICE))
    counters = lan.links()[alice.name].counters
    assert counters is not None
    assert counters.rx_packets == 10
    with open("/proc/thread-self/net/dev", encoding="ascii") as devices:
        row = next(line.split() for line in devices if line.strip().startswith(alice.name))
    assert [int(row[1]), int(row[2])] == [counters.rx_bytes, counters.rx_packets]
    assert [int(row[9]), int(row[10])] == [counters.tx_bytes, counters.tx_packets]


@in_a_lan
def test_statistics_agree_with_ip(lan: Lan) -> None:
    """The same numbers as ``ip -s link`` and proc_pid_stat(5), both ways and for every counter that AV5 has."""
    alice, bob = lan.tap(ALICE), lan.tap(BOB)
    for _ in range(3):
        assert passes(alice, bob, frame(BOB, ALICE, payload=b"x" * 100))
    assert passes(bob, alice, frame(ALICE, BOB))
    stopped = subprocess.Popen(["/bin/sleep", "600"])
    try:
        os.kill(stopped.pid, signal.SIGSTOP)
        os.waitpid(stopped.pid, os.WUNTRACED)
        sample = statistics(read_process(stopped.pid), [("service", lan.links()[alice.name])])
        shown = subprocess.run(["ip", "-s", "-j", "link", "show", "dev", alice.name], capture_output=True, check=True)
        fields = FilePath(f"/proc/{stopped.pid}/stat").read_text().rpartition(")")[2].split()
        status = FilePath(f"/proc/{stopped.pid}/status").read_text()
    finally:
        stopped.kill()
        stopped.wait()
    (link,) = json.loads(shown.stdout)
    received, sent = link["stats64"]["rx"], link["stats64"]["tx"]
    (interface,) = sample.interfaces
    assert received["packets"] > 3
    assert (interface.name, interface.mtu) == ("service", link["mtu"])
    assert [interface.input_packets, interface.input_bytes] == [received["packets"], received["bytes"]]
    assert [interface.input_errors, interface.input_dropped] == [received["errors"], received["dropped"]]
    assert [interface.output_packets, interface.output_bytes] == [sent["packets"], sent["bytes"]]
    assert [interface.output_errors, interface.output_dropped] == [sent["errors"], sent["dropped"]]
    assert [interface.input_mcast, interface.collisions] == [received["multicast"], sent["collisions"]]
    usage, memory = sample.usage, sample.memory
    assert memory is not None
    assert [usage.minflt, usage.majflt] == [int(fields[7]), int(fields[9])]
    ticks = os.sysconf("SC_CLK_TCK")
    spent = [each.seconds * ticks + each.microseconds * ticks // 1_000_000 for each in (usage.utime, usage.stime)]
    assert spent == [int(fields[11]), int(fields[12])]
    assert [memory.vsize, memory.rss] == [int(fields[20]), int(fields[21])]
    switches = [f"voluntary_ctxt_switches:\t{usage.nvcsw}\n", f"nonvoluntary_ctxt_switches:\t{usage.nivcsw}\n"]
    assert all(each in status for each in switches)


@in_a_lan
def test_pyroute2_sees_what_we_made(lan: Lan) -> None:
    """The library as an oracle of our own netlink."""
    pyroute2 = pytest.importorskip("pyroute2")
    tap = lan.tap(ALICE, isolate=True)
    with pyroute2.IPRoute() as ip:
        (link,) = ip.get_links(ifname=tap.name)
        assert link.get_attr("IFLA_IFALIAS") == alias_of("br0", ALICE, HELLO, "service")
        assert bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", "")) == tap_address(ALICE)
        entries = [each for each in ip.get_neighbours(family=7) if each.get_attr("NDA_LLADDR") == ALICE.hex(":")]
        assert [each["ifindex"] for each in entries] == [tap.index]
        port = link.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_SLAVE_DATA")
        assert (port.get_attr("IFLA_BRPORT_LEARNING"), port.get_attr("IFLA_BRPORT_UNICAST_FLOOD")) == (0, 0)
        assert port.get_attr("IFLA_BRPORT_ISOLATED") == 1


@in_a_lan
def test_it_works_inside_an_event_loop_and_from_several_threads(lan: Lan) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            mac = derived_mac("service", Name.parse(f"dev:u{number}"))
            tap = lan.network.create_tap("br0", mac, unikernel=HELLO, device="s", owner_uid=0)
            lan.network.attach(tap)
            lan.network.remove_tap(tap.name)
        except BaseException as error:  # noqa: BLE001  looked at below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert lan.network.taps() == ()


@in_a_lan
def test_what_the_kernel_refuses_is_told_in_words(lan: Lan) -> None:
    with pytest.raises(NetlinkError) as refusal:
        network_links.delete(lan.netlink, 4711)
    assert "no such device" in str(refusal.value)
    tap = lan.network.create_tap("br0", ALICE, unikernel=HELLO, device="s", owner_uid=0)
    lan.network.remove_tap(tap.name)
    with pytest.raises(NetworkRefused, match="attaching vmmtap0 to br0: no such device"):
        lan.network.attach(tap)


# without any network


def test_an_ordinary_user_is_told_what_to_do() -> None:
    with pytest.raises(NetworkRefused) as refusal:
        NoNetwork().create_tap("br0", ALICE, unikernel=HELLO, device="service", owner_uid=None)
    assert "dev:hello needs the network device service on bridge br0" in str(refusal.value)
    assert "root" in (refusal.value.hint or "")
    assert NoNetwork().taps() == ()
    actions: list[Callable[[], object]] = [
        lambda: NoNetwork().remove_tap("x"),
        lambda: NoNetwork().attach(Tap("x", 1, "b", ALICE, 1500, None)),
    ]
    for action in actions:
        with pytest.raises(NetworkRefused):
            action()


def test_the_network_fits_the_rights_of_the_process() -> None:
    network = open_network()
    assert isinstance(network, (LinuxNetwork, NoNetwork))
    assert isinstance(network.bridges(), frozenset)
    if isinstance(network, LinuxNetwork):
        network.close()
    else:
        assert os.geteuid() != 0


def test_p20_names_of_interfaces_are_checked() -> None:
    for good in ("br0", "vmmtap12", "eth0.100", "a" * 15):
        assert valid_interface(good)
    for bad in ("", ".", "..", "a" * 16, "a/b", "a b", "br\n", "br\x00", "brü", "-\x1b"):
        assert not valid_interface(bad)


@pytest.mark.parametrize("mac", [b"", bytes(5), bytes(6), BROADCAST, b"\x01\x80\xc2\x00\x00\x00"])
def test_addresses_that_no_station_has_are_refused(mac: bytes) -> None:
    with pytest.raises(NetworkRefused):
        checked_mac(mac)


def test_a_taps_own_address_differs_from_its_unikernels() -> None:
    for mac in (ALICE, b"\xfe" + ALICE[1:]):
        assert tap_address(mac) != mac
        assert checked_mac(tap_address(mac))


ALIAS_CASES = [("br0", ALICE, HELLO, "service"), ("a" * 15, BOB, Name.parse("top"), "d" * 63)]


@pytest.mark.parametrize("case", ALIAS_CASES)
def test_an_alias_tells_whose_a_tap_is(case: tuple[str, bytes, Name, str]) -> None:
    assert read_alias(alias_of(*case)) == case


def test_an_alias_is_never_too_long_and_others_are_not_ours() -> None:
    long = Name.parse(":".join(["x" * 63] * 6))
    alias = alias_of("br0", ALICE, long, "service")
    assert len(alias) <= 255
    assert read_alias(alias) == ("br0", ALICE, None, "-")
    for other in ("", "uplink", "albatross-pki", "albatross-pki br0 zz dev:x y", "albatross-pki br0 00 bad!name y"):
        assert read_alias(other) is None
