"""What the tests of the CA share: directories to work in, the programs as functions, and a token."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from albatross_pki.ca.cli import provision_ca
from albatross_pki.console_script import execute
from albatross_pki.request.cli import program as provision_request

SOFTHSM_MODULE = "/usr/lib/softhsm/libsofthsm2.so"


@dataclass(frozen=True)
class Result:
    """How a program ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def refused(self) -> bool:
        return (self.status == 124 and self.err.startswith("error: ")) or "\nerror: " in self.err


Program = Callable[..., Result]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _program(command: object, name: str, capsys: pytest.CaptureFixture[str]) -> Program:
    def call(*arguments: object, check: bool = True) -> Result:
        capsys.readouterr()
        status = execute(command, [str(argument) for argument in arguments], name)  # type: ignore[arg-type]
        captured = capsys.readouterr()
        assert not check or status == 0, captured.err
        return Result(status, captured.out, captured.err)

    return call


@pytest.fixture
def ca(workplace: Path, capsys: pytest.CaptureFixture[str]) -> Program:
    """``albatross-provision-ca`` in ``workplace``; with ``check=False`` it may fail."""
    return _program(provision_ca, "albatross-provision-ca", capsys)


@pytest.fixture
def request_for(workplace: Path, capsys: pytest.CaptureFixture[str]) -> Program:
    """``albatross-provision-request`` in ``workplace``."""
    return _program(provision_request, "albatross-provision-request", capsys)


@dataclass(frozen=True)
class Token:
    """A token with a PIN, in a directory of its own; the module finds it through ``SOFTHSM2_CONF``."""

    label: str
    pin: str
    directory: Path

    def uri(self, name: str) -> str:
        pin_file = self.directory / "pin"
        return f"pkcs11:token={self.label};object={name}?module-path={SOFTHSM_MODULE}&pin-source=file:{pin_file}"

    def tool(self, arguments: Sequence[str]) -> None:
        subprocess.run(["softhsm2-util", *arguments], check=True, capture_output=True)


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Token]:
    """A fresh SoftHSM 2 token."""
    if shutil.which("softhsm2-util") is None or not os.path.exists(SOFTHSM_MODULE):
        pytest.skip("SoftHSM 2 is not installed (apt install softhsm2)")
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed (the extra pkcs11)")
    directory = tmp_path / "softhsm"
    (directory / "tokens").mkdir(parents=True)
    configuration = directory / "softhsm2.conf"
    configuration.write_text(
        f"directories.tokendir = {directory}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    monkeypatch.setenv("SOFTHSM2_CONF", str(configuration))
    made = Token("albatross", "1234", directory)
    (directory / "pin").write_text("1234\n")
    made.tool(["--init-token", "--free", "--label", made.label, "--pin", made.pin, "--so-pin", "4321"])
    yield made
