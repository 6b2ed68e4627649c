"""Who is served at once on a unix socket, so that no user of the host keeps out another.

Users are told apart by the credentials that the kernel recorded (SO_PEERCRED). ``trusted`` ones, root and those that
the daemons run as, have all places; every other user has a part of them, and all others together leave some free. A
connection without a place waits, also for its turn among those of its own user. Of one user only so many may wait, and
further ones are refused.
"""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator

from albatross_pki.errors import Refused

MOST_WAITING = 128  # connections of one user; as many as listen(2) keeps for all
MOST_TRUSTED_WAITING = 1024  # each costs a descriptor
_PART, _RESERVED = 4, 8  # of all places: one user's, and those that are kept for trusted ones


class Places:
    """``most`` places; ``per_user`` of them for each user who is not ``trusted``."""

    def __init__(self, most: int, *, trusted: frozenset[int] | None = None, per_user: int | None = None) -> None:
        self._most = most
        self._trusted = frozenset({0, os.geteuid()}) if trusted is None else trusted
        self._per_user = max(1, most // _PART) if per_user is None else per_user
        self._all = asyncio.Semaphore(most)
        self._others = asyncio.Semaphore(max(1, most - max(1, most // _RESERVED)))
        self._users: dict[int, asyncio.Semaphore] = {}
        self._present: Counter[int] = Counter()

    def enter(self, uid: int) -> None:
        """Count a new connection of ``uid``; raises ``Refused``, else ``leave`` must follow."""
        most = self._most + MOST_TRUSTED_WAITING if uid in self._trusted else self._per_user + MOST_WAITING
        if self._present[uid] >= most:
            raise Refused([f"user {uid} has {most} connections to this socket already, which is the limit of the host"])
        self._present[uid] += 1

    def leave(self, uid: int) -> None:
        self._present[uid] -= 1
        if not self._present[uid]:
            del self._present[uid]
            self._users.pop(uid, None)

    @contextlib.asynccontextmanager
    async def place(self, uid: int) -> AsyncIterator[None]:
        """A place, once there is one for ``uid``; given up at the end of the block."""
        async with contextlib.AsyncExitStack() as taken:
            if uid not in self._trusted:
                own = self._users.setdefault(uid, asyncio.Semaphore(self._per_user))
                await taken.enter_async_context(own)
                await taken.enter_async_context(self._others)
            await taken.enter_async_context(self._all)
            yield
