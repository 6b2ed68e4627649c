"""The rc scripts of FreeBSD: run with a stubbed rc.subr on this machine, they give command lines that programs take."""

import importlib
import os
import pwd
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from tests.packaging.units import ROOT, SCRIPTS, users_and_groups

FREEBSD = ROOT / "packaging" / "freebsd"
RC_SCRIPTS = sorted(path.name for path in FREEBSD.iterdir() if path.suffix != ".sh")
DAEMON_FLAGS = {"-S": 0, "-r": 0, "-P": 1, "-p": 1, "-t": 1, "-u": 1}  # daemon(8), with the words that they take

# as rc.subr(8) does it, as far as these scripts use it: variables are there, "start" and others run what is named
RC_SUBR = """
load_rc_config() { . "$RC_CONF"; }
run_rc_command() {
    case "$1" in
    start)
        eval "enabled=\\$$rcvar"
        [ "$enabled" = YES ] || { echo "disabled"; return 0; }
        $start_precmd
        $command $command_args
        ${start_postcmd:-:}
        ;;
    *)
        case " ${extra_commands:-} " in *" $1 "*) ;; *) echo "unknown command $1"; exit 1 ;; esac
        eval "\\$${1}_cmd"
        ;;
    esac
}
"""
# every program that a script starts only says with which words it was
SAYING = '#!/bin/sh\nprintf "%s" "$(basename "$0")"; for word in "$@"; do printf "\\t%s" "$word"; done; echo\n'


def run(tmp_path: Path, script: str, verb: str = "start", **settings: str) -> list[list[str]]:
    """What ``script`` runs, each as its words; nothing of this machine is touched."""
    (tmp_path / "rc.subr").write_text(RC_SUBR)
    conf = {f"{script}_enable": "YES", **settings}
    (tmp_path / "rc.conf").write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in conf.items()))
    tools = tmp_path / "bin"
    tools.mkdir(exist_ok=True)
    for tool in ("daemon", "install", "chown", "chmod", "kill", "sleep", "cat"):
        (tools / tool).write_text("#!/bin/sh\necho 4711\n" if tool == "cat" else SAYING)
        (tools / tool).chmod(0o755)
    text = (FREEBSD / script).read_text()
    text = text.replace(". /etc/rc.subr", f'. "{tmp_path}/rc.subr"').replace("/usr/sbin/daemon", f"{tools}/daemon")
    text = text.replace("    kill -HUP", f"    {tools}/kill -HUP").replace('"${tries}" -lt 30', '"${tries}" -lt 1')
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "RC_CONF": str(tmp_path / "rc.conf")}
    done = subprocess.run(
        ["/bin/sh", "-eu", "-c", text, script, verb], capture_output=True, text=True, timeout=60, env=environment
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return [line.split("\t") for line in done.stdout.splitlines()]


def command_line(ran: list[list[str]]) -> tuple[dict[str, str], list[str]]:
    """The flags of daemon(8), and the program with its arguments."""
    (words,) = (words[1:] for words in ran if words[0] == "daemon")
    flags = {}
    while words[0] in DAEMON_FLAGS:
        flag = words.pop(0)
        flags[flag] = words.pop(0) if DAEMON_FLAGS[flag] else ""
    return flags, words


@pytest.mark.parametrize("script", [*RC_SCRIPTS, "users.sh"])
def test_a_shell_can_read_it(script: str) -> None:
    read = subprocess.run(["/bin/sh", "-n", FREEBSD / script], capture_output=True, text=True, timeout=60)
    assert (read.returncode, read.stderr) == (0, "")
    assert os.access(FREEBSD / script, os.X_OK)
    assert "Not tried on FreeBSD" in (FREEBSD / script).read_text()


def test_there_is_a_script_for_every_daemon() -> None:
    assert [f"albatross_{name}" for name in ("authorise", "console", "daemon", "influx", "stats", "tls")] == RC_SCRIPTS


@pytest.mark.parametrize("script", RC_SCRIPTS)
def test_the_program_takes_its_command_line(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags, (path, *arguments) = command_line(run(tmp_path, script))
    users, _ = users_and_groups()
    monkeypatch.setattr(pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=sorted(users).index(name)))
    # --tmpdir is looked at where it is given, and this machine has none at this place
    monkeypatch.setattr(os.path, "isdir", lambda place: place == "/var/run/albatross")
    program = os.path.basename(path)
    module = importlib.import_module(SCRIPTS[program].partition(":")[0])
    module.command.make_context(program, list(arguments))
    with pytest.raises(click.ClickException):
        module.command.make_context(program, [*arguments, "--no-such-option"])
    assert flags["-p"] == f"/var/run/{program}.pid"
    assert flags["-P"] != flags["-p"]
    assert flags.get("-u") in (None if script == "albatross_daemon" else "never", *users)
    assert "--tmpdir=/var/run/albatross" in arguments


@pytest.mark.parametrize("script", RC_SCRIPTS)
def test_an_operator_s_options_reach_the_program(script: str, tmp_path: Path) -> None:
    settings = {f"{script}_options": "--one --two=2", f"{script}_executable": "/elsewhere/program"}
    _, words = command_line(run(tmp_path, script, **settings))
    assert words[0] == "/elsewhere/program"
    assert {"--one", "--two=2"} <= set(words)


@pytest.mark.parametrize("script", RC_SCRIPTS)
def test_what_is_not_enabled_does_nothing(script: str, tmp_path: Path) -> None:
    assert run(tmp_path, script, **{f"{script}_enable": "NO"}) == [["disabled"]]


@pytest.mark.parametrize("script", ["albatross_authorise", "albatross_daemon", "albatross_tls"])
def test_a_reload_is_a_sighup_to_the_program_and_not_to_its_supervisor(script: str, tmp_path: Path) -> None:
    assert run(tmp_path, script, "reload") == [["kill", "-HUP", "4711"]]
    flags, _ = command_line(run(tmp_path, script))
    assert f'cat {flags["-p"]})"' in (FREEBSD / script).read_text()


def test_p37_sockets_are_for_the_same_users_as_under_systemd(tmp_path: Path) -> None:
    owners = {}
    for script in RC_SCRIPTS:
        for words in run(tmp_path, script):
            if words[0] == "chown":
                owners[os.path.basename(words[2])] = words[1]
    assert owners == {
        "authorise.sock": "albatross-authorise:albatross-tls",
        "console.sock": "albatross-console:albatross-watch",
        "extended.sock": "albatross-authorise:albatross",
        "stat.sock": "albatross-influx:albatross-watch",
        "vmmd.sock": "albatross-stats:albatross",
    }


def test_p19_directories_are_root_s_and_one_s_socket_is_not_another_s_to_take_away(tmp_path: Path) -> None:
    for script in RC_SCRIPTS:
        made = {words[-1]: words[1:-1] for words in run(tmp_path, script) if words[0] == "install"}
        assert made["/var/run/albatross"] == ["-d", "-o", "root", "-g", "wheel", "-m", "0755"]
        assert made["/var/run/albatross/util"] == ["-d", "-o", "root", "-g", "albatross-daemons", "-m", "1775"]


def test_the_users_are_those_of_systemd(tmp_path: Path) -> None:
    """users.sh with a stubbed pw(8) that knows nobody."""
    pw = tmp_path / "pw"
    pw.write_text('#!/bin/sh\ncase "$1" in *show) exit 1 ;; esac\necho "$@"\n')
    pw.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run([FREEBSD / "users.sh"], capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    users, groups = users_and_groups()
    lines = done.stdout.splitlines()
    assert {line.split()[1] for line in lines if line.startswith("useradd")} == set(users)
    added = {line.split()[1] for line in lines if line.startswith("groupadd")}
    assert added == groups - set(users) | {"albatross-daemons"}
