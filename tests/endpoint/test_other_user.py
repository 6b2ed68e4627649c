"""The endpoint as another user than everybody else, and as somebody who has taken it over."""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from albatross_pki.replies import Text
from albatross_pki.transport.tls import connect
from tests.endpoint.deployment import Deployment, ExtendedDaemon, Host, Program, answer, eventually
from tests.pki_builder import Authority

REPOSITORY = Path(__file__).parents[2]
ENDPOINT_USER, AUTHORISER_USER = "nobody", "daemon"
SOCKETS = ("extended.sock", "vmmd.sock", "console.sock", "stat.sock")
ENVIRONMENT = {"PYTHONPATH": f"{REPOSITORY}:{sysconfig.get_path('purelib')}", "PATH": "/usr/bin:/bin"}


def python_for(user: str) -> str:
    """An interpreter with our dependencies that ``user`` may execute."""
    candidates = [sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"]
    for candidate in filter(shutil.which, candidates):
        probe = [candidate, "-c", "import albatross_pki.endpoint.server, click"]
        ids = pwd.getpwnam(user)
        try:
            subprocess.run(
                probe, user=ids.pw_uid, group=ids.pw_gid, extra_groups=[], env=ENVIRONMENT, cwd="/", check=True
            )
        except (OSError, subprocess.CalledProcessError):
            continue
        return candidate
    pytest.skip(f"the user {user} can execute no Python that has our dependencies")


def started(made: Deployment, *endpoint: str) -> "tuple[Program, Program]":
    """Authoriser and endpoint, started as root and told which users to become."""
    judge = made.authoriser("--user", AUTHORISER_USER, "--endpoint-user", ENDPOINT_USER, environment=ENVIRONMENT)
    try:
        return judge, made.endpoint("-v", "--user", ENDPOINT_USER, *endpoint, environment=ENVIRONMENT)
    except BaseException:
        judge.stop()
        raise


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """A deployment where every user can reach it, with files and sockets that belong to whom they should."""
    if os.geteuid() != 0:
        pytest.skip("users can only be told apart by root; P37 is not in force without it")
    monkeypatch.setattr("tests.endpoint.deployment.PYTHON", python_for(ENDPOINT_USER))
    with tempfile.TemporaryDirectory(prefix="albatross-", dir="/tmp") as directory:
        root = Authority.root()
        made = Deployment(Path(directory), root, root.server())
        front, judge = pwd.getpwnam(ENDPOINT_USER), pwd.getpwnam(AUTHORISER_USER)
        for path in (Path(directory), made.tmpdir, made.crls):
            path.chmod(0o755)
        made.statedir.mkdir(mode=0o700)
        made.tmpdir.joinpath("util").chmod(0o775)
        os.chown(made.tmpdir / "util", 0, judge.pw_gid)
        os.chown(made.statedir, judge.pw_uid, judge.pw_gid)
        for path in (made.tmpdir / "spool", made.file("server.key")):
            os.chown(path, front.pw_uid, -1)
        (made.tmpdir / "spool").chmod(0o700)
        made.file("server.key").chmod(0o400)
        yield made


@pytest.fixture
def divided(place: Deployment) -> Iterator[Host]:
    """A host whose daemons belong to root, and whose authoriser and endpoint have users of their own."""
    daemons = [ExtendedDaemon(place.socket_path(name)) for name in SOCKETS]
    for daemon in daemons:  # as albatrossd, the console and the statistics make theirs
        daemon.path.chmod(0o660)
        os.chown(daemon.path, 0, pwd.getpwnam(AUTHORISER_USER).pw_gid)
    try:
        judge, front = started(place)
        try:
            yield Host(place, judge, front, daemons[0])
        finally:
            front.stop()
            judge.stop()
    finally:
        for daemon in daemons:
            daemon.close()


def credentials(pid: int) -> dict[str, list[str]]:
    """The lines of /proc/PID/status that say what rights a process has."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}


def check_rights(pid: int, user: str) -> None:
    has, entry = credentials(pid), pwd.getpwnam(user)
    assert has["Uid"] == [str(entry.pw_uid)] * 4
    assert has["Gid"] == [str(entry.pw_gid)] * 4
    assert {int(gid) for gid in has["Groups"]} == set(os.getgrouplist(user, entry.pw_gid))
    assert "0" not in has["Groups"]
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(has[kind][0], 16) == 0, kind
    assert has["NoNewPrivs"] == ["1"]


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_p37_programs_that_root_started_are_their_users_and_nothing_more(divided: Host) -> None:
    """Root's own groups, among them those of the machine that the tests run on, are gone too."""
    check_rights(divided.authoriser.process.pid, AUTHORISER_USER)
    check_rights(divided.endpoint.process.pid, ENDPOINT_USER)
    for program in (divided.authoriser, divided.endpoint):
        for descriptor in os.listdir(f"/proc/{program.process.pid}/fd"):
            target = os.readlink(f"/proc/{program.process.pid}/fd/{descriptor}")
            assert not target.startswith(("/dev/mem", "/root", "/etc/shadow")), target


def test_p37_so_are_workers(place: Deployment) -> None:
    judge, front = started(place, "--workers", "2")
    try:
        workers = children(front.process.pid)
        assert len(workers) == 2
        for pid in (front.process.pid, *workers):
            check_rights(pid, ENDPOINT_USER)
    finally:
        front.stop()
        judge.stop()


def test_p37_so_is_what_inetd_starts(divided: Host) -> None:
    code = "from albatross_pki.endpoint.inetd_cli import main; main()"
    made = divided.deployment
    words = [python_for(ENDPOINT_USER), "-c", code, "--user", ENDPOINT_USER, "--tmpdir", str(made.tmpdir)]
    leaf = made.root.delegate("dev").leaf("hello")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        port = listener.getsockname()[1]

        def serve() -> "subprocess.Popen[bytes]":
            accepted, _ = listener.accept()
            with accepted:
                accepted.settimeout(None)
                return subprocess.Popen(
                    [*words, *made.credentials], stdin=accepted.fileno(), stdout=accepted.fileno(), env=ENVIRONMENT
                )

        with socket.create_connection(("127.0.0.1", port)), serve() as silent:
            eventually(lambda: credentials(silent.pid)["Uid"][0] == str(pwd.getpwnam(ENDPOINT_USER).pw_uid))
            eventually(lambda: credentials(silent.pid)["NoNewPrivs"] == ["1"])
            check_rights(silent.pid, ENDPOINT_USER)
        answering = threading.Thread(target=lambda: serve().wait(30))
        answering.start()
        root = made.root.pem
        with connect("127.0.0.1", port, leaf.chain_pem, leaf.key_pem, root, lambda _: ()) as connection:
            assert answer(connection) == Text("done")
        answering.join(30)


def test_a_certificate_is_reloaded_by_the_user_that_the_endpoint_became(divided: Host) -> None:
    renewed, made = divided.deployment.root.server(), divided.deployment
    for name, octets in (("server.pem", renewed.chain_pem), ("server.key", renewed.key_pem)):
        made.file(name).write_bytes(octets)
    divided.endpoint.process.send_signal(signal.SIGHUP)
    divided.endpoint.wait_for("are reloaded")
    assert divided.ask(made.root.delegate("dev").leaf("hello")) == Text("done")


@pytest.mark.parametrize("module", ["cli", "authorise_cli"])
@pytest.mark.parametrize(("user", "why"), [("nobody-of-that-name", "there is no user"), ("4000000000", "no user")])
def test_a_user_that_is_not_there_is_refused(place: Deployment, module: str, user: str, why: str) -> None:
    files = place.credentials if module == "cli" else place.credentials[:1]
    options = ["--tmpdir", str(place.tmpdir), "--user", user, *(["--port", "0"] if module == "cli" else [])]
    code = f"from albatross_pki.endpoint.{module} import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, *options, *files], capture_output=True, text=True, check=False, timeout=30
    )
    assert ended.returncode == 124
    assert why in ended.stderr


def test_the_whole_way_with_users_of_their_own(divided: Host) -> None:
    assert divided.ask(divided.deployment.root.delegate("dev").leaf("hello")) == Text("done")


def report_of(divided: Host, user: str) -> dict[str, Any]:
    """What the intruder tells who runs as ``user``."""
    ids = pwd.getpwnam(user)
    told = subprocess.run(
        [python_for(ENDPOINT_USER), "-m", "tests.endpoint.intruder"],
        input=divided.deployment.root.delegate("dev").leaf("hello").chain_pem,
        stdout=subprocess.PIPE,
        user=ids.pw_uid,
        group=ids.pw_gid,
        extra_groups=[],
        env=ENVIRONMENT,
        cwd=divided.deployment.directory,
        check=True,
    )
    report: dict[str, Any] = json.loads(told.stdout)
    return report


def test_p37_whoever_has_the_endpoint_opens_no_daemon_and_makes_no_command(divided: Host) -> None:
    assert set(os.listdir(divided.deployment.tmpdir / "util")) == {*SOCKETS, "authorise.sock"}
    report = report_of(divided, ENDPOINT_USER)
    assert report["connected"] == ["authorise.sock"]
    assert len(report["answers"]) == 12
    for attempt, told in report["answers"].items():
        assert told, attempt
        assert "Executing" not in told, attempt
    assert report["answers"]["a request that no chain allows"] == "closed"
    assert divided.daemon.asked == []
    assert divided.ask(divided.deployment.root.delegate("dev").leaf("hello")) == Text("done")


def test_p37_another_user_is_not_the_endpoint(divided: Host) -> None:
    assert set(report_of(divided, "games")["answers"].values()) == {"closed"}
