"""The one family of errors that leaves this package, whatever comes in."""

from typing import TYPE_CHECKING

from albatross_pki.errors import AlbatrossError, ExitCode

if TYPE_CHECKING:
    from albatross_pki.messages import Header


class MalformedMessage(AlbatrossError):
    """Octets that are not a message, or a value that has no encoding.

    ``reason`` says what is wrong, ``place`` where: the names of the fields from the outside in, such as
    ``payload.command.unikernel.create.cpuids[3]``. ``header`` is that of the message if at least that much could be
    read, so that the sender can be told; ``None`` otherwise.
    """

    exit_code = ExitCode.COMMUNICATION

    def __init__(self, reason: str, place: str = "", *, hint: str | None = None) -> None:
        super().__init__(reason, hint=hint)
        self.reason = reason
        self.place = ""
        self.header: Header | None = None
        self.within(place)

    def within(self, place: str) -> None:
        """Note that what failed stands in ``place``; called from the inside out while the error travels up."""
        if not self.place or self.place.startswith("["):
            self.place = place + self.place
        else:
            self.place = f"{place}.{self.place}"
        self.message = f"malformed {self.place}: {self.reason}" if self.place else f"malformed: {self.reason}"
        self.args = (self.message,)


class FrameTooLong(MalformedMessage):
    """A frame announces more octets than are accepted; ``complete`` are the payloads that came whole before it."""

    def __init__(self, length: int, limit: int, complete: tuple[bytes, ...] = ()) -> None:
        super().__init__(f"{length} octets announced, at most {limit} are accepted", "frame")
        self.length, self.limit, self.complete = length, limit, complete


class InflatedTooLarge(MalformedMessage):
    """A zlib stream holds more than the ``limit`` octets that are accepted."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"inflates to more than the {limit} octets that are accepted", "zlib stream")
        self.limit = limit


def shown_number(value: int) -> str:
    """A number in digits, unless they are more than anybody reads (or than Python is ready to print)."""
    return str(value) if value.bit_length() <= 128 else f"a number of {value.bit_length()} bits"
