"""How a daemon of this package begins and ends: one socket, one coroutine, an end by signal.

1. as many descriptors as the system allows; 2. the socket, from systemd or made; 3. the daemon until SIGTERM or SIGINT;
4. the socket file that was made is removed.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable

from albatross_pki.transport.sockets import activated_socket, listen, raise_descriptor_limit

log = logging.getLogger(__name__)


def run_until_stopped(serve: Callable[[socket.socket], Awaitable[None]], path: str, *, activated: bool) -> None:
    """Run ``serve`` on the socket at ``path`` or on systemd's; raises ``NotListening``."""
    raise_descriptor_limit()
    listener = activated_socket() if activated else listen(path)
    try:
        log.info("listening on %s", path if not activated else "the socket of systemd")
        run_coroutine(lambda: serve(listener))
    finally:
        if not activated:  # before closing: afterwards the file may be somebody else's
            with contextlib.suppress(OSError):
                os.unlink(path)
        listener.close()


def run_coroutine(work: Callable[[], Awaitable[None]]) -> None:
    """Run ``work`` until it ends or SIGTERM or SIGINT comes, which is an orderly end."""
    asyncio.run(_until_stopped(work))


async def _until_stopped(work: Callable[[], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(work())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    try:
        await working
    except asyncio.CancelledError:
        log.info("stopped")
    except BaseExceptionGroup as group:  # of a task group: the first reason is the one to show
        raise _first(group) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
