"""Which lines are shown: a regular expression over what people see of them, bounded in time.

Lines come from guests, and some expressions take exponential time on a line that is made for it. So the search in one
line has a second of the processor (setitimer(2), ITIMER_VIRTUAL; Python's ``re`` looks for signals while it searches),
and one that takes longer is an error of the expression. To be used in the main thread, as signals are.
"""

import re
import signal
import warnings
from types import FrameType

from albatross_pki.errors import AlbatrossError
from albatross_pki.syntax import BadValue

LONGEST_PATTERN = 1000  # characters
SECONDS = 1.0  # of the processor, for one line; a search in an ordinary one takes microseconds


class TooSlow(AlbatrossError):
    """The expression took too long on one line."""


class LineFilter:
    """Lines in which ``pattern`` is found; raises ``BadValue`` if that is no regular expression."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > LONGEST_PATTERN:
            raise BadValue(f"a pattern has at most {LONGEST_PATTERN} characters, not {len(pattern)}", pattern)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of constructs whose meaning may change some day
                self._search = re.compile(pattern).search
        except (re.error, OverflowError, RecursionError) as error:
            raise BadValue(f"not a regular expression: {error}", pattern) from error
        signal.signal(signal.SIGVTALRM, _give_up)

    def shows(self, text: str) -> bool:
        """Whether the expression is found in ``text``; raises ``TooSlow``."""
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            return self._search(text) is not None
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _give_up(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise TooSlow(
        f"the pattern of --grep takes more than {SECONDS:g} second on one line",
        hint="avoid repetitions inside of repetitions, such as (a+)+",
    )
