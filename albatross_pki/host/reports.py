"""What albatrossd tells about its unikernels and its host: AV5's info, and the documents of our extended commands.

The documents are JSON; ``docs/operations.md`` lists their fields. Names are relative to the path that was asked about,
full where a single unikernel was asked about. Nothing here changes anything.
"""

import time
from datetime import UTC, datetime
from typing import Any

from albatross_pki import PROTOCOL_VERSION, __version__
from albatross_pki.host.preparation import block_name
from albatross_pki.host.records import Deployment
from albatross_pki.host.supervisor import Running, Supervisor, Unikernel
from albatross_pki.host.tenders import EMBEDDED
from albatross_pki.names import Name, Path, derived_mac
from albatross_pki.policies import Policy
from albatross_pki.text import printable
from albatross_pki.unikernels import DEFAULT_SECTOR_SIZE, BlockDeviceInfo, InterfaceInfo, UnikernelInfo, UnikernelType


def unikernel_infos(supervisor: Supervisor, asked: Name, *, arguments: bool) -> tuple[tuple[Name, UnikernelInfo], ...]:
    """The running unikernels that ``asked`` means: one, or everything at and below a path, siblings descending."""
    found = [
        (_shown(each.name, asked), _info(supervisor, each, arguments))
        for each in _asked(supervisor, asked)
        if each.running is not None
    ]
    return tuple(found)


def status_documents(supervisor: Supervisor, asked: Name, *, arguments: bool) -> list[dict[str, Any]]:
    """Wanted and actual state of everything that ``asked`` means, and of what has ended lately."""
    documents = [_status(supervisor, each, asked, arguments) for each in _asked(supervisor, asked)]
    gone = [
        {
            "name": str(_shown(each.name, asked)),
            "wanted": "nothing",
            "actual": "ended",
            "last_exit": str(each.exit),
            "ended": _time(each.at),
        }
        for each in supervisor.ended
        if _means(asked, each.name) and each.name not in supervisor.table
    ]
    return documents + gone


def host_document(supervisor: Supervisor, path: Path) -> dict[str, Any]:
    """The host as the holder of ``path`` sees it: tenders, what the path may use and what it uses."""
    host, now = supervisor.host, datetime.now(UTC)
    policy = supervisor.book.effective_at(now)(path)
    usage = supervisor.tree.usage(path)
    images = supervisor.stored.octets(path)
    image_limit = supervisor.image_limits(supervisor.book.effective_at(now))(path)
    over = [each.text for each in supervisor.book.exceeded(supervisor.tree, path, now)]
    if image_limit is not None and images > image_limit:
        over.append(f"images take {images} octets, {image_limit} are allowed")
    return {
        "version": __version__,
        "protocol": PROTOCOL_VERSION,
        "tenders": [*host.tenders.installed(), f"{EMBEDDED} (ABI 2)"],
        "console": supervisor.console.connected.is_set(),
        "path": str(path),
        "policy": None if policy is None else _policy(policy),
        "usage": {
            "unikernels": usage.unikernels,
            "memory_mb": usage.memory_mb,
            "block_mb": usage.block_mb,
            "cpuids": sorted(usage.cpuids),
            "bridges": sorted(usage.bridges),
        },
        "operator_policies": [
            str(Path(each.labels[len(path.labels) :]))
            for each in sorted(supervisor.book.operator)
            if path.contains(each)
        ],
        "images": {"octets": images, "limit_octets": image_limit},
        "over": over,
    }


def _asked(supervisor: Supervisor, asked: Name) -> list[Unikernel]:
    if not asked.is_path:
        found = supervisor.table.get(asked)
        return [] if found is None else [found]
    below = [each for each in supervisor.table.values() if asked.path.contains(each.name.path)]
    return sorted(below, key=lambda each: each.name, reverse=True)


def _means(asked: Name, name: Name) -> bool:
    return asked.path.contains(name.path) if asked.is_path else asked == name


def _shown(name: Name, asked: Name) -> Name:
    return name.relative_to(asked.path) if asked.is_path else name


def _info(supervisor: Supervisor, unikernel: Unikernel, arguments: bool) -> UnikernelInfo:
    running = unikernel.running
    deployment = unikernel.deployment if running is None else running.deployment
    settings, name = deployment.settings, deployment.name
    return UnikernelInfo(
        cpuids=settings.cpuids,
        memory_mb=settings.memory_mb,
        digest=_digest(supervisor, deployment, running),
        fail_behaviour=settings.fail_behaviour,
        startup=settings.startup,
        blocks=tuple(
            BlockDeviceInfo(
                block.name,
                block.host_device,
                block.sector_size or DEFAULT_SECTOR_SIZE,
                supervisor.host.blocks.devices.get(block_name(name, block), 0),
            )
            for block in settings.blocks
        ),
        interfaces=tuple(
            InterfaceInfo(each.name, each.host_bridge, each.mac or derived_mac(each.name, name))
            for each in settings.interfaces
        ),
        arguments=settings.arguments if arguments else None,
        started=None if running is None else running.record.started,
        cpus=settings.cpus,
        linux_boot_partition=settings.linux_boot_partition,
        typ=deployment.typ,
    )


def _digest(supervisor: Supervisor, deployment: Deployment, running: Running | None) -> bytes:
    """The image's SHA-256; of a virtual machine, as in AV5, its name on the host."""
    machines = supervisor.host.platform.machines
    if deployment.typ is not UnikernelType.BHYVE or machines is None:
        return deployment.image
    return b"" if running is None else machines.name(running.record.token).encode()


def _status(supervisor: Supervisor, unikernel: Unikernel, asked: Name, arguments: bool) -> dict[str, Any]:
    running = unikernel.running
    deployment = unikernel.deployment
    actual = unikernel.phase.value
    if unikernel.failures > 1 and actual in ("waiting", "starting", "running"):
        actual = "crash-looping"
    document: dict[str, Any] = {
        "name": str(_shown(unikernel.name, asked)),
        "wanted": unikernel.wanted.value,
        "actual": actual,
        "deployment": deployment.number,
        "image": deployment.image.hex(),
        "memory_mb": deployment.settings.memory_mb,
        "restarts": unikernel.restarts,
        "failures": unikernel.failures,
        "rollbacks": len(unikernel.older),
    }
    if running is not None:
        document["started"] = _time(running.record.started or datetime.now(UTC))
        document["tender"] = running.record.tender
    if unikernel.due is not None:
        document["starts_in_seconds"] = round(max(0.0, unikernel.due - time.monotonic()), 1)
    if unikernel.last_exit is not None:
        document["last_exit"] = str(unikernel.last_exit)
    if unikernel.trouble is not None:
        document["trouble"] = printable(unikernel.trouble)
    if arguments and deployment.settings.arguments is not None:
        document["arguments"] = [printable(each) for each in deployment.settings.arguments]
    if over := supervisor.book.exceeded(supervisor.tree, unikernel.name.path, datetime.now(UTC)):
        document["over"] = [each.text for each in over]
    return document


def _policy(policy: Policy) -> dict[str, Any]:
    return {
        "unikernels": policy.unikernels,
        "memory_mb": policy.memory_mb,
        "block_mb": policy.block_mb,
        "cpuids": sorted(policy.cpuids),
        "bridges": [printable(each) for each in sorted(policy.bridges)],
    }


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
