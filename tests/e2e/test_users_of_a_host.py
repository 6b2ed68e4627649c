"""As root, a host in one directory has a user for each program; here each of them tries what is not its."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatross_pki.host.separation import DaemonUsers, User, daemon_users, obstacle
from tests.e2e.site import HELLO, PROGRAMS, Site, eventually
from tests.pki_builder import policy

REPOSITORY = Path(__file__).parents[2]
SOCKETS = ["authorise.sock", "console.sock", "extended.sock", "stat.sock", "vmmd.sock"]

# what a process of some user can reach in a host's directory
ATTEMPTS = """
import json, os, socket, sys
reached = []
for name in sorted(os.listdir("run/util")):
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect("run/util/" + name)
        except OSError:
            continue
        reached.append(name)
places = ("authorise", "authorise/state.sqlite", "db", "db/albatross.sqlite", "log", "tls/key-server.key", "run/fifo",
          "run/spool", "host.lock")
reached += [place for place in places if os.access(place, os.R_OK) or os.access(place, os.W_OK)]
reached += [place for place in (".", "run", "run/util", "tls") if os.access(place, os.W_OK)]
print(json.dumps(reached))
"""


def users_or_skip() -> DaemonUsers:
    if os.geteuid() != 0:
        pytest.skip("users can only be told apart by root; P37 is not in force without it")
    users = daemon_users()
    with tempfile.TemporaryDirectory(prefix="alba-u-") as place:
        os.makedirs(os.path.join(place, "run", "util"))
        for path in (place, os.path.join(place, "run"), os.path.join(place, "run", "util")):
            os.chmod(path, 0o755)
        reason = obstacle(users, place)
    if reason is not None:
        pytest.skip(reason)
    return users


@pytest.fixture(scope="module")
def divided() -> Iterator[tuple[Site, DaemonUsers]]:
    users = users_or_skip()
    site = Site(Path(tempfile.mkdtemp(prefix="alba-u-")))
    try:
        site.start("--stats")
        yield site, users
        site.stop()
    finally:
        site.destroy()


def processes(site: Site) -> dict[str, tuple[int, list[int]]]:
    """Pid and user numbers of every program of a host, by its word."""
    (holder,) = re.findall(r"is run by process (\d+)", site.run("albatross-host", "run", "host").err)
    found = {}
    for pid in Path(f"/proc/{holder}/task/{holder}/children").read_text().split():
        words = [Path(word).name for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0")]
        (uids,) = re.findall(r"^Uid:(.*)$", Path(f"/proc/{pid}/status").read_text(), re.M)
        (word,) = (each for each in words if each.startswith("albatross"))
        found[word] = (int(pid), [int(uid) for uid in uids.split()])
    return found


def reached_as(user: User, site: Site) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", ATTEMPTS],
        user=user.uid, group=user.gid, extra_groups=[], cwd=site.host, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found: list[str] = json.loads(ran.stdout)
    return found


def test_p37_every_program_has_a_user_of_its_own(divided: tuple[Site, DaemonUsers]) -> None:
    site, users = divided
    of = {word: uids for word, (_, uids) in processes(site).items()}
    assert of == {
        "albatross-console": [users.console.uid] * 4,
        "albatrossd": [0] * 4,
        "albatross-stats": [users.statistics.uid] * 4,
        "albatross-authorise": [users.authoriser.uid] * 4,
        "albatross-tls-endpoint": [users.endpoint.uid] * 4,
    }
    assert len({uids[0] for uids in of.values()}) == 5


def test_p37_each_user_reaches_what_it_needs_and_nothing_else(divided: tuple[Site, DaemonUsers]) -> None:
    site, users = divided
    assert sorted(os.listdir(site.host / "run" / "util")) == SOCKETS
    assert reached_as(users.endpoint, site) == ["authorise.sock", "tls/key-server.key", "run/spool"]
    assert reached_as(users.authoriser, site) == [
        "console.sock", "extended.sock", "stat.sock", "authorise", "authorise/state.sqlite",
    ]  # fmt: skip
    assert reached_as(users.statistics, site) == ["vmmd.sock"]
    assert reached_as(users.console, site) == ["run/fifo"]
    assert reached_as(User(65534, 65534), site) == []


def test_p37_whoever_has_the_endpoint_opens_no_daemon_and_makes_no_command(divided: tuple[Site, DaemonUsers]) -> None:
    """With endpoint, authoriser and daemons as three users, all of them real."""
    site, users = divided
    leaf = site.root.delegate("dev", policy(unikernels=2, memory_mb=64)).leaf("hello")
    told = subprocess.run(
        [sys.executable, "-m", "tests.endpoint.intruder"],
        input=leaf.chain_pem, stdout=subprocess.PIPE, cwd=site.host, check=True, timeout=100,
        user=users.endpoint.uid, group=users.endpoint.gid, extra_groups=[], env={"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    report = json.loads(told.stdout)
    assert report["connected"] == ["authorise.sock"]
    assert report["answers"]["a request that no chain allows"] == "closed"
    for attempt, answer in report["answers"].items():
        assert answer, attempt
        assert "Executing" not in answer, attempt
    assert site.local("info", "-o", "name").out == ""


def test_the_statistics_user_may_ask_for_nothing_else(divided: tuple[Site, DaemonUsers]) -> None:
    site, users = divided
    code = "import sys; from albatross_pki.client.local_cli import main; main()"
    installed = shutil.which("albatross-client-local", path=str(Path(sys.executable).parent))
    program = [installed] if installed else [sys.executable, "-c", code]
    ran = subprocess.run(
        [*program, "destroy", "hello", "--tmpdir", "run"],
        user=users.statistics.uid, group=users.statistics.gid, extra_groups=[], cwd=site.host,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 117
    assert "only statistics are for this user" in ran.stderr


def test_the_whole_way_works_and_goes_on_when_a_program_dies(divided: tuple[Site, DaemonUsers]) -> None:
    site, users = divided
    dev = site.root.delegate("way", policy(unikernels=4, memory_mb=64))
    assert site.bistro(dev, "create", "one", str(HELLO), "--mem=4").status == 0
    assert site.bistro(dev, "console", "one", "--lines=1").status == 0
    assert site.run("albatross-host", "crl", "reset", "host").out == (
        "the numbers of revocation lists are forgotten, and those that were pushed are gone\n"
    )
    log = site.host / "log" / "albatross-host.log"
    for word, user in (("albatross-authorise", users.authoriser), ("albatross-console", users.console)):
        os.kill(processes(site)[word][0], signal.SIGKILL)
        again = f"warning: {word} runs again\n"
        assert eventually(lambda again=again: again in log.read_text()), log.read_text()  # type: ignore[misc]
        assert processes(site)[word][1] == [user.uid] * 4
    assert site.bistro(dev, "create", "two", str(HELLO), "--mem=4").status == 0
    assert site.bistro(dev, "console", "two", "--lines=1").status == 0
    for name in ("one", "two"):
        assert site.bistro(dev, "destroy", name).status == 0


def test_a_directory_changes_from_many_users_to_one_and_back() -> None:
    users_or_skip()
    site = Site(Path(tempfile.mkdtemp(prefix="alba-u-")))
    try:
        dev = site.root.delegate("dev", policy(unikernels=4, memory_mb=64))
        for number, options in enumerate(((), ("--one-user",), ())):
            site.start(*options)
            of = {uids[0] for _, uids in processes(site).values()}
            assert (of == {0}) == bool(options)
            assert site.bistro(dev, "create", f"u{number}", str(HELLO), "--mem=4").status == 0
            assert len(json.loads(site.bistro(dev, "info", "-o", "json").out)) == number + 1
            site.stop()
    finally:
        site.destroy()


def test_where_it_is_not_possible_the_host_says_so_and_works() -> None:
    """Above the directory is one that only root may enter, as for people who work in root's home directory."""
    users_or_skip()
    site = Site(Path(tempfile.mkdtemp(prefix="alba-u-")))
    site.directory.chmod(0o700)
    try:
        site.start()
        log = (site.host / "log" / "albatross-host.log").read_text()
        assert "warning: all programs run as root, P37 is not in force: other users cannot run" in log
        assert {uids[0] for _, uids in processes(site).values()} == {0}
        dev = site.root.delegate("dev", policy(unikernels=4, memory_mb=64))
        assert site.bistro(dev, "create", "hello", str(HELLO), "--mem=4").status == 0
        site.stop()
    finally:
        site.destroy()


def test_root_of_a_small_container_runs_everything_as_itself() -> None:
    """A user namespace that has root and nobody else, as rootless containers may."""
    users_or_skip()
    site = Site(Path(tempfile.mkdtemp(prefix="alba-u-")))
    inside = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("no user namespace can be made here")
    program = [*inside, str(PROGRAMS / "albatross-host"), "start", "host"]
    try:
        started = subprocess.run(program, cwd=site.directory, capture_output=True, text=True, timeout=100)
        assert started.returncode == 0, started.stdout + started.stderr
        assert "P37 is not in force: this process may not make others run as user" in started.stdout
        assert site.local("create", "hello", str(HELLO), "--mem=4").status == 0
        site.stop()
    finally:
        site.destroy()
