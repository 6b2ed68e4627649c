"""What a build server's answers mean, and what an update changes. Pure: no request is made here.

1. the build that made the running image is where ``/hash`` redirects to (``build_at``), its platform is in its JSON
   (``platform_of``);
2. the latest build of that job and platform is where ``latest`` redirects to;
3. the list of the job's builds says what that build's image must be (``binary_of``);
4. there is something to do unless both builds, or both images, are the same (``Update.needed``);
5. everything that ran with the old image runs with the new one (``kept_settings``).

A redirection's target is not trusted: only a path of the expected form counts. The form of the answers is that of
builder-web, which publishes reproducible unikernel builds.
"""

import binascii
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from albatross_pki.errors import AlbatrossError, ExitCode
from albatross_pki.syntax import BadValue
from albatross_pki.text import printable
from albatross_pki.unikernels import BlockDevice, NetworkInterface, Settings, UnikernelInfo

DEFAULT_URL = "https://builds.robur.coop"
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUILD = re.compile(r"/job/([A-Za-z0-9._~%+-]+)/build/([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})/?")


class BuildServerError(AlbatrossError):
    """The build server did not answer, or not what was to be expected."""

    exit_code = ExitCode.HTTP


class UnknownImage(BuildServerError):
    """The build server has no build of what runs."""


@dataclass(frozen=True, slots=True)
class Build:
    """One build of a job; ``job`` is spelled as in the server's addresses."""

    job: str
    uuid: str

    @property
    def path(self) -> str:
        return f"/job/{self.job}/build/{self.uuid}"


@dataclass(frozen=True, slots=True)
class Binary:
    """The image of a build: its SHA-256, and its size in octets where the server says it."""

    digest: bytes
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """What runs, and what the server has: ``digest`` is that of the running image."""

    running: Build
    digest: bytes
    latest: Build
    binary: Binary

    @property
    def needed(self) -> bool:
        """Whether there is something to do; a rebuild with the same image is nothing."""
        return self.running != self.latest and self.digest != self.binary.digest

    @property
    def comparison(self) -> str:
        """Where the server shows the difference, below its address."""
        return f"/compare/{self.running.uuid}/{self.latest.uuid}"


def parse_url(text: str) -> str:
    """The address of a build server without a slash at its end; raises ``BadValue``."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")  # as it is looked up: labels of 1 to 63 octets
    except ValueError as error:
        raise BadValue(f"expected http[s]://HOST[:PORT][/PATH], not {printable(text)}", text) from error
    plain = text.isascii() and text.isprintable() and " " not in text
    if parts.scheme not in ("http", "https") or not host or not plain or "@" in parts.netloc:
        raise BadValue(f"expected http[s]://HOST[:PORT][/PATH], not {printable(text)}", text)
    if parts.query or parts.fragment:
        raise BadValue("the address of a build server has no query", text)
    return text.rstrip("/")


def hash_path(digest: bytes) -> str:
    """Where to ask for the build of an image."""
    return f"/hash?sha256={digest.hex()}"


def latest_path(job: str, platform: str | None) -> str:
    """Where to ask for the latest successful build of ``job``."""
    path = f"/job/{job}/build/latest"
    if not platform:
        return path
    return f"{path}?{urlencode({'platform': platform}, errors='surrogateescape', quote_via=quote)}"


def build_at(url: str, status: int, location: str | None, asked: str) -> Build:
    """The build that an answer redirects to; ``asked`` is the address below ``url``."""
    if status == 404 and asked.startswith("/hash"):
        raise UnknownImage(f"{url} has no build of the image that runs", hint="--http-host URL names another server")
    if status == 404:
        raise BuildServerError(f"{url}{asked}: there is no such build")
    if status not in REDIRECTS:
        raise BuildServerError(f"{url}{asked}: expected a redirection, got status {status}")
    if location is None:
        raise BuildServerError(f"{url}{asked}: a redirection without a target")
    try:
        path = urlsplit(location).path
    except ValueError:
        path = ""
    path = path.removeprefix(urlsplit(url).path)
    match = _BUILD.fullmatch(path)
    if match is None:
        raise BuildServerError(f"{url}{asked}: expected a target /job/JOB/build/UUID, got {printable(location, 200)}")
    return Build(match.group(1), match.group(2).lower())


def redirected(url: str, location: str | None) -> str:
    """The address that an answer of ``url`` sends to; never from https to http, never with a password."""
    if location is None:
        raise BuildServerError(f"{url}: a redirection without a target")
    try:
        target = parse_target(urljoin(url, location))
    except ValueError as error:
        raise BuildServerError(f"{url}: a redirection to {printable(location, 200)}") from error
    if urlsplit(url).scheme == "https" and not target.startswith("https:"):
        raise BuildServerError(f"{url}: a redirection away from https, to {printable(location, 200)}")
    return target


def parse_target(text: str) -> str:
    """An address that can be asked for; raises ``ValueError``."""
    parts = urlsplit(text)
    host, _ = parts.hostname, parts.port
    (host or "").encode("idna")
    clean = all("!" <= character <= "~" for character in text)
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc or not clean:
        raise ValueError(text)
    return text


def document_of(url: str, octets: bytes) -> dict[str, Any]:
    """A JSON object that the server answered with."""
    try:
        document = json.loads(octets)
    except (ValueError, RecursionError) as error:
        raise BuildServerError(f"{url}: expected JSON, got something else") from error
    if not isinstance(document, dict):
        raise BuildServerError(f"{url}: expected a JSON object")
    return document


def platform_of(document: dict[str, Any]) -> str | None:
    """The platform that a build was made for, ``None`` if the server does not say."""
    platform = document.get("platform")
    return platform if isinstance(platform, str) and platform and platform.isprintable() else None


def binary_of(document: dict[str, Any], build: Build) -> Binary | None:
    """What a job's document says about the image of ``build``; ``None`` if it does not list it.

    Raises ``BuildServerError`` if the build has no image, or the entry is none.
    """
    builds = document.get("builds")
    for entry in builds if isinstance(builds, list) else []:
        if not isinstance(entry, dict) or str(entry.get("uuid")).lower() != build.uuid:
            continue
        binary = entry.get("main_binary")
        if binary is None or binary is False:
            raise BuildServerError(f"the latest build of {build.job}, {build.uuid}, has no image")
        digest = _digest(binary.get("sha256")) if isinstance(binary, dict) else None
        if digest is None:
            raise BuildServerError(f"the server names no SHA-256 for the image of {build.uuid}")
        size = binary.get("size")
        return Binary(digest, size if type(size) is int and size >= 0 else None)
    return None


def _digest(text: object) -> bytes | None:
    if not isinstance(text, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", text, re.ASCII):
        return None
    return bytes.fromhex(text)


def digest_of_tag(tag: str | None) -> bytes | None:
    """The SHA-256 in an entity tag, which is its base64; ``None`` if it is something else."""
    if tag is None:
        return None
    try:
        digest = binascii.a2b_base64(tag.removeprefix("W/").strip('"'), strict_mode=True)
    except ValueError:
        return None
    return digest if len(digest) == 32 else None


def check_binary(expected: Binary, got: Binary, what: str) -> None:
    """Refuse a download that is not what the server has promised."""
    if got.size == 0:
        raise BuildServerError(f"{what}: the image is empty")
    if expected.size is not None and got.size != expected.size:
        raise BuildServerError(f"{what}: got {got.size} octets of {expected.size}")
    if got.digest != expected.digest:
        raise BuildServerError(
            f"{what}: the SHA-256 of the download is {got.digest.hex()}, the server promised {expected.digest.hex()}"
        )


def kept_settings(info: UnikernelInfo, add_name: bool) -> Settings:
    """The settings that ``info`` shows, with every device named as it is on the host.

    A host does not tell whether it adds ``--name=…``. ``add_name`` says so, unless the arguments bring a name along.
    """
    named = any(argument.startswith("--name=") for argument in info.arguments or ())
    return Settings(
        cpuids=info.cpuids,
        memory_mb=info.memory_mb,
        fail_behaviour=info.fail_behaviour,
        startup=info.startup,
        add_name=add_name and not named,
        blocks=tuple(BlockDevice(each.name, each.host_device, each.sector_size) for each in info.blocks),
        interfaces=tuple(NetworkInterface(each.name, each.host_bridge, each.mac) for each in info.interfaces),
        arguments=info.arguments,
        cpus=info.cpus,
        linux_boot_partition=info.linux_boot_partition,
    )
