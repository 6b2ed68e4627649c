"""One message of Albatross AV5: a header and a command, an answer or a piece of a stream."""

from dataclasses import dataclass

from albatross_pki import PROTOCOL_VERSION
from albatross_pki.commands import Command
from albatross_pki.names import Name
from albatross_pki.policies import Policy
from albatross_pki.replies import Data, Failure, Success
from albatross_pki.unikernels import UnikernelConfig

ROOT = Name()  # the root path itself
Payload = Command | Success | Failure | Data


@dataclass(frozen=True, slots=True)
class Header:
    """``sequence`` is a signed 64-bit number; an answer echoes the header of its request."""

    name: Name = ROOT
    sequence: int = 0
    version: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class Message:
    """A header and what it is about."""

    header: Header
    payload: Payload


@dataclass(frozen=True, slots=True)
class StateDump:
    """The whole state of a daemon as upstream keeps it; ``version`` 0 to 6 in the order of the formats' age.

    Version 6 is the only one written: configurations V5 and policies. 0, 1 and 2 are configurations V0, V1 and V2,
    3 is V3 without policies, 4 V3 with policies, 5 V4 with policies.
    """

    unikernels: tuple[tuple[Name, UnikernelConfig], ...]
    policies: tuple[tuple[Name, Policy], ...]
    version: int = 6
