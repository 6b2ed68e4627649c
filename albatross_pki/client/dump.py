"""State files of Albatross' own daemon, read without any daemon: what is in one, and the image of one unikernel.

A state file holds everything that a host was to run, images included, and is usually read by root: it is decoded by the
same strict tables as what comes over a socket. A host of ours keeps its state in another form; ``export`` has
albatrossd write such a file of it.
"""

import os
import shutil
import subprocess
import sys
from typing import Any

from albatross_pki.client.documents import mac_text, policy_document, restart_document
from albatross_pki.client.files import MAX_IMAGE, BadFile
from albatross_pki.client.show import POLICY_HEADING, policy_rows, restart_text, short, short_text
from albatross_pki.client.table import layout
from albatross_pki.client.upstream import fail_text, name_text, partition_text, policy_text, startup_text
from albatross_pki.errors import AlbatrossError
from albatross_pki.messages import StateDump
from albatross_pki.names import Name
from albatross_pki.text import printable
from albatross_pki.unikernels import BlockDevice, NetworkInterface, UnikernelConfig, UnikernelType
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.state import decode_state_dump

OUR_STATE = "albatross.sqlite"  # in a directory of albatrossd of albatross-pki
HEADING = ("NAME", "MEMORY", "CPU", "RESTART", "STARTUP", "NETWORK", "BLOCK", "IMAGE")
MAX_DUMP = 2 << 30  # octets; a dump holds every image of a host


def dump_path(file: str, dbdir: str) -> str:
    """Where a dump is: a bare file name is one in ``dbdir``, anything with a directory is taken as it is."""
    return file if os.path.dirname(file) else os.path.join(dbdir, file)


def read_dump(path: str) -> StateDump:
    """The dump at ``path``, of any of its formats, in the order of the tree of names; raises ``BadFile``."""
    try:
        with open(path, "rb") as file:
            octets = file.read(MAX_DUMP + 1)
    except FileNotFoundError as error:
        raise BadFile(path, "dump file not found", hint=_where(path)) from error
    except OSError as error:
        reason = f"error while reading dump file: {(error.strerror or 'unknown').lower()}"
        raise BadFile(path, reason) from error
    if len(octets) > MAX_DUMP:
        raise BadFile(path, f"error while reading dump file: it has more than {MAX_DUMP} octets")
    try:
        dump = decode_state_dump(octets)
    except MalformedMessage as error:
        raise BadFile(path, f"couldn't parse dump file: {error.message}") from error
    return StateDump(
        tuple(sorted(dump.unikernels, key=lambda entry: _place(entry[0]))),
        tuple(sorted(dump.policies, key=lambda entry: _place(entry[0]))),
        dump.version,
    )


def _where(path: str) -> str | None:
    if os.path.exists(os.path.join(os.path.dirname(path), OUR_STATE)):
        return f"this is the state of albatross-pki: export-dump FILE --dbdir {os.path.dirname(path)}"
    return "name it with --file FILE, or its directory with --dbdir DIR"


def _place(name: Name) -> tuple[tuple[str, ...], bool]:
    return (name.path.labels, False) if name.label is None else ((*name.path.labels, name.label), True)


def unikernel_of(dump: StateDump, name: Name) -> UnikernelConfig:
    """The configuration of ``name``, its image uncompressed."""
    found = dict(dump.unikernels).get(name)
    if found is None:
        raise AlbatrossError("unikernel not found", hint="inspect-dump lists those that are there")
    return found


def image_of(config: UnikernelConfig) -> bytes:
    """The image of a configuration, uncompressed."""
    if not config.compressed:
        return config.image
    from albatross_pki.wire.compression import decompress

    return decompress(config.image, MAX_IMAGE)


def dump_document(dump: StateDump) -> dict[str, Any]:
    """What ``-o json`` prints (``docs/output.md``)."""
    return {
        "unikernels": [configuration_document(name, config) for name, config in dump.unikernels],
        "policies": [policy_document(name, policy) for name, policy in dump.policies],
    }


def configuration_document(name: Name, config: UnikernelConfig) -> dict[str, Any]:
    """A configuration: what a unikernel was asked to be."""
    settings = config.settings
    return {
        "name": str(name),
        "type": config.typ.value,
        "compressed": config.compressed,
        "image_octets": len(config.image),
        "restart": restart_document(settings.fail_behaviour),
        "startup": settings.startup,
        "add_name": settings.add_name,
        "cpuids": sorted(settings.cpuids),
        "memory_mb": settings.memory_mb,
        "blocks": [
            {
                "name": printable(each.name),
                "device": printable(each.host_device),
                "sector_size": each.sector_size,
            }
            for each in settings.blocks
        ],
        "networks": [
            {
                "name": printable(each.name),
                "bridge": printable(each.host_bridge),
                "mac": None if each.mac is None else mac_text(each.mac),
            }
            for each in settings.interfaces
        ],
        "cpus": settings.cpus,
        "linux_boot_partition": (
            None if settings.linux_boot_partition is None else printable(settings.linux_boot_partition)
        ),
        "arguments": None if settings.arguments is None else [printable(each) for each in settings.arguments],
    }


def dump_lines(dump: StateDump) -> list[str]:
    """A dump in the words of Albatross' own client."""
    return [
        f"parsed {len(dump.unikernels)} unikernels:",
        *(f"{name_text(name)}: {configuration_text(config)}" for name, config in dump.unikernels),
        f"parsed {len(dump.policies)} policies:",
        *(f"{name_text(name)}: {policy_text(policy)}" for name, policy in dump.policies),
    ]


def dump_names(dump: StateDump) -> list[str]:
    """What ``-o name`` prints."""
    return [short(name) for name, _ in dump.unikernels]


def dump_table(dump: StateDump, width: int | None) -> str:
    """A dump for people."""
    documents = dump_document(dump)
    unikernels = [
        [
            short_text(each["name"]),
            f"{each['memory_mb']} MB",
            ",".join(map(str, each["cpuids"])),
            restart_text(each["restart"]),
            "-" if each["startup"] is None else str(each["startup"]),
            ", ".join(f"{one['name']} on {one['bridge']}" for one in each["networks"]) or "-",
            ", ".join(f"{one['name']} on {one['device']}" for one in each["blocks"]) or "-",
            f"{each['image_octets']} octets" + (", compressed" if each["compressed"] else ""),
        ]
        for each in documents["unikernels"]
    ]
    policies = policy_rows(documents["policies"])
    tables = [
        layout(heading, rows, width) if rows else nothing
        for heading, rows, nothing in (
            (HEADING, unikernels, "no unikernels"),
            (POLICY_HEADING, policies, "no policies"),
        )
    ]
    return "\n\n".join(tables)


def configuration_text(config: UnikernelConfig) -> str:
    """A configuration in the words of Albatross' own client, without its arguments."""
    settings = config.settings
    return " ".join(
        (
            f"typ {'solo5' if config.typ is UnikernelType.SOLO5 else 'BHyve'}",
            f"compression {'true' if config.compressed else 'false'} image {len(config.image)} bytes",
            f"fail behaviour {fail_text(settings.fail_behaviour)}",
            f"startup at {startup_text(settings.startup)}",
            f"add_name {'true' if settings.add_name else 'false'}",
            f"CPUids {', '.join(map(str, sorted(settings.cpuids)))}",
            f"{settings.memory_mb} MB memory",
            f"block devices {', '.join(map(_block_text, settings.blocks))}",
            f"bridge {', '.join(map(_bridge_text, settings.interfaces))}",
            f"#cpus {settings.cpus}",
            f"linux_boot {partition_text(settings.linux_boot_partition)}",
        )
    )


def arguments_text(config: UnikernelConfig) -> str:
    """``argv`` and the arguments of a configuration."""
    arguments = config.settings.arguments
    return "argv no" if arguments is None else " ".join(["argv", *(printable(each) for each in arguments)])


def _block_text(block: BlockDevice) -> str:
    sector = "" if block.sector_size is None else f", sector-size: {block.sector_size}"
    return f"{printable(block.name)} -> {printable(block.host_device)}{sector}"


def _bridge_text(interface: NetworkInterface) -> str:
    mac = "" if interface.mac is None else f"@{mac_text(interface.mac)}"
    return f"{printable(interface.name)} -> {printable(interface.host_bridge)}{mac}"


def export(file: str, dbdir: str) -> int:
    """Have albatrossd write the state in ``dbdir`` to ``file``; its exit status. Nobody may be running there."""
    beside = os.path.join(os.path.dirname(sys.executable), "albatrossd")
    program = beside if os.access(beside, os.X_OK) else shutil.which("albatrossd")
    if program is None:
        raise AlbatrossError("albatrossd is not installed here", hint="export on the host, whose state it is")
    return subprocess.run([program, "--export-dump", file, "--dbdir", dbdir], check=False).returncode
