"""Taking over the state of Albatross' own daemon, and writing one that it can read.

``import_file`` reads a state dump of any of its formats into an empty state of ours: policies (the root's is
discovered anew), images, configurations. All of them are wanted; what does not fit into the policies starts, is
flagged by ``status``, and blocks new ones. ``exported`` is the reverse, in the newest format.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime

from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.files import read_file
from albatross_pki.host.images import ImageStore, Source
from albatross_pki.host.limits import MAX_FRAME
from albatross_pki.host.preparation import mapped
from albatross_pki.host.records import Deployment, Snapshot
from albatross_pki.host.state import FILE_NAME, State
from albatross_pki.messages import StateDump
from albatross_pki.names import Name
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.state import decode_state_dump, encode_state_dump

MAX_DUMP = 16 * MAX_FRAME  # a dump holds every image of a host


class BadDump(AlbatrossError):
    """A file that is not the state of Albatross' daemon."""


def import_file(path: str, dbdir: str) -> str:
    """Import the dump at ``path`` into the state in ``dbdir``; a sentence for people.

    Raises ``Refused`` if there is a state already, ``BadDump`` for a dump that cannot be understood. Then nothing is
    changed, and neither if this is ended before it returns.
    """
    if stat.S_ISCHR(os.stat(path).st_mode):
        raise BadDump(f"{path} is a device")
    if os.path.getsize(path) > MAX_DUMP:
        raise BadDump(f"{path} is longer than {MAX_DUMP} octets")
    try:
        dump = decode_state_dump(read_file(path, MAX_DUMP))  # a pipe has no size
    except MalformedMessage as error:
        raise BadDump(f"{path} is no state of Albatross: {error.message}") from error
    os.makedirs(dbdir, mode=0o700, exist_ok=True)
    with contextlib.closing(State(dbdir)) as state, contextlib.closing(_images(dbdir)) as images:
        return _import(dump, state, images)


def exported(snapshot: Snapshot, images: ImageStore) -> Iterator[tuple[Name, bytes]]:
    """Each unikernel of a state with its image."""
    for record in snapshot.unikernels:
        with mapped(images, record.deployments[0].image) as octets:
            yield record.name, bytes(octets)


def export(dbdir: str) -> bytes:
    """The state in ``dbdir`` as a dump in the newest format of Albatross; no daemon may be running."""
    if not os.path.exists(os.path.join(dbdir, FILE_NAME)):
        raise Refused([f"there is no state in {dbdir}"], hint="name the directory of albatrossd's state with --dbdir")
    with contextlib.closing(State(dbdir)) as state, contextlib.closing(_images(dbdir)) as images:
        snapshot = state.load()
        images.adopt(snapshot.images)
        configurations = dict(exported(snapshot, images))
    return encode_state_dump(
        StateDump(
            tuple((each.name, each.deployments[0].config(configurations[each.name])) for each in snapshot.unikernels),
            tuple((Name.of_path(path), policy) for path, policy in snapshot.operator),
        )
    )


def _images(dbdir: str) -> ImageStore:
    return ImageStore(os.path.join(dbdir, "images"))


def _import(dump: StateDump, state: State, images: ImageStore) -> str:
    snapshot = state.load()
    if snapshot.unikernels or snapshot.operator:
        raise Refused(["there is a state already"], hint="give another --dbdir, or move the old state away")
    images.adopt(snapshot.images)
    deployments = []
    try:
        for number, (name, config) in enumerate(dump.unikernels, snapshot.next_number):
            image = images.take(Source(octets=config.image, compressed=config.compressed))
            deployments.append(
                Deployment(number, name, config.settings, image.digest, image.size, datetime.now(UTC), config.typ)
            )
    except AlbatrossError:
        for deployment in deployments:
            images.unpin(deployment.image)
        raise
    policies = [(name.path, policy) for name, policy in dump.policies if not name.path.is_root]
    state.fill(deployments, policies)
    return f"imported {len(deployments)} unikernels and {len(policies)} policies"
