"""Starting a unikernel with the embedded tender, and what it costs while it runs.

The yardstick is ``posix_spawn`` of the same composed memory file with nothing else to do; whole runs are measured, from
the decision to start to the collected exit status.
"""

import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

from albatross_pki.host.spt.architecture import native_architecture
from albatross_pki.host.spt.attached import Confinement
from albatross_pki.host.spt.compose import compose
from albatross_pki.host.spt.spawn import spawn
from albatross_pki.image.elf import Octets
from albatross_pki.image.solo5 import parse_image
from bench.measure import Row, compare, seconds

EXAMPLES = Path(__file__).parents[1] / "examples" / "unikernels"
MEMORY_MB = 32
STARTS = 20  # per measurement, so that one is longer than the clock's noise
RESIDENT_KB = 200
LARGE_MB = 64


def rows() -> Iterator[Row]:
    """From image to exit status; the copying of a large image; resident memory of one that waits."""
    native = native_architecture()
    if native is None:
        return
    suffix = ".spt" if native.name == "x86_64" else f".{native.name}.spt"
    hello = (EXAMPLES / f"hello{suffix}").read_bytes()
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        yield _starts(hello, null)
        yield _large(hello)
        yield _resident(hello)
    finally:
        os.close(null)


def _starts(octets: bytes, console: int) -> Row:
    kept = _composed(octets, b"--exit=0")

    def ours() -> None:
        for _ in range(STARTS):
            descriptor = _composed(octets, b"--exit=0")
            _collect(spawn(descriptor, console_fd=console))
            os.close(descriptor)

    def theirs() -> None:
        actions = [(os.POSIX_SPAWN_DUP2, console, 1)]
        for _ in range(STARTS):
            _collect(os.posix_spawn(f"/proc/self/fd/{kept}", ["bench"], {}, file_actions=actions))

    try:
        name, yardstick = f"spt: hello {STARTS} times, image to exit status", "posix_spawn of the composed file"
        return compare(name, seconds(ours), yardstick, seconds(theirs), at_most=2.0)
    finally:
        os.close(kept)


def _composed(octets: Octets, arguments: bytes) -> int:
    return compose(parse_image(octets), octets, MEMORY_MB, arguments, (), Confinement(title="bench"))


def _collect(pid: int) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise RuntimeError(f"hello ended with {status}")


def _large(hello: bytes) -> Row:
    """An image whose only segment has ``LARGE_MB`` of contents, against writing the same octets into a memory file."""
    size = LARGE_MB << 20
    table, segment = 64, parse_image(hello).elf.headers[0]
    octets = bytearray(hello[: segment.offset]) + bytearray(os.urandom(1 << 20)) * LARGE_MB
    octets[table + 32 : table + 48] = struct.pack("<QQ", size, size)  # sizes in file and in memory
    notes = bytes(hello[segment.offset : segment.offset + segment.file_size])
    octets[segment.offset : segment.offset + len(notes)] = notes  # code and notes stay where the headers say
    image = parse_image(octets)

    def ours() -> None:
        os.close(compose(image, octets, 2 * LARGE_MB, b"", (), Confinement(title="bench")))

    def theirs() -> None:
        descriptor = os.memfd_create("bench", os.MFD_CLOEXEC)
        os.write(descriptor, octets)
        os.close(descriptor)

    return compare(
        f"spt: compose an image of {LARGE_MB} MB", seconds(ours), "one write of it", seconds(theirs), at_most=2.0
    )


def _resident(octets: bytes) -> Row:
    """The resident memory that Linux counts for ``hello`` while it waits, against what we promise."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    descriptor = _composed(octets, b"")
    pid = spawn(descriptor, console_fd=writer)
    try:
        os.read(reader, 4096)  # it has said hello: now it waits
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for each in (descriptor, reader, writer):
            os.close(each)
    kilobytes = int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))
    ratio = kilobytes / RESIDENT_KB
    return Row(
        "spt: resident memory of hello", f"{kilobytes} kB", f"bound {RESIDENT_KB} kB", ratio, "≤ 1x", ratio <= 1.0
    )
