"""Bridges and taps on FreeBSD, through ifconfig(8), which is the interface that there is; not tried on FreeBSD.

A tap is ``ifconfig tap create``, its mark is the interface's description. Against a unikernel that takes another's
address, a port has one static address and learns none; ``private`` ports do not see each other. What is not dropped,
for want of a filter on a tap, ``gaps`` says.
"""

import contextlib
import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from albatross_pki.host.network import (
    DuplicateMac,
    NetworkRefused,
    NoSuchBridge,
    OwnedTap,
    Tap,
    alias_of,
    checked_mac,
    mac_text,
    read_alias,
    valid_interface,
)
from albatross_pki.host.runner import CommandFailed
from albatross_pki.names import Name
from albatross_pki.text import printable

if TYPE_CHECKING:
    from albatross_pki.host.runner import Runner

_MTU = re.compile(r"\bmtu ([0-9]+)")
_DESCRIPTION = re.compile(r"^\tdescription: (.*)$", re.MULTILINE)
_MEMBER = re.compile(r"^\tmember: (\S+)", re.MULTILINE)
_NO_INDEX = 0  # ifconfig knows interfaces by name
_USUAL_MTU = 1500


class FreeBSDNetwork:
    """The networks of this machine; each call starts ifconfig once or more."""

    def __init__(self, runner: "Runner") -> None:
        self._runner = runner

    def bridges(self) -> frozenset[str]:
        return frozenset(self._group("bridge"))

    def gaps(self) -> tuple[str, ...]:
        return (
            "unikernels can send bridge protocols, router advertisements and DHCP answers: "
            "taps of FreeBSD are not filtered here",
        )

    def create_tap(
        self,
        bridge: str,
        mac: bytes,
        *,
        unikernel: Name,
        device: str,
        owner_uid: int | None,
        isolate: bool = False,
        replacing: Collection[str] = (),
    ) -> Tap:
        del owner_uid  # tenders run as root here
        checked_mac(mac)
        there = self.bridges()
        if bridge not in there:
            raise NoSuchBridge(bridge, there)
        holder = self._holder(bridge, mac)
        if holder is not None and holder not in replacing:
            raise DuplicateMac(mac, bridge, holder)
        found = _MTU.search(self._show(bridge))
        mtu = int(found[1]) if found else _USUAL_MTU
        name = self._ifconfig("tap", "create").strip()
        if not valid_interface(name) or name.startswith("-"):
            raise NetworkRefused(f"ifconfig tap create gave no interface but {printable(name)}")
        try:
            self._ifconfig(name, "description", alias_of(bridge, mac, unikernel, device), "mtu", str(mtu))
        except BaseException:
            with contextlib.suppress(NetworkRefused):
                self._ifconfig(name, "destroy")
            raise
        return Tap(name, _NO_INDEX, bridge, mac, mtu, None, isolate)

    def attach(self, tap: Tap) -> None:
        isolated = ["private", tap.name] if tap.isolate else []
        self._ifconfig(tap.bridge, "addm", tap.name, "-learn", tap.name, *isolated)
        self._ifconfig(tap.bridge, "static", tap.name, mac_text(tap.mac))
        self._ifconfig(tap.name, "up")

    def remove_tap(self, name: str) -> None:
        if not valid_interface(name) or name.startswith("-"):
            raise NetworkRefused(f"{printable(name)} is not the name of an interface")
        try:
            shown = self._runner.run("ifconfig", name)
        except CommandFailed:
            return  # gone already
        if _mark(shown) is None:
            raise NetworkRefused(f"{name} is not a tap of ours")
        self._ifconfig(name, "destroy")

    def taps(self) -> tuple[OwnedTap, ...]:
        members = {tap: bridge for bridge in self.bridges() for tap in _MEMBER.findall(self._show(bridge))}
        found = []
        for name in self._group("tap"):
            mark = _mark(self._show(name))
            if mark is not None:
                bridge, mac, unikernel, device = mark
                found.append(OwnedTap(name, bridge, mac, unikernel, device, members.get(name)))
        return tuple(found)

    def close(self) -> None:
        """Each question is a program of its own: nothing is held."""

    def _group(self, name: str) -> list[str]:
        """The interfaces of a group, which is called as what made them."""
        return self._ifconfig("-g", name).split()

    def _show(self, name: str) -> str:
        return self._ifconfig(name)

    def _holder(self, bridge: str, mac: bytes) -> str | None:
        """The port of the bridge that has an address: lines of address, VLAN, interface, age, flags."""
        for line in self._ifconfig(bridge, "addr").splitlines():
            words = line.split()
            if len(words) >= 3 and words[0].lower() == mac_text(mac):
                return words[2]
        return None

    def _ifconfig(self, *arguments: str) -> str:
        try:
            return self._runner.run("ifconfig", *arguments)
        except CommandFailed as error:
            raise NetworkRefused(error.message) from error


def _mark(shown: str) -> tuple[str, bytes, Name | None, str] | None:
    found = _DESCRIPTION.search(shown)
    return None if found is None else read_alias(found[1])
