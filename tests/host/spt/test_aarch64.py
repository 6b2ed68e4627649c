"""The aarch64 side of the tender, on an emulated machine: stub, table and filter as a real Linux kernel sees them.

Wanted are qemu-system-aarch64, aarch64-linux-gnu-gcc with its C library, and a kernel for 64-bit ARM named by
``ALBATROSS_AARCH64_KERNEL`` (that of a Debian package ``linux-image-*-arm64``, unpacked; the module for taps is taken
from there). Nothing here was tried on hardware.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from albatross_pki.host.spt.attached import AttachedBlock, AttachedDevice, AttachedNet, Confinement
from albatross_pki.host.spt.compose import compose
from albatross_pki.image.solo5 import parse_image
from tests.host.spt.conftest import EXAMPLES

KERNEL = os.environ.get("ALBATROSS_AARCH64_KERNEL")
COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-system-aarch64"
INIT = Path(__file__).with_name("emulated_init.c")
RUNS = {
    "1.exit": ("hello", "--exit=5", 5),
    "2.other-exit": ("hello", "--exit=255", 255),
    "3.ticks": ("ticker", "--lines=2", 0),
    "4.first.disk": ("block", "", 0),
    "5.last.disk": ("block", "--sector=2047", 0),
    "6.behind.disk": ("block", "--sector=2048", -31),
    "7.net": ("echo-net", "--ipv4=10.0.0.2", 100),  # answers to a hundred pings
}


def missing() -> str | None:
    """Why there can be no test here."""
    if KERNEL is None:
        return "ALBATROSS_AARCH64_KERNEL does not name a kernel"
    absent = [program for program in (COMPILER, EMULATOR) if shutil.which(program) is None]
    return f"{' and '.join(absent)} not installed" if absent else None


def composed(name: str, arguments: str) -> bytes:
    octets = (EXAMPLES / f"{name}.aarch64.spt").read_bytes()
    devices: list[AttachedDevice] = []
    if name == "block":
        devices = [AttachedBlock("storage", 3, 1 << 20, 512)]
    if name == "echo-net":
        devices = [AttachedNet("service", 3, bytes.fromhex("020000000002"), 1500)]
    confinement = Confinement(title=name, cpuids=frozenset({0}), uid=1000)
    descriptor = compose(parse_image(octets), octets, 4, arguments.encode(), devices, confinement)
    try:
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)


def archive(files: dict[str, bytes | None]) -> bytes:
    """A cpio archive ("newc"), as a kernel wants it for its first file system; ``None`` is a directory."""
    made = bytearray()
    for number, (name, content) in enumerate([*files.items(), ("TRAILER!!!", b"")], 1):
        mode = 0o040755 if content is None else 0o100755
        fields = (number, mode, 0, 0, 1, 0, len(content or b""), 0, 0, 0, 0, len(name) + 1, 0)
        made += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        made += bytes(-len(made) % 4) + (content or b"")
        made += bytes(-len(made) % 4)
    return bytes(made)


@pytest.mark.slow
def test_the_examples_run_on_an_emulated_machine(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    init = tmp_path / "init"
    subprocess.run([COMPILER, "-O1", "-Wall", "-Werror", "-static", "-o", init, INIT], check=True)
    files: dict[str, bytes | None] = {"init": init.read_bytes(), "run": None}
    files |= {f"run/{run}": composed(name, arguments) for run, (name, arguments, _) in RUNS.items()}
    for module in Path(str(KERNEL)).parents[1].glob("lib/modules/*/kernel/drivers/net/tun.ko"):
        files["tun.ko"] = module.read_bytes()
    first = tmp_path / "initrd"
    first.write_bytes(archive(files))
    machine = [EMULATOR, "-M", "virt", "-cpu", "cortex-a72", "-m", "512", "-nographic", "-nic", "none", "-no-reboot"]
    boot = ["-kernel", str(KERNEL), "-initrd", str(first), "-append", "console=ttyAMA0 quiet panic=-1"]
    said = subprocess.run([*machine, *boot], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110)
    results = dict(re.findall(r"RESULT (\S+) (-?\w+)", said.stdout))
    assert results == {**{run: str(status) for run, (_, _, status) in RUNS.items()}, "end": "0"}, said.stdout
    assert "hello, the command line is: --exit=5" in said.stdout
    assert "block: sector 2047 was changed 1 times" in said.stdout
