"""Waiting until what was created runs, and is of use; if it does not get there, going back to what ran before.

1. ``status`` is asked until the unikernel runs, and runs still, not started again, ``SETTLED`` seconds later;
2. then the port or the page that was named is tried until it answers;
3. what has ended, or is not there in time, is a failure with every reason known; with ``rollback`` the previous
   deployment is brought back, if there is one, and the failure stays a failure.

``judge`` is pure; how commands are sent is the caller's.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from albatross_pki.client.conversation import CommandFailed, NoAnswer
from albatross_pki.client.documents import host_document
from albatross_pki.client.local import OnData, OnSuccess
from albatross_pki.client.show import short
from albatross_pki.command_line import TypedCommand
from albatross_pki.errors import AlbatrossError, ExitCode, Refused
from albatross_pki.extensions import AnyCommand, Rollback, Status
from albatross_pki.messages import Header
from albatross_pki.names import Name
from albatross_pki.replies import Success, Text
from albatross_pki.syntax import BadValue, parse_destination
from albatross_pki.text import printable

SETTLED = 1.0  # seconds that a unikernel has to run for before it counts as running
PAUSE = 0.2  # seconds between two looks
TRY = 2.0  # seconds that a port or a page has for its answer

Send = Callable[[TypedCommand, OnSuccess, OnData], None]


class NotRunning(Refused):
    """What was created did not get where it was waited for."""

    exit_code = ExitCode.REMOTE_COMMAND


@dataclass(frozen=True, slots=True)
class Sign:
    """A sign of life: a TCP port that takes connections, or the page at ``url`` that answers with 2xx or 3xx."""

    host: str | None  # None: the host that was asked to create
    port: int
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """What is waited for, how many seconds at most, and whether to go back if it does not come."""

    sign: Sign | None
    seconds: float
    rollback: bool


class Seen(Enum):
    """What one answer of ``status`` means."""

    NOT_YET = "not yet"
    RUNNING = "running"
    FAILED = "failed"


def parse_sign(text: str) -> Sign:
    """Parse ``tcp:[HOST:]PORT`` or ``http:URL`` (also ``http://…`` and ``https://…`` as they are)."""
    kind, _, rest = text.partition(":")
    if kind == "tcp" and rest.isascii() and rest.isdigit():
        rest = f"localhost:{rest}"
        return Sign(None, parse_destination(rest)[1])
    if kind == "tcp" and ":" in rest:
        host, port = parse_destination(rest)
        return Sign(_looked_up(host), port)
    url = rest if rest.startswith(("http://", "https://")) else text
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and url.isascii() and url.isprintable():
            return Sign(_looked_up(parts.hostname), parts.port or (443 if parts.scheme == "https" else 80), url)
    except ValueError:
        pass
    raise BadValue(f"expected tcp:[HOST:]PORT or http:URL, not {printable(text)}", text)


def _looked_up(host: str) -> str:
    """``host``, if names can be looked up that are like it; raises ``BadValue``."""
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise BadValue(f"{printable(host)} is no name of a host", host) from error
    return host


def judge(documents: Any, name: Name) -> tuple[Seen, dict[str, Any]]:
    """What a host's ``status`` says about ``name``, and the document that says it (empty if there is none)."""
    if not isinstance(documents, list) or not all(isinstance(each, dict) for each in documents):
        raise NoAnswer("expected a list of states", hint="--wait needs a host of albatross-pki")
    label = str(name.label)
    mine = [each for each in documents if str(each.get("name", "")).rpartition(":")[2] == label]
    present = [each for each in mine if each.get("wanted") != "nothing"]
    if not present:
        return Seen.FAILED, mine[-1] if mine else {}
    document = present[0]
    if document.get("failures") or document.get("wanted") != "running":
        return Seen.FAILED, document
    return (Seen.RUNNING if document.get("actual") == "running" else Seen.NOT_YET), document


def reason(document: dict[str, Any], name: Name) -> str:
    """Why a unikernel does not run, as far as its state tells."""
    parts = [f"{short(name)} does not run"]
    parts += [str(document["actual"])] if "actual" in document else []
    parts += [f"last exit: {document['last_exit']}"] if "last_exit" in document else []
    parts += [str(document["trouble"])] if "trouble" in document else []
    return printable(", ".join(parts))


class Waiting:
    """One wait for ``name``; ``host`` is where a port without a host is looked for."""

    def __init__(self, send: Send, name: Name, host: str, patience: Patience) -> None:
        self._send, self._name, self._host, self._patience = send, name, host, patience
        self._deadline = time.monotonic() + patience.seconds

    def wait(self) -> None:
        """Return when it runs; raises ``NotRunning``, after a rollback if that was asked for."""
        try:
            self._until_it_runs()
            if self._patience.sign is not None:
                self._until_it_answers(self._patience.sign)
        except NotRunning as failure:
            if self._patience.rollback:
                raise NotRunning([*failure.reasons, self._roll_back()]) from failure
            raise NotRunning(failure.reasons, hint=f"console {short(self._name)}") from failure

    def _until_it_runs(self) -> None:
        since: float | None = None
        started = None
        while True:
            document = self._look()
            if document.get("actual") != "running":
                since = None
            elif since is None or document.get("started") != started:
                since, started = time.monotonic(), document.get("started")
            elif time.monotonic() - since >= SETTLED:
                return
            self._pause("it did not run", grace=0.0 if since is None else 2 * SETTLED)

    def _until_it_answers(self, sign: Sign) -> None:
        while not answers(sign, self._host):
            self._look()
            self._pause(f"{sign.url or f'port {sign.port} of {sign.host or self._host}'} did not answer")

    def _look(self) -> dict[str, Any]:
        seen, document = judge(self._ask(Status(), host_document), self._name)
        if seen is Seen.FAILED:
            raise NotRunning([reason(document, self._name)])
        return document

    def _pause(self, what: str, *, grace: float = 0.0) -> None:
        if time.monotonic() >= self._deadline + grace:
            raise NotRunning([f"{what} within {self._patience.seconds:g} seconds"])
        time.sleep(PAUSE)

    def _roll_back(self) -> str:
        try:
            return f"the previous deployment is back: {self._ask(Rollback(), printable)}"
        except CommandFailed as error:
            return f"there is no way back: {error.message}"

    def _ask(self, command: AnyCommand, meaning: Callable[[str], Any]) -> Any:
        texts: list[str] = []

        def on_success(_: Header, reply: Success) -> None:
            if not isinstance(reply, Text):
                raise NoAnswer(f"expected text, got {type(reply).__name__}")
            texts.append(reply.text)

        self._send(TypedCommand(self._name, command), on_success, lambda _, __: False)
        try:
            return meaning(texts[0])
        except ValueError as error:
            raise NoAnswer("expected a list of states, got something else") from error


def answers(sign: Sign, host: str) -> bool:
    """Whether ``sign`` can be seen now."""
    import socket
    from http.client import HTTPException

    from albatross_pki.client.http_connection import Connection

    host = sign.host or host
    if sign.url is None:
        try:
            socket.create_connection((host, sign.port), TRY).close()
        except OSError:
            return False
        return True
    parts = urlsplit(sign.url)
    connection = Connection(parts.scheme, host, sign.port, TRY)
    try:
        with connection.watched(TRY, 1):
            connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
            return 200 <= connection.getresponse().status < 400 and not connection.slow
    except (OSError, HTTPException):
        return False


def patience_of(how: dict[str, Any]) -> Patience | None:
    """What the options of a command say about waiting; ``None`` if nothing, or if it has no such options."""
    sign, rollback = how.get("wait_for"), how.get("rollback_on_failure", False)
    if not (how.get("wait") or sign or rollback):
        return None
    if how.get("dialect") == "upstream":
        raise AlbatrossError("--wait needs a host of albatross-pki", hint="leave --wait, or --dialect upstream, away")
    return Patience(sign, how["wait_seconds"], rollback)
