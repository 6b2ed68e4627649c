"""Bridges on Linux: what there is, read over netlink, and the steps of a plan, done over netlink."""

import contextlib
import errno
import ipaddress
from collections.abc import Iterator, Sequence
from typing import assert_never

from albatross_pki.host import network_links, network_nat
from albatross_pki.host.bridges import (
    ALIAS,
    ALIAS_WITHOUT_DUMMY,
    AddAddress,
    BridgeRefused,
    Forward,
    Interface,
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
    plan_add,
    plan_remove,
)
from albatross_pki.host.network_netlink import NETFILTER, ROUTE, Netlink, NetlinkError

FORWARDING = "/proc/sys/net/ipv4/ip_forward"
_MACHINE = "/etc/machine-id"  # machine-id(5)
DUMMY = "dummy"
_NO_SUCH_KIND = (errno.EOPNOTSUPP,)
_NOT_ALLOWED = (errno.EPERM, errno.EACCES)


class LinuxBridges:
    """The bridges of the calling thread's network namespace. Reading needs no right, except for NAT; use it once."""

    def __init__(self) -> None:
        self._route = Netlink(ROUTE)
        self._netfilter = Netlink(NETFILTER)
        self.notes: list[str] = []  # what could not be had and can be done without, for people

    def close(self) -> None:
        self._route.close()
        self._netfilter.close()

    def present(self) -> Present:
        """Everything that a plan looks at. Without the right to see it, NAT counts as not there."""
        try:
            return self._present()
        except NetlinkError as error:
            raise BridgeRefused(f"the interfaces of this machine cannot be read: {error}") from error

    def _present(self) -> Present:
        found = list(network_links.links(self._route))
        names = {each.index: each.name for each in found}
        addresses: dict[int, list[Interface]] = {}
        for index, octets, length in network_links.addresses(self._route):
            addresses.setdefault(index, []).append(ipaddress.ip_interface((octets, length)))
        nat: dict[str, tuple[ipaddress.IPv4Network, ...]] = {}
        with contextlib.suppress(NetlinkError):
            nat = network_nat.translated(self._netfilter)
        return Present(
            tuple(
                PresentLink(
                    name=each.name,
                    kind=each.kind,
                    mac=each.address,
                    up=bool(each.flags & network_links.IFF_UP),
                    alias=each.alias,
                    bridge=names.get(each.master),
                    addresses=tuple(addresses.get(each.index, ())),
                )
                for each in found
            ),
            tuple(sorted(nat.items())),
            _forwarding(),
        )

    def add(self, wanted: Wanted) -> tuple[Step, ...]:
        """Make the bridge as it is wanted; what was done. A bridge that could not be finished is taken away again."""
        steps = plan_add(wanted, self.present())
        done: list[Step] = []
        try:
            for step in steps:
                self._do(step)
                done.append(step)
        except BaseException:
            if any(isinstance(step, MakeBridge) for step in done):
                with contextlib.suppress(BridgeRefused):
                    self.remove(wanted.name, wanted.machine)
            raise
        return steps

    def remove(self, name: str, machine: bytes) -> tuple[Step, ...]:
        """Take a bridge of ours away; what was done."""
        steps = plan_remove(name, self.present(), machine)
        for step in steps:
            self._do(step)
        return steps

    def _do(self, step: Step) -> None:
        with _refusals(step):
            match step:
                case MakeBridge(name, mac):
                    network_links.add_bridge(self._route, name, address=mac, up=False)
                case MarkBridge(name):
                    network_links.rename_alias(self._route, self._index(name), ALIAS)
                case MakeDummy(name, mac, bridge):
                    self._make_dummy(name, mac, bridge)
                case SetUp(name):
                    network_links.set_up(self._route, self._index(name))
                case AddAddress(bridge, address):
                    network_links.add_address(
                        self._route, self._index(bridge), address.ip.packed, address.network.prefixlen
                    )
                case Forward():
                    with open(FORWARDING, "w", encoding="ascii") as switch:
                        switch.write("1\n")
                case Translate(bridge, networks):
                    network_nat.install(self._netfilter, bridge, networks)
                case StopTranslating(bridge):
                    network_nat.remove(self._netfilter, bridge)
                case RemoveLink(name):
                    network_links.delete(self._route, self._index(name))
                case _:
                    assert_never(step)

    def _make_dummy(self, name: str, mac: bytes, bridge: str) -> None:
        master = self._index(bridge)
        try:
            network_links.add_link(self._route, name, DUMMY, address=mac, master=master, up=True)
        except NetlinkError as error:
            if error.code not in _NO_SUCH_KIND:
                raise
            network_links.rename_alias(self._route, master, ALIAS_WITHOUT_DUMMY)
            self.notes.append(
                f"this kernel has no dummy interfaces: {bridge} has no carrier until its first unikernel runs"
            )

    def _index(self, name: str) -> int:
        link = network_links.find_link(self._route, name)
        if link is None:
            raise NetlinkError(errno.ENODEV)
        return link.index


def machine_identity() -> bytes:
    """Octets that tell this machine from others; empty where it has no identity."""
    try:
        with open(_MACHINE, "rb") as source:
            return source.read(64).strip()
    except OSError:
        return b""


def _forwarding() -> bool:
    try:
        with open(FORWARDING, encoding="ascii") as switch:
            return switch.read().strip() == "1"
    except OSError:
        return False


@contextlib.contextmanager
def _refusals(step: Step) -> Iterator[None]:
    try:
        yield
    except (NetlinkError, OSError) as error:
        code = error.code if isinstance(error, NetlinkError) else error.errno
        hint = "only root may change interfaces: sudo albatross-host bridge …" if code in _NOT_ALLOWED else None
        reason = str(error) if isinstance(error, NetlinkError) else (error.strerror or "").lower()
        raise BridgeRefused(f"{_words(step.commands)}: {reason}", hint=hint) from error


def _words(commands: Sequence[str]) -> str:
    return commands[0]
