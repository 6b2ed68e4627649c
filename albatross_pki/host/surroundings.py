"""What a start needs of the host: directories, stores, tenders, network, users. No decision is taken here."""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from albatross_pki.errors import Refused
from albatross_pki.host.blocks import BlockStore
from albatross_pki.host.cgroups import Cgroups
from albatross_pki.host.confinement import Users
from albatross_pki.host.images import ImageStore
from albatross_pki.host.platforms import Platform, current
from albatross_pki.host.tenders import Tenders
from albatross_pki.image.solo5 import Solo5Image
from albatross_pki.names import Name

if TYPE_CHECKING:
    from albatross_pki.host.network import Network, Tap


class Claims:
    """Who uses a block device: one unikernel, or two of which one succeeds the other."""

    def __init__(self, blocks: BlockStore) -> None:
        self._blocks = blocks
        self._holders: Counter[Name] = Counter()

    def take(self, name: Name, verb: str, *, shared: bool = False) -> None:
        """Claim ``name``; ``shared`` with the one that will be replaced. Raises ``AlbatrossError``."""
        if not self._holders[name]:
            self._blocks.claim(name, verb)
        elif not shared:
            raise Refused([f"block device {name} already in use"])
        self._holders[name] += 1

    def drop(self, name: Name) -> None:
        self._holders[name] -= 1
        if self._holders[name] <= 0:
            del self._holders[name]
            self._blocks.release(name)


class Surroundings:
    """The host as one daemon sees it."""

    def __init__(
        self,
        tmpdir: str,
        dbdir: str,
        *,
        drop_path: bool = True,
        isolated_bridges: frozenset[str] = frozenset(),
        users: Users | None = None,
        cgroups: Cgroups | None = None,
        search_path: str | None = None,
        open_network: "Callable[[], Network] | None" = None,
        platform: Platform | None = None,
    ) -> None:
        self.platform = platform or current()
        self.tmpdir, self.dbdir = tmpdir, dbdir
        self.fifo_directory = os.path.join(tmpdir, "fifo")
        self.drop_path = drop_path
        self.isolated_bridges = isolated_bridges
        self.images = ImageStore(os.path.join(dbdir, "images"))
        self.blocks = BlockStore(os.path.join(dbdir, "block"))
        self.claims = Claims(self.blocks)
        self.tenders = Tenders(dbdir, search_path, embedded=self.platform.embedded_tender)
        self.users = users or Users()
        self.cgroups = cgroups or Cgroups(why="none were asked for")
        self.taps: dict[str, Tap] = {}
        self.parsed: dict[bytes, Solo5Image] = {}  # by digest
        self.boot = self.platform.boot_id()
        self._open_network = open_network or self.platform.open_network
        self._network: Network | None = None

    def bridges(self) -> Collection[str]:
        """The bridges that there are now."""
        return self.platform.bridges()

    async def network(self) -> "Network":
        """The host's network, opened when the first unikernel needs it: netlink is a large import."""
        if self._network is None:
            self._network = await asyncio.to_thread(self._open_network)
        return self._network

    @property
    def opened_network(self) -> "Network | None":
        return self._network

    def close(self) -> None:
        if self._network is not None:
            self._network.close()
        self.images.close()
