"""Rows as aligned columns, as wide as they need to be and no wider than the terminal.

Pure: the width is a parameter, ``None`` where nobody looks (a pipe), and then nothing is ever cut.
"""

from collections.abc import Sequence

GAP = "  "
LEAST_OF_LAST = 10
LEAST = 6  # characters that a column keeps when the terminal is narrow


def layout(heading: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """``rows`` below ``heading``, in lines of at most ``width`` characters as far as that is possible.

    The last column gives way first (digests stand there, known by their beginning), then the widest one.
    """
    lines = [tuple(heading), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    if width is not None:
        _fit(widths, width)
    return "\n".join(
        GAP.join(_cell(text, room) for text, room in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _fit(widths: list[int], width: int) -> None:
    gaps = len(GAP) * (len(widths) - 1)
    widths[-1] = max(min(widths[-1], LEAST_OF_LAST), min(widths[-1], width - gaps - sum(widths[:-1])))
    while sum(widths) + gaps > width:
        widest = max(range(len(widths)), key=lambda column: widths[column])
        if widths[widest] <= LEAST:
            return
        widths[widest] -= 1


def _cell(text: str, room: int) -> str:
    return text.ljust(room) if len(text) <= room else text[: room - 1] + "…"
