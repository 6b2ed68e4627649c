"""Names below the path that ``hosts.toml`` gives a host, as certificates carry them. Pure but for one file.

1. a name that is typed lies below the host's path, whatever it begins with; one with a colon in front is a name from
   the host's root (``command_line`` has done this: the names here are those that the host has);
2. through TLS a leaf's name is relative to its delegation's path, and has one label. So the delegation's path is taken
   away; a path that is at the delegation's, or above it, stands for everything that the delegation sees;
3. what is not directly below the delegation's path is refused before anything is sent. Nothing is guessed: with the
   path ``dev``, ``dev:web`` is ``dev:dev:web``, and the refusal says what to type.
"""

from collections.abc import Mapping
from typing import Any

from albatross_pki.errors import AlbatrossError
from albatross_pki.files import read_file
from albatross_pki.names import Name, Path


class NotCarried(AlbatrossError):
    """A name that no leaf below the delegation can carry; ``name`` is the one that the host has."""

    def __init__(self, message: str, name: Name, *, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.name = name


def carried(values: Mapping[str, Any], host_path: Path) -> dict[str, Any]:
    """A command's values with every name and path as a leaf carries it; raises ``AlbatrossError``."""
    delegation: Path | None = None  # read once, and only if there is a name

    def one(value: Any) -> Any:
        nonlocal delegation
        if isinstance(value, tuple) and value and all(isinstance(each, Name) for each in value):
            return tuple(one(each) for each in value)
        if not isinstance(value, Name | Path):
            return value
        if delegation is None:
            delegation = _path_of_file(values["ca"])
        if isinstance(value, Path):
            return relative(Name.of_path(value), delegation, host_path).path
        return relative(value, delegation, host_path)

    return {key: one(value) for key, value in values.items()}


def relative(name: Name, delegation: Path, host_path: Path) -> Name:
    """The name of the host's ``name`` below ``delegation``; raises ``NotCarried``."""
    if name.is_path and name.path.contains(delegation):
        return Name()
    if delegation == name.path:
        return Name(Path(), name.label)
    if not delegation.contains(name.path):
        text = f"'{name}' is not below your delegation's path, '{delegation}'"
    else:
        text = f"'{name}' is more than one label below your delegation's path, '{delegation}'"
    raise NotCarried(text, name, hint=_hint(name, host_path))


def _hint(name: Name, host_path: Path) -> str:
    typed = name.path.labels[len(host_path.labels) :] if host_path.contains(name.path) else ()
    known = f"hosts.toml says that names lie below '{host_path}' there"
    if host_path.labels and typed[: len(host_path.labels)] == host_path.labels:
        shorter = Name(Path(typed[len(host_path.labels) :]), name.label)
        return f"{known}: say '{str(shorter).removeprefix(':') or ':'}'"
    return f"{known}; a name with a colon in front is one from the host's root"


def _path_of_file(place: str) -> Path:
    from albatross_pki.ca.issuer import delegation_path
    from albatross_pki.pem import certificates

    return delegation_path(certificates(read_file(place), place))
