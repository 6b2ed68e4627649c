"""Connections over HTTP to servers that nobody trusts with our time.

``http.client`` bounds the time for each octet: a server that sends one after the other, or interim answers without end,
is waited for without end. ``Connection.watched`` bounds the time for all of them.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from http.client import HTTPConnection


class Connection(HTTPConnection):
    """One connection, opened by its first request; in TLS it is judged with the system's trust anchors."""

    def __init__(self, scheme: str, host: str, port: int | None, patience: float) -> None:
        """``patience``: how many seconds an octet may take."""
        self._secure = scheme == "https"
        super().__init__(host, port or (443 if self._secure else 80), timeout=patience)
        self._opened: socket.socket | None = None  # until the answer was read, when ``sock`` is none already
        self.octets = 0
        self.slow = False

    def connect(self) -> None:
        super().connect()
        if self._secure:
            context = ssl.create_default_context()
            session = context.wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
            self.sock = self._opened = session
            session.do_handshake()
        else:
            self._opened = self.sock

    @contextlib.contextmanager
    def watched(self, seconds: float, least: int) -> Iterator[None]:
        """End the connection as soon as it has brought less than ``least`` octets in ``seconds``, and set ``slow``.

        Whoever reads adds to ``octets``, and looks at ``slow`` in the end: a body can end as if that was all.
        """
        over = threading.Event()
        watching = threading.Thread(target=self._watch, args=(over, seconds, least), name="watch", daemon=True)
        watching.start()
        try:
            yield
        finally:
            over.set()
            watching.join()
            self.close()

    def _watch(self, over: threading.Event, seconds: float, least: int) -> None:
        before = 0
        while not over.wait(seconds):
            if self.octets - before < least:
                self.slow = True
                if self._opened is not None:
                    with contextlib.suppress(OSError):  # it has ended by itself
                        socket.socket.shutdown(
                            self._opened, socket.SHUT_RDWR
                        )  # not TLS' own, which another thread uses
                return
            before = self.octets
