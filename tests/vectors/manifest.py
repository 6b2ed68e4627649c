"""The header of every vector: what the file holds, who made it, and what upstream's decoder read in it.

A directory of vectors has a ``MANIFEST``: one stanza of ``key: value`` lines per file, stanzas apart by empty lines,
comments after ``#``. A key that is not in ``_KEYS``, a key given twice that may stand once, and a file without a
stanza or a stanza without a file are errors: a vector whose header is not understood must not seem to pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent
DIRECTORIES = ("encoded", "images", "influx", "negative", "oneshot", "pki", "remote", "state", "wire")

HOLDS = frozenset(
    {
        *("message", "extension", "state", "chunk"),  # DER, but for the raw chunk of an upload
        *("bundle", "certificates", "request", "key", "ledger", "image", "text", "json"),
    }
)
MADE_BY = frozenset({"upstream-program", "upstream-library", "other-tools", "ourselves"})


class BadManifest(Exception):
    """A header that is not understood."""


@dataclass
class Vector:
    """One file. ``refused`` says why we refuse what upstream reads; ``unikernel`` and ``policy`` are of a state."""

    file: str = ""
    holds: str = ""
    made_by: str = ""
    sha256: str = ""
    reads: str | None = None
    refused: str | None = None
    unikernel: list[str] = field(default_factory=list)
    policy: list[str] = field(default_factory=list)
    directory: str = ""

    @property
    def path(self) -> Path:
        return ROOT / self.directory / self.file

    @property
    def octets(self) -> bytes:
        return self.path.read_bytes()

    def __str__(self) -> str:
        return f"{self.directory}/{self.file}"


_KEYS = ("file", "holds", "made-by", "sha256", "reads", "refused")
_REPEATED = ("unikernel", "policy")


def parse(text: str, directory: str = "") -> list[Vector]:
    """The stanzas of a manifest; raises ``BadManifest``."""
    vectors = []
    for stanza in text.split("\n\n"):
        lines = [line for line in stanza.splitlines() if line and not line.startswith("#")]
        if lines:
            vectors.append(_vector(lines, directory))
    files = [vector.file for vector in vectors]
    for file in {file for file in files if files.count(file) > 1}:
        raise BadManifest(f"{directory}: {file} has two stanzas")
    return vectors


def _vector(lines: list[str], directory: str) -> Vector:
    vector = Vector(directory=directory)
    given: set[str] = set()
    for line in lines:
        key, colon, value = line.partition(": ")
        if key in _REPEATED and colon:
            getattr(vector, key).append(value)
        elif key in _KEYS and colon and key not in given:
            setattr(vector, key.replace("-", "_"), value)
        else:
            raise BadManifest(f"{directory}: not understood: {line!r}")
        given.add(key)
    if not vector.file or vector.holds not in HOLDS or vector.made_by not in MADE_BY:
        raise BadManifest(f"{directory}: incomplete stanza: {lines}")
    return vector


def vectors(*holding: str, directories: tuple[str, ...] = DIRECTORIES) -> Iterator[Vector]:
    """Every vector that holds one of these things, or every one at all."""
    for directory in directories:
        for vector in parse((ROOT / directory / "MANIFEST").read_text(encoding="utf-8"), directory):
            if not holding or vector.holds in holding:
                yield vector
