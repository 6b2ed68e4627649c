"""What is stored in images below every path, as running totals, and whether one more image fits.

How images are charged:

1. to the path of the unikernel that they are kept for and to every path above it, up to the root: the image of what
   runs, those of earlier deployments that are kept for rollback, and what is being received (*promised*);
2. at each path once for each digest, because it is stored once. Whether there is room on the whole host for an image is
   judged as if other top-level delegations did not have it: nobody learns from a refusal what somebody else stores;
3. by its octets, uncompressed.

Every operation costs O(depth of the path x images of one unikernel). Not safe for threads.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from albatross_pki.names import Name, Path
from albatross_pki.policy.rules import Violation

MEBIBYTE = 1 << 20
Limits = Callable[[Path], int | None]  # octets that a path may store; None: no limit


@dataclass(slots=True)
class _Stored:
    """At and below one path: by digest how many unikernels keep it; octets of these, and of what is promised."""

    keepers: dict[bytes, int] = field(default_factory=dict)
    octets: int = 0
    promised: int = 0


class StoredImages:
    """The images of a host by unikernel, their octets by path."""

    def __init__(self) -> None:
        self._by_path: dict[Path, _Stored] = {}
        self._by_name: dict[Name, dict[bytes, int]] = {}

    def octets(self, path: Path) -> int:
        """What is stored and promised at and below ``path``."""
        found = self._by_path.get(path)
        return 0 if found is None else found.octets + found.promised

    def settle(self, name: Name, images: Mapping[bytes, int]) -> None:
        """From now on exactly these images (octets by digest) are kept for ``name``."""
        before = self._by_name.pop(name, {})
        if images:
            self._by_name[name] = dict(images)
        for path in name.path.ancestors():
            stored = self._by_path.setdefault(path, _Stored())
            for digest, octets in images.items():
                _keep(stored, digest, octets)
            for digest, octets in before.items():
                _let_go(stored, digest, octets)
            self._drop_if_empty(path)

    def admit(
        self, name: Name, octets: int, limits: Limits, *, digest: bytes | None = None, leaving: Mapping[bytes, int]
    ) -> list[Violation]:
        """Every limit up to the root that an image of ``octets`` for ``name`` would exceed.

        ``digest`` is known if the image is; ``leaving`` are images of ``name`` that go when this one has come.
        """
        found = []
        for path in name.path.ancestors():
            limit = limits(path)
            stored = self._by_path.get(path, _NOTHING)
            if limit is None or self._has(path, name, digest):
                continue
            going = sum(size for each, size in leaving.items() if stored.keepers.get(each) == 1)
            used = stored.octets + stored.promised - going
            if used + octets > limit:
                where = "" if path == name.path else " on the whole host" if path.is_root else f" for {path}"
                text = (
                    f"images may take {_mb(limit)} (used {_mb(used)}), "
                    f"which would be exceeded by this one ({_mb(octets)}){where}"
                )
                found.append(Violation("images", limit, octets, text))
        return found

    @contextlib.contextmanager
    def promised(self, name: Name, octets: int, digest: bytes | None = None) -> Iterator[Callable[[int, bytes], None]]:
        """Charge what is being received for ``name``, for as long as the block runs; where it is kept it is charged.

        Gives the function to call as soon as its octets and its digest are known.
        """
        charged: dict[Path, int] = {}

        def charge(octets: int, digest: bytes | None) -> None:
            for path in name.path.ancestors():
                stored = self._by_path.setdefault(path, _Stored())
                now = 0 if self._has(path, name, digest) else octets
                stored.promised += now - charged.get(path, 0)
                charged[path] = now
                self._drop_if_empty(path)

        charge(octets, digest)
        try:
            yield charge
        finally:
            charge(0, None)

    def _has(self, path: Path, name: Name, digest: bytes | None) -> bool:
        """Whether an image is at and below ``path`` already, as far as the delegation of ``name`` may know."""
        where = Path(name.path.labels[:1]) if path.is_root else path
        return digest is not None and digest in self._by_path.get(where, _NOTHING).keepers

    def _drop_if_empty(self, path: Path) -> None:
        stored = self._by_path[path]
        if not stored.keepers and not stored.promised:
            del self._by_path[path]


_NOTHING = _Stored()


def _keep(stored: _Stored, digest: bytes, octets: int) -> None:
    keepers = stored.keepers.get(digest, 0)
    stored.keepers[digest] = keepers + 1
    stored.octets += 0 if keepers else octets


def _let_go(stored: _Stored, digest: bytes, octets: int) -> None:
    stored.keepers[digest] -= 1
    if not stored.keepers[digest]:
        del stored.keepers[digest]
        stored.octets -= octets


def _mb(octets: int) -> str:
    """Octets in words; never less than there are."""
    return f"{-(-octets // MEBIBYTE)} MB" if octets >= MEBIBYTE else f"{octets} octets"
