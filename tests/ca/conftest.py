"""What the tests of the CA share: a directory to work in, the programs, a token."""

from pathlib import Path

import pytest

from tests.ca.programs import Program, Token, make_token
from tests.ca.workplace import ask, ca, workplace

__all__ = ["ask", "ca", "workplace"]


@pytest.fixture
def dev(ca: Program, ask: Program, workplace: Path) -> Path:
    """A root and a delegation ``dev`` for 2 unikernels, 64 MB, CPU 0, that may delegate once more."""
    ca("generate", "ca", "db", "--server-name=localhost")
    ask("delegation", "dev", 2, "--mem=64", "--cpu=0", "--path-length=1")
    ca("sign", "cacert.pem", "db", "ca.key", "dev.req", "--as=delegation")
    return workplace


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Token:
    """A fresh SoftHSM 2 token."""
    return make_token(tmp_path / "softhsm", monkeypatch)
