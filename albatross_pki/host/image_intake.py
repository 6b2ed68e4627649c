"""How an image comes in: whether its path may store it, then the octets, pinned and charged until it is deployed.

In this order: 1. what the certificates bind, or how much there is, against the quotas of every path up to the root;
2. it is promised, so that others at the same time find the room taken; 3. the octets, or an image that the same
delegation has here already; 4. afterwards it is let go: what the state refers to by then stays.
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from albatross_pki.errors import Refused
from albatross_pki.host.images import ImageRefused, Source, StoredImage, measure
from albatross_pki.host.limits import INLINE_WORK, MAX_IMAGE, MEBIBYTE
from albatross_pki.host.rights import Rights
from albatross_pki.host.supervisor import Supervisor
from albatross_pki.names import Name
from albatross_pki.unikernels import UnikernelConfig

_IMAGE_MISSING = "the image must be sent along"


@contextlib.asynccontextmanager
async def taken_image(
    supervisor: Supervisor, name: Name, config: UnikernelConfig, source: Source | None, rights: Rights
) -> AsyncIterator[StoredImage]:
    """The image in the store, pinned, and charged; as many octets as the memory asked for may be sent."""
    images, binding = supervisor.host.images, rights.binding
    limit = min(MAX_IMAGE, config.settings.memory_mb * MEBIBYTE)
    digest = None if binding is None else binding.digest
    if source is None:
        octets = _known_image(supervisor, name, rights).size
    else:
        octets = await _admitted(supervisor, name, source, rights, limit)
    with supervisor.stored.promised(name, octets, digest) as know:
        if source is None:
            image = _known_image(supervisor, name, rights)
            images.pin(image.digest)
        else:
            # what is not bound may be longer by now than it was when there was room for it
            take = functools.partial(images.take, source, limit=octets if binding is None else limit, binding=binding)
            image = take() if source.length <= INLINE_WORK else await asyncio.to_thread(take)
        know(image.size, image.digest)
        try:
            yield image
        finally:
            images.unpin(image.digest)


async def _admitted(supervisor: Supervisor, name: Name, source: Source, rights: Rights, limit: int) -> int:
    """How many octets of ``source`` there will be, at most; raises ``Refused`` where that is over a quota.

    Of an image without a binding the digest is not known: before it is refused, it is hashed, without a copy.
    """
    if rights.binding is not None:
        _check_quota(supervisor, name, rights, rights.binding.size, rights.binding.digest)
        return rights.binding.size
    octets = limit if source.compressed else min(limit, source.length)
    try:
        _check_quota(supervisor, name, rights, octets, None)
    except Refused:
        image = await asyncio.to_thread(measure, source, limit)
        _check_quota(supervisor, name, rights, image.size, image.digest)
        return image.size
    return octets


def _check_quota(supervisor: Supervisor, name: Name, rights: Rights, octets: int, digest: bytes | None) -> None:
    """Raise ``Refused`` with every quota that such an image for ``name`` would exceed."""
    old = supervisor.table.get(name)
    leaving = () if old is None else (old.deployment, *old.older)[supervisor.keep :]
    limits = supervisor.image_limits(supervisor.book.effective_at(datetime.now(UTC), rights.policies))
    going = {each.image: each.size for each in leaving}
    found = supervisor.stored.admit(name, octets, limits, digest=digest, leaving=going)
    if found:
        raise Refused([violation.text for violation in found], hint="destroy what is not needed below this path")


def _known_image(supervisor: Supervisor, name: Name, rights: Rights) -> StoredImage:
    """The image that the leaf names by its digest alone, if the same delegation deployed it before.

    Whoever else may have it here makes no difference, not even to the answer.
    """
    binding = rights.binding
    if binding is None or rights.top.is_root:
        raise ImageRefused(_IMAGE_MISSING)
    for unikernel in supervisor.table.values():
        if rights.top.contains(unikernel.name.path):
            for deployment in (unikernel.deployment, *unikernel.older):
                if deployment.image == binding.digest and deployment.size == binding.size:
                    _check_quota(supervisor, name, rights, deployment.size, deployment.image)
                    return StoredImage(deployment.image, deployment.size)
    raise ImageRefused(_IMAGE_MISSING)
