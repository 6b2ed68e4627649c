"""State files of Albatross' own daemon: shown, taken apart, and written of a state of ours."""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from albatross_pki.client.cli import program
from albatross_pki.client.dump_cli import program as inspect_dump
from albatross_pki.console_script import execute
from albatross_pki.wire.state import decode_state_dump
from tests.vectors.manifest import ROOT, Vector, vectors
from tests.wire.upstream_words import fold

STATES = list(vectors("state"))
FULL = ROOT / "state" / "full.der"


@pytest.mark.parametrize("vector", STATES, ids=str)
def test_every_recorded_state_is_shown_as_upstream_reads_it(vector: Vector, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(program(), ["inspect-dump", "--file", str(vector.path), "-o", "upstream"], "albatross-client") == 0
    lines = [fold(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == f"parsed {len(vector.unikernel)} unikernels:"
    at = 1 + len(vector.unikernel)
    assert lines[at] == f"parsed {len(vector.policy)} policies:"
    # the records name their entries without brackets, and show arguments, which only extract-dump does
    shown = sorted(line.replace("[unikernel: ", "").replace("]:", "", 1) for line in lines[1:at])
    assert shown == sorted(fold(text).rpartition(" argv")[0] for text in vector.unikernel)
    policies = sorted(line.replace("[unikernel: ", "").replace("]: ", " ", 1) for line in lines[at + 1 :])
    assert policies == sorted(fold(text) for text in vector.policy)


def test_the_old_name_shows_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(inspect_dump(), ["--file", str(FULL)], "albatross-client-inspect-dump") == 0
    old = capsys.readouterr().out
    assert execute(program(), ["inspect-dump", "--file", str(FULL)], "albatross-client") == 0
    assert capsys.readouterr().out == old
    assert old.splitlines()[0].split() == [
        *("NAME", "MEMORY", "CPU", "RESTART", "STARTUP", "NETWORK", "BLOCK", "IMAGE")
    ]
    assert "alice:bob:two    20 MB   1    on failure  7" in old
    assert "353 octets, compressed" in old


def test_a_bare_file_name_is_one_in_the_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state").write_bytes(FULL.read_bytes())
    (tmp_path / "state.bak").write_bytes((ROOT / "state" / "empty.der").read_bytes())
    for options, names in (((), 3), (("--file", "state.bak"), 0), (("--file", str(tmp_path / "state")), 3)):
        words = ["inspect-dump", "--dbdir", str(tmp_path), *options, "-o", "name"]
        assert execute(program(), words, "albatross-client") == 0
        assert len(capsys.readouterr().out.split()) == names


def test_a_state_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(program(), ["inspect-dump", "--file", str(FULL), "-o", "json"], "albatross-client") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["unikernels"][2] == CONFIGURATION
    assert document["policies"][1] == {
        "path": "alice",
        "unikernels": 4,
        "cpuids": [0, 1],
        "memory_mb": 256,
        "block_mb": 100,
        "bridges": ["internal", "service"],
    }


CONFIGURATION = {
    "name": "alice:dev",
    "type": "solo5",
    "compressed": False,
    "image_octets": 1352,
    "restart": [2],
    "startup": None,
    "add_name": True,
    "cpuids": [0, 1],
    "memory_mb": 48,
    "blocks": [{"name": "data", "device": "storage", "sector_size": 4096}],
    "networks": [{"name": "service", "bridge": "internal", "mac": "02:00:00:00:00:01"}],
    "cpus": 1,
    "linux_boot_partition": None,
    "arguments": ["two words"],
}


@pytest.mark.parametrize(
    ("name", "image", "argv"),
    [("alice:bob:two", "tiny.hvt", "argv --foo=1 bar"), ("alice:dev", "tiny-dev.hvt", "argv two words")],
)
def test_an_image_is_stored_uncompressed(
    name: str,
    image: str,
    argv: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert execute(program(), ["extract-dump", name, "--file", str(FULL)], "albatross-client") == 0
    out = capsys.readouterr().out
    (stored,) = tmp_path.iterdir()
    assert stored.read_bytes() == (ROOT / "images" / image).read_bytes()
    assert out.startswith(f"dumped image to {stored}\ntyp solo5 ")
    assert out.endswith(f" {argv}\n")
    words = ["extract-dump", name, "--file", str(FULL), "--to", str(stored)]
    assert execute(program(), words, "albatross-client") == 124
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("inspect-dump", "--file", "./nothing"), "error: ./nothing: dump file not found\nhint: name it with --file"),
        (("inspect-dump", "--file", "/proc/self/mem"), "error: /proc/self/mem: error while reading dump file: "),
        (("inspect-dump", "--file", "./"), "error: ./: error while reading dump file: is a directory"),
        (("inspect-dump", "--file", sys.executable), "couldn't parse dump file: "),
        (("inspect-dump", "--file", "/dev/null"), "couldn't parse dump file: "),
        (("extract-dump", "nobody", "--file", str(FULL)), "error: unikernel not found\nhint: inspect-dump lists"),
        (("extract-dump", "--file", str(FULL)), "error: missing argument"),
        (("export-dump", "x", "--dbdir", "/nowhere/at/all"), ""),
    ],
)
def test_what_cannot_be_read_is_refused(words: tuple[str, ...], text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert execute(program(), list(words), "albatross-client") in (124, 125)
    err = capfd.readouterr().err
    assert text in err
    assert err.startswith("error: ")


def test_a_state_of_ours_is_named_and_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What upstream wrote, taken over by albatrossd and given back by the client, is the same."""
    code = "from albatross_pki.host.cli import main; main()"
    taken = [sys.executable, "-c", code, "--import-dump", str(FULL), "--dbdir", str(tmp_path)]
    subprocess.run(taken, check=True, capture_output=True, timeout=60)
    assert execute(program(), ["inspect-dump", "--dbdir", str(tmp_path)], "albatross-client") == 124
    assert f"hint: this is the state of albatross-pki: export-dump FILE --dbdir {tmp_path}" in capsys.readouterr().err
    target = tmp_path / "exported"
    assert execute(program(), ["export-dump", str(target), "--dbdir", str(tmp_path)], "albatross-client") == 0
    before, after = decode_state_dump(FULL.read_bytes()), decode_state_dump(target.read_bytes())
    assert {name: each.settings for name, each in after.unikernels} == {
        name: each.settings for name, each in before.unikernels
    }
    words = ["extract-dump", "alice:bob:hello", "--file", str(target), "--to", str(tmp_path / "image")]
    assert execute(program(), words, "albatross-client") == 0
    image = (ROOT / "images" / "tiny.hvt").read_bytes()
    assert sha256((tmp_path / "image").read_bytes()).digest() == sha256(image).digest()
