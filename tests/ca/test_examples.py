"""The walks through the PKI in ``examples/ca`` are true: each line is executed, each answer compared.

In a transcript ``$`` begins a command, what follows is everything that it says, ``[exit N]`` a status that is not 0;
``...`` stands for any text (serials, times, digests). ``cd`` lasts.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TRANSCRIPTS = sorted((ROOT / "examples" / "ca").glob("*.transcript"))
PROGRAMS = {"albatross-provision-ca": "ca", "albatross-provision-request": "request"}


@dataclass
class Step:
    """One command and what it is to say."""

    line: int
    command: str
    expected: list[str] = field(default_factory=list)

    def matches(self, said: list[str]) -> bool:
        if len(said) != len(self.expected):
            return False
        return all(_pattern(want).fullmatch(got) for want, got in zip(self.expected, said, strict=True))


def _pattern(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, line.split("..."))))


def steps(transcript: str) -> Iterator[Step]:
    step: Step | None = None
    for number, line in enumerate(transcript.splitlines(), 1):
        if line.startswith("$ "):
            if step is not None:
                yield step
            step = Step(number, line[2:])
        elif line.startswith("#") or not line:
            continue
        else:
            assert step is not None, f"line {number} answers nothing"
            step.expected.append(line)
    if step is not None:
        yield step


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The programs in ``PATH``, run by this interpreter from this tree."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name, package in PROGRAMS.items():
        code = f"import sys; sys.argv[0] = '{name}'; from albatross_pki.{package}.cli import main; main()"
        (directory / name).write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
        (directory / name).chmod(0o755)
    return {
        "PATH": f"{directory}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "UNIKERNELS": str(ROOT / "examples" / "unikernels"),
        "LC_ALL": "C.UTF-8",
        "HOME": str(tmp_path),
    }


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_walk_goes_as_it_is_told(transcript: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    here = tmp_path / "walk"
    here.mkdir()
    for step in steps(transcript.read_text()):
        if step.command.startswith("cd "):
            here = here / step.command[3:]
            continue
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", step.command],
            cwd=here,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said = done.stdout.splitlines()
        if done.returncode:
            said.append(f"[exit {done.returncode}]")
        assert step.matches(said), f"{transcript.name}:{step.line}: {step.command}\n" + "\n".join(said)


def test_every_walk_is_told_about() -> None:
    text = (ROOT / "examples" / "ca" / "README.md").read_text()
    assert all(path.name in text for path in TRANSCRIPTS)
    assert len(TRANSCRIPTS) == 5
