"""What is to be done for a bridge, and when it is refused: from values to values, on no machine at all."""

import ipaddress
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albatross_pki.host.bridges import (
    ALIAS,
    ALIAS_WITHOUT_DUMMY,
    AddAddress,
    BridgeRefused,
    Forward,
    MakeBridge,
    MakeDummy,
    MarkBridge,
    Present,
    PresentLink,
    RemoveLink,
    SetUp,
    Step,
    StopTranslating,
    Translate,
    Wanted,
    lines,
    plan_add,
    plan_remove,
)
from albatross_pki.host.bridges_permanent import MANAGERS, permanent
from albatross_pki.host.network import alias_of
from albatross_pki.names import Name

ADDRESS = ipaddress.ip_interface("10.9.0.1/24")
V6 = ipaddress.ip_interface("fd00::1/64")
NETWORK = ipaddress.IPv4Network("10.9.0.0/24")
WANTED = Wanted("br0", (ADDRESS, V6), nat=True, machine=b"this one")
LOOPBACK = PresentLink("lo", "", bytes(6), True, addresses=(ipaddress.ip_interface("127.0.0.1/8"),))
ETHERNET = PresentLink("eth0", "", b"\x52" + bytes(5), True, addresses=(ipaddress.ip_interface("192.0.2.7/24"),))
BARE = Present((LOOPBACK, ETHERNET))


def after(present: Present, steps: tuple[Step, ...]) -> Present:
    """What a machine has when these steps are done: the model that plans are judged by."""
    links = _links_after({each.name: each for each in present.links}, steps)
    nat, forwarding = dict(present.nat), present.forwarding
    for step in steps:
        match step:
            case Forward():
                forwarding = True
            case Translate(name, networks):
                nat[name] = networks
            case StopTranslating(name):
                del nat[name]
    return Present(tuple(links.values()), tuple(nat.items()), forwarding)


def _links_after(links: dict[str, PresentLink], steps: tuple[Step, ...]) -> dict[str, PresentLink]:
    for step in steps:
        match step:
            case MakeBridge(name, mac):
                links[name] = PresentLink(name, "bridge", mac, False)
            case MarkBridge(name):
                links[name] = replace(links[name], alias=ALIAS)
            case MakeDummy(name, mac, bridge):
                links[name] = PresentLink(name, "dummy", mac, True, "", bridge)
            case SetUp(name):
                links[name] = replace(links[name], up=True)
            case AddAddress(name, address):
                links[name] = replace(links[name], addresses=(*links[name].addresses, address))
            case RemoveLink(name):
                del links[name]
                links = {k: replace(x, bridge=None if x.bridge == name else x.bridge) for k, x in links.items()}
    return links


def test_a_bridge_is_made_step_by_step() -> None:
    steps = plan_add(WANTED, BARE)
    assert [type(step) for step in steps] == [
        MakeBridge, MarkBridge, MakeDummy, SetUp, AddAddress, AddAddress, Translate, Forward,
    ]  # fmt: skip
    assert steps[-2] == Translate("br0", (NETWORK,)), "IPv6 has addresses enough"


def test_every_step_says_itself_as_commands() -> None:
    steps = (*plan_add(WANTED, BARE), *plan_remove("br0", after(BARE, plan_add(WANTED, BARE))))
    assert len({type(step) for step in steps}) == 9
    for line in lines(steps):
        assert re.match(r"(ip (link|address) (add|set|delete) |sysctl -w |nft )", line), line


NAMES = st.sampled_from(["br0", "service", "a"])
ADDRESSES = st.lists(
    st.sampled_from([ADDRESS, V6, ipaddress.ip_interface("10.8.0.1/16")]), max_size=3, unique=True
)  # fmt: skip


@given(NAMES, ADDRESSES, st.booleans(), ADDRESSES, st.booleans())
def test_a_second_time_changes_nothing_and_removing_leaves_what_was(
    name: str, first: list[ipaddress.IPv4Interface], nat: bool, second: list[ipaddress.IPv4Interface], nat_too: bool
) -> None:
    wanted = Wanted(name, tuple(first), nat and any(each.version == 4 for each in first))
    made = after(BARE, plan_add(wanted, BARE))
    assert plan_add(wanted, made) == ()
    more = Wanted(name, tuple(dict.fromkeys((*first, *second))), wanted.nat or (nat_too and ADDRESS in second))
    grown = after(made, plan_add(more, made))
    assert plan_add(more, grown) == ()
    gone = after(grown, plan_remove(name, grown))
    assert gone.links == BARE.links
    assert gone.nat == ()
    assert plan_remove(name, gone) == ()


def test_whoever_is_ended_at_any_step_can_go_on_or_back() -> None:
    steps = plan_add(WANTED, BARE)
    whole = after(BARE, steps)
    for count in range(len(steps) + 1):
        part = after(BARE, steps[:count])
        assert after(part, plan_add(WANTED, part)) == whole
        assert after(part, plan_remove("br0", part, WANTED.machine)).links == BARE.links
    steps = plan_remove("br0", whole, WANTED.machine)
    for count in range(len(steps) + 1):
        part = after(whole, steps[:count])
        rest = after(part, plan_remove("br0", part, WANTED.machine))
        assert (rest.links, rest.nat) == (BARE.links, ())
        again = after(part, plan_add(WANTED, part))
        assert set(again.links) == set(whole.links)


def test_what_is_left_of_a_bridge_that_somebody_removed_is_ours() -> None:
    made = after(BARE, plan_add(WANTED, BARE))
    left = after(made, (RemoveLink("br0"),))
    assert set(after(left, plan_add(WANTED, left)).links) == set(made.links)
    assert after(left, plan_remove("br0", left, WANTED.machine)).links == BARE.links


def test_a_bridge_that_an_interface_manager_made_for_us_is_not_taken_for_unfinished() -> None:
    """It has the same MAC address, and no alias."""
    theirs = PresentLink("br0", "bridge", WANTED.mac, True)
    for there in (theirs, replace(theirs, up=False, addresses=(ADDRESS,)), replace(theirs, up=False, alias="lan")):
        present = Present((*BARE.links, there))
        assert MarkBridge("br0") not in plan_add(WANTED, present)
        with pytest.raises(BridgeRefused, match="was not made by albatross-host"):
            plan_remove("br0", present, WANTED.machine)


def test_a_link_local_address_is_free_on_every_bridge() -> None:
    local = ipaddress.ip_interface("fe80::1/64")
    other = PresentLink("eth1", "", bytes(6), True, addresses=(ipaddress.ip_interface("fe80::2/64"),))
    assert AddAddress("br0", local) in plan_add(Wanted("br0", (local,)), Present((*BARE.links, other)))


def test_only_what_is_missing_is_added() -> None:
    made = after(BARE, plan_add(Wanted("br0", (ADDRESS,)), BARE))
    assert plan_add(WANTED, made) == (AddAddress("br0", V6), Translate("br0", (NETWORK,)), Forward())
    down = Present(tuple(replace(x, up=x.up and x.name not in ("br0", "br0-0")) for x in made.links))
    assert plan_add(Wanted("br0", (ADDRESS,)), down) == (SetUp("br0-0"), SetUp("br0"))


def test_the_mac_address_is_its_own_and_stays() -> None:
    assert WANTED.mac == Wanted("br0", machine=b"this one").mac
    assert len({WANTED.mac, Wanted("br1", machine=b"this one").mac, Wanted("br0", machine=b"other").mac}) == 3
    assert WANTED.mac[0] & 3 == 2, "locally administered, one station"
    assert len(WANTED.mac) == 6


def test_a_bridge_of_somebody_else_is_used_and_gets_no_port() -> None:
    foreign = Present((*BARE.links, PresentLink("br0", "bridge", bytes(6), True)))
    assert plan_add(Wanted("br0", (ADDRESS,)), foreign) == (AddAddress("br0", ADDRESS),)


def test_a_kernel_without_dummies_is_not_asked_again() -> None:
    there = Present((*BARE.links, PresentLink("br0", "bridge", WANTED.mac, True, ALIAS_WITHOUT_DUMMY)))
    assert plan_add(Wanted("br0", machine=b"this one"), there) == ()
    assert plan_remove("br0", there) == (RemoveLink("br0"),)


@pytest.mark.parametrize(
    ("wanted", "text", "hint"),
    [
        (Wanted("fourteen-chars"), "too long for a bridge", "at most 13"),
        (Wanted("sixteen-and-more"), "cannot be the name", "at most 13"),
        (Wanted("a b"), "a b cannot be the name", "letters"),
        (Wanted("br0; reboot"), "cannot be the name", "letters"),
        (Wanted("../br0"), "cannot be the name", "letters"),
        (Wanted("-br0"), "cannot be the name", "letters"),
        (Wanted(""), "an empty text cannot be the name", "letters"),
        (
            Wanted("br0", (ipaddress.ip_interface("fe80::1%eth0/64"),)),
            "another interface, eth0",
            "--address fe80::1/64",
        ),
        (
            Wanted("br0", tuple(ipaddress.ip_interface(f"10.{n}.0.1/24") for n in range(13)), nat=True),
            "13 networks are too many to translate",
            "a larger network",
        ),
        (Wanted("."), "cannot be the name", "letters"),
        (Wanted("br\x1b[2J"), r"br\\x1b\[2J cannot be the name", "letters"),
        (Wanted("eth0"), "eth0 exists and is no bridge", "another name"),
        (Wanted("br0", (), nat=True), "needs an IPv4 network", "--address 10.0.0.1/24 --nat"),
        (Wanted("br0", (V6,), nat=True), "needs an IPv4 network", "--address"),
        (Wanted("br0", (ipaddress.ip_interface("192.0.2.1/25"),)), "eth0 has 192.0.2.7/24", "another network"),
        (Wanted("br0", (ipaddress.ip_interface("0.0.0.0/0"),)), "leaves no address", "10.0.0.1/24"),
        (Wanted("br0", (ipaddress.ip_interface("10.0.0.1/32"),)), "leaves no address", "10.0.0.1/24"),
        (Wanted("br0", (ipaddress.ip_interface("224.0.0.1/24"),)), "leaves no address", "10.0.0.1/24"),
        (Wanted("br0", (ipaddress.ip_interface("10.9.0.0/24"),)), "is the network", "--address 10.9.0.1/24"),
        (Wanted("br0", (ipaddress.ip_interface("10.9.0.255/24"),)), "broadcast", "--address 10.9.0.1/24"),
        (
            Wanted("br0", (ADDRESS, ipaddress.ip_interface("10.9.0.2/24"))),
            "10.9.0.1/24 and 10.9.0.2/24 are in one network",
            "one address",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(wanted: Wanted, text: str, hint: str) -> None:
    with pytest.raises(BridgeRefused, match=text) as refused:
        plan_add(wanted, BARE)
    assert hint in (refused.value.hint or "")


def test_another_address_of_its_network_is_refused_with_the_way_to_change_it() -> None:
    made = after(BARE, plan_add(Wanted("br0", (ADDRESS,)), BARE))
    with pytest.raises(BridgeRefused, match=r"br0 has 10\.9\.0\.1/24") as refused:
        plan_add(Wanted("br0", (ipaddress.ip_interface("10.9.0.2/24"),)), made)
    assert refused.value.hint == "albatross-host bridge remove br0"


def test_a_dummy_of_somebody_else_is_refused() -> None:
    with pytest.raises(BridgeRefused, match="br0-0 exists and is no port of br0"):
        plan_add(WANTED, Present((*BARE.links, PresentLink("br0-0", "dummy", bytes(6), True))))


def test_only_an_unused_bridge_of_ours_is_removed() -> None:
    made = after(BARE, plan_add(WANTED, BARE))
    mac = bytes.fromhex("008041000001")
    alias = alias_of("br0", mac, Name.parse("dev:hello"), "service")
    used = Present((*made.links, PresentLink("vmmtap0", "tun", mac, True, alias, "br0")), made.nat)
    with pytest.raises(BridgeRefused, match=r"br0 is in use by vmmtap0 \(dev:hello\)") as refused:
        plan_remove("br0", used)
    assert "destroy" in (refused.value.hint or "")
    foreign = Present((PresentLink("br0", "bridge", mac, True),))
    with pytest.raises(BridgeRefused, match="was not made by albatross-host") as refused:
        plan_remove("br0", foreign)
    assert "ip link delete dev br0" in (refused.value.hint or "")
    with pytest.raises(BridgeRefused, match="eth0 was not made"):
        plan_remove("eth0", BARE)


@pytest.mark.parametrize("manager", sorted(MANAGERS))
def test_permanent_files_say_all_of_it(manager: str) -> None:
    text = permanent(WANTED, manager)
    mac = WANTED.mac.hex(":")
    assert text.startswith("# /etc/")
    for part in ("br0-0", mac, "10.9.0.1/24", "fd00::1/64"):
        assert part in text
    assert ("masquerade" in text.lower()) == WANTED.nat
    assert "masquerade" not in permanent(Wanted("br0", (ADDRESS,)), manager).lower()
    assert text.endswith("\n")
    with pytest.raises(BridgeRefused):
        permanent(Wanted("br0", (V6,), nat=True), manager)
