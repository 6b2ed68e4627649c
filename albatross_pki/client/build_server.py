"""Requests to a build server over HTTP, with bounds on everything that it can make us wait for or store.

What the answers mean is ``update``'s. Every request has a connection of its own; certificates of https are judged with
the system's trust anchors. At most ``MAX_REDIRECTS`` redirections are followed, and none twice. An answer that brings
less than ``LEAST`` octets in ``SLOWEST`` seconds, and does not end, is given up.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import BinaryIO
from urllib.parse import urlsplit

from albatross_pki.client.files import MAX_IMAGE, BadFile
from albatross_pki.client.http_connection import Connection
from albatross_pki.client.progress import Meter
from albatross_pki.client.update import (
    REDIRECTS,
    Binary,
    Build,
    BuildServerError,
    Update,
    binary_of,
    build_at,
    check_binary,
    digest_of_tag,
    document_of,
    hash_path,
    latest_path,
    platform_of,
    redirected,
)
from albatross_pki.text import printable

MAX_REDIRECTS = 5
MAX_DOCUMENT = 8 << 20  # octets of JSON
PATIENCE = 30.0  # seconds without a single octet
SLOWEST = 60.0  # seconds
LEAST = 1 << 16  # octets in that time
_CHUNK = 1 << 16


class BuildServer:
    """The build server at ``url`` (without a slash at its end). Every method raises ``BuildServerError``."""

    def __init__(self, url: str) -> None:
        self.url = url

    def update_of(self, digest: bytes, platform: str | None) -> Update:
        """What there is for an image; ``platform``: as the running build's, if not given."""
        running = self._build(hash_path(digest))
        if platform is None:
            platform = platform_of(self._document(running.path))
        latest = self._build(latest_path(running.job, platform))
        if latest == running:
            return Update(running, digest, latest, Binary(digest))
        return Update(running, digest, latest, self._binary(latest))

    def download(self, update: Update, target: BinaryIO) -> None:
        """Write the latest image into ``target``; what is there is it, if nothing is raised."""
        what = f"{self.url}{update.latest.path}/main-binary"
        with _followed(what, "GET", "application/octet-stream") as answer:
            limit = MAX_IMAGE if update.binary.size is None else min(update.binary.size, MAX_IMAGE)
            got = answer.store(target, what, limit, Meter(f"downloading {update.latest.job}", update.binary.size))
        check_binary(update.binary, got, what)

    def _build(self, path: str) -> Build:
        with _request(f"{self.url}{path}", "GET", "application/json") as answer:
            return build_at(self.url, answer.response.status, answer.response.getheader("Location"), path)

    def _document(self, path: str) -> dict[str, object]:
        url = f"{self.url}{path}"
        with _followed(url, "GET", "application/json") as answer:
            octets = b"".join(answer.pieces(url, MAX_DOCUMENT, "answer"))
            return document_of(url, octets)

    def _binary(self, build: Build) -> Binary:
        binary = binary_of(self._document(f"/job/{build.job}"), build)
        if binary is not None:
            return binary
        url = f"{self.url}{build.path}/main-binary"
        with _followed(url, "HEAD", "application/octet-stream") as answer:
            digest = digest_of_tag(answer.response.getheader("ETag"))
        if digest is None:
            raise BuildServerError(f"the server names no SHA-256 for the image of {build.uuid}")
        return Binary(digest)


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer whose body is still to be read from its connection."""

    response: HTTPResponse
    connection: Connection

    def pieces(self, what: str, limit: int, called: str) -> Iterator[bytes]:
        """The body, at most ``limit`` octets of it."""
        size = 0
        while octets := self.response.read(_CHUNK):
            size += len(octets)
            if size > limit:
                raise BuildServerError(f"{what}: the {called} has more than {limit} octets")
            self.connection.octets += len(octets)
            yield octets

    def store(self, target: BinaryIO, what: str, limit: int, meter: Meter) -> Binary:
        """Copy the body, at most ``limit`` octets of it."""
        hashed, size, promised = hashlib.sha256(), 0, self.response.length
        if self.response.getheader("Content-Encoding", "identity").lower() != "identity":
            raise BuildServerError(f"{what}: the answer is compressed, which nobody asked for")
        try:
            for octets in self.pieces(what, limit, "image"):
                size += len(octets)
                hashed.update(octets)
                _write(target, octets)
                meter.add(len(octets))
        finally:
            meter.done()
        if promised is not None and size != promised:
            raise BuildServerError(f"{what}: the download ended after {size} of {promised} octets")
        return Binary(hashed.digest(), size)


def _write(target: BinaryIO, octets: bytes) -> None:
    """A disk of ours that is full is no fault of the server."""
    try:
        target.write(octets)
    except OSError as error:
        raise BadFile(target.name, (error.strerror or "cannot be written").lower()) from error


@contextmanager
def _followed(url: str, method: str, accept: str) -> Iterator[_Answer]:
    """The answer at the end of all redirections, which is a success."""
    seen = {url}
    while True:
        with _request(url, method, accept) as answer:
            status = answer.response.status
            if status in REDIRECTS:
                target = redirected(url, answer.response.getheader("Location"))
            elif 200 <= status < 300:
                yield answer
                return
            else:
                raise BuildServerError(f"{url}: got status {status}")
        if target in seen or len(seen) > MAX_REDIRECTS:
            raise BuildServerError(f"{url}: too many redirections, the last one to {target}")
        seen.add(target)
        url = target


@contextmanager
def _request(url: str, method: str, accept: str) -> Iterator[_Answer]:
    parts = urlsplit(url)
    connection = Connection(parts.scheme, parts.hostname or "", parts.port, PATIENCE)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with connection.watched(SLOWEST, LEAST):
            connection.request(method, target, headers={"Accept": accept, "User-Agent": "albatross-pki"})
            with connection.getresponse() as response:
                yield _Answer(response, connection)
    except HTTPException as error:
        raise _failed(connection, url, f"{type(error).__name__}: {printable(str(error), 200)}") from error
    except OSError as error:
        raise _failed(connection, url, _reason(error)) from error
    except BuildServerError:
        if connection.slow:  # what came was wrong because it was cut
            raise _failed(connection, url, "") from None
        raise
    if connection.slow:
        raise _failed(connection, url, "")


def _reason(error: OSError) -> str:
    verdict = getattr(error, "verify_message", None)  # of a certificate
    if verdict:
        return f"its certificate is refused: {printable(str(verdict), 200)}"
    return printable(str(error.strerror or error), 200).lower()


def _failed(connection: Connection, url: str, reason: str) -> BuildServerError:
    if connection.slow:
        reason = f"brought less than {LEAST} octets in {SLOWEST:g} seconds, and did not end"
    return BuildServerError(f"{url}: {reason}")
