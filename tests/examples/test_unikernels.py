"""The committed example unikernels are what their sources give, and what they say they are.

Where the recorded compiler and linker are installed, building again gives the same octets. Elsewhere that cannot be
expected; then the reason is stated, and what can be checked everywhere is checked: digests and structure.
"""

import hashlib
import importlib.util
import io
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from elftools.elf.elffile import ELFFile

from albatross_pki.image.loading import lay_out
from albatross_pki.image.solo5 import Abi, Target, parse_image

DIRECTORY = Path(__file__).parents[2] / "examples" / "unikernels"
RECORD = json.loads((DIRECTORY / "built.json").read_text())
MACHINES = {"x86_64": 62, "aarch64": 183}
FILES = [(machine, name) for machine in sorted(RECORD) for name in sorted(RECORD[machine]["sha256"])]
DEVICES = {
    "hello": [],
    "ticker": [],
    "echo-net": [("service", "NET_BASIC")],
    "block": [("storage", "BLOCK_BASIC")],
}


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """The build script, as a module."""
    specification = importlib.util.spec_from_file_location("example_build", DIRECTORY / "build.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules["example_build"] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


def test_every_example_is_committed_for_both_processors(build: ModuleType) -> None:
    expected = {
        toolchain.machine: {f"{name}{toolchain.suffix}" for name in build.NAMES} for toolchain in build.TOOLCHAINS
    }
    assert {machine: set(record["sha256"]) for machine, record in RECORD.items()} == expected
    assert set(build.NAMES) == set(DEVICES)


@pytest.mark.parametrize(("machine", "name"), FILES)
def test_the_committed_file_is_the_recorded_one(machine: str, name: str) -> None:
    assert hashlib.sha256((DIRECTORY / name).read_bytes()).hexdigest() == RECORD[machine]["sha256"][name]


@pytest.mark.parametrize("machine", sorted(RECORD))
def test_building_again_gives_the_same_octets(build: ModuleType, machine: str, tmp_path: Path) -> None:
    (toolchain,) = [each for each in build.TOOLCHAINS if each.machine == machine]
    if not toolchain.installed:
        pytest.skip(f"{toolchain.compiler} is not installed: only digests and structure are checked")
    versions = toolchain.versions()
    recorded = {tool: RECORD[machine][tool] for tool in versions}
    for name in build.NAMES:
        made = toolchain.build(name, tmp_path)
        if versions == recorded:
            assert made.read_bytes() == (DIRECTORY / made.name).read_bytes(), name
        else:
            check_structure(made.read_bytes(), machine, name)
    if versions != recorded:
        pytest.skip(f"built and checked, but not compared: recorded were {recorded}, here are {versions}")


@pytest.mark.parametrize(("machine", "name"), FILES)
def test_structure_of_the_committed_file(machine: str, name: str) -> None:
    check_structure((DIRECTORY / name).read_bytes(), machine, name.partition(".")[0])


def check_structure(octets: bytes, machine: str, name: str) -> None:
    """Right processor, target and devices; loads into 2 MB; small; nothing of the host's linker or libraries in it."""
    image = parse_image(octets)
    assert image.machine == MACHINES[machine]
    assert image.abi == Abi(Target.SPT, 2)
    assert [(device.name, device.kind.value) for device in image.manifest.devices] == DEVICES[name]
    assert lay_out(image, 2).segments
    assert len(octets) < 10_000
    elf = ELFFile(io.BytesIO(octets))
    names = [section.name for section in elf.iter_sections()]
    assert {".note.solo5.abi", ".note.solo5.manifest"} <= set(names)
    assert not {".interp", ".dynamic", ".symtab", ".comment"} & set(names)
