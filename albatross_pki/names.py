"""Labels, paths and names: the three words for where something is.

* a **label** is 1 to 63 characters ``[A-Za-z0-9.-]``, not starting with ``-``, kept in lower case;
* a **path** is a tuple of labels; the root path is the empty one and its text is empty; ``dev:web`` has two labels;
* a **name** is a path and, unless it stands for the path itself, a label: ``dev:hello``, ``:hello``; ``dev:`` and
  ``:`` have no label.

Names and paths are never the same thing: the name ``a:b`` and the path ``a:b:`` differ in every comparison.
What the wire, certificates and file names carry is ``str(name)``, the canonical text.
"""

import re
from dataclasses import dataclass

from albatross_pki.errors import InvalidName

_LABEL = re.compile(r"[A-Za-z0-9.][A-Za-z0-9.-]{0,62}", re.ASCII)
_LABEL_RULE = "invalid label (only [a-zA-Z0-9-.] allowed, 1 to 63 chars)"
SEPARATOR = ":"
MAX_NAME_OCTETS = 4096  # 64 labels of 63 octets; a chain gives at most nine


def parse_label(text: str) -> str:
    """The label in lower case; raises ``InvalidName``."""
    if not _LABEL.fullmatch(text):
        raise InvalidName(_LABEL_RULE, text)
    return text.lower()


@dataclass(frozen=True, slots=True, order=True)
class Path:
    """Labels from the root down; ``Path()`` is the root."""

    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for label in self.labels:
            if parse_label(label) != label:
                raise InvalidName(_LABEL_RULE, label)

    @classmethod
    def parse(cls, text: str) -> "Path":
        """Parse ``a:b``; one leading colon is tolerated, a trailing one is not, empty text is the root."""
        if len(text) > MAX_NAME_OCTETS:
            raise InvalidName("invalid path: too long", text[:64])
        if not text:
            return cls()
        pieces = text.split(SEPARATOR)
        if pieces[0] == "":
            pieces = pieces[1:]
        try:
            return cls(tuple(parse_label(piece) for piece in pieces))
        except InvalidName as error:
            raise InvalidName(f"invalid path: {_LABEL_RULE}", text) from error

    def __str__(self) -> str:
        return SEPARATOR.join(self.labels)

    @property
    def is_root(self) -> bool:
        return not self.labels

    @property
    def parent(self) -> "Path":
        """The path one level up; the root is its own parent."""
        return Path(self.labels[:-1])

    def child(self, label: str) -> "Path":
        return Path((*self.labels, label))

    def below(self, path: "Path") -> "Path":
        """This path moved below ``path``."""
        return Path(path.labels + self.labels)

    def ancestors(self) -> tuple["Path", ...]:
        """This path and every one above it, deepest first, the root last."""
        return tuple(Path(self.labels[:length]) for length in range(len(self.labels), -1, -1))

    def contains(self, other: "Path") -> bool:
        """Whether ``other`` is this path or below it."""
        return other.labels[: len(self.labels)] == self.labels


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A path and the label of something in it; ``label`` is ``None`` for the path itself."""

    path: Path = Path()
    label: str | None = None

    def __post_init__(self) -> None:
        if self.label is not None and parse_label(self.label) != self.label:
            raise InvalidName(_LABEL_RULE, self.label)

    @classmethod
    def parse(cls, text: str) -> "Name":
        """Parse any spelling: ``foo`` and ``:foo`` are the same name, ``foo:`` is a path, ``:`` the root."""
        if not text:
            raise InvalidName("empty name", text)
        if text.endswith(SEPARATOR):
            return cls(Path.parse(text[:-1]))
        try:
            labels = Path.parse(text).labels
        except InvalidName as error:
            raise InvalidName("invalid name", text) from error
        return cls(Path(labels[:-1]), labels[-1])

    @classmethod
    def of_path(cls, path: Path) -> "Name":
        return cls(path, None)

    def __str__(self) -> str:
        return f"{self.path}{SEPARATOR}{self.label or ''}"

    @property
    def is_path(self) -> bool:
        return self.label is None

    def relative_to(self, path: Path) -> "Name":
        """The name as an answer to a question about ``path`` shows it; ``path`` must contain it."""
        if not path.contains(self.path):
            raise RuntimeError(f"{self} is not below {path}")
        return Name(Path(self.path.labels[len(path.labels) :]), self.label)

    def below(self, path: Path) -> "Name":
        """The inverse of ``relative_to``: this name moved below ``path``."""
        return Name(Path(path.labels + self.path.labels), self.label)


def derived_mac(netif: str, name: Name) -> bytes:
    """The six octets of an interface whose configuration gives none: ``00:80:41`` and three octets of an MD5.

    MD5 is a fixed part of Albatross' format here, not a protection. ``netif`` is the device's name inside the
    unikernel.
    """
    import hashlib  # it loads OpenSSL's part of it, which few command lines need

    digest = hashlib.md5(f"{netif}{name}".encode("utf-8", "surrogateescape"), usedforsecurity=False).digest()
    return b"\x00\x80\x41" + digest[:3]
