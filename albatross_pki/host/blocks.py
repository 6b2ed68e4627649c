"""Block devices of a host (interim: none exist until the store is in)."""

from collections.abc import Iterator, Mapping
from types import TracebackType

from albatross_pki.errors import AlbatrossError
from albatross_pki.names import Name


class BlockRefused(AlbatrossError):
    """A block device cannot be used so."""


class Replacement:
    """A new content on its way."""

    def write(self, chunk: bytes) -> None:
        raise BlockRefused("set block: not found")

    def commit(self) -> None:
        raise BlockRefused("set block: not found")

    def __enter__(self) -> "Replacement":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class BlockStore:
    """No block devices."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.devices: Mapping[Name, int] = {}

    def scan(self) -> list[str]:
        return []

    def add(self, name: Name, size_mb: int) -> None:
        raise BlockRefused(f"block devices are not available: {name} ({size_mb} MB)")

    def remove(self, name: Name) -> None:
        raise BlockRefused(f"remove block: not found: {name}")

    def open(self, name: Name) -> int:
        raise BlockRefused(f"block device {name} not found")

    def claim(self, name: Name, verb: str) -> None:
        raise BlockRefused(f"block device {name} not found: {verb}")

    def release(self, name: Name) -> None:
        del name

    def in_use(self, name: Name) -> bool:
        del name
        return False

    def replace(self, name: Name, compressed: bool) -> Replacement:
        raise BlockRefused(f"set block: not found: {name}{' ' * compressed}")

    def dump(self, name: Name, level: int) -> Iterator[bytes]:
        raise BlockRefused(f"dump block: not found: {name} {level}")
