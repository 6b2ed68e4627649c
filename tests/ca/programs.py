"""The two provisioning programs as functions, and a token, for the tests of CA and requests."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from albatross_pki.console_script import execute

SOFTHSM_MODULE = "/usr/lib/softhsm/libsofthsm2.so"
EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "unikernels"
HELLO = EXAMPLES / "hello.spt"


@dataclass(frozen=True)
class Result:
    """How a program ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        return [line.removeprefix("error: ") for line in self.err.splitlines() if line.startswith("error: ")]


Program = Callable[..., Result]


def program(command: object, name: str, capsys: pytest.CaptureFixture[str]) -> Program:
    """``command`` as a function; it must end with 0 unless ``check=False``."""

    def call(*arguments: object, check: bool = True) -> Result:
        capsys.readouterr()
        status = execute(command, [str(argument) for argument in arguments], name)  # type: ignore[arg-type]
        captured = capsys.readouterr()
        assert not check or status == 0, captured.err
        return Result(status, captured.out, captured.err)

    return call


@dataclass(frozen=True)
class Token:
    """A SoftHSM 2 token with a PIN in a directory of its own; its module finds it through ``SOFTHSM2_CONF``."""

    label: str
    pin: str
    directory: Path

    def uri(self, name: str) -> str:
        pin_file = self.directory / "pin"
        return f"pkcs11:token={self.label};object={name}?module-path={SOFTHSM_MODULE}&pin-source=file:{pin_file}"

    def tool(self, arguments: Sequence[str]) -> None:
        subprocess.run(["softhsm2-util", *arguments], check=True, capture_output=True)


def make_token(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Token:
    """A fresh token; skips the test where SoftHSM or the Python module is not installed."""
    if shutil.which("softhsm2-util") is None or not os.path.exists(SOFTHSM_MODULE):
        pytest.skip("SoftHSM 2 is not installed (apt install softhsm2)")
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed (the extra pkcs11)")
    (directory / "tokens").mkdir(parents=True)
    configuration = directory / "softhsm2.conf"
    lines = [f"directories.tokendir = {directory}/tokens", "objectstore.backend = file", "log.level = ERROR", ""]
    configuration.write_text("\n".join(lines))
    monkeypatch.setenv("SOFTHSM2_CONF", str(configuration))
    made = Token("albatross", "1234", directory)
    (directory / "pin").write_text(f"{made.pin}\n")
    made.tool(["--init-token", "--free", "--label", made.label, "--pin", made.pin, "--so-pin", "4321"])
    return made
