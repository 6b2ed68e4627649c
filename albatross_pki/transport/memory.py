"""Octets that several connections may hold in memory together.

Whoever is about to hold some asks first, and waits for others to give theirs back, within a deadline of its own. An
eighth is kept for small ones, which are so never kept waiting by large ones.
"""

import asyncio

from albatross_pki.transport.errors import FrameOverLimit

_SMALL = 64 * 1024


class SharedOctets:
    """``free`` of ``most`` octets. For one event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.free = most
        self._kept = most // 8
        self._waiting: list[asyncio.Future[None]] = []

    def try_take(self, octets: int) -> bool:
        """Take ``octets`` if they are free; whether they were."""
        if octets > (self.free if octets <= _SMALL else self.free - self._kept):
            return False
        self.free -= octets
        return True

    async def take(self, octets: int) -> None:
        """Take ``octets``, once they are free; raises ``FrameOverLimit`` for what never will be."""
        largest = self.most if octets <= _SMALL else self.most - self._kept
        if octets > largest:
            raise FrameOverLimit(octets, largest)
        while not self.try_take(octets):
            given = asyncio.get_running_loop().create_future()
            self._waiting.append(given)
            await given

    def give_back(self, octets: int) -> None:
        self.free += octets
        waiting, self._waiting = self._waiting, []
        for given in waiting:
            if not given.done():
                given.set_result(None)
