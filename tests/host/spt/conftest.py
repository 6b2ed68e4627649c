"""Unikernels that really run: composed, spawned, watched, and gone at the end of the test."""

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from albatross_pki.host.spt.architecture import native_architecture
from albatross_pki.host.spt.attached import AttachedDevice, Confinement
from albatross_pki.host.spt.compose import compose
from albatross_pki.host.spt.spawn import spawn
from albatross_pki.image.solo5 import parse_image

EXAMPLES = Path(__file__).parents[3] / "examples" / "unikernels"
PATIENCE = 30  # seconds; nothing here waits for them unless it is broken


class Guest:
    """A unikernel that was started; its console is a pipe that we read."""

    def __init__(
        self,
        octets: bytes,
        memory_mb: int,
        command_line: bytes,
        devices: Sequence[AttachedDevice],
        confinement: Confinement,
    ) -> None:
        self.console, writer = os.pipe2(os.O_CLOEXEC)
        composed = -1
        try:
            composed = compose(parse_image(octets), octets, memory_mb, command_line, devices, confinement)
            self.pid = spawn(composed, console_fd=writer, devices=devices)
        except BaseException:
            os.close(self.console)
            raise
        finally:
            os.close(writer)
            if composed >= 0:
                os.close(composed)
        self.pidfd = os.pidfd_open(self.pid)
        self.output = b""
        self.status: int | None = None

    def read_line(self) -> bytes:
        """The next line of its console; the test fails if it ends first."""
        while b"\n" not in self.output:
            assert select.select([self.console], [], [], PATIENCE)[0], "the unikernel says nothing"
            octets = os.read(self.console, 65536)
            assert octets, f"the unikernel ended after {self.output!r}"
            self.output += octets
        line, _, self.output = self.output.partition(b"\n")
        return line

    def wait(self) -> int:
        """Read its console to the end and wait; the exit status, negative for a signal."""
        while octets := self._read():
            self.output += octets
        assert select.select([self.pidfd], [], [], PATIENCE)[0], "the unikernel does not end"
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def _read(self) -> bytes:
        assert select.select([self.console], [], [], PATIENCE)[0], "the unikernel neither speaks nor ends"
        return os.read(self.console, 65536)

    def state(self) -> dict[str, str]:
        """The fields of its /proc/PID/status."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {field: value.strip() for field, _, value in (line.partition(":") for line in lines)}

    def end(self) -> None:
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.status = -signal.SIGKILL
        os.close(self.pidfd)
        os.close(self.console)


Start = Callable[..., Guest]


@pytest.fixture
def start() -> Iterator[Start]:
    """``start(octets or the name of an example, arguments="", memory_mb=2, devices=(), confinement=…)``."""
    native = native_architecture()
    if native is None:
        pytest.skip("the embedded tender does not know this processor")
    guests: list[Guest] = []

    def starter(
        image: bytes | str,
        arguments: str = "",
        *,
        memory_mb: int = 2,
        devices: Sequence[AttachedDevice] = (),
        confinement: Confinement | None = None,
    ) -> Guest:
        octets = example(image) if isinstance(image, str) else image
        chosen = confinement or Confinement(inspectable=True)
        guests.append(Guest(octets, memory_mb, arguments.encode(), devices, chosen))
        return guests[-1]

    yield starter
    for guest in guests:
        guest.end()


@pytest.fixture
def machine_code() -> None:
    """For tests whose unikernels are written in machine code."""
    native = native_architecture()
    if native is None or native.name != "x86_64":
        pytest.skip("these unikernels are machine code for x86_64")


def example(name: str) -> bytes:
    """The octets of the built example for this processor."""
    return example_path(name).read_bytes()


def example_path(name: str) -> Path:
    native = native_architecture()
    suffix = ".spt" if native is None or native.name == "x86_64" else f".{native.name}.spt"
    return EXAMPLES / f"{name}{suffix}"
