"""Builds the example unikernels, and writes down with what.

    python examples/unikernels/build.py            into this directory, for every compiler that is installed
    python examples/unikernels/build.py --into DIR

Every file is one call of the compiler, without a C library, start files or anything of the host. ``built.json`` keeps,
for each processor, the versions of compiler and linker and the SHA-256 of each file; with the same versions the same
octets come out, in whatever directory and at whatever time.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
RECORD = "built.json"
NAMES = ("block", "echo-net", "hello", "ticker")
FLAGS = (
    "-std=gnu11",
    "-Os",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffreestanding",
    "-fno-builtin",
    "-fno-stack-protector",
    "-fno-pie",
    "-no-pie",
    "-fno-asynchronous-unwind-tables",
    "-fno-ident",
    "-nostdlib",
    "-static",
    "-s",
    "-Wl,-T,guest.lds",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
    "-Wl,-z,max-page-size=0x1000",
)


@dataclass(frozen=True)
class Toolchain:
    """A compiler for one processor; ``suffix`` ends the names of what it makes."""

    machine: str
    compiler: str
    suffix: str
    flags: tuple[str, ...]

    @property
    def installed(self) -> bool:
        return shutil.which(self.compiler) is not None

    def versions(self) -> dict[str, str]:
        """First lines of what compiler and linker say about themselves."""
        linker = _output([self.compiler, "-print-prog-name=ld"]).strip()
        return {
            "compiler": _output([self.compiler, "--version"]).splitlines()[0],
            "linker": _output([linker, "--version"]).splitlines()[0],
        }

    def build(self, name: str, into: Path) -> Path:
        """Build one unikernel; raises ``CalledProcessError`` with the compiler's words."""
        made = into / f"{name}{self.suffix}"
        command = [self.compiler, *FLAGS, *self.flags, "-o", str(made), f"{name}.c"]
        subprocess.run(command, cwd=HERE, check=True)
        made.chmod(0o644)  # it is data for a tender, not a program of this system
        return made


TOOLCHAINS = (
    Toolchain("x86_64", "x86_64-linux-gnu-gcc", ".spt", ("-fcf-protection=none",)),
    Toolchain("aarch64", "aarch64-linux-gnu-gcc", ".aarch64.spt", ("-mgeneral-regs-only", "-mbranch-protection=none")),
)


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def build_all(into: Path) -> dict[str, dict[str, object]]:
    """Build for every installed compiler; what ``built.json`` says about each."""
    record: dict[str, dict[str, object]] = {}
    for toolchain in TOOLCHAINS:
        if toolchain.installed:
            made = [toolchain.build(name, into) for name in NAMES]
            digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in made}
            record[toolchain.machine] = {**toolchain.versions(), "sha256": digests}
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description="build the example unikernels")
    parser.add_argument("--into", type=Path, default=HERE, metavar="DIR", help="default: beside the sources")
    into: Path = parser.parse_args().into.resolve()
    try:
        record = build_all(into)
    except subprocess.CalledProcessError:
        sys.exit("error: the compiler refused, see above")
    if not record:
        names = " or ".join(toolchain.compiler for toolchain in TOOLCHAINS)
        sys.exit(f"error: no compiler is installed ({names})\nhint: apt-get install gcc")
    path = into / RECORD
    kept = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**kept, **record}, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
