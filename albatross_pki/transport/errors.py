"""What goes wrong between two ends of a connection, as refused input with a text for people."""

from albatross_pki.errors import AlbatrossError, ExitCode


class TransportError(AlbatrossError):
    """The connection cannot be used any further."""

    exit_code = ExitCode.COMMUNICATION


class Unreachable(TransportError):
    """Nobody could be connected to; ``address`` is whom we tried."""

    exit_code = ExitCode.CONNECT

    def __init__(self, address: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"cannot connect to {address}: {reason}", hint=hint)
        self.address, self.reason = address, reason


class ConnectionCut(TransportError):
    """The other side went away in the middle of a frame, or before the answer that it owed."""


class TimedOut(TransportError):
    """The other side did not send or take its octets in time; ``seconds`` is the bound."""

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"{what} took longer than {seconds:g} seconds")
        self.what, self.seconds = what, seconds


class FrameOverLimit(TransportError):
    """A frame announced more octets than this connection takes; nothing was allocated for it."""

    def __init__(self, announced: int, limit: int) -> None:
        super().__init__(f"a frame of {announced} octets is over the limit of {limit}")
        self.announced, self.limit = announced, limit


class NotListening(TransportError):
    """A socket that we were to listen on cannot be had."""

    exit_code = ExitCode.INTERNAL
