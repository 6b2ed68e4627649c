"""Virtual machines under FreeBSD's bhyve: what a configuration must be, and the command lines, as Albatross has them.

Pure. A machine has no image: it boots from its first disk, by ``bhyveload``, or by ``grub-bhyve`` where the
configuration names a partition for Linux. Devices are called ``0``, ``1``, … in their order, because bhyve knows them
by their slots.
Sources: Albatross 2.7.2's behaviour; bhyve(8), bhyveload(8).
"""

from collections.abc import Sequence

from albatross_pki.text import printable
from albatross_pki.unikernels import Settings

LOADER_SECONDS = 1  # a loader that waits for a key would wait for ever
_NAMES = 100_000  # alba-0 … alba-99999
_FIRST_SLOT = 2  # 0 is the host bridge, 1 the LPC bridge with the serial port


def machine_name(token: str) -> str:
    """What the machine of a process is called; ``token`` is eight hexadecimal digits."""
    return f"alba-{int(token, 16) % _NAMES}"


def violations(settings: Settings) -> list[str]:
    """Every reason why bhyve could not run this."""
    found = [
        f"network device on {printable(each.host_bridge)} with name {printable(each.name)} "
        f"not in ascending order (expected {number})"
        for number, each in enumerate(settings.interfaces)
        if each.name != str(number)
    ]
    found += [
        f"block device {printable(each.host_device)} with name {printable(each.name)} "
        f"not in ascending order (expected {number})"
        for number, each in enumerate(settings.blocks)
        if each.name != str(number)
    ]
    if not settings.blocks:
        found.append("couldn't find initial block device")
    elif settings.blocks[0].device is None:
        found.append("no name for initial disk")
    if settings.cpus < 1:
        found.append(f"a virtual machine with {settings.cpus} CPUs cannot run")
    if settings.linux_boot_partition is not None and not _is_partition(settings.linux_boot_partition):
        found.append(f"the partition {printable(settings.linux_boot_partition)} is not one that grub could be told of")
    return found


def _is_partition(text: str) -> bool:
    return text.isascii() and text.isalnum() and len(text) <= 16


def device_map(disk: str) -> str:
    """What grub-bhyve reads to know its first disk."""
    return f"(hd0) {disk}\n"


def load_command(settings: Settings, machine: str, disk: str, map_path: str) -> list[str]:
    """Make the machine and load what it boots; ``map_path`` is a file with ``device_map``."""
    within = ["timeout", f"{LOADER_SECONDS}s"]
    if settings.linux_boot_partition is None:
        return [*within, "bhyveload", f"-m{settings.memory_mb}m", f"-d{disk}", machine]
    root = f"-rhd0,{settings.linux_boot_partition}"
    return [*within, "grub-bhyve", f"-m{map_path}", root, f"-M{settings.memory_mb}", machine]


def run_command(settings: Settings, machine: str, taps: Sequence[tuple[str, bytes]], disks: Sequence[str]) -> list[str]:
    """Run the machine until it ends; ``taps`` are interfaces with the MAC address of the machine's side.

    Albatross pins no machine; here the CPUs of its configuration hold, which policies are about (cpuset(1)).
    """
    devices = [f"virtio-net,{interface},mac={mac.hex(':')}" for interface, mac in taps]
    devices += [f"virtio-blk,{disk}" for disk in disks]
    slots = [f"-s{slot},{device}" for slot, device in enumerate(devices, _FIRST_SLOT)]
    sizes = [f"-c{settings.cpus}", f"-m{settings.memory_mb}M"]
    pinned = ["cpuset", "-l", ",".join(map(str, sorted(settings.cpuids)))]
    return [*pinned, "bhyve", "-A", "-H", "-P", "-s0,hostbridge", "-s1,lpc", *slots, "-lcom1,stdio", *sizes, machine]


def destroy_command(machine: str) -> list[str]:
    return ["bhyvectl", "--destroy", f"--vm={machine}"]
