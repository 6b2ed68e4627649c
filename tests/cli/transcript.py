"""Transcripts: what is typed, what is printed, and the exit status, as a person would see it.

A file is prose lines that begin with ``#``, and commands::

    $ albatross-client-bistro destroy hello
    error: destroy: not found
    [117]

The number in brackets is the exit status; without it, it is 0. Standard output and error stand in the order in which
they come. ``…`` in an expected line stands for any text, and a line of its own for any lines.
"""

import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ANYTHING = "…"
TIMEOUT = 60


@dataclass(frozen=True)
class Exchange:
    """One command, the line it stands on, and what is expected of it."""

    number: int
    command: str
    output: tuple[str, ...]
    status: int


def parse(text: str) -> list[Exchange]:
    """The exchanges of a transcript; raises ``ValueError`` for a line that belongs to nothing."""
    exchanges: list[Exchange] = []
    current: tuple[int, str, list[str]] | None = None
    for number, line in enumerate([*text.splitlines(), ""], 1):
        status = re.fullmatch(r"\[(\d+)\]", line)
        ends = line.startswith(("$ ", "#")) or not line or status
        if current is not None and ends:
            exchanges.append(Exchange(current[0], current[1], tuple(current[2]), int(status[1]) if status else 0))
            current = None
            if status:
                continue
        if line.startswith("$ "):
            current = (number, line[2:], [])
        elif current is not None:
            current[2].append(line)
        elif line and not line.startswith("#"):
            raise ValueError(f"line {number} belongs to no command: {line}")
    return exchanges


def play(exchange: Exchange, directory: Path, environment: Mapping[str, str]) -> tuple[list[str], int]:
    """What the command prints and ends with. Programs are found in PATH; there is no shell."""
    done = subprocess.run(
        shlex.split(exchange.command),
        cwd=directory,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT,
        text=True,
    )
    return done.stdout.splitlines(), done.returncode


def matches(expected: tuple[str, ...], lines: list[str]) -> bool:
    """Whether ``lines`` are what is expected."""
    pattern = "".join(
        r"(?:.*\n)*" if line == ANYTHING else ".*".join(map(re.escape, line.split(ANYTHING))) + r"\n"
        for line in expected
    )
    return re.fullmatch(pattern, "".join(line + "\n" for line in lines)) is not None


def rerecorded(text: str, results: Mapping[int, tuple[list[str], int]]) -> str:
    """``text`` with the real output in place of what did not match; for ``python -m tests.cli.record``."""
    lines = text.splitlines()
    for exchange in reversed(parse(text)):
        output, status = results[exchange.number]
        if matches(exchange.output, output) and status == exchange.status:
            continue
        end = exchange.number + len(exchange.output)
        if end < len(lines) and re.fullmatch(r"\[\d+\]", lines[end]):
            end += 1
        lines[exchange.number : end] = [*output, *([f"[{status}]"] if status else [])]
    return "\n".join(lines) + "\n"
