"""One row of the table, and how to measure one fairly.

``compare`` decides the order of the measurements (ours, yardstick, ours, yardstick …), the ratio (of the medians)
and whether a bound is met; what is measured, and leaving nothing behind, is the caller's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    ``value`` and ``yardstick`` are text with their units; ``ratio`` is ours over the yardstick (``None`` where there
    is none); ``bound`` is what we promise, in words; ``met`` is ``None`` where nothing is promised. ``spread`` is the
    width of the middle half of our measurements over their median (0.1 is ten per cent).
    """

    name: str
    value: str
    yardstick: str = ""
    ratio: float | None = None
    bound: str = ""
    met: bool | None = None
    spread: float | None = None


def seconds(action: Callable[[], object]) -> Callable[[], float]:
    """``action`` as a measurement of the wall-clock seconds that it takes."""

    def measured() -> float:
        begin = perf_counter()
        action()
        return perf_counter() - begin

    return measured


def compare(
    name: str,
    ours: Callable[[], float],
    yardstick: str,
    theirs: Callable[[], float],
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    rounds: int = 7,
    unit: str = "s",
) -> Row:
    """Measure ``ours`` and ``theirs`` in turn, ``rounds`` times after one unmeasured round each.

    Both return a figure in ``unit`` (``"s"`` is scaled for people; anything else is shown as it is). ``at_most`` and
    ``at_least`` bound the ratio ours/theirs.
    """
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return compared(name, pairs, yardstick, at_most=at_most, at_least=at_least, unit=unit)


def compared(
    name: str,
    pairs: Sequence[tuple[float, float]],
    yardstick: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    unit: str = "s",
) -> Row:
    """The row of measurements that were made in turn already: pairs of ours and the yardstick's."""
    mine = [pair[0] for pair in pairs]
    reference = median(pair[1] for pair in pairs)
    ratio = median(mine) / reference if reference else None
    bounds = [f"{sign} {bound:g}x" for sign, bound in (("≤", at_most), ("≥", at_least)) if bound is not None]
    met = None
    if bounds and ratio is not None:
        met = (at_most is None or ratio <= at_most) and (at_least is None or ratio >= at_least)
    return Row(
        name=name,
        value=shown(median(mine), unit),
        yardstick=f"{yardstick} {shown(reference, unit)}",
        ratio=ratio,
        bound=", ".join(bounds),
        met=met,
        spread=spread(mine),
    )


def spread(values: list[float]) -> float:
    """The distance between the quartiles over the median; 0 for fewer than four values."""
    if len(values) < 4 or not median(values):
        return 0.0
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return (ordered[-1 - quarter] - ordered[quarter]) / median(values)


def shown(value: float, unit: str) -> str:
    """``value`` for people: seconds as s, ms or µs, whatever else with its unit."""
    if unit != "s":
        return f"{value:,.4g} {unit}"
    for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {name}"
    return f"{value * 1e6:.2g} µs"
