"""The manual pages are what would be made now, and the package brings them along."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from man.__main__ import PLACE, pages, scripts

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


def test_the_pages_that_are_there_are_those_that_would_be_made_now(made: dict[str, str]) -> None:
    there = {path.name: path.read_text() for path in PLACE.iterdir()}
    assert set(there) == set(made) == {f"{program}.1" for program in scripts()}
    old = sorted(name for name, text in made.items() if there[name] != text)
    assert old == [], "make man"


@pytest.mark.parametrize("program", sorted(scripts()))
def test_a_page_has_its_parts(program: str, made: dict[str, str]) -> None:
    text = made[f"{program}.1"]
    parts = [line.removeprefix(".SH ") for line in text.splitlines() if line.startswith(".SH ")]
    assert parts[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]
    assert parts[-1] == "SEE ALSO"
    assert "\x1b" not in text
    assert str(ROOT) not in text


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("program", sorted(scripts()))
def test_a_page_is_understood(program: str) -> None:
    command = ["groff", "-man", "-ww", "-Tutf8", "-Kutf8", "-z", str(PLACE / f"{program}.1")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_package_installs_the_pages() -> None:
    files = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    assert {path for pattern in files["share/man/man1"] for path in ROOT.glob(pattern)} == set(PLACE.iterdir())
