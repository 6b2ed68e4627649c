"""The units of a host: systemd takes them, programs take their command lines, and every user reaches what is its."""

import importlib
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from albatross_pki.daemon_log import DEFAULT_TMPDIR
from albatross_pki.endpoint.authorise_cli import DEFAULT_STATEDIR
from albatross_pki.host.cgroups import _WANTED
from albatross_pki.host.cli import DEFAULT_DBDIR
from tests.packaging.units import (
    INSTALLED,
    SCRIPTS,
    Unit,
    command_line,
    directories,
    of_kind,
    rendered,
    services,
    stubs,
    units,
    users_and_groups,
)

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="needs systemd-analyze (Debian package systemd)")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")

# systemd's own measure, from 0 (nothing) to 10; the lower, the less a service that was taken over can do
EXPOSURE = dict.fromkeys((unit.name for unit in of_kind("service")), 1.5)
EXPOSURE["albatrossd.service"] = 4.0  # root, taps and other users' processes: its unit says why
DAEMON = "albatrossd.service"
UNIKERNELS = "albatross-unikernels.service"

# who may connect to what, beside root; in groups: people are given the first two
OPENS = {
    "vmmd.sock": {"albatross", "albatross-stats"},
    "extended.sock": {"albatross", "albatross-authorise"},
    "console.sock": {"albatross-watch", "albatross-authorise"},
    "stat.sock": {"albatross-watch", "albatross-authorise", "albatross-influx"},
    "authorise.sock": {"albatross-tls"},
}


def analyze(*arguments: str, within: Path) -> "subprocess.CompletedProcess[str]":
    assert ANALYZE is not None
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(within), "SYSTEMD_COLORS": "0"}
    return subprocess.run(
        [ANALYZE, "--no-pager", *arguments], capture_output=True, text=True, env=environment, timeout=100, cwd=within
    )


@needs_systemd
def test_systemd_takes_every_unit_without_a_word(tmp_path: Path) -> None:
    programs = stubs(tmp_path / "bin")
    (tmp_path / "units").mkdir()
    files = rendered(tmp_path / "units", programs)
    verified = analyze("verify", "--man=no", *map(str, files), within=tmp_path)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@needs_systemd
def test_a_wrong_unit_would_be_noticed(tmp_path: Path) -> None:
    programs = stubs(tmp_path / "bin")
    (tmp_path / "units").mkdir()
    rendered(tmp_path / "units", programs)
    wrong = tmp_path / "units" / "albatross-console.service"
    wrong.write_text(wrong.read_text().replace("ProtectHome=", "ProtectHomes="))
    verified = analyze("verify", "--man=no", str(wrong), within=tmp_path)
    assert "ProtectHomes" in verified.stderr


@needs_systemd
@pytest.mark.parametrize("name", sorted(EXPOSURE))
def test_p33_a_service_is_exposed_no_more_than_it_says(name: str, tmp_path: Path) -> None:
    programs = stubs(tmp_path / "bin")
    (tmp_path / "units").mkdir()
    place = next(file for file in rendered(tmp_path / "units", programs) if file.name == name)
    judged = analyze("security", "--offline=true", "--threshold=100", str(place), within=tmp_path)
    words = judged.stdout.rpartition("Overall exposure level for ")[2].split()
    assert words, judged.stderr
    assert float(words[1]) <= EXPOSURE[name], judged.stdout


# command lines


def parsed(line: list[str], monkeypatch: pytest.MonkeyPatch) -> click.Context:
    """What the program makes of its command line; it is not run. Users are those of sysusers.d."""
    users, _ = users_and_groups()
    numbers = {user: 900 + index for index, user in enumerate(sorted(users))}
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=numbers[name]))
    script = line[0].removeprefix(INSTALLED)
    module = importlib.import_module(SCRIPTS[script].partition(":")[0])
    context: click.Context = module.command.make_context(script, line[1:])
    return context


@pytest.mark.parametrize("unit", services(), ids=lambda unit: unit.name)
def test_every_command_line_is_one_that_its_program_takes(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed(command_line(unit), monkeypatch)
    with pytest.raises(click.ClickException):
        parsed([*command_line(unit), "--no-such-option"], monkeypatch)


@pytest.mark.parametrize("unit", services(), ids=lambda unit: unit.name)
def test_a_program_has_its_socket_from_systemd_or_none(unit: Unit, monkeypatch: pytest.MonkeyPatch) -> None:
    options = parsed(command_line(unit), monkeypatch).params
    activated = options.get("activated", options.get("systemd_socket_activation", False))
    sockets = {each.name for each in of_kind("socket") if each.service == unit.name and each.get("Accept") != "yes"}
    assert activated is bool(sockets)
    assert sockets <= set(unit.words("Requires"))
    assert sockets <= set(unit.words("After"))


def test_every_socket_starts_a_service_that_is_there() -> None:
    assert {unit.service for unit in of_kind("socket")} <= set(units())


def test_paths_are_those_that_the_programs_have_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = units()[DAEMON]
    assert f"/var/lib/{daemon.get('StateDirectory')}" == DEFAULT_DBDIR
    assert f"/run/{daemon.get('RuntimeDirectory')}" == DEFAULT_TMPDIR
    assert f"/var/lib/{units()['albatross-authorise.service'].get('StateDirectory')}" == DEFAULT_STATEDIR
    assert {DEFAULT_TMPDIR, f"{DEFAULT_TMPDIR}/util", f"{DEFAULT_TMPDIR}/fifo"} <= set(directories())
    sockets = {unit.get("ListenStream") for unit in of_kind("socket")}
    assert sockets == {f"{DEFAULT_TMPDIR}/util/{name}" for name in OPENS} | {"[::]:1025"}
    for unit in services():
        options = parsed(command_line(unit), monkeypatch).params
        assert options["tmpdir"] == DEFAULT_TMPDIR
        if "spool" in options:
            assert options["spool"] == f"/var/lib/{unit.get('StateDirectory')}"
        for name in ("cacert", "certificate", "key", "crl_dir"):
            assert os.path.dirname(options.get(name) or "/etc/albatross/file") == "/etc/albatross"
    endpoint = importlib.import_module("albatross_pki.endpoint.cli")
    assert endpoint.DEFAULT_PORT == 1025


def test_every_user_and_group_is_made() -> None:
    users, groups = users_and_groups()
    for unit in units().values():
        assert {*unit.words("User"), *unit.words("SocketUser")} - {"root"} <= set(users), unit.name
        named = {*unit.words("Group"), *unit.words("SocketGroup"), *unit.words("SupplementaryGroups")}
        assert named <= groups, unit.name
    for path, (_, user, group) in directories().items():
        assert {user} - {"root"} <= set(users), path
        assert {group} - {"root"} <= groups, path
    for options, option in ((command_line(units()["albatross-authorise.service"]), "--endpoint-user"),):
        assert {word.partition("=")[2] for word in options if word.startswith(option)} == {"albatross-tls"}


@as_root
@needs_systemd
def test_users_and_directories_are_taken_by_systemd(tmp_path: Path) -> None:
    """systemd-sysusers and systemd-tmpfiles make them, in a system that is a directory."""
    (tmp_path / "etc").mkdir()
    packaging = Path(__file__).parents[2] / "packaging" / "systemd"
    for tool, kind in (("systemd-sysusers", "sysusers.d"), ("systemd-tmpfiles", "tmpfiles.d")):
        place = tmp_path / "usr" / "lib" / kind
        place.mkdir(parents=True)
        shutil.copy(packaging / kind / "albatross.conf", place)
        extra = ["--create"] if tool == "systemd-tmpfiles" else []
        done = subprocess.run(
            [tool, f"--root={tmp_path}", *extra, "albatross.conf"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
    made = {line.split(":")[0] for line in (tmp_path / "etc" / "passwd").read_text().splitlines()}
    assert set(users_and_groups()[0]) <= made
    for path, (mode, _, _) in directories().items():
        assert stat.S_IMODE((tmp_path / path[1:]).stat().st_mode) == mode


# who may do what


def may_open(user: str, groups: set[str], unit: Unit) -> bool:
    """unix(7): connecting takes the right to write to the socket's file."""
    mode = int(unit.get("SocketMode"), 8)
    if user == unit.get("SocketUser"):
        return bool(mode & 0o200)
    if unit.get("SocketGroup") in groups:
        return bool(mode & 0o020)
    return bool(mode & 0o002)


def unix_sockets() -> dict[str, Unit]:
    return {os.path.basename(unit.get("ListenStream")): unit for unit in of_kind("socket") if unit.get("SocketMode")}


def test_p37_the_endpoint_can_open_the_authorisers_socket_and_no_other() -> None:
    users, groups = users_and_groups()
    people = {group: {group} for group in groups - set(users)}
    opened = {
        name: {who for who, into in {**users, **people}.items() if may_open(who, into, unit)}
        for name, unit in unix_sockets().items()
    }
    assert opened == OPENS


@as_root
def test_p37_the_kernel_says_the_same() -> None:
    """Sockets with these owners and modes, and a process of each user that tries them all."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        _try_all(Path(place))


def _try_all(place: Path) -> None:
    users, groups = users_and_groups()
    number = {name: 0x71000000 + index for index, name in enumerate(sorted({*users, *groups}))} | {"root": 0}
    listeners = []
    for name, unit in unix_sockets().items():
        listener = socket.socket(socket.AF_UNIX)
        listeners.append(listener)
        path = str(place / name)
        listener.bind(path)
        listener.listen(64)
        os.chmod(path, int(unit.get("SocketMode"), 8))
        os.chown(path, number[unit.get("SocketUser")], number[unit.get("SocketGroup")])
    probe = (
        "import os, socket\n"
        "for name in sorted(os.listdir('.')):\n"
        "    with socket.socket(socket.AF_UNIX) as each:\n"
        "        try: each.connect(name); print(name)\n"
        "        except PermissionError: pass\n"
    )
    try:
        for user, into in users.items():
            tried = subprocess.run(
                [sys.executable, "-I", "-c", probe],
                cwd=place,
                user=number[user],
                group=number[user],
                extra_groups=[number[each] for each in into],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert tried.returncode == 0, tried.stderr
            assert set(tried.stdout.split()) == {name for name, who in OPENS.items() if user in who}, user
    finally:
        for listener in listeners:
            listener.close()


def test_p37_the_owner_of_a_socket_cannot_open_it_for_others() -> None:
    """chmod(2) is the owner's right; on a file system that its service has read-only it is refused (EROFS)."""
    owners = {unit.get("SocketUser") for unit in unix_sockets().values()} - {"root"}
    for unit in services():
        if unit.get("User") in owners:
            assert unit.get("ProtectSystem") == "strict", unit.name
            assert [unit.all(key) for key in ("ReadWritePaths", "RuntimeDirectory", "BindPaths")] == [[], [], []]


def test_p19_nobody_but_root_makes_files_where_the_sockets_are() -> None:
    for path in (DEFAULT_TMPDIR, f"{DEFAULT_TMPDIR}/util"):
        assert directories()[path] == (0o755, "root", "root")
    mode, user, group = directories()[f"{DEFAULT_TMPDIR}/fifo"]
    assert (mode, user) == (0o2750, "root"), "a fifo gets the group of its directory"
    assert group == units()["albatross-console.service"].get("User")
    assert all(unit.get("DirectoryMode") == "0755" for unit in unix_sockets().values())


def test_p37_neither_judge_nor_console_has_a_network() -> None:
    for name in ("albatross-authorise.service", "albatross-console.service"):
        unit = units()[name]
        assert (unit.get("PrivateNetwork"), unit.get("RestrictAddressFamilies")) == ("yes", "AF_UNIX"), name


def test_only_albatrossd_is_root_and_only_it_has_capabilities() -> None:
    for unit in services():
        if unit.name == DAEMON:
            continue
        assert unit.get("User") not in ("", "root"), unit.name
        assert unit.all("CapabilityBoundingSet") == [""], unit.name
    owners = [unit.get("User") for unit in services() if unit.name != DAEMON and "tls" not in unit.name]
    assert len(owners) == len(set(owners)), "each has a user of its own"


def test_p27_albatrossd_can_be_replaced_while_unikernels_run() -> None:
    daemon, keeper = units()[DAEMON], units()[UNIKERNELS]
    assert daemon.get("ExecReload").endswith("kill -HUP $MAINPID")
    assert daemon.get("KillMode") == "process"
    assert daemon.get("RuntimeDirectoryPreserve") == "yes"
    assert daemon.get("Restart") == "on-failure"
    # systemd starts a process in the unit's own cgroup, which must not have children with limits (cgroups(7))
    assert daemon.get("Delegate") == ""
    assert set(keeper.words("Delegate")) == set(_WANTED)
    options = dict(word.split("=", 1) for word in command_line(daemon) if "=" in word)
    assert options["--cgroup"] == f"/sys/fs/cgroup/{keeper.get('Slice')}/{UNIKERNELS}"
    assert UNIKERNELS in daemon.words("Wants")
    assert UNIKERNELS in daemon.words("After"), "it ends first"
    # a unikernel that somebody else ends is over, and no longer wanted
    assert keeper.get("KillMode") == "process"
    assert keeper.get("RefuseManualStop") == "yes"
    assert keeper.get("StopWhenUnneeded") == ""


def test_what_the_cgroup_of_unikernels_forbids_is_nothing_that_a_tender_needs() -> None:
    """These two hold for every process in it, whoever made it (systemd.resource-control(5))."""
    keeper = units()[UNIKERNELS]
    assert {value.split()[0] for value in keeper.all("DeviceAllow")} == {"/dev/kvm", "/dev/net/tun"}
    assert keeper.all("IPAddressDeny") == []
    assert keeper.get("PrivateDevices") == ""


def test_there_is_one_way_to_the_port_at_a_time() -> None:
    standalone = units()["albatross-tls-endpoint-standalone.service"]
    assert {"albatross-tls-endpoint.socket", "albatross-tls.socket"} <= set(standalone.words("Conflicts"))
    assert "albatross-tls.socket" in units()["albatross-tls-endpoint.socket"].words("Conflicts")
    assert "albatross-tls-endpoint.socket" in units()["albatross-tls.socket"].words("Conflicts")


def test_what_an_operator_may_set_is_in_the_document() -> None:
    document = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    named = {word for unit in services() for word in unit.get("ExecStart").split() if word.startswith("$")}
    assert named
    assert sorted(each for each in named if f"`{each[1:]}`" not in document) == []
