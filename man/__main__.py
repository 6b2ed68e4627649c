"""``python -m man``: write the manual page of every console script."""

import contextlib
import importlib
import sys
import tomllib
from pathlib import Path
from typing import Any
from unittest import mock

import click

from albatross_pki import __version__, console_script
from man.page import page

ROOT = Path(__file__).parent.parent
PLACE = ROOT / "share" / "man" / "man1"


def scripts() -> dict[str, str]:
    """The console scripts with their entry points."""
    found: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    return found


def command_of(entry: str) -> click.Command:
    """The command line that an entry point would run."""
    module = importlib.import_module(entry.partition(":")[0])
    commands: list[click.Command] = []

    def take(command: click.Command, *_: Any) -> int:
        commands.append(command)
        return 0

    patches = mock.patch.object(console_script, "execute", take), mock.patch.object(sys, "argv", ["program"])
    with patches[0], patches[1], contextlib.suppress(SystemExit):
        getattr(module, entry.partition(":")[2])()
    return commands[0]


def pages() -> dict[str, str]:
    """The text of every page by the name of its file."""
    entries = scripts()
    return {
        f"{program}.1": page(program, command_of(entry), __version__, sorted(set(entries) - {program}))
        for program, entry in sorted(entries.items())
    }


def main() -> None:
    PLACE.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (PLACE / name).write_text(text)


if __name__ == "__main__":
    main()
