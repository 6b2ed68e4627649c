"""``top`` and the live form of ``stats``: a table of what unikernels use, kept up to date on a terminal.

``once`` waits until everybody has a rate, which takes two samples, and returns the rows. ``live`` draws with rich, an
extra that may not be there (``can_be_live``); a table is made when it is drawn and not when a sample comes.
"""

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from albatross_pki.client.conversation import NoAnswer, Streamed
from albatross_pki.client.receive import Conversation
from albatross_pki.client.show import Screen
from albatross_pki.client.side_by_side import Stream, side_by_side
from albatross_pki.client.usage import HEADING, UsageTable, Use, use_cells
from albatross_pki.messages import Header
from albatross_pki.replies import Statistics, Success

if TYPE_CHECKING:
    from rich.table import Table

FRAMES_PER_SECOND = 4
LINES_AROUND = 3  # of a table: heading, rule, and the line of the cursor
INSTALL = "pip install 'albatross-pki[live]'"


def can_be_live(screen: Screen) -> bool:
    """Whether somebody looks at a terminal, and rich is installed."""
    return screen.width is not None and screen.form == "table" and not screen.quiet and find_spec("rich") is not None


def once(label: str, conversation: Conversation, order: str, *, quiet: float) -> list[Use]:
    """The rows as soon as everybody has a rate, or nothing came for ``quiet`` seconds; raises ``AlbatrossError``."""
    table = UsageTable()

    def on_data(_: int, header: Header, data: Streamed) -> bool:
        table.take(header.name, _sample(data), time.monotonic())
        if table.complete():
            raise StopIteration
        return True

    _hold(label, conversation, on_data, quiet=quiet)
    return table.rows(order, time.monotonic())


def live(label: str, conversation: Conversation, order: str, *, whole_screen: bool) -> None:
    """Draw until the conversation ends or the person interrupts it; raises ``AlbatrossError``."""
    from rich.live import Live

    view = _View(label, order, capped=whole_screen)

    def on_data(_: int, header: Header, data: Streamed) -> bool:
        view.table.take(header.name, _sample(data), time.monotonic())
        return True

    with Live(view, refresh_per_second=FRAMES_PER_SECOND, screen=whole_screen, vertical_overflow="ellipsis"):
        _hold(label, conversation, on_data, quiet=None)


class _View:
    """The table as it is now, for rich."""

    def __init__(self, label: str, order: str, *, capped: bool) -> None:
        self.table = UsageTable()
        self._label, self._order, self._capped = label, order, capped

    def __rich__(self) -> "Table":
        from rich.table import Table
        from rich.text import Text

        rows = self.table.rows(self._order, time.monotonic())
        drawn = Table(box=None, caption=f"{len(rows)} unikernels of {self._label}", caption_justify="left")
        for place, title in enumerate(HEADING):
            drawn.add_column(title, justify="left" if place == 0 else "right", no_wrap=True)
        for use in rows[: self._room()]:
            drawn.add_row(*(Text(cell) for cell in use_cells(use)))  # Text: nothing in a name is markup
        return drawn

    def _room(self) -> int | None:
        from shutil import get_terminal_size

        return max(1, get_terminal_size().lines - LINES_AROUND) if self._capped else None


def _hold(
    label: str, conversation: Conversation, on_data: Callable[[int, Header, Streamed], bool], *, quiet: float | None
) -> None:
    for failed in side_by_side([Stream(label, conversation)], _subscribed, on_data, quiet=quiet):
        raise failed.error


def _subscribed(number: int, header: Header, reply: Success) -> None:
    del number, header, reply


def _sample(data: Streamed) -> Statistics:
    if not isinstance(data, Statistics):
        raise NoAnswer(f"expected statistics, got {type(data).__name__}")
    return data
