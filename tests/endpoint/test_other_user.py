"""The endpoint as another user than everybody else, and as somebody who has taken it over."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatross_pki.replies import Text
from tests.endpoint.deployment import Deployment, ExtendedDaemon, Host
from tests.pki_builder import Authority

REPOSITORY = Path(__file__).parents[2]
ENDPOINT_USER = "nobody"
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


@pytest.fixture
def divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A host whose daemons and authoriser belong to root, and whose endpoint has a user of its own.

    It works in the deployment's directory by relative names, because pytest's directories are root's alone; SQLite
    insists on absolute ones, so that the authoriser has no user of its own here.
    """
    if os.geteuid() != 0:
        pytest.skip("users can only be told apart by root; P37 is not in force without it")
    interpreter = python_for(ENDPOINT_USER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tests.endpoint.deployment.PYTHON", interpreter)
    root = Authority.root()
    made = Deployment(Path(), root, root.server())
    endpoint = pwd.getpwnam(ENDPOINT_USER)
    for path in (Path(), made.tmpdir, made.tmpdir / "util"):
        path.chmod(0o755)
    for path in (made.tmpdir / "spool", made.file("server.key")):
        os.chown(path, endpoint.pw_uid, -1)
    (made.tmpdir / "spool").chmod(0o700)
    daemons = [ExtendedDaemon(made.socket_path(name)) for name in ("extended.sock", "vmmd.sock", "console.sock")]
    for daemon in daemons:  # as albatrossd and the console make theirs
        daemon.path.chmod(0o660)
    try:
        with (
            made.authoriser("--endpoint-user", ENDPOINT_USER, environment=ENVIRONMENT) as judge,
            made.endpoint(user=endpoint.pw_uid, environment=ENVIRONMENT) as front,
        ):
            yield Host(made, judge, front, daemons[0])
    finally:
        for daemon in daemons:
            daemon.close()


def test_the_whole_way_with_users_of_their_own(divided: Host) -> None:
    assert divided.ask(divided.deployment.root.delegate("dev").leaf("hello")) == Text("done")


def test_p37_whoever_has_the_endpoint_opens_no_daemon_and_makes_no_command(divided: Host) -> None:
    leaf = divided.deployment.root.delegate("dev").leaf("hello")
    ids = pwd.getpwnam(ENDPOINT_USER)
    told = subprocess.run(
        [python_for(ENDPOINT_USER), "-m", "tests.endpoint.intruder"],
        input=leaf.chain_pem,
        stdout=subprocess.PIPE,
        user=ids.pw_uid,
        group=ids.pw_gid,
        extra_groups=[],
        env=ENVIRONMENT,
        check=True,
    )
    report = json.loads(told.stdout)
    assert report["connected"] == ["authorise.sock"]
    assert len(report["answers"]) == 12
    for attempt, answer in report["answers"].items():
        assert answer, attempt
        assert "Executing" not in answer, attempt
    assert report["answers"]["a request that no chain allows"] == "closed"
    assert divided.daemon.asked == []
    assert divided.ask(leaf) == Text("done")


def test_p37_another_user_is_not_the_endpoint(divided: Host) -> None:
    ids = pwd.getpwnam("games")
    told = subprocess.run(
        [python_for(ENDPOINT_USER), "-m", "tests.endpoint.intruder"],
        input=divided.deployment.root.delegate("dev").leaf("hello").chain_pem,
        stdout=subprocess.PIPE,
        user=ids.pw_uid,
        group=ids.pw_gid,
        extra_groups=[],
        env=ENVIRONMENT,
        check=True,
    )
    assert set(json.loads(told.stdout)["answers"].values()) == {"closed"}
