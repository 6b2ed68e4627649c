"""Preparing a virtual machine, as ``preparation`` does a Solo5 unikernel: all that can fail, before anything stops.

1. configuration, CPUs, disks: all violations at once;
2. disks, taps and fifo are acquired, the machine is made and what it boots is loaded;
3. starting it is left. It has no user and no cgroup of its own: bhyve is root's.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import Collection

from albatross_pki.errors import Refused
from albatross_pki.host.configurations import configuration_violations, missing_on_host
from albatross_pki.host.fifos import Fifo
from albatross_pki.host.machine import online_cpus
from albatross_pki.host.platforms import Machines
from albatross_pki.host.preparation import (
    TOKEN_OCTETS,
    Prepared,
    attach_taps_later,
    block_name,
    block_violations,
    claim_blocks,
    make_taps,
)
from albatross_pki.host.records import Deployment, ProcessRecord
from albatross_pki.host.surroundings import Surroundings
from albatross_pki.names import Name

TENDER = "bhyve"


async def prepare_machine(
    host: Surroundings,
    machines: Machines,
    deployment: Deployment,
    *,
    replacing: ProcessRecord | None = None,
    claimed: Collection[Name] = (),
) -> Prepared:
    """Prepare ``deployment``; raises ``Refused`` with all reasons, or another ``AlbatrossError``."""
    settings = deployment.settings
    bridges = host.bridges() if settings.interfaces else ()
    reasons = [
        *configuration_violations(deployment.name, settings, deployment.typ, host.platform.types),
        *machines.violations(settings),
        *missing_on_host(settings, bridges, online_cpus()),
        *block_violations(host, deployment, claimed),
    ]
    if reasons:
        raise Refused(reasons)
    token = secrets.token_hex(TOKEN_OCTETS)
    with contextlib.ExitStack() as transient, contextlib.ExitStack() as held:
        claim_blocks(host, deployment, claimed, held)
        disks = [host.blocks.path(block_name(deployment.name, each)) for each in settings.blocks]
        nets, taps = await make_taps(host, deployment, os.geteuid(), replacing, transient, held)
        fifo = Fifo(host.fifo_directory, deployment.name, token)
        held.callback(fifo.close)
        held.callback(machines.unload, token)
        await asyncio.to_thread(machines.load, settings, token, disks[0])
        interfaces = {tap.device: tap.interface for tap in taps}
        starter = machines.starter(settings, token, [(interfaces[each.name], each.mac) for each in nets], disks)
        transient.callback(starter.close)
        record = ProcessRecord(
            token=token,
            name=deployment.name,
            deployment=deployment.number,
            boot=host.boot,
            tender=TENDER,
            uid=os.geteuid(),
            taps=tuple(taps),
        )
        names = frozenset(block_name(deployment.name, each) for each in settings.blocks)
        return Prepared(
            deployment,
            record,
            fifo,
            names,
            starter,
            attach_taps_later(host, taps),
            transient.pop_all(),
            held.pop_all(),
        )
    raise AssertionError("unreachable: the stacks never swallow an exception")
