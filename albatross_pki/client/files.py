"""The files of a command line: images that are read and judged before anything is sent, content that is stored.

An image is refused here, with every reason at once and in the words of the command line, if it is no Solo5 image or
its manifest does not fit the devices that were given. The host judges again; this is so that nobody waits for it.
"""

import contextlib
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO

from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.extensions import ImageBinding
from albatross_pki.names import Name
from albatross_pki.unikernels import Settings, UnikernelConfig, UnikernelType

MAX_IMAGE = 1 << 30  # octets; far beyond any unikernel, and small enough to be read at once


class BadFile(AlbatrossError):
    """A file that cannot be used for what it was named for; ``path`` is its name."""

    def __init__(self, path: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"{path}: {reason}", hint=hint)
        self.path = path


class WrongDevices(Refused):
    """An image whose manifest wants other devices than were given."""


def read_file(path: str, limit: int = MAX_IMAGE) -> bytes:
    """The content of ``path``; raises ``BadFile`` if it cannot be read or has more than ``limit`` octets."""
    try:
        with open(path, "rb") as file:
            octets = file.read(limit + 1)
    except OSError as error:
        raise BadFile(path, (error.strerror or "cannot be read").lower()) from error
    if len(octets) > limit:
        raise BadFile(path, f"has more than {limit} octets")
    return octets


def read_image(path: str, config: UnikernelConfig, digest: bytes | None = None) -> bytes:
    """The image of a create, judged against its settings; empty for a BHyve one, which lives on the host.

    ``digest`` is its SHA-256, if only one image will do: the file may have been written again since it was looked at.
    Raises ``BadFile`` for what is no image and ``WrongDevices`` with every mismatch.
    """
    if config.typ is UnikernelType.BHYVE:
        return b""
    octets = read_file(path)
    if digest is not None and binding_of(octets).digest != digest:
        raise BadFile(path, "was changed since it was looked at", hint="once more, with the file as it is now")
    judge_image(path, octets, config.settings)
    return octets


def judge_image(path: str, octets: bytes, settings: Settings) -> None:
    """Refuse an image whose manifest does not fit ``settings``."""
    from albatross_pki.image.devices import device_mismatches
    from albatross_pki.image.elf import BadImage
    from albatross_pki.image.solo5 import parse_image

    try:
        image = parse_image(octets)
    except BadImage as error:
        raise BadFile(path, error.message, hint=error.hint) from error
    mismatches = device_mismatches(image.manifest, settings)
    if mismatches:
        raise WrongDevices([f"{path}: {mismatch}" for mismatch in mismatches])


def binding_of(octets: bytes) -> ImageBinding:
    """What a certificate says about the image ``octets``."""
    import hashlib

    return ImageBinding(hashlib.sha256(octets).digest(), len(octets))


def default_target(name: Name) -> str:
    """Where fetched content goes if nothing else is said: a file in ``TMPDIR`` called by the name and the time."""
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S-00:00")
    return os.path.join(os.environ.get("TMPDIR") or "/tmp", f"{name}.{moment}")  # noqa: S108  created with O_EXCL


@contextlib.contextmanager
def new_file(path: str) -> Iterator[BinaryIO]:
    """A file that appears as ``path``, complete, or not at all; an existing one is refused.

    Until then it has no name where the file system can do that, so that a killed process leaves nothing of it.
    """
    if os.path.lexists(path):
        raise BadFile(path, "exists already", hint="name another file with --to FILE")
    directory = os.path.dirname(path) or "."
    try:
        with _nameless(directory, path) or _named(directory, path) as file:
            yield file
    except OSError as error:
        raise BadFile(path, (error.strerror or "cannot be written").lower()) from error


def _nameless(directory: str, path: str) -> contextlib.AbstractContextManager[BinaryIO] | None:
    """A file without a name that becomes ``path`` at the end of the block; ``None`` where there is no such thing."""
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (OSError, AttributeError):  # not every system and file system has them: open(2)
        return None

    @contextlib.contextmanager
    def made() -> Iterator[BinaryIO]:
        with open(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fchmod(descriptor, 0o644)
            # the directory descriptor makes Python use linkat(2), which alone follows the link in /proc
            place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.link(f"/proc/self/fd/{descriptor}", os.path.basename(path), dst_dir_fd=place, follow_symlinks=True)
            finally:
                os.close(place)

    return made()


@contextlib.contextmanager
def _named(directory: str, path: str) -> Iterator[BinaryIO]:
    import tempfile

    with tempfile.NamedTemporaryFile(dir=directory, prefix=".albatross-", delete=False) as file:
        try:
            yield file  # type: ignore[misc]  # the wrapper has all that a BinaryIO has
            file.flush()
            os.chmod(file.name, 0o644)
            os.link(file.name, path)
        finally:
            os.unlink(file.name)
