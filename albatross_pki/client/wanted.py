"""What a path is wanted to hold, from a file in TOML: policies, block devices, unikernels.

::

    path = "dev"                      # where all this is; left away: the root, or your delegation's path

    [policies.web]                    # of the path dev:web; "" is the file's own path
    unikernels = 2
    memory_mb = 64
    cpuids = [0]
    block_mb = 8                      # without it: no block storage
    bridges = ["service"]

    [blocks.vol]
    size_mb = 2
    content = "disk.img"              # put there when the block device is made, and never again

    [unikernels.hello]
    image = "hello.spt"               # files are relative to the directory of this one
    memory_mb = 32
    cpuids = [0]
    arguments = ["--greeting=hi"]
    networks = ["net:service"]        # as --net
    blocks = ["disk:vol@512"]         # as --block
    restart = true                    # or the exit codes to restart on
    startup = 10                      # 0 first
    add_name = false

Only ``image``, ``size_mb`` and a policy's first two numbers have to be there. ``wanted_of`` is pure and finds every
mistake of the file, each with its place; ``read_wanted`` also reads the images and judges their manifests, so that what
is sent later has been looked at as a whole.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from albatross_pki.client.files import BadFile, binding_of, judge_image, read_file
from albatross_pki.errors import AlbatrossError, Refused, check_range
from albatross_pki.names import Name, Path, parse_label
from albatross_pki.policies import Policy
from albatross_pki.policy.rules import shrinks, usable
from albatross_pki.syntax import parse_block, parse_network
from albatross_pki.text import printable
from albatross_pki.unikernels import QUIT, FailBehaviour, Settings

MAX_FILE = 1 << 20  # octets
MAX_NUMBER = 2**31 - 1
BHYVE = ("type", "typ", "cpus", "linux_boot", "linux_boot_partition")  # what one might write for a BHyve unikernel
SECTIONS = ("policies", "blocks", "unikernels")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WantedBlock:
    """A block device; ``content`` is the file that a new one is filled from."""

    size_mb: int
    content: str | None = None


@dataclass(frozen=True, slots=True)
class WantedUnikernel:
    """A unikernel: its settings, the file of its image, and that file's SHA-256 (empty until it was read)."""

    settings: Settings
    image: str
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Everything that a file says; names and paths are relative to ``path``, which may be left open."""

    path: Path | None = None
    policies: Mapping[Path, Policy] = field(default_factory=dict)
    blocks: Mapping[Name, WantedBlock] = field(default_factory=dict)
    unikernels: Mapping[Name, WantedUnikernel] = field(default_factory=dict)


def device_of(unikernel: Name, host_device: str) -> Name:
    """The block device that a unikernel means: one in its own path."""
    return Name(unikernel.path, host_device.lower())


def read_wanted(path: str) -> Wanted:
    """The file at ``path`` with the digests of its images; raises ``Refused`` with every mistake in it."""
    import tomllib

    try:
        document = tomllib.loads(read_file(path, MAX_FILE).decode())
    except (ValueError, RecursionError) as error:  # TOML's and UTF-8's errors are among them
        raise BadFile(path, f"no TOML: {printable(str(error), 200)}") from error
    mistakes: list[str] = []
    wanted = wanted_of(document, os.path.dirname(path), mistakes)
    unikernels = {name: _with_digest(name, each, mistakes) for name, each in wanted.unikernels.items()}
    for name, block in wanted.blocks.items():
        _judge_content(name, block, mistakes)
    if mistakes:
        raise Refused([f"{path}: {each}" for each in mistakes])
    return replace(wanted, unikernels=unikernels)


def wanted_of(document: Mapping[str, Any], directory: str, mistakes: list[str]) -> Wanted:
    """What a parsed file says; every mistake is added to ``mistakes``."""
    mistakes += [f"'{printable(key)}' is not known here" for key in document if key not in ("path", *SECTIONS)]
    base: Path | None = None
    if "path" in document:
        base = _parsed("path", document["path"], Path.parse, mistakes)
    wanted = Wanted(
        base,
        _section(document, "policies", _path_of, _policy, mistakes),
        _section(document, "blocks", _name_of, lambda table: _block(table, directory), mistakes),
        _section(document, "unikernels", _name_of, lambda table: _unikernel(table, directory), mistakes),
    )
    mistakes += _contradictions(wanted)
    return wanted


def _section(
    document: Mapping[str, Any],
    section: str,
    key_of: Callable[[str], T],
    read: Callable[["_Table"], Any],
    mistakes: list[str],
) -> dict[T, Any]:
    tables = document.get(section, {})
    if not isinstance(tables, dict):
        mistakes.append(f"'{section}' is no table")
        return {}
    found: dict[T, Any] = {}
    for text, value in tables.items():
        place = f"{section}.{printable(text)}" if text else f'{section}.""'
        before = len(mistakes)
        key = _parsed(place, text, key_of, mistakes)
        if not isinstance(value, dict):
            mistakes.append(f"{place} is no table")
            continue
        table = _Table(place, value, mistakes)
        entry = read(table)
        table.end()
        if key is not None and key in found:
            mistakes.append(f"{place}: this is there already, in another spelling")
        elif key is not None and (len(mistakes) == before or section == "unikernels"):
            found[key] = entry  # a unikernel's image is looked at in any case
    return found


def _parsed(place: str, text: object, parse: Callable[[str], T], mistakes: list[str]) -> T | None:
    if not isinstance(text, str):
        mistakes.append(f"{place} is no text")
        return None
    try:
        return parse(text)
    except AlbatrossError as error:
        mistakes.append(f"{place}: {error.message}")
        return None


def _path_of(text: str) -> Path:
    return Path.parse("" if text == ":" else text)


def _name_of(text: str) -> Name:
    name = Name.parse(text)
    if name.is_path:
        raise AlbatrossError("is a path, and this is about one name below it")
    return name


class _Table:
    """One table of the file: fields are taken out of it, what is wrong with them is noted."""

    def __init__(self, place: str, table: Mapping[str, Any], mistakes: list[str]) -> None:
        self.place, self._table, self._mistakes = place, table, mistakes
        self._asked: set[str] = set()

    def note(self, text: str) -> None:
        self._mistakes.append(f"{self.place}: {text}")

    def refuse(self, keys: Iterable[str], why: str) -> None:
        """Note each of ``keys`` that is there, with the reason."""
        for key in keys:
            if key in self._table:
                self._asked.add(key)
                self.note(f"'{key}': {why}")

    def end(self) -> None:
        """Note every field that nobody has asked for."""
        for key in self._table:
            if key not in self._asked:
                self.note(f"'{printable(key)}' is not known here")

    def number(self, key: str, low: int, default: T) -> int | T:
        value = self._take(key, default)
        if value is default or not self._is(int, key, value):
            return default
        try:
            return check_range(key, value, low, MAX_NUMBER)
        except AlbatrossError as error:
            self.note(error.message)
            return default

    def must(self, key: str, low: int) -> int:
        """A number that has to be there."""
        if key not in self._table:
            self._asked.add(key)
            self.note(f"'{key}' is missing")
            return low
        return self.number(key, low, low)

    def numbers(self, key: str) -> frozenset[int]:
        found = self._list(key, int)
        for each in found:
            try:
                check_range(key, each, 0, MAX_NUMBER)
            except AlbatrossError as error:
                self.note(error.message)
        return frozenset(found)

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(self._list(key, str))

    def file(self, key: str, *, needed: bool = False) -> str | None:
        """The name of a file, as it stands there."""
        value = self._take(key, None)
        if value is None:
            if needed:
                self.note(f"'{key}' is missing")
            return None
        if not self._is(str, key, value):
            return None
        if "\0" in value or not value:
            self.note(f"'{key}' is no name of a file")
            return None
        return str(value)

    def truth(self, key: str, default: bool) -> bool:
        value = self._take(key, default)
        return value if self._is(bool, key, value) else default

    def parsed(self, key: str, parse: Callable[[str], T]) -> tuple[T, ...]:
        """A list of texts that have a form of their own."""
        read = [_parsed(f"{self.place}: {key}", text, parse, self._mistakes) for text in self.texts(key)]
        return tuple(each for each in read if each is not None)

    def check(self, key: str, text: str, parse: Callable[[str], object]) -> None:
        """Note what ``parse`` says against a part of a field."""
        _parsed(f"{self.place}: {key}", text, parse, self._mistakes)

    def restart(self) -> FailBehaviour:
        value = self._take("restart", False)
        if isinstance(value, bool):
            return FailBehaviour(frozenset()) if value else QUIT
        codes = self.numbers("restart")
        if value == []:
            self.note("an empty 'restart' says nothing; true is after every failure, false never")
        return FailBehaviour(codes)

    def _take(self, key: str, default: Any) -> Any:
        self._asked.add(key)
        return self._table.get(key, default)

    def _list(self, key: str, kind: type) -> list[Any]:
        value = self._take(key, [])
        if isinstance(value, list) and all(_is_a(kind, each) for each in value):
            return value
        self.note(f"'{key}' is no list of {_KINDS[kind]}s")
        return []

    def _is(self, kind: type, key: str, value: object) -> bool:
        if _is_a(kind, value):
            return True
        self.note(f"'{key}' is no {_KINDS[kind]}")
        return False


_KINDS: dict[type, str] = {int: "number", str: "text", bool: "truth value"}


def _is_a(kind: type, value: object) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _policy(table: _Table) -> Policy:
    policy = Policy(
        cpuids=table.numbers("cpuids") or frozenset({0}),
        unikernels=table.must("unikernels", 0),
        memory_mb=table.must("memory_mb", 0),
        block_mb=table.number("block_mb", 0, None),
        bridges=frozenset(table.texts("bridges")),
    )
    for violation in usable(policy):
        table.note(violation.text)
    return policy


def _block(table: _Table, directory: str) -> WantedBlock:
    content = table.file("content")
    return WantedBlock(table.must("size_mb", 1), None if content is None else _file(content, directory))


def _unikernel(table: _Table, directory: str) -> WantedUnikernel:
    table.refuse(BHYVE, "BHyve unikernels are not applied: a host tells nothing of their disk that could be compared")
    settings = Settings(
        cpuids=table.numbers("cpuids") or frozenset({0}),
        memory_mb=table.number("memory_mb", 1, 32),
        fail_behaviour=table.restart(),
        startup=table.number("startup", 0, None),
        add_name=table.truth("add_name", True),
        blocks=table.parsed("blocks", parse_block),
        interfaces=table.parsed("networks", parse_network),
        arguments=table.texts("arguments") or None,
    )
    for what, names in (
        ("networks", [each.name for each in settings.interfaces]),
        ("blocks", [each.name for each in settings.blocks]),
    ):
        if len(set(names)) != len(names):
            table.note(f"'{what}' must be a set: each one is another device of the image")
    for block in settings.blocks:
        table.check("blocks", block.host_device, parse_label)
    image = table.file("image", needed=True)
    return WantedUnikernel(settings, "" if image is None else _file(image, directory))


def _file(text: str, directory: str) -> str:
    return os.path.join(directory, os.path.expanduser(text))


def _contradictions(wanted: Wanted) -> Iterable[str]:
    """What the entries of a file say against each other."""
    users: dict[Name, list[str]] = {}
    for name, unikernel in wanted.unikernels.items():
        for block in unikernel.settings.blocks:
            users.setdefault(device_of(name, block.host_device), []).append(shown(name))
    for device, names in users.items():
        if len(names) > 1:
            yield f"blocks.{shown(device)}: wanted by {' and '.join(sorted(names))}, and a block device has one user"
    at_root = wanted.path is None or wanted.path.is_root  # where the machine's own policy stands, which binds nobody
    for path, policy in wanted.policies.items():
        for above in path.parent.ancestors() if not path.is_root else ():
            if above in wanted.policies and not (above.is_root and at_root):
                yield from _exceeds(path, policy, above, wanted.policies[above])


def _exceeds(path: Path, policy: Policy, above: Path, limit: Policy) -> Sequence[str]:
    place = f'policies."{path}"' if len(path.labels) > 1 else f"policies.{path}"
    return [f"{place}: {each.text} ({str(above) or 'the path itself'})" for each in shrinks(limit, policy)]


def shown(name: Name) -> str:
    """A name as it is typed, without the colon before a name at the root; a path as ``-o name`` prints it."""
    if name.is_path:
        return str(name.path) or ":"
    return str(name).removeprefix(":")


def _with_digest(name: Name, unikernel: WantedUnikernel, mistakes: list[str]) -> WantedUnikernel:
    if not unikernel.image:
        return unikernel  # which has been said
    try:
        octets = read_file(unikernel.image)
        judge_image(unikernel.image, octets, unikernel.settings)
    except AlbatrossError as error:
        reasons = error.reasons if isinstance(error, Refused) else (error.message,)
        mistakes += [f"unikernels.{shown(name)}: {reason}" for reason in reasons]
        return unikernel
    return replace(unikernel, digest=binding_of(octets).digest)


def _judge_content(name: Name, block: WantedBlock, mistakes: list[str]) -> None:
    if block.content is None:
        return
    try:
        if not os.path.isfile(block.content):
            raise FileNotFoundError(2, "no such file")
        size = os.stat(block.content).st_size
    except OSError as error:
        reason = (error.strerror or "cannot be read").lower()
        mistakes.append(f"blocks.{shown(name)}: {block.content}: {reason}")
        return
    if size > block.size_mb << 20:
        mistakes.append(f"blocks.{shown(name)}: {block.content} has {size} octets, more than {block.size_mb} MB")
