"""Bridges and taps on Linux, over netlink and ``/dev/net/tun``; decisions about names and marks are in ``network``.

Against a unikernel that takes another's address or speaks for its network stand two things, each enough for the address
alone: rules of nftables on its tap (``network_filter``), and a port of the bridge that is locked to one address, learns
none and is not flooded with frames for others. What of it this kernel lacks, ``gaps`` says.

Source: Linux' Documentation/networking/tuntap.rst.
"""

import contextlib
import errno
import fcntl
import logging
import os
import platform
import socket
import struct
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence

from albatross_pki.host import network_filter
from albatross_pki.host.network import (
    TAP_PREFIX,
    DuplicateMac,
    NetworkRefused,
    NoSuchBridge,
    OwnedTap,
    Tap,
    alias_of,
    checked_mac,
    read_alias,
    tap_address,
    valid_interface,
)
from albatross_pki.host.network_links import (
    Link,
    delete,
    describe,
    enslave,
    find_link,
    forward,
    holder,
    links,
    set_up,
)
from albatross_pki.host.network_netlink import NETFILTER, ROUTE, Netlink, NetlinkError
from albatross_pki.names import Name
from albatross_pki.text import printable

TUN = "/dev/net/tun"
TAP_TEMPLATE = f"{TAP_PREFIX}%d".encode("ascii")  # the kernel puts the smallest free number there
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
_IFF_TAP, _IFF_NO_PI, _IFF_TUN_EXCL = 0x0002, 0x1000, 0x8000
_IFREQ = struct.Struct("16sH22x")
_LOCKED_PORTS_SINCE = (5, 18)

log = logging.getLogger(__name__)


class LinuxNetwork:
    """The networks of the calling thread's network namespace; needs CAP_NET_ADMIN."""

    def __init__(self) -> None:
        self._route = Netlink(ROUTE)
        self._netfilter = Netlink(NETFILTER)
        self._lock = threading.Lock()
        self._promised: dict[tuple[str, bytes], list[str]] = {}  # bridge and MAC address: our taps, attached or not
        self._filters = self._can_filter()
        self._remove_stale_filters()

    def close(self) -> None:
        self._route.close()
        self._netfilter.close()

    def bridges(self) -> frozenset[str]:
        with self._lock:
            return _bridges(links(self._route))

    def gaps(self) -> tuple[str, ...]:
        found = []
        if not self._filters:
            found.append(
                "unikernels can send bridge protocols, router advertisements and DHCP answers: "
                "this kernel has no nftables for devices (CONFIG_NF_TABLES_NETDEV)"
            )
            if _kernel_version() < _LOCKED_PORTS_SINCE:
                found.append("unikernels can use each other's MAC address: locked bridge ports need Linux 5.18")
        return tuple(found)

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
        checked_mac(mac)
        with self._lock, _refusals(f"making a network interface for {unikernel}"):
            port_of = self._find_bridge(bridge)
            self._check_unique(port_of, mac, frozenset(replacing))
            name, descriptor = _make()
            try:
                tap = self._prepare(name, descriptor, port_of, mac, unikernel, device, owner_uid, isolate=isolate)
            except BaseException:
                os.close(descriptor)  # it goes with its descriptor: it is not persistent yet
                self._remove_filter(name)
                raise
            self._promised.setdefault((bridge, mac), []).append(name)
            return tap

    def attach(self, tap: Tap) -> None:
        with self._lock, _refusals(f"attaching {tap.name} to {tap.bridge}"):
            bridge = self._find_bridge(tap.bridge)
            enslave(self._route, tap.index, bridge.index, isolated=tap.isolate)
            forward(self._route, tap.index, tap.mac)
            set_up(self._route, tap.index)

    def remove_tap(self, name: str) -> None:
        if not valid_interface(name):
            raise NetworkRefused(f"{printable(name)} is not the name of an interface")
        with self._lock, _refusals(f"removing {name}"):
            link = find_link(self._route, name)
            if link is not None:
                if read_alias(link.alias) is None:
                    raise NetworkRefused(f"{name} is not a tap of ours")
                try:
                    delete(self._route, link.index)
                except NetlinkError as error:
                    if error.code != errno.ENODEV:  # its last descriptor was closed at this moment
                        raise
            self._forget(name)
            self._remove_filter(name)

    def taps(self) -> tuple[OwnedTap, ...]:
        with self._lock:
            present = list(links(self._route))
        return tuple(_owned(present))

    def _prepare(
        self,
        name: str,
        descriptor: int,
        bridge: Link,
        mac: bytes,
        unikernel: Name,
        device: str,
        owner_uid: int | None,
        *,
        isolate: bool,
    ) -> Tap:
        index = socket.if_nametoindex(name)
        alias = alias_of(bridge.name, mac, unikernel, device)
        describe(self._route, index, alias=alias, mtu=bridge.mtu, address=tap_address(mac))
        if self._filters:
            network_filter.install(self._netfilter, name, mac)
        if owner_uid is None:
            return Tap(name, index, bridge.name, mac, bridge.mtu, descriptor, isolate)
        fcntl.ioctl(descriptor, _TUNSETOWNER, owner_uid)
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
        os.close(descriptor)
        return Tap(name, index, bridge.name, mac, bridge.mtu, None, isolate)

    def _find_bridge(self, name: str) -> Link:
        link = find_link(self._route, name)
        if link is None or link.kind != "bridge":
            raise NoSuchBridge(name, _bridges(links(self._route)))
        return link

    def _check_unique(self, bridge: Link, mac: bytes, replacing: frozenset[str]) -> None:
        """Refuse a MAC address that the bridge knows, or that a tap of ours will have there."""
        for name in self._promised.get((bridge.name, mac), []):
            if name not in replacing and find_link(self._route, name) is not None:
                raise DuplicateMac(mac, bridge.name, name)
        port = holder(self._route, bridge.index, mac)
        if port is not None:
            name = _interface_name(port)
            if name not in replacing:
                raise DuplicateMac(mac, bridge.name, name)

    def _forget(self, name: str) -> None:
        for key, names in list(self._promised.items()):
            if name in names:
                names.remove(name)
                if not names:
                    del self._promised[key]

    def _remove_filter(self, name: str) -> None:
        if self._filters:
            with contextlib.suppress(NetlinkError):
                network_filter.remove(self._netfilter, name)

    def _remove_stale_filters(self) -> None:
        """Remove filters whose tap went with its daemon: the kernel would put them on another one of that name."""
        if self._filters:
            with contextlib.suppress(NetlinkError):
                for name in network_filter.filtered(self._netfilter):
                    if name.startswith(TAP_PREFIX) and find_link(self._route, name) is None:
                        network_filter.remove(self._netfilter, name)

    def _can_filter(self) -> bool:
        try:
            network_filter.remove(self._netfilter, "probe")
        except NetlinkError as error:
            log.warning("frames of unikernels are not filtered: %s", error)
            return False
        return True


def list_bridges() -> frozenset[str]:
    """The names of the bridges; needs no right."""
    netlink = Netlink(ROUTE)
    try:
        return _bridges(links(netlink))
    finally:
        netlink.close()


def _bridges(present: Iterable[Link]) -> frozenset[str]:
    return frozenset(each.name for each in present if each.kind == "bridge")


def _interface_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # gone at this moment
        return f"interface {index}"


def _owned(present: Sequence[Link]) -> list[OwnedTap]:
    names = {each.index: each.name for each in present}
    found = []
    for each in present:
        if each.kind == "tun" and (mark := read_alias(each.alias)) is not None:
            bridge, mac, unikernel, device = mark
            found.append(OwnedTap(each.name, bridge, mac, unikernel, device, names.get(each.master)))
    return found


def _make() -> tuple[str, int]:
    """A new tap with the smallest free number, and the descriptor that it lives by, non-blocking."""
    try:
        descriptor = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NetworkRefused(f"{TUN} does not exist", hint="modprobe tun") from error
    try:
        request = bytearray(_IFREQ.pack(TAP_TEMPLATE, _IFF_TAP | _IFF_NO_PI | _IFF_TUN_EXCL))
        fcntl.ioctl(descriptor, _TUNSETIFF, request)
    except BaseException:
        os.close(descriptor)
        raise
    return _IFREQ.unpack(request)[0].rstrip(b"\0").decode("ascii"), descriptor


@contextlib.contextmanager
def _refusals(doing: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise NetworkRefused(f"{doing}: {error}") from error
    except OSError as error:
        raise NetworkRefused(f"{doing}: {os.strerror(error.errno or 0).lower()}") from error


def _kernel_version() -> tuple[int, ...]:
    return tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2] if part.isdigit())
