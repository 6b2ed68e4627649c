"""What follows the end of a unikernel's process: rules by exit code, and how long to wait.

``judge_exit`` decides in this order (the codes are Albatross' convention on top of Solo5's and MirageOS'):

1. exit 64 with an injected ``--name``: the guest did not know the argument; start again without it, for good;
2. a configuration without restart: over;
3. a process adopted after a crash whose status nobody can know: a failure like any other, so restarted;
4. ended by a signal: over;
5. exit 1 (a tender's or Solo5's error) and 60 to 64 (help, bad arguments): over, the next run would say the same;
6. an empty set of codes: restarted; otherwise restarted if the code is in the set.

``delay`` turns a series of short runs into waits of 0, 1, 2, 4 … 60 seconds. Time itself is the caller's.
"""

import signal
from dataclasses import dataclass
from enum import Enum

from albatross_pki.host.limits import FIRST_DELAY, LONGEST_DELAY, STEADY_AFTER
from albatross_pki.unikernels import Settings, UnikernelType

EXIT_ARGUMENTS = 64
_NEVER_AGAIN = frozenset({1, 60, 61, 62, 63, 64})


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: ``code`` or ``signal``, or neither if that cannot be known."""

    code: int | None = None
    signal: int | None = None

    @property
    def known(self) -> bool:
        return self.code is not None or self.signal is not None

    @property
    def failed(self) -> bool:
        """Whether this is anything but exit 0."""
        return self.code != 0

    def __str__(self) -> str:
        if self.code is not None:
            return f"exit {self.code}"
        if self.signal is not None:
            return f"signal {_signal_name(self.signal)}"
        return "an unknown end"


class Decision(Enum):
    """What to do after an end."""

    OVER = "over"
    AGAIN = "again"
    WITHOUT_NAME = "again, without the injected name"


def judge_exit(settings: Settings, ended: Exit, typ: UnikernelType = UnikernelType.SOLO5) -> Decision:
    """The rules above."""
    if ended.code == EXIT_ARGUMENTS and settings.add_name and typ is UnikernelType.SOLO5:
        return Decision.WITHOUT_NAME
    codes = settings.fail_behaviour.restart
    if codes is None:
        return Decision.OVER
    if not ended.known:
        return Decision.AGAIN
    if ended.code is None or ended.code in _NEVER_AGAIN:
        return Decision.OVER
    return Decision.AGAIN if not codes or ended.code in codes else Decision.OVER


def failures_after(failures: int, seconds_up: float) -> int:
    """The length of the series of short runs, this one included; a long run begins a new series."""
    return 1 if seconds_up >= STEADY_AFTER else failures + 1


def delay(failures: int) -> float:
    """Seconds to wait before the next start after ``failures`` short runs in a row (0 for the first)."""
    if failures <= 1:
        return 0.0
    doublings = min(failures - 2, 16)  # keeps the number small; the longest delay is reached long before
    return float(min(FIRST_DELAY * 2**doublings, LONGEST_DELAY))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
