"""Bridges and taps: what a host must offer so that unikernels have networks, and the refusal where it cannot.

A *tap* of ours is called ``vmmtapN``, as Albatross', and carries an alias that says whose it is: only interfaces with
that alias are ever listed as ours or removed. In this order a tap comes to life: ``create_tap`` checks the bridge and
the MAC address, makes the interface and its filter; ``attach`` makes it a port of the bridge, right before the
unikernel starts, so that a replacement can be prepared while the one that it replaces still has the address.

``open_network`` chooses the implementation: Linux' with CAP_NET_ADMIN, else one that can only look.
"""

import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from albatross_pki.errors import AlbatrossError
from albatross_pki.names import Name
from albatross_pki.text import printable

TAP_PREFIX = "vmmtap"
MAX_ALIAS = 255  # octets: IFALIASZ without its NUL
_ALIAS = "albatross-pki"
_INTERFACE = re.compile(r"[A-Za-z0-9._-]{1,15}", re.ASCII)  # IFNAMSIZ without its NUL
_CAP_NET_ADMIN = 12


class NetworkRefused(AlbatrossError):
    """A network interface cannot be had."""


class NoSuchBridge(NetworkRefused):
    """``bridge`` is not there; ``bridges`` are."""

    def __init__(self, bridge: str, bridges: Collection[str]) -> None:
        there = ", ".join(printable(each) for each in sorted(bridges)) or "none"
        super().__init__(
            f"bridge {printable(bridge)} does not exist (there are: {there})",
            hint=f"albatross-host bridge add {bridge}" if valid_interface(bridge) else None,
        )
        self.bridge, self.bridges = bridge, frozenset(bridges)


class DuplicateMac(NetworkRefused):
    """Somebody else on the bridge has that MAC address."""

    def __init__(self, mac: bytes, bridge: str, holder: str) -> None:
        super().__init__(f"MAC address {mac_text(mac)} is on bridge {bridge} already, at {printable(holder)}")
        self.mac, self.bridge, self.holder = mac, bridge, holder


@dataclass(frozen=True, slots=True)
class Tap:
    """An interface for a unikernel; ``descriptor`` is its other end, or ``None`` if it is persistent."""

    name: str
    index: int
    bridge: str
    mac: bytes
    mtu: int
    descriptor: int | None
    isolate: bool = False


@dataclass(frozen=True, slots=True)
class OwnedTap:
    """A tap of ours as it was found; ``attached`` is the bridge that it is a port of, ``None`` for none."""

    name: str
    bridge: str
    mac: bytes
    unikernel: Name | None  # None if its name was too long for the alias
    device: str
    attached: str | None


class Network(Protocol):
    """The networks of a host. Calls may block for milliseconds, and may come from any thread."""

    def bridges(self) -> frozenset[str]:
        """The names of the bridges that there are."""

    def gaps(self) -> tuple[str, ...]:
        """What a unikernel can do to its neighbours on this host that it should not be able to, as sentences."""

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
        """A new tap for ``bridge``, not yet attached; raises ``NetworkRefused``.

        Without ``owner_uid`` it is for the embedded tender and lives as long as its descriptor; with it, it is
        persistent and that user may open it. Taps in ``replacing`` may have the same MAC address.
        """

    def attach(self, tap: Tap) -> None:
        """Set it up as a port of its bridge that has its MAC address and no other."""

    def remove_tap(self, name: str) -> None:
        """Remove a tap of ours and its filter; one that is gone already is fine."""

    def taps(self) -> tuple[OwnedTap, ...]:
        """Every tap of ours."""

    def close(self) -> None:
        """Let go of what this holds; interfaces stay as they are."""


class NoNetwork:
    """A network for those who may look and not change."""

    def bridges(self) -> frozenset[str]:
        if sys.platform != "linux":
            return frozenset()
        from albatross_pki.host.network_linux import list_bridges

        return list_bridges()

    def gaps(self) -> tuple[str, ...]:
        return ()

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
        del mac, owner_uid, isolate, replacing
        raise NetworkRefused(
            f"{unikernel} needs the network device {printable(device)} on bridge {printable(bridge)}, "
            "and this user may not make network interfaces",
            hint="run albatrossd as root, or use an image without network devices",
        )

    def attach(self, tap: Tap) -> None:
        raise NetworkRefused(f"this user may not attach {tap.name}")

    def remove_tap(self, name: str) -> None:
        raise NetworkRefused(f"this user may not remove {printable(name)}")

    def taps(self) -> tuple[OwnedTap, ...]:
        return ()

    def close(self) -> None:
        return


def open_network() -> Network:
    """The network of this host, as far as this process may use it."""
    if sys.platform == "linux" and _may_administrate():
        from albatross_pki.host.network_linux import LinuxNetwork

        return LinuxNetwork()
    return NoNetwork()


def _may_administrate() -> bool:
    """Whether CAP_NET_ADMIN is in effect (capabilities(7), proc_pid_status(5))."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return False


# names, addresses and marks: pure


def valid_interface(name: str) -> bool:
    """Whether ``name`` can be an interface's and needs no escape anywhere."""
    return _INTERFACE.fullmatch(name) is not None and name not in (".", "..")


def checked_mac(mac: bytes) -> bytes:
    """``mac`` if one station can have it; raises ``NetworkRefused``."""
    if len(mac) != 6 or mac[0] & 1 or not any(mac):
        raise NetworkRefused(f"{mac_text(mac)} is not the MAC address of one station")
    return mac


def mac_text(mac: bytes) -> str:
    return mac.hex(":")


def tap_address(mac: bytes) -> bytes:
    """The tap's own address: near the unikernel's, and so high that no bridge takes it for its own."""
    return b"\xfe" + mac[1:] if mac[0] != 0xFE else b"\xfa" + mac[1:]


def alias_of(bridge: str, mac: bytes, unikernel: Name, device: str) -> str:
    """The mark of a tap of ours; a name that is too long for it is left out."""
    alias = f"{_ALIAS} {bridge} {mac.hex()} {unikernel} {device}"
    return alias if len(alias.encode()) <= MAX_ALIAS else f"{_ALIAS} {bridge} {mac.hex()} - -"


def read_alias(alias: str) -> tuple[str, bytes, Name | None, str] | None:
    """Bridge, MAC address, unikernel and device of a mark; ``None`` for an alias that is not ours."""
    words = alias.split(" ")
    if len(words) != 5 or words[0] != _ALIAS:
        return None
    try:
        name = None if words[3] == "-" else Name.parse(words[3])
        return words[1], bytes.fromhex(words[2]), name, words[4]
    except (ValueError, AlbatrossError):
        return None
