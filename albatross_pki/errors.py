"""The one family of errors for input that we refuse, and the exit codes that it ends a program with.

Misuse by a programmer is a ``TypeError`` or ``RuntimeError``; whatever a peer, a file or a person sent and we refuse
is an ``AlbatrossError``. It carries what was refused as attributes; its text is a lower-case sentence for people,
and ``hint`` says what to do where there is something to do.
"""

import os
from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit statuses of every command line, the same ones that Albatross' users have in their scripts."""

    OK = 0
    CHAIN = 116  # our own chain does not validate against the server's CA
    REMOTE_COMMAND = 117  # the other side answered with a failure
    HTTP = 118
    LOCAL_AUTHENTICATION = 119  # the server refused our certificate
    REMOTE_AUTHENTICATION = 120  # we refused the server's certificate
    COMMUNICATION = 121
    CONNECT = 122
    USAGE = 124  # command line and all local failures
    INTERNAL = 125


class AlbatrossError(Exception):
    """Input that is refused.

    ``hint`` is a sentence or a command to type, or ``None``. ``exit_code`` is what a command line ends with when
    nobody handles the error on the way.
    """

    exit_code: ExitCode = ExitCode.USAGE

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class InvalidName(AlbatrossError):
    """Text that is not a label, path or name; ``text`` is what came."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text


class OutOfRange(AlbatrossError):
    """A number outside the range of its field."""

    def __init__(self, field: str, value: int, low: int, high: int) -> None:
        super().__init__(f"{field} must be between {low} and {high}, not {value}")
        self.field, self.value, self.low, self.high = field, value, low, high


class Refused(AlbatrossError):
    """A request that is understood and not allowed, with *every* reason for it (never none)."""

    def __init__(self, reasons: Sequence[str], *, hint: str | None = None) -> None:
        if not reasons:
            raise TypeError("a refusal needs at least one reason")
        super().__init__("; ".join(reasons), hint=hint)
        self.reasons = tuple(reasons)


def system_error_text(error: OSError) -> str:
    """What the system refuses, in words: ``FILE: reason``."""
    place = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
    return f"{place}{(error.strerror or str(error)).lower()}"


def check_range(field: str, value: int, low: int, high: int) -> int:
    """Return ``value`` if ``low <= value <= high``; raise ``OutOfRange`` naming ``field`` otherwise."""
    if not low <= value <= high:
        raise OutOfRange(field, value, low, high)
    return value
