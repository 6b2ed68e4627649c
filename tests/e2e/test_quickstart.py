"""The quickstart as a newcomer types it, and the README's commands as they stand there."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatross_pki.client.quickstart import find_setting, free_port, leftovers, processes_of
from albatross_pki.client.story import Setting, steps
from tests.e2e.site import PROGRAMS, TIMEOUT, eventually

ROOT = Path(__file__).parents[2]
QUICKSTART = str(PROGRAMS / "albatross-quickstart")


@pytest.fixture
def place() -> Iterator[Path]:
    """A short directory: the names of unix sockets have 107 octets."""
    with tempfile.TemporaryDirectory(prefix="alba-q-") as directory:
        yield Path(directory)


def quickstart(place: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [QUICKSTART, *options],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(place)},
        timeout=TIMEOUT,
    )


def test_p26_the_whole_story_in_one_command_leaves_nothing(place: Path) -> None:
    before = time.monotonic()
    done = quickstart(place)
    took = time.monotonic() - before
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert list(place.iterdir()) == []
    assert list(processes_of(str(place), "no such mark")) == []
    assert "Nothing is left" in done.stdout
    titles = [line.partition(". ")[2] for line in done.stdout.splitlines() if re.match(r"\d\. ", line)]
    assert titles == [step.title for step in steps(Setting("", "", 1))]
    assert took < 10 * patience(), f"{took:.1f} s"


def patience() -> float:
    """How much longer things may take than on an idle machine: runnable processes per CPU, at least 1."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def test_p31_the_story_shows_three_violations(place: Path) -> None:
    output = quickstart(place).stdout
    refusal = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(refusal) == 3
    assert [word for word in ("memory", "cpu", "br0") if not any(word in line.lower() for line in refusal)] == []


def test_keep_leaves_everything_running_to_look_at(place: Path) -> None:
    kept = place / "kept"
    try:
        done = quickstart(place, "--keep", str(kept))
        assert done.returncode == 0, done.stdout + done.stderr
        typed = [line[2:] for line in done.stdout.splitlines() if line.startswith("$ ")]
        destroy, stop = typed[-2:]
        environment = os.environ | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
        for line in ("albatross-client-local info --tmpdir host/run", destroy, stop):
            ended = subprocess.run(
                line.split(), cwd=kept, env=environment, capture_output=True, text=True, timeout=TIMEOUT
            )
            assert ended.returncode == 0, f"{line}: {ended.stderr}"
        assert leftovers(str(kept), "no such mark", free_port()) == []
        again = quickstart(place, "--keep", str(kept))
        assert (again.returncode, "exists already" in again.stderr) == (124, True)
    finally:
        subprocess.run([str(PROGRAMS / "albatross-host"), "stop", str(kept / "host")], capture_output=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_p26_an_interrupted_story_leaves_nothing(place: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [QUICKSTART],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"TMPDIR": str(place), "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("4. "):  # the host runs
                break
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(TIMEOUT) == 130, rest
    assert list(place.iterdir()) == []
    assert eventually(lambda: list(processes_of(str(place), "no such mark")) == [])


def test_a_story_without_its_images_says_what_to_do(place: Path) -> None:
    done = quickstart(place, "--unikernels", str(place))
    assert done.returncode == 124
    assert "hint: --unikernels DIR" in done.stderr


def test_what_is_left_is_found(place: Path) -> None:
    """The look at what is left sees each kind of thing that could be."""
    for below in ("host/run/util", "host/run/fifo", "host/run/spool", "host/db/images", "tmp"):
        (place / below).mkdir(parents=True)
    os.mkfifo(place / "host/run/fifo/x")
    for file in ("host/run/spool/part", "host/db/images/00", "tmp/file"):
        (place / file).write_text("")
    with (
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket() as tcp,
        subprocess.Popen(["sleep", "60"], cwd=place / "tmp") as sleeping,
        subprocess.Popen(["sleep", "60"], env={"ALBATROSS_QUICKSTART": "m", "PATH": os.environ["PATH"]}) as marked,
    ):
        unix.bind(str(place / "host/run/util/s"))
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        assert eventually(lambda: len(list(processes_of(str(place), "m"))) == 2)
        found = leftovers(str(place), "m", tcp.getsockname()[1])
        sleeping.kill()
        marked.kill()
    kinds = sorted(text.split()[0] for text in found)
    assert kinds == ["fifo", "image", "process", "process", "socket", "somebody", "temporary", "temporary"]


# the README


def readme_commands() -> list[str]:
    """Every line of the README's shell blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_readme_tells_the_story_as_it_is_run() -> None:
    story = [
        typed.line
        for step in steps(Setting("$UNIKERNELS/hello.spt", "$UNIKERNELS/echo-net.spt", 1025))
        for typed in step.commands
    ]
    assert readme_commands()[2:] == [line.replace("'", "") for line in story]


def test_every_command_of_the_readme_works_when_typed(place: Path) -> None:
    """In one shell, each line as it stands there, but for the port, which is one that is free."""
    port = free_port()
    refused = [line for line in readme_commands() if "create greedy" in line]
    script = ["cd " + str(ROOT), f"export TMPDIR={place}"]
    for line in readme_commands():
        script += [line.replace("1025", str(port)), 'echo "status=$?"']
    images = find_setting(None)
    assert Path(images.hello).parent == ROOT / "examples" / "unikernels"
    environment = os.environ | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    try:
        done = subprocess.run(
            ["bash", "-u"], input="\n".join(script), capture_output=True, text=True, env=environment, timeout=TIMEOUT
        )
        statuses = [int(status) for status in re.findall(r"^status=(\d+)", done.stdout, re.MULTILINE)]
        wanted = [124 if line in refused else 0 for line in readme_commands()]
        assert statuses == wanted, done.stdout + done.stderr
        assert "--greeting=hello" in done.stdout
    finally:
        for host in place.glob("*/host"):
            subprocess.run([str(PROGRAMS / "albatross-host"), "stop", str(host)], capture_output=True)
    (story,) = place.iterdir()
    assert leftovers(str(story), "no such mark", port) == []


def test_the_quickstart_runs_beside_this_interpreter() -> None:
    assert os.access(QUICKSTART, os.X_OK), f"install the package into the environment of {sys.executable}"
