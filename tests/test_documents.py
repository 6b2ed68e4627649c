"""What the documents name is there."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from albatross_pki.errors import ExitCode

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def test_every_place_that_the_readme_names_is_there() -> None:
    named = set(re.findall(r"`((?:docs|examples|tests)/[^`]*|[A-Z]+\.md)`", README))
    assert len(named) > 5
    assert sorted(name for name in named if not list(ROOT.glob(name.rstrip("/")))) == []


def test_the_readme_knows_every_program() -> None:
    assert sorted(script for script in SCRIPTS if f"`{script}`" not in README and script != "albatross-tls-inetd") == []


def test_the_readme_knows_every_exit_status() -> None:
    named = {int(number) for number in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert {int(code) for code in ExitCode} - named <= {int(ExitCode.HTTP)}


@pytest.mark.parametrize("document", sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md")))
def test_links_between_documents_lead_somewhere(document: str) -> None:
    place = ROOT / document
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", place.read_text())
    assert [target for target in targets if not (place.parent / target).exists()] == []


def test_the_output_document_names_every_field() -> None:
    """docs/output.md and the documents that are printed agree, field by field."""
    from tests.client import test_apply_cli, test_dump, test_show

    text = (ROOT / "docs" / "output.md").read_text()
    fields: set[str] = set()

    def collect(value: object) -> None:
        if isinstance(value, dict):
            fields.update(str(key) for key in value)
            for each in value.values():
                collect(each)
        elif isinstance(value, list):
            for each in value:
                collect(each)

    for _, document, _ in test_show.ANSWERS:
        collect(document)
    collect([test_apply_cli.DOCUMENT, test_dump.CONFIGURATION])
    # documents of the host's, which are shown as they come; images are stored, not printed
    free = {"a", "compressed", "image", "wanted", "last_exit", "n"}
    assert sorted(field for field in fields - free if f"`{field}`" not in text and f'"{field}"' not in text) == []


def test_make_and_ci_run_the_command_that_the_readme_names() -> None:
    assert "\n    make test " in README
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text()
    dry = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert dry.returncode == 0, dry.stderr
    assert "pytest -W error" in dry.stdout
    assert sys.version_info >= (3, 11)
