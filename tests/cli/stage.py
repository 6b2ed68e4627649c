"""Where transcripts are played: one host, and for each transcript a directory and a delegation of its own.

The directory holds ``cacert.pem``, the delegation as ``dev.pem`` and ``dev.key``, a smaller one below it as ``ops.pem``
and ``ops.key``, the example images, and the TOML files beside this one. The delegation's label is the transcript's file
name. ``localhost:1025`` in a command stands for the host's endpoint, ``/run`` for its run-time directory.
"""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from tests.cli.transcript import Exchange, play
from tests.e2e.site import EXAMPLES, PROGRAMS, Site
from tests.pki_builder import Authority, policy

HERE = Path(__file__).parent


def transcripts() -> list[str]:
    """The names of all transcripts."""
    return sorted(path.stem for path in HERE.glob("*.txt"))


def prepare(site: Site, name: str, directory: Path) -> dict[str, str]:
    """Furnish ``directory``; the environment for its commands is returned."""
    dev = site.root.delegate(name, policy(unikernels=3, memory_mb=96, block_mb=8))
    ops = dev.delegate("ops", policy(unikernels=1, memory_mb=32))
    write(directory, "cacert", site.root)
    for label, authority in (("dev", dev), ("ops", ops)):
        write(directory, label, authority)
    for file in [*EXAMPLES.glob("*.spt"), *HERE.glob("*.toml")]:
        shutil.copy(file, directory)
    (directory / "content").write_bytes(b"content of a block device\n" * 1000)
    return {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "HOME": str(directory), "TMPDIR": str(directory)}


def write(directory: Path, name: str, authority: Authority) -> None:
    (directory / f"{name}.pem").write_bytes(authority.chain_pem or authority.pem)
    key = directory / f"{name}.key"
    key.write_bytes(authority.key_pem)
    key.chmod(0o400)


def played(site: Site, exchange: Exchange, directory: Path, environment: dict[str, str]) -> tuple[list[str], int]:
    """The result of a command with the host's real port and directory, as a transcript would show it."""
    words = {"localhost:1025": f"localhost:{site.port}", " /run": f" {site.host / 'run'}"}
    command = exchange.command
    for shown, real in words.items():
        command = command.replace(shown, real)
    lines, status = play(replace(exchange, command=command), directory, environment)
    back = {str(site.host / "run"): "/run", f"localhost:{site.port}": "localhost:1025", str(directory): "."}
    for real, shown in back.items():
        lines = [line.replace(real, shown) for line in lines]
    return lines, status
