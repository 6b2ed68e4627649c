"""systemd's files as they are in ``packaging/systemd``, read just well enough to ask them questions."""

import shlex
import shutil
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SYSTEMD = ROOT / "packaging" / "systemd"
INSTALLED = "/opt/albatross/bin/"  # where docs/operations.md installs the programs
SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


@dataclass(frozen=True)
class Unit:
    """One unit; a key that stands more than once has several values, in order."""

    name: str
    entries: tuple[tuple[str, str, str], ...]  # section, key, value

    def all(self, key: str) -> list[str]:
        return [value for _, each, value in self.entries if each == key]

    def get(self, key: str, default: str = "") -> str:
        return (self.all(key) or [default])[-1]

    def words(self, key: str) -> list[str]:
        return [word for value in self.all(key) for word in value.split()]

    @property
    def service(self) -> str:
        """The service that a socket starts."""
        template = "@" if self.get("Accept") == "yes" else ""
        return self.get("Service", self.name.removesuffix(".socket") + template + ".service")


def read(path: Path) -> Unit:
    """systemd.syntax(7): sections, ``key=value``, comments, lines that go on after a backslash."""
    section, entries = "", []
    lines = path.read_text().replace("\\\n", " ").splitlines()
    for line in lines:
        if line.startswith("["):
            section = line.strip("[]")
        elif line and line[0] not in "#;":
            key, equals, value = line.partition("=")
            assert equals, f"{path.name}: {line}"
            entries.append((section, key, value.strip()))
    return Unit(path.name, tuple(entries))


@cache
def units() -> dict[str, Unit]:
    return {path.name: read(path) for path in sorted(SYSTEMD.iterdir()) if path.is_file()}


def of_kind(kind: str) -> list[Unit]:
    return [unit for name, unit in units().items() if name.endswith(f".{kind}")]


def services() -> list[Unit]:
    """Those that start programs of ours."""
    return [unit for unit in of_kind("service") if INSTALLED in unit.get("ExecStart")]


def command_line(unit: Unit) -> list[str]:
    """The program and its arguments, with nothing in the variables that an operator may set."""
    return [word for word in shlex.split(unit.get("ExecStart")) if not word.startswith("$")]


@cache
def users_and_groups() -> tuple[dict[str, set[str]], set[str]]:
    """Users with the groups that they are in, and all groups, as sysusers.d(5) makes them."""
    users: dict[str, set[str]] = {}
    groups: set[str] = set()
    for line in (SYSTEMD / "sysusers.d" / "albatross.conf").read_text().splitlines():
        match shlex.split(line, comments=True):
            case ["g", group, *_]:
                groups.add(group)
            case ["u", user, *_]:
                users[user] = {user}
                groups.add(user)
            case ["m", user, group]:
                users[user].add(group)
    return users, groups


@cache
def directories() -> dict[str, tuple[int, str, str]]:
    """Mode, user and group of the directories that tmpfiles.d(5) makes."""
    found = {}
    for line in (SYSTEMD / "tmpfiles.d" / "albatross.conf").read_text().splitlines():
        match shlex.split(line, comments=True):
            case ["d", path, mode, user, group, "-"]:
                found[path] = (int(mode, 8), user, group)
            case [_, *_]:
                raise AssertionError(line)
    return found


def rendered(into: Path, programs: Path) -> list[Path]:
    """Copies of all units whose programs are there: in ``programs``, as systemd-analyze wants to see them."""
    made = []
    for path in sorted(SYSTEMD.iterdir()):
        if path.is_file():
            copy = into / path.name
            copy.write_text(path.read_text().replace(INSTALLED, f"{programs}/"))
            made.append(copy)
    return made


def stubs(into: Path) -> Path:
    """A directory with something executable for each of our programs."""
    into.mkdir()
    for script in SCRIPTS:
        shutil.copy("/bin/true", into / script)
    return into
