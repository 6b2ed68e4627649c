"""One TLS 1.3 connection without a socket: octets go in, octets come out.

Nothing here waits. ``handshake`` is called until it says that it is complete; after every call the caller sends what
``outgoing`` gives, and feeds what it receives. Because the caller sends, a client can withhold its last flight, which
holds its certificate, until it has judged the server; and because it feeds, a server can hold a flight back until it
has room for what OpenSSL will allocate for it (``FirstProtectedRecord``).
"""

import ssl

from albatross_pki.transport.errors import ConnectionCut
from albatross_pki.transport.openssl import presented_chain, verified_chain

RECORD = 16 * 1024  # octets; RFC 8446 5.1
_RECORD_HEADER = 5
_APPLICATION_DATA = 23  # the outer type of every protected record: RFC 8446 5.2


class TlsSession:
    """A connection of ``context``; a server unless ``server_name`` is given (``""``: a client that names nobody)."""

    def __init__(self, context: ssl.SSLContext, *, server_name: str | bytes | None = None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._failure: ssl.SSLError | None = None  # told once what came before it was read
        self.object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_name is None, server_hostname=server_name or None
        )

    def feed(self, octets: bytes | memoryview) -> None:
        """What was received; ``b""`` is the end of the transport's stream."""
        if octets:
            self._incoming.write(octets)
        else:
            self._incoming.write_eof()

    def outgoing(self) -> bytes:
        """What must be sent now; ``b""`` if nothing."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def handshake(self) -> bool:
        """Go as far as the octets allow; whether the handshake is complete. Raises ``ssl.SSLError``."""
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def read_into(self, buffer: memoryview) -> int | None:
        """Fill ``buffer`` with what is there; 0 at the peer's closing alert, ``None`` if more must be fed first.

        Raises ``ConnectionCut`` where the transport ended without a closing alert, ``ssl.SSLError`` for alerts.
        """
        filled = 0
        while filled < len(buffer) and self._failure is None:
            try:
                count = self.object.read(len(buffer) - filled, buffer[filled:])
            except ssl.SSLWantReadError:
                return filled or None
            except ssl.SSLZeroReturnError:
                return filled
            except ssl.SSLError as error:
                self._failure = error
                break
            if not count:
                return filled
            filled += int(count)
        if filled or self._failure is None:
            return filled
        if isinstance(self._failure, ssl.SSLEOFError):
            raise ConnectionCut("the connection was cut without a closing alert") from self._failure
        raise self._failure

    def write(self, octets: bytes | memoryview) -> None:
        """Protect ``octets``; the records wait in ``outgoing``."""
        if octets:
            self.object.write(octets)

    def close(self) -> None:
        """Add the closing alert to ``outgoing``, once; the peer's own is not waited for."""
        try:
            self.object.unwrap()
        except ssl.SSLError:
            return

    def verified(self) -> list[bytes]:
        """The verified path, DER, leaf first, anchor last."""
        return verified_chain(self.object)

    def presented(self) -> list[bytes]:
        """What the peer sent, DER, in its order."""
        return presented_chain(self.object)


class FirstProtectedRecord:
    """Finds the length of the first protected record in what a client sends.

    A client's certificate begins in that record, and whoever has a long one fills it.
    """

    def __init__(self) -> None:
        self._header = b""
        self._skip = 0
        self._found = False

    def feed(self, octets: bytes | memoryview) -> int | None:
        """The length in octets, once: with the octets that complete that record's header. ``None`` otherwise."""
        rest = memoryview(octets)
        while rest and not self._found:
            skipped = min(self._skip, len(rest))
            self._skip -= skipped
            taken = min(_RECORD_HEADER - len(self._header), len(rest) - skipped)
            self._header += bytes(rest[skipped : skipped + taken])
            rest = rest[skipped + taken :]
            if len(self._header) == _RECORD_HEADER:
                self._skip = int.from_bytes(self._header[3:], "big")
                self._found = self._header[0] == _APPLICATION_DATA
                self._header = b""
                if self._found:
                    return self._skip
        return None
