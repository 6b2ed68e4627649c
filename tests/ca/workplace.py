"""A directory to work in, and the programs in it: what the tests of CA and requests have in common."""

from pathlib import Path

import pytest

from albatross_pki.ca.cli import provision_ca
from albatross_pki.request.cli import program as provision_request
from tests.ca.programs import Program, program


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def ca(workplace: Path, capsys: pytest.CaptureFixture[str]) -> Program:
    """``albatross-provision-ca`` in ``workplace``."""
    return program(provision_ca, "albatross-provision-ca", capsys)


@pytest.fixture
def ask(workplace: Path, capsys: pytest.CaptureFixture[str]) -> Program:
    """``albatross-provision-request`` in ``workplace``."""
    return program(provision_request, "albatross-provision-request", capsys)
