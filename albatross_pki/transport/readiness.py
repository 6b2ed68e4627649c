"""Waiting until a socket has something to read, with one registration at the event loop for many waits.

asyncio's own ``sock_recv`` registers and unregisters for every call. A ``Reading`` stays registered and reads in the
event loop's callback, so that the loop never sees octets that were announced before and are still there. Octets that
come while nobody waits end the registration: they stay in the kernel, whose buffer then slows their sender down.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Reading:
    """The reading side of one non-blocking socket. One task waits at a time; ``close`` it before the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._descriptor = connection.fileno()
        self._loop = asyncio.get_running_loop()
        self._registered = False
        self._take: Callable[[], Any] = lambda: None
        self._waiter: asyncio.Future[Any] | None = None

    async def until(self, take: Callable[[], T | None]) -> T:
        """What ``take`` gives, called whenever there is something to read until it is not ``None``.

        What it raises is raised here. It must read, or the event loop has nothing else to do.
        """
        if self._waiter is not None:
            raise RuntimeError("another task waits for this socket")
        waiter: asyncio.Future[T] = self._loop.create_future()
        self._take, self._waiter = take, waiter
        if not self._registered:
            self._loop.add_reader(self._descriptor, self._readable)
            self._registered = True
        try:
            return await waiter
        finally:
            self._waiter = None

    def close(self) -> None:
        """Forget the socket; a task that waits is cancelled by whoever started it."""
        if self._registered:
            self._loop.remove_reader(self._descriptor)
            self._registered = False

    def _readable(self) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():
            self.close()
            return
        try:
            taken = self._take()
        except Exception as error:  # noqa: BLE001  it belongs to whoever waits
            waiter.set_exception(error)
            return
        if taken is not None:
            waiter.set_result(taken)
