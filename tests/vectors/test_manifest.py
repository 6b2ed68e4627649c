"""The vectors are all there, are what their headers say, and no header is guessed at."""

import hashlib

import pytest

from tests.vectors.manifest import DIRECTORIES, ROOT, BadManifest, parse, vectors

_GOOD = "file: a.der\nholds: message\nmade-by: ourselves\nsha256: 00\n"


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_every_file_has_a_header_and_every_header_a_file(directory: str) -> None:
    files = {path.relative_to(ROOT / directory).as_posix() for path in (ROOT / directory).rglob("*") if path.is_file()}
    assert files - {"MANIFEST"} == {vector.file for vector in vectors(directories=(directory,))}


@pytest.mark.parametrize("directory", DIRECTORIES)
def test_no_file_has_changed(directory: str) -> None:
    for vector in vectors(directories=(directory,)):
        assert hashlib.sha256(vector.octets).hexdigest() == vector.sha256, vector


def test_there_is_no_directory_without_a_manifest() -> None:
    assert {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(DIRECTORIES)


def test_a_stanza_is_read() -> None:
    (vector,) = parse(f"# about\n\n{_GOOD}reads: OK v5\nunikernel: a\nunikernel: b\n")
    assert (vector.file, vector.reads, vector.refused, vector.unikernel) == ("a.der", "OK v5", None, ["a", "b"])


@pytest.mark.parametrize(
    "text",
    [
        f"{_GOOD}colour: blue\n",  # a key that nobody knows
        f"{_GOOD}Reads: OK\n",
        f"{_GOOD}reads OK\n",
        f"{_GOOD}reads: OK\nreads: OK\n",
        f"{_GOOD}\n{_GOOD}",
        _GOOD.replace("message", "massage"),
        _GOOD.replace("ourselves", "somebody"),
        "holds: message\nmade-by: ourselves\n",
    ],
)
def test_a_header_that_is_not_understood_fails(text: str) -> None:
    with pytest.raises(BadManifest):
        parse(text)
