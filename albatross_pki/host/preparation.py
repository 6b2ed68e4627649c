"""Everything that can fail about a start, done before anything that runs is touched.

``prepare`` decides and acquires in this order:

1. image and configuration are checked, all violations at once: image, manifest, memory, CPUs, bridges, blocks;
2. the tender is chosen;
3. user, block devices, taps and fifo are acquired;
4. the process is composed; only making it is left.

What was acquired is undone in reverse order when anything fails, or when the one who asked has no use for it
(``Prepared.discard``). What a *running* unikernel needs stays acquired until ``Prepared.release``.
"""

import asyncio
import contextlib
import mmap
import os
import secrets
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.host.configurations import command_line, configuration_violations, device_texts, missing_on_host
from albatross_pki.host.fifos import Fifo
from albatross_pki.host.images import ImageStore
from albatross_pki.host.limits import INLINE_WORK, PARSED_IMAGES
from albatross_pki.host.machine import online_cpus
from albatross_pki.host.records import AttachedTap, Deployment, ProcessRecord
from albatross_pki.host.spt.attached import TITLE_OCTETS, AttachedBlock, AttachedDevice, AttachedNet, Confinement
from albatross_pki.host.surroundings import Surroundings
from albatross_pki.host.tenders import Starter, Tender, embedded, installed
from albatross_pki.image.elf import BadImage
from albatross_pki.image.loading import lay_out
from albatross_pki.image.solo5 import Solo5Image, parse_image
from albatross_pki.names import Name, derived_mac
from albatross_pki.unikernels import DEFAULT_SECTOR_SIZE, BlockDevice, UnikernelType

Result = TypeVar("Result")
TOKEN_OCTETS = 4  # eight digits, a dot and six characters of the label make a process title


@dataclass(slots=True)
class Prepared:
    """A unikernel that is ready to start: ``start`` makes its process."""

    deployment: Deployment
    record: ProcessRecord
    fifo: Fifo
    blocks: frozenset[Name]
    _starter: Starter
    _attach: Callable[[], None]
    _transient: contextlib.ExitStack  # closed once the process has what it needs
    _held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def attach(self) -> None:
        """Make the taps ports of their bridges; call it when the predecessor is gone. Blocks for about 1 ms a tap."""
        self._attach()

    def start(self) -> int:
        """Make the process and return its pid; our copies of its descriptors are closed."""
        try:
            return self._starter.start(self.fifo.output)
        finally:
            self._transient.close()
            self.fifo.close_output()

    def discard(self) -> None:
        """Undo everything; nothing was started."""
        self._transient.close()
        self._held.close()

    def release(self) -> None:
        """The process is gone: give back what it held."""
        self._held.close()


async def prepare(host: Surroundings, deployment: Deployment, *, replacing: ProcessRecord | None = None,
                  claimed: Collection[Name] = ()) -> Prepared:  # fmt: skip
    """Prepare ``deployment``; ``replacing`` and the block devices ``claimed`` belong to its predecessor.

    Raises ``Refused`` with all reasons, or another ``AlbatrossError``; then nothing is left behind.
    """
    if deployment.typ is UnikernelType.BHYVE and host.platform.machines is not None:
        from albatross_pki.host.preparation_machines import prepare_machine

        return await prepare_machine(host, host.platform.machines, deployment, replacing=replacing, claimed=claimed)
    image, checked = await _work(deployment.size, lambda: _check_image(host, deployment))
    reasons = [
        *checked,
        *configuration_violations(deployment.name, deployment.settings, deployment.typ, host.platform.types),
        *missing_on_host(deployment.settings, host.bridges() if deployment.settings.interfaces else (), online_cpus()),
        *block_violations(host, deployment, claimed),
    ]
    if reasons or image is None:
        raise Refused(reasons)
    tender = await host.tenders.choose(image.abi)
    token = secrets.token_hex(TOKEN_OCTETS)
    with contextlib.ExitStack() as transient, contextlib.ExitStack() as held:
        uid = host.users.take()
        held.callback(host.users.give_back, uid)
        disks = _attach_blocks(host, deployment, claimed, transient, held)
        owner = None if tender.path is None else (os.geteuid() if uid is None else uid)
        nets, taps = await make_taps(host, deployment, owner, replacing, transient, held)
        fifo = Fifo(host.fifo_directory, deployment.name, token)
        held.callback(fifo.close)
        title = f"{(deployment.name.label or '')[: TITLE_OCTETS - 2 * TOKEN_OCTETS - 1]}.{token}"
        confinement = Confinement(
            title=title, uid=uid, cpuids=deployment.settings.cpuids, cgroup=host.cgroups.make(deployment, token, held)
        )
        starter = await _work(
            deployment.size,
            lambda: _compose(host, deployment, image, tender, [*nets, *disks], taps, confinement),
        )
        transient.callback(starter.close)
        record = ProcessRecord(
            token=token,
            name=deployment.name,
            deployment=deployment.number,
            boot=host.boot,
            tender=tender.word,
            uid=os.geteuid() if uid is None else uid,
            taps=tuple(taps),
        )
        names = frozenset(block_name(deployment.name, each) for each in deployment.settings.blocks)
        return Prepared(
            deployment, record, fifo, names, starter, attach_taps_later(host, taps), transient.pop_all(), held.pop_all()
        )
    raise AssertionError("unreachable: the stacks never swallow an exception")


def block_name(name: Name, block: BlockDevice) -> Name:
    """The host's block device that a configuration means: one in the unikernel's own path."""
    return Name(name.path, block.host_device)


@contextlib.contextmanager
def mapped(images: ImageStore, digest: bytes) -> Iterator[memoryview]:
    """The octets of a stored image, without copying a large one. Only albatrossd can write to the file: it stays as is.

    Where mapping and unmapping would take longer than reading, it is read.
    """
    descriptor = images.open(digest)
    try:
        size = os.fstat(descriptor).st_size
        if size <= INLINE_WORK:
            yield memoryview(os.pread(descriptor, size, 0))
            return
        with mmap.mmap(descriptor, size, prot=mmap.PROT_READ) as octets, memoryview(octets) as view:
            yield view
    finally:
        os.close(descriptor)


async def _work(size: int, work: Callable[[], Result]) -> Result:
    """Do ``work`` here if it is small, in a thread if it would hold up everybody else."""
    return work() if size <= INLINE_WORK else await asyncio.to_thread(work)


def _check_image(host: Surroundings, deployment: Deployment) -> tuple[Solo5Image | None, list[str]]:
    """The parsed image, or ``None``, and everything that is wrong with it."""
    try:
        image = _parsed(host, deployment.image)
    except BadImage as error:
        return None, [error.message]
    reasons = device_texts(image.manifest, deployment.settings)
    try:
        lay_out(image, max(0, deployment.settings.memory_mb))
    except AlbatrossError as error:
        reasons.append(error.message)
    return image, reasons


def _parsed(host: Surroundings, digest: bytes) -> Solo5Image:
    """What the image with ``digest`` says of itself: the same octets always say the same, many unikernels share them.

    The file is opened by whoever needs its octets, so one that is missing is noticed all the same.
    """
    image = host.parsed.get(digest)
    if image is None:
        with mapped(host.images, digest) as octets:
            image = parse_image(octets)
        if len(host.parsed) >= PARSED_IMAGES:
            host.parsed.pop(next(iter(host.parsed)), None)  # a thread may have taken it
        host.parsed[digest] = image
    return image


def block_violations(host: Surroundings, deployment: Deployment, claimed: Collection[Name]) -> list[str]:
    reasons = []
    for block in deployment.settings.blocks:
        try:
            name = block_name(deployment.name, block)
        except AlbatrossError as error:
            reasons.append(f"block device: {error}")
            continue
        if name not in host.blocks.devices:
            reasons.append(f"block device {name} not found")
        elif name not in claimed and host.blocks.in_use(name):
            reasons.append(f"block device {name} already in use")
    return reasons


def claim_blocks(
    host: Surroundings, deployment: Deployment, claimed: Collection[Name], held: contextlib.ExitStack
) -> None:
    """Take the block devices of ``deployment`` for itself; those ``claimed`` are shared with its predecessor."""
    for block in deployment.settings.blocks:
        name = block_name(deployment.name, block)
        host.claims.take(name, f"start {deployment.name}", shared=name in claimed)
        held.callback(host.claims.drop, name)


def _attach_blocks(
    host: Surroundings,
    deployment: Deployment,
    claimed: Collection[Name],
    transient: contextlib.ExitStack,
    held: contextlib.ExitStack,
) -> list[AttachedBlock]:
    attached = []
    claim_blocks(host, deployment, claimed, held)
    for block in deployment.settings.blocks:
        name = block_name(deployment.name, block)
        descriptor = host.blocks.open(name)
        transient.callback(os.close, descriptor)
        sector = block.sector_size or DEFAULT_SECTOR_SIZE
        attached.append(AttachedBlock(block.name, descriptor, os.lseek(descriptor, 0, os.SEEK_END), sector))
    return attached


async def make_taps(
    host: Surroundings,
    deployment: Deployment,
    owner: int | None,
    replacing: ProcessRecord | None,
    transient: contextlib.ExitStack,
    held: contextlib.ExitStack,
) -> tuple[list[AttachedNet], list[AttachedTap]]:
    """One tap for each interface: for ``owner``, who opens it by its name, or with a descriptor that is handed over."""
    attached: list[AttachedNet] = []
    recorded: list[AttachedTap] = []
    if not deployment.settings.interfaces:
        return attached, recorded
    network = await host.network()
    former = [tap.interface for tap in replacing.taps] if replacing is not None else []
    for interface in deployment.settings.interfaces:
        mac = interface.mac or derived_mac(interface.name, deployment.name)
        tap = await asyncio.to_thread(
            network.create_tap,
            interface.host_bridge,
            mac,
            unikernel=deployment.name,
            device=interface.name,
            owner_uid=owner,
            isolate=interface.host_bridge in host.isolated_bridges,
            replacing=former,
        )
        held.callback(network.remove_tap, tap.name)
        if tap.descriptor is not None:
            transient.callback(os.close, tap.descriptor)
        descriptor = -1 if tap.descriptor is None else tap.descriptor
        attached.append(AttachedNet(interface.name, descriptor, mac, tap.mtu))
        recorded.append(AttachedTap(interface.name, tap.name, interface.host_bridge))
        host.taps[tap.name] = tap
        held.callback(host.taps.pop, tap.name, None)
    return attached, recorded


def attach_taps_later(host: Surroundings, taps: list[AttachedTap]) -> Callable[[], None]:
    """What makes the taps ports of their bridges."""

    def attach() -> None:
        for each in taps:
            if host.opened_network is not None:
                host.opened_network.attach(host.taps[each.interface])

    return attach


def _compose(
    host: Surroundings,
    deployment: Deployment,
    image: Solo5Image,
    tender: Tender,
    devices: list[AttachedDevice],
    taps: list[AttachedTap],
    confinement: Confinement,
) -> Starter:
    words = command_line(deployment.name, deployment.settings, drop_path=host.drop_path)
    with mapped(host.images, deployment.image) as octets:
        if tender.path is None:
            return embedded(image, octets, deployment.settings, words, devices, confinement)
        interfaces = {tap.device: tap.interface for tap in taps}
        named = [(device, interfaces.get(device.name)) for device in devices]
        return installed(tender, octets, deployment.settings, words, named, confinement)
