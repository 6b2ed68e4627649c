"""``albatross-host bridge``: networks for unikernels on this machine. Parses, calls, prints."""

import contextlib
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from albatross_pki.host.bridges import Interface

_MANAGERS = ("ifupdown", "networkd", "netplan")


@click.group(help="Networks for the unikernels of this machine: bridges with an address and, if wanted, NAT.")
def bridge() -> None:
    pass


class _Address(click.ParamType[Any]):
    """An address with the length of its network's prefix."""

    name = "ADDRESS/BITS"

    def convert(self, value: object, parameter: click.Parameter | None, context: click.Context | None) -> "Interface":
        import ipaddress

        text = str(value)
        try:
            if "/" not in text:
                raise ValueError("the number of bits of the network is missing, as in 10.0.0.1/24")
            return ipaddress.ip_interface(text)
        except ValueError as error:
            self.fail(str(error), parameter, context)


@bridge.command()
@click.argument("name")
@click.option(
    "--address", "addresses", type=_Address(), multiple=True, help="An address for the host on it (repeatable)."
)
@click.option("--nat", is_flag=True, help="Unikernels reach other IPv4 networks with the host's address.")
@click.option("--dry-run", is_flag=True, help="Change nothing, print what would be done as commands.")
@click.option(
    "--permanent", type=click.Choice(_MANAGERS), help="Change nothing, print the file that makes it at every boot."
)
def add(
    name: str,
    addresses: "tuple[Interface, ...]",
    nat: bool,
    dry_run: bool,
    permanent: str | None,
) -> None:
    """Make the bridge NAME as it is wanted; a second time changes nothing.

    It gets a MAC address that stays the same, a dummy interface NAME-0 that keeps it up without unikernels, and
    the addresses. NAT is a table albatross-nat-NAME of nftables, and switches forwarding on.

    \b
    EXAMPLES
      albatross-host bridge add service --address 10.0.0.1/24 --nat
      albatross-host bridge add service --address 10.0.0.1/24 --dry-run
      albatross-host bridge add service --address 10.0.0.1/24 --permanent networkd
    """
    from albatross_pki.host.bridges import Wanted, lines, plan_add
    from albatross_pki.host.bridges_linux import LinuxBridges, machine_identity

    wanted = Wanted(name, addresses, nat, machine_identity())
    if permanent is not None:
        from albatross_pki.host.bridges_permanent import permanent as files

        click.echo(files(wanted, permanent), nl=False)
        return
    with contextlib.closing(LinuxBridges()) as bridges:
        if dry_run:
            for line in lines(plan_add(wanted, bridges.present())):
                click.echo(line)
            return
        done = bridges.add(wanted)
        for note in bridges.notes:
            click.echo(f"note: {note}", err=True)
        click.echo(f"bridge {name} {'is there' if done else 'was as it should be'}")


@bridge.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Change nothing, print what would be done as commands.")
def remove(name: str, dry_run: bool) -> None:
    """Take the bridge NAME away that albatross-host made, with its dummy interface and its NAT.

    Refused while unikernels use it. Forwarding stays switched on: others may need it.
    """
    from albatross_pki.host.bridges import lines, plan_remove
    from albatross_pki.host.bridges_linux import LinuxBridges, machine_identity

    with contextlib.closing(LinuxBridges()) as bridges:
        if dry_run:
            for line in lines(plan_remove(name, bridges.present(), machine_identity())):
                click.echo(line)
            return
        done = bridges.remove(name, machine_identity())
        click.echo(f"bridge {name} {'is gone' if done else 'was not there'}")


@bridge.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def list_bridges(as_json: bool) -> None:
    """Every bridge of this machine: its addresses, its ports, whether it has NAT, and who made it."""
    from albatross_pki.host.bridges_linux import LinuxBridges

    with contextlib.closing(LinuxBridges()) as bridges:
        present = bridges.present()
    rows = [
        {
            "name": each.name,
            "up": each.up,
            "mac": each.mac.hex(":"),
            "addresses": [str(address) for address in each.addresses],
            "ports": sorted(port.name for port in present.ports(each.name)),
            "nat": [str(network) for network in present.translated(each.name) or ()],
            "ours": each.is_ours,
        }
        for each in sorted(present.links, key=lambda link: link.name)
        if each.kind == "bridge"
    ]
    if as_json:
        import json

        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo("this machine has no bridge", err=True)
    for row in rows:
        click.echo(_line(row))


def _line(row: dict[str, object]) -> str:
    from albatross_pki.text import printable

    words = [printable(str(row["name"])), "up" if row["up"] else "down"]
    for title in ("addresses", "ports", "nat"):
        values = row[title]
        if isinstance(values, list) and values:
            words.append(f"{title} {', '.join(printable(str(each)) for each in values)}")
    return "  ".join([*words, *(["made by albatross-host"] if row["ours"] else [])])
