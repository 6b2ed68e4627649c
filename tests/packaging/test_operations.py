"""docs/operations.md stays true: every command in it is one that its program takes, and every file in it is there."""

import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.units import INSTALLED, ROOT, SCRIPTS, SYSTEMD, directories, units, users_and_groups

DOCUMENT = (ROOT / "docs" / "operations.md").read_text()
INSTALLING = DOCUMENT.partition("## Installing on a server")[2].partition("\n## ")[0]
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", INSTALLING, re.DOTALL) for line in block.splitlines()]
OURS = [line for line in COMMANDS if line.split()[0] in SCRIPTS]
SYSTEMCTL = {"daemon-reload", "disable", "enable", "reload", "start", "status", "stop", "try-restart"}
KNOWN = {"apt", "cp", "install", "journalctl", "ln", "python3", "rm", "sqlite3", "systemctl", "systemd-sysusers"}
KNOWN |= {"systemd-tmpfiles", "tar", "umask", "usermod", f"{INSTALLED}pip"}


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) > 25
    assert len(OURS) > 3


def test_a_shell_takes_every_command() -> None:
    read = subprocess.run(["/bin/sh", "-n", "-c", "\n".join(COMMANDS)], capture_output=True, text=True, timeout=60)
    assert (read.returncode, read.stderr) == (0, "")


def test_no_command_is_of_a_program_that_nobody_checks() -> None:
    assert sorted({line.split()[0] for line in COMMANDS} - KNOWN - set(SCRIPTS)) == []


@pytest.mark.parametrize("line", OURS)
def test_our_programs_take_theirs(line: str) -> None:
    """Whatever is wrong in front of --help is an error first."""
    program, *arguments = shlex.split(line)
    code = f"from {SCRIPTS[program].partition(':')[0]} import main; main()"
    for more, status in (["--help"], 0), (["--no-such-option", "--help"], 124):
        done = subprocess.run([sys.executable, "-c", code, *arguments, *more], capture_output=True, timeout=60)
        assert done.returncode == status, done.stderr


def test_units_that_are_named_are_there() -> None:
    for line in COMMANDS:
        words = shlex.split(line)
        if words[0] != "systemctl":
            continue
        verb, *named = [word for word in words[1:] if not word.startswith("-")]
        assert verb in SYSTEMCTL, line
        for name in named:
            assert name in units() or f"{name}.service" in units(), line


def test_what_is_enabled_can_be_and_everything_needed_is() -> None:
    enabled = {name for line in COMMANDS if "enable --now" in line for name in shlex.split(line)[3:]}
    assert all(units()[name].get("WantedBy") for name in enabled)
    needed = {name for unit in enabled for name in units()[unit].words("Requires")}
    assert needed <= enabled
    services = {units()[name].service if name.endswith(".socket") else name for name in enabled}
    assert {name for service in services for name in units()[service].words("Requires")} <= enabled
    disabled = {name for line in COMMANDS if "disable --now" in line for name in shlex.split(line)[3:]}
    assert enabled <= disabled


def test_every_unit_and_file_is_installed_and_removed() -> None:
    copied = set()
    for line in COMMANDS:
        words = shlex.split(line)
        if words[0] == "cp" or words[:2] == ["install", "-D"]:  # the latter makes directories that not every system has
            for pattern in (word for word in words[1:-1] if word.startswith("packaging/")):
                matched = glob.glob(pattern, root_dir=ROOT)
                assert matched, line
                copied |= set(matched)
    files = {str(path.relative_to(ROOT)) for path in SYSTEMD.rglob("*") if path.is_file()}
    assert copied == files
    removed = " ".join(line for line in COMMANDS if line.startswith("rm "))
    for place in ("/etc/systemd/system/albatross*", "/etc/sysusers.d/albatross.conf", "/etc/tmpfiles.d/albatross.conf"):
        assert place in removed
    state = {f"/var/lib/{name}" for unit in units().values() for name in unit.words("StateDirectory")}
    assert state <= set(removed.split())
    assert os.path.dirname(INSTALLED.rstrip("/")) in removed.split()


def test_groups_and_directories_are_those_that_are_made() -> None:
    users, groups = users_and_groups()
    for line in COMMANDS:
        words = shlex.split(line)
        if words[0] == "install" and words[1] != "-D":
            assert words[-1].rstrip("/") in directories()
            assert words[words.index("-g") + 1] in groups if "-g" in words else True
        if words[0] == "usermod":
            assert set(words[2].split(",")) <= groups - set(users)


def test_p19_the_backup_is_of_what_there_is_and_for_nobody_else() -> None:
    """The names are those of the programs' own files."""
    text = "\n".join(COMMANDS)
    assert text.index("umask 077") < text.index("sqlite3 /var/lib")
    sources = {
        "albatross.sqlite": ROOT / "albatross_pki" / "host" / "state.py",
        "state.sqlite": ROOT / "albatross_pki" / "endpoint" / "authorise_cli.py",
        "audit.log": ROOT / "albatross_pki" / "endpoint" / "authorise_cli.py",
    }
    for name, source in sources.items():
        assert name in text
        assert f'"{name}"' in source.read_text()


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="needs sqlite3 (Debian package sqlite3)")
def test_the_backup_command_backs_up(tmp_path: Path) -> None:
    command = next(line for line in COMMANDS if line.startswith("sqlite3 /var/lib/albatross/"))
    source, target = tmp_path / "a.sqlite", tmp_path / "b.sqlite"
    subprocess.run(["sqlite3", source, "create table t (x); insert into t values (7)"], check=True, timeout=60)
    for placed, here in (("/var/lib/albatross/albatross.sqlite", source), ("/root/albatross.sqlite", target)):
        assert placed in command
        command = command.replace(placed, str(here))
    subprocess.run(shlex.split(command), check=True, timeout=60)
    read = subprocess.run(["sqlite3", target, "select x from t"], capture_output=True, text=True, timeout=60)
    assert read.stdout == "7\n"
