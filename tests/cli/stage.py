"""Where transcripts are played: one host, and for each transcript a directory and a delegation of its own.

The directory holds ``cacert.pem``, the delegation as ``dev.pem`` and ``dev.key``, a smaller one below it as ``ops.pem``
and ``ops.key``, one of the same label that is for another host as ``elsewhere.pem`` and ``elsewhere.key``, the example
images, a state file of Albatross as ``state``, and the TOML files beside this one. The delegation's label is the
transcript's file name. The host is called ``blue`` and ``green`` in ``hosts.toml``; there is no ``red``.

``localhost:1025`` in a command stands for the host's endpoint, ``/run`` for its run-time directory,
``http://builds.example`` for a build server whose latest build of ``hello.spt`` is ``ticker.spt``. A line
``# host: OPTIONS`` says how ``albatross-host start`` is called.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from albatross_pki.extensions import Constraints
from tests.cli.transcript import Exchange, play
from tests.client.build_server import Builds, pages
from tests.e2e.site import EXAMPLES, PROGRAMS, Site
from tests.pki_builder import Authority, policy

HERE = Path(__file__).parent
STATE = HERE.parent / "vectors" / "state" / "full.der"
BUILDS = "http://builds.example"


def transcripts() -> list[str]:
    """The names of all transcripts."""
    return sorted(path.stem for path in HERE.glob("*.txt"))


def host_options(text: str) -> list[str]:
    """With which options the host of a transcript is started."""
    found = re.search(r"^# host: (.*)$", text, re.MULTILINE)
    return found[1].split() if found else []


@contextmanager
def builds() -> Iterator[str]:
    """A build server; its address."""
    latest = pages((EXAMPLES / "hello.spt").read_bytes(), (EXAMPLES / "ticker.spt").read_bytes())
    with Builds(latest) as server:
        yield server.url


def prepare(site: Site, name: str, directory: Path) -> dict[str, str]:
    """Furnish ``directory``; the environment for its commands is returned."""
    month = datetime.now(UTC) + timedelta(days=30)  # leaves for a day are not cut
    dev = site.root.delegate(name, policy(unikernels=3, memory_mb=96, block_mb=8), not_after=month)
    ops = dev.delegate("ops", policy(unikernels=1, memory_mb=32))
    away = Constraints(hosts=frozenset({"elsewhere"}))
    elsewhere = site.root.delegate(name, policy(unikernels=3, memory_mb=96, block_mb=8), away)
    write(directory, "cacert", site.root)
    for label, authority in (("dev", dev), ("ops", ops), ("elsewhere", elsewhere)):
        write(directory, label, authority)
    shutil.copy(STATE, directory / "state")
    configuration = directory / ".config" / "albatross"
    configuration.mkdir(parents=True)
    (configuration / "hosts.toml").write_text(HOSTS.format(port=site.port, place=directory))
    for file in [*EXAMPLES.glob("*.spt"), *HERE.glob("*.toml")]:
        shutil.copy(file, directory)
    (directory / "content").write_bytes(b"content of a block device\n" * 1000)
    return {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "HOME": str(directory), "TMPDIR": str(directory)}


HOSTS = """
[hosts.blue]
destination = "localhost:{port}"
ca = "{place}/dev.pem"
ca_key = "{place}/dev.key"
server_ca = "{place}/cacert.pem"

[hosts.green]
destination = "localhost:{port}"
ca = "{place}/ops.pem"
ca_key = "{place}/ops.key"
server_ca = "{place}/cacert.pem"
"""


def write(directory: Path, name: str, authority: Authority) -> None:
    (directory / f"{name}.pem").write_bytes(authority.chain_pem or authority.pem)
    key = directory / f"{name}.key"
    key.write_bytes(authority.key_pem)
    key.chmod(0o400)


def played(
    site: Site, exchange: Exchange, directory: Path, environment: dict[str, str], url: str
) -> tuple[list[str], int]:
    """The result of a command with the real port, directory and build server (``url``), as a transcript shows it."""
    words = {"localhost:1025": f"localhost:{site.port}", " /run": f" {site.host / 'run'}", BUILDS: url}
    command = exchange.command
    for shown, real in words.items():
        command = command.replace(shown, real)
    lines, status = play(replace(exchange, command=command), directory, environment)
    back = {
        str(site.host / "run"): "/run",
        f"localhost:{site.port}": "localhost:1025",
        str(directory): ".",
        url: BUILDS,
    }
    for real, shown in back.items():
        lines = [line.replace(real, shown) for line in lines]
    return lines, status
