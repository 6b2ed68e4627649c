"""``python -m bench [NAME…]``: run the measurements of bench/*.py and print one table.

Ends with 1 if a bound is not met, so that a pipeline can ask.
"""

import importlib
import os
import pkgutil
import platform
import sys
from collections.abc import Iterator
from typing import TextIO

import bench
from bench.measure import Row

NOT_MEASUREMENTS = {"__main__", "measure", "tls_load"}


def main(names: list[str]) -> int:
    known = sorted({module.name for module in pkgutil.iter_modules(bench.__path__)} - NOT_MEASUREMENTS)
    unknown = [name for name in names if name not in known]
    if unknown:
        _say(f"error: no such measurement: {', '.join(unknown)}\nhint: there are {', '.join(known)}", sys.stderr)
        return 124
    rows = []
    for name in names or known:
        for row in measured(name):
            _say(f"  {row.name}: {row.value}", sys.stderr)
            rows.append(row)
    _say(f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()}")
    _say(table(rows))
    return 1 if any(row.met is False for row in rows) else 0


def measured(name: str) -> Iterator[Row]:
    """The rows of ``bench/name.py``; if it fails, a row that says so, so that the others are still measured."""
    try:
        yield from importlib.import_module(f"bench.{name}").rows()
    except Exception as error:  # noqa: BLE001  whatever it was, it is shown and counts as not met
        lines = str(error).splitlines() or [""]
        yield Row(f"{name}: {type(error).__name__}", lines[0][:60], bound="runs", met=False)


def table(rows: list[Row]) -> str:
    """All rows under one heading, in columns."""
    heading = ("what", "ours", "yardstick", "ratio", "bound", "met", "spread")
    lines = [heading, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    met = {True: "yes", False: "NO", None: ""}[row.met]
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
    spread = "" if row.spread is None else f"{row.spread:.0%}"
    return (row.name, row.value, row.yardstick, ratio, row.bound, met, spread)


def _say(text: str, stream: TextIO | None = None) -> None:
    print(text, file=stream or sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
