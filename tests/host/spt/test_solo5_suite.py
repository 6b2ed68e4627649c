"""Solo5's own test images under our tender, with the exit status that Solo5's test suite expects.

Nothing of Solo5 is in this project: build it somewhere (``./configure.sh && make``) and name its ``tests`` directory in
``SOLO5_TESTS``. If its ``solo5-spt`` was built too, every image runs under both, and the statuses must be equal. The
tests with network are in ``test_network``, with our own unikernel.
"""

import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from albatross_pki.host.spt.attached import AttachedBlock
from tests.host.spt.conftest import Start

SUITE = os.environ.get("SOLO5_TESTS")
pytestmark = pytest.mark.skipif(SUITE is None, reason="SOLO5_TESTS does not name the tests directory of a built Solo5")
SEGV, SYS = -signal.SIGSEGV, -signal.SIGSYS


@dataclass(frozen=True)
class Case:
    """An image, its command line, and how it ends; ``disks`` of ``sector`` octets are files of ``size`` octets."""

    image: str
    status: int
    arguments: str = ""
    says: bytes = b""
    disks: int = 0
    size: int = 4 << 20
    sector: int = 512


CASES = {
    "hello": Case("hello", 0, "Hello_Solo5", b"SUCCESS"),
    "quiet": Case("quiet", 0, "--solo5:quiet", b"SUCCESS"),
    "output": Case("output", 0, "Output_Solo5"),
    "globals": Case("globals", 0, says=b"SUCCESS"),
    "exception": Case("exception", SEGV),
    "zeropage": Case("zeropage", SEGV),
    "xnow": Case("xnow", SEGV),
    "wnox": Case("wnox", SEGV),
    "rnow": Case("rnow", SEGV),
    "rnox": Case("rnox", 1),  # its constants stand in the segment of its code
    "xnor": Case("xnor", 1),  # x86_64 has no memory that is executable only
    "notls": Case("notls", SEGV),
    "tls": Case("tls", 0, says=b"SUCCESS"),
    "ssp": Case("ssp", 255, says=b"ABORT"),
    "fpu": Case("fpu", 0, says=b"SUCCESS"),
    "time": Case("time", 0, says=b"SUCCESS"),
    "seccomp": Case("seccomp", SYS),
    "dumpcore": Case("dumpcore", 255),
    "blk": Case("blk", 0, says=b"SUCCESS", disks=1),
    "blk 4096": Case("blk", 0, says=b"SUCCESS", disks=1, sector=4096),
    "mft_maxdevices": Case("mft_maxdevices", 0, says=b"SUCCESS", disks=63, size=4096),
}


def files(case: Case, directory: Path) -> dict[str, Path]:
    names = ["storage"] if case.disks == 1 else [f"storage{number}" for number in range(case.disks)]
    paths = {name: directory / f"{name}.img" for name in names}
    for path in paths.values():
        path.write_bytes(b"")
        os.truncate(path, case.size)
    return paths


@pytest.mark.parametrize("name", CASES)
def test_it_ends_as_under_solo5(start: Start, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    path = Path(str(SUITE)) / f"test_{case.image}" / f"test_{case.image}.spt"
    disks = files(case, tmp_path)
    descriptors = [os.open(disk, os.O_RDWR | os.O_CLOEXEC) for disk in disks.values()]
    devices = [
        AttachedBlock(disk, descriptor, case.size, case.sector)
        for disk, descriptor in zip(disks, descriptors, strict=True)
    ]
    try:
        guest = start(path.read_bytes(), case.arguments, devices=devices)
        assert guest.wait() == case.status
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    assert case.says in guest.output
    peer = Path(str(SUITE)).parent / "tenders" / "spt" / "solo5-spt"
    if peer.exists():
        disks = files(case, tmp_path)
        options = [f"--block:{disk}={file}" for disk, file in disks.items()]
        options += [f"--block-sector-size:{disk}={case.sector}" for disk in disks]
        run = subprocess.run([peer, "--mem=2", *options, "--", path, case.arguments], capture_output=True, timeout=60)
        assert run.returncode == case.status
