"""The quickstart: the story's commands run one after the other, as processes, in one directory, and nothing left.

1. each command is printed as a person would type it and executed exactly as printed: no shell, the story's directory,
   the programs found in PATH beside this interpreter;
2. its exit status and the words in its output are checked; the first difference ends the story;
3. whatever happened, the host is stopped;
4. ``leftovers`` looks for processes, sockets, fifos, images and temporary files; the directory is removed.
"""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import click

from albatross_pki.client.story import Setting, Step, Typed, steps
from albatross_pki.errors import AlbatrossError, ExitCode

COMMAND_TIMEOUT = 60.0  # seconds; the slowest takes one


class StoryFailed(AlbatrossError):
    """A command of the story did not do what the story says."""

    exit_code = ExitCode.INTERNAL


@dataclass(slots=True)
class Quickstart:
    """One run of the story in ``directory``; ``colour`` is for terminals."""

    directory: str
    setting: Setting
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, upto: int | None = None) -> None:
        """Run the story's first ``upto`` steps, or all; raises ``StoryFailed``."""
        for number, step in enumerate(steps(self.setting)[:upto], 1):
            self._run_step(number, step)

    def stop(self) -> None:
        """Stop the host if it still runs."""
        if os.path.exists(os.path.join(self.directory, "host", "host.lock")):
            subprocess.run(
                ["albatross-host", "stop", "host"],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )

    def _run_step(self, number: int, step: Step) -> None:
        click.echo()
        click.secho(f"{number}. {step.title}", bold=True)
        click.echo(f"   {step.why}")
        for typed in step.commands:
            self._run_command(typed)

    def _run_command(self, typed: Typed) -> None:
        click.secho(f"$ {typed.line}", fg="cyan")
        try:
            done = subprocess.run(
                shlex.split(typed.line),
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=COMMAND_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise StoryFailed(f"did not end after {COMMAND_TIMEOUT:g} seconds: {typed.line}") from error
        output = done.stdout.decode("utf-8", "replace")
        click.echo(output, nl=False)
        if done.returncode != typed.status:
            raise StoryFailed(f"ended with {done.returncode} instead of {typed.status}: {typed.line}")
        missing = [word for word in typed.shows if word not in output]
        if missing:
            raise StoryFailed(f"its output has no {', '.join(missing)}: {typed.line}")


def find_setting(unikernels: str | None) -> Setting:
    """The example images for this machine, and a port that is free now."""
    import platform

    suffix = ".aarch64.spt" if platform.machine() == "aarch64" else ".spt"
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    place = unikernels or os.path.join(root, "examples", "unikernels")
    images = [os.path.join(place, name + suffix) for name in ("hello", "echo-net")]
    for image in images:
        if not os.path.isfile(image):
            raise AlbatrossError(f"{image} is not there", hint="--unikernels DIR, the directory of the example images")
    return Setting(images[0], images[1], free_port())


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(directory: str, mark: str) -> dict[str, str]:
    """What the commands see: our programs first in PATH, temporary files below ``directory``, and a mark.

    The mark is how processes that should have ended are recognised.
    """
    here = os.path.dirname(sys.executable)
    return os.environ | {
        "PATH": f"{here}:{os.environ.get('PATH', os.defpath)}",
        "TMPDIR": os.path.join(directory, "tmp"),
        "ALBATROSS_QUICKSTART": mark,
    }


@contextlib.contextmanager
def story_directory(keep: str | None) -> Iterator[str]:
    """The directory of the story: ``keep``, which must be new and stays, or a temporary one, which does not."""
    if keep is not None:
        try:
            os.makedirs(os.path.join(keep, "tmp"))
        except FileExistsError as error:
            raise AlbatrossError(f"{keep} exists already", hint="name a directory that does not") from error
        yield os.path.abspath(keep)
        return
    directory = tempfile.mkdtemp(prefix="albatross-")
    os.chmod(directory, 0o711)  # noqa: S103  as root, each program has a user of its own, who passes through
    try:
        os.mkdir(os.path.join(directory, "tmp"))
        yield directory
    finally:
        shutil.rmtree(directory)


def leftovers(directory: str, mark: str, port: int) -> list[str]:
    """Everything of the story that is still there after its end, each in a few words; empty if nothing is."""
    found = [f"process {pid}: {what}" for pid, what in processes_of(directory, mark)]
    for place, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(place, name)
            mode = os.lstat(path).st_mode
            below = os.path.relpath(path, directory)
            if stat.S_ISSOCK(mode):
                found.append(f"socket {below}")
            elif stat.S_ISFIFO(mode):
                found.append(f"fifo {below}")
            elif below.startswith(("tmp/", "host/run/spool/")):
                found.append(f"temporary file {below}")
            elif below.startswith("host/db/images/"):
                found.append(f"image {below}")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            found.append(f"somebody listens on port {port}")
    return found


def processes_of(directory: str, mark: str) -> Iterator[tuple[int, str]]:
    """Processes that carry the mark, were started with the directory's name, or hold a file below it open."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):  # it ended, or is somebody else's
                if belongs(entry, directory, mark):
                    yield int(entry), _read(f"/proc/{entry}/cmdline").replace(b"\0", b" ").decode("utf-8", "replace")


def belongs(pid: str, directory: str, mark: str) -> bool:
    """Whether a process is part of the story."""
    if b"State:\tZ" in _read(f"/proc/{pid}/status"):
        return False
    if f"ALBATROSS_QUICKSTART={mark}".encode() in _read(f"/proc/{pid}/environ").split(b"\0"):
        return True
    if os.fsencode(directory) in _read(f"/proc/{pid}/cmdline"):
        return True
    links = [f"/proc/{pid}/cwd", *(f"/proc/{pid}/fd/{number}" for number in os.listdir(f"/proc/{pid}/fd"))]
    return any(os.readlink(link).startswith(directory + "/") for link in links if os.path.islink(link))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """A SIGTERM unwinds as a Ctrl-C does, so that nothing is left then either."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def tell(unikernels: str | None, keep: str | None) -> None:
    """Tell the whole story; with ``keep`` stop before its end, and leave everything there to look at."""
    setting = find_setting(unikernels)
    begin = time.monotonic()
    mark = os.urandom(8).hex()
    with terminated_as_interrupted(), story_directory(keep) as directory:
        click.echo("The whole story on this machine. Every line that begins with $ can be typed, in this directory:")
        click.secho(f"$ cd {shlex.quote(directory)}", fg="cyan")
        click.secho(f"$ export PATH={shlex.quote(os.path.dirname(sys.executable))}:$PATH", fg="cyan")
        quickstart = Quickstart(directory, setting, environment(directory, mark))
        all_steps = steps(setting)
        try:
            quickstart.run(len(all_steps) - 1 if keep else None)
        except BaseException:
            quickstart.stop()
            raise
        if keep:
            click.echo(f"\nEverything runs and stays in {directory}. When you have seen enough:")
            for typed in all_steps[-1].commands:
                click.secho(f"$ {typed.line}", fg="cyan")
            return
        left = leftovers(directory, mark, setting.port)
    if left:
        raise StoryFailed(f"something is left: {', '.join(left)}")
    click.echo(
        "\nNothing is left: no process, socket, fifo, image or temporary file. "
        f"It took {time.monotonic() - begin:.1f} seconds."
    )
