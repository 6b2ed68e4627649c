"""A bridge that is there after every boot: the files for ifupdown, systemd-networkd and netplan, as text.

Nothing is written: whoever runs the machine puts the text where its first comment says. What an interface manager
makes is not marked as ours, so ``bridge remove`` leaves it alone.

Sources: interfaces(5) of ifupdown; systemd.netdev(5), systemd.network(5); the netplan YAML reference (dummy-devices
since netplan 0.107).
"""

from collections.abc import Callable, Mapping
from ipaddress import IPv4Interface, IPv6Interface

from albatross_pki.host.bridges import (
    Forward,
    MakeBridge,
    MakeDummy,
    StopTranslating,
    Translate,
    Wanted,
    check_wanted,
    lines,
)
from albatross_pki.host.network import mac_text


def ifupdown(wanted: Wanted) -> str:
    """For ``/etc/network/interfaces.d``; ``ifup NAME`` brings it up at once."""
    name = wanted.name
    version_4 = [each for each in wanted.addresses if isinstance(each, IPv4Interface)]
    version_6 = [each for each in wanted.addresses if isinstance(each, IPv6Interface)]
    make = lines((MakeBridge(name, wanted.mac), MakeDummy(wanted.dummy, wanted.mac, name)))
    nat = lines((Forward(), Translate(name, wanted.translated))) if wanted.nat else []
    end_nat = lines((StopTranslating(name),)) if wanted.nat else []
    text = [f"# /etc/network/interfaces.d/{name}", f"auto {name}"]
    text += [f"iface {name} inet {'static' if version_4 else 'manual'}"]
    text += [f"    address {each}" for each in version_4[:1]]
    text += [f"    pre-up {command}" for command in make]
    text += [f"    up ip link set dev {name} up"] if not version_4 else []
    text += [f"    up ip address add {each} dev {name}" for each in version_4[1:]]
    text += [f"    up {command}" for command in nat]
    text += [f"iface {name} inet6 static\n    address {each}" for each in version_6[:1]]
    text += [f"    up ip address add {each} dev {name}" for each in version_6[1:]]
    # with the last family: ifdown goes through them in this order, and each needs the interface
    text += [f"    post-down {command}" for command in end_nat]
    text += [f"    post-down ip link delete dev {each}" for each in (wanted.dummy, name)]
    return "\n".join(text) + "\n"


def networkd(wanted: Wanted) -> str:
    """For ``/etc/systemd/network``; ``networkctl reload`` takes it at once."""
    name, dummy, mac = wanted.name, wanted.dummy, mac_text(wanted.mac)
    directory = "/etc/systemd/network"
    addresses = [f"Address={each}" for each in wanted.addresses]
    nat = ["# forwards too", "IPMasquerade=ipv4"] if wanted.nat else []
    files = {
        f"{directory}/60-{name}.netdev": ["[NetDev]", f"Name={name}", "Kind=bridge", f"MACAddress={mac}"],
        f"{directory}/60-{dummy}.netdev": ["[NetDev]", f"Name={dummy}", "Kind=dummy", f"MACAddress={mac}"],
        f"{directory}/60-{dummy}.network": [
            "[Match]", f"Name={dummy}", "", "[Network]", f"Bridge={name}", "LinkLocalAddressing=no",
        ],
        f"{directory}/60-{name}.network": [
            "[Match]", f"Name={name}", "",
            "[Network]", *addresses, "ConfigureWithoutCarrier=yes", "IPv6AcceptRA=no", *nat,
        ],
    }  # fmt: skip
    return _files(files)


def netplan(wanted: Wanted) -> str:
    """For ``/etc/netplan``; ``netplan apply`` takes it at once. Address translation is networkd's."""
    name, dummy, mac = wanted.name, wanted.dummy, mac_text(wanted.mac)
    addresses = _netplan_addresses(wanted)
    files = {
        f"/etc/netplan/60-{name}.yaml": [
            "network:",
            "  version: 2",
            "  renderer: networkd",
            "  dummy-devices:",
            f"    {dummy}:",
            f'      macaddress: "{mac}"',
            "      link-local: []",
            "  bridges:",
            f"    {name}:",
            f"      interfaces: [{dummy}]",
            f'      macaddress: "{mac}"',
            "      accept-ra: false",
            *addresses,
        ]
    }
    if wanted.nat:
        files[f"/etc/systemd/network/10-netplan-{name}.network.d/nat.conf"] = [
            "[Network]",
            "# forwards too",
            "IPMasquerade=ipv4",
        ]
    return _files(files)


def _netplan_addresses(wanted: Wanted) -> list[str]:
    quoted = ", ".join(f'"{each}"' for each in wanted.addresses)
    return [f"      addresses: [{quoted}]"] if quoted else []


def _files(files: Mapping[str, list[str]]) -> str:
    return "\n".join("\n".join((f"# {path}", *content)) + "\n" for path, content in files.items())


MANAGERS: Mapping[str, Callable[[Wanted], str]] = {"ifupdown": ifupdown, "networkd": networkd, "netplan": netplan}


def permanent(wanted: Wanted, manager: str) -> str:
    """The files for ``manager``, each after a comment that says where it goes. Raises ``BridgeRefused``."""
    check_wanted(wanted)
    return MANAGERS[manager](wanted)
