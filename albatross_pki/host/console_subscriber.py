"""A subscriber's socket, for consoles and statistics: never waited for, bounded, closed when it breaks.

What a subscriber misses is decided in ``console_backlog``; reading what it sends is left to whoever serves it.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

from albatross_pki.host.console_backlog import Backlog

log = logging.getLogger(__name__)


class Subscriber:
    """One subscriber's socket: what fits is sent at once, the rest waits in its backlog."""

    def __init__(self, connection: socket.socket, limit: int, marker: Callable[[int], bytes]) -> None:
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self.backlog = Backlog(limit, marker)
        self._waiting = False
        self._closed = False

    def offer(self, frames: bytes, lines: int) -> None:
        """Send lines that are encoded already, or count them as missed."""
        self.backlog.offer(frames, lines)
        self._flush()

    def answer(self, octets: bytes) -> None:
        """Send a frame that is no line."""
        self.backlog.answer(octets)
        self._flush()

    def miss(self, lines: int) -> None:
        """Tell of lines that are not sent."""
        self.backlog.miss(lines)
        self._flush()

    def close(self) -> None:
        """End the subscription from our side; whoever serves the connection sees its end."""
        if not self._closed:
            self._stop()
            _shutdown(self._socket)

    def _flush(self) -> None:
        if not self._waiting and not self._closed:
            self._send()

    def _send(self) -> None:
        try:
            while buffers := self.backlog.buffers():
                self.backlog.sent(self._socket.sendmsg(buffers, (), socket.MSG_NOSIGNAL))
        except (BlockingIOError, InterruptedError):
            if not self._waiting:
                self._waiting = True
                self._loop.add_writer(self._socket, self._send)
            return
        except OSError:
            self.close()
            return
        self._stop_waiting()

    def _stop(self) -> None:
        self._stop_waiting()
        self._closed = True

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting = False
            self._loop.remove_writer(self._socket)


def _shutdown(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        log.debug("a subscriber had gone already")
