"""One command for several hosts: asked in parallel, answers side by side.

Each host is asked by a process of its own, forked when nothing but the command line was read and what all of them need
was loaded: what waits for one host, asks for its own files and reports in its own words cannot get into the way of
another. This process

1. parses the command line once, so that its mistakes are told once, and refuses what changes a host;
2. forks, at most ``MOST_AT_ONCE`` at a time, in the order in which the hosts were named;
3. prints answers in that order: under the host's name for people, as one list of ``{"host", "answer", "error"}`` for
   programs, and behind the host's name with ``-o name``. What goes on (``console``, ``stats``, ``events --follow``) is
   printed line by line as it comes, with the host in front, or as its ``"host"``,
   and what goes wrong meanwhile is told at once;
4. ends with the status of the first host that failed, in that order. A host that fails hides no other's answer.
"""

import io
import json
import os
import selectors
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from albatross_pki.client.side_by_side import colours_wanted, prefixes
from albatross_pki.errors import AlbatrossError
from albatross_pki.text import printable

MOST_AT_ONCE = 24
READING = frozenset(
    {
        *("info", "policy", "block", "inactive-consoles", "status", "host-info", "events", "console", "stats"),
        "update",  # changes hosts, and is made for many
    }
)
STREAMS = frozenset({"console", "stats"})
LINES = frozenset({"events", "update"})  # their JSON is a document a line
_PIECE = 1 << 16
_INDENT = "  "  # of answers below their host's name
_KINDS = ("error", "warning", "note")

Ask = Callable[[str], int]
"""Asks one host, prints its answer, and gives the exit status."""


@dataclass
class _Asked:
    """A host's process, and what it has printed so far."""

    name: str
    pid: int
    pipes: dict[int, bytearray]  # by descriptor: standard output first, then standard error
    status: int = 0
    lines: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def take(self, descriptor: int, octets: bytes) -> Iterator[tuple[bool, str]]:
        """Whole lines, each with whether it is one of standard output; all that is left at the end."""
        left = self.pipes[descriptor]
        left += octets
        *whole, rest = bytes(left).split(b"\n")
        left[:] = rest if octets else b""
        if rest and not octets:
            whole.append(rest)
        first = descriptor == next(iter(self.pipes))
        for line in whole:
            yield first, line.decode("utf-8", "replace")


def check_word(word: str, values: dict[str, Any]) -> None:
    """Refuse what is for one host at a time; raises ``AlbatrossError``."""
    if word not in READING or values.get("csr"):
        raise AlbatrossError(f"{word} is for one host at a time", hint="name one with --host")


def ask_hosts(names: Sequence[str], word: str, values: dict[str, Any], ask: Ask) -> int:
    """Ask all of ``names``; ``values`` are those of the command's options. The exit status."""
    check_word(word, values)
    form = "json" if values.get("as_json") else values["form"]
    streamed = word in STREAMS or (word == "events" and bool(values.get("follow")))
    if streamed and len(names) > MOST_AT_ONCE:
        raise AlbatrossError(f"at most {MOST_AT_ONCE} hosts can be followed at once, these are {len(names)}")
    load_what_all_need()
    if not streamed and sys.stdout.isatty():
        ask = _looked_at(ask, shutil.get_terminal_size().columns - len(_INDENT))
    fronts = dict(zip(names, prefixes([*map(printable, names)], coloured=colours_wanted()), strict=True))

    def heard(asked: _Asked, of_output: bool, line: str) -> None:
        if not streamed:
            (asked.lines if of_output else asked.errors).append(line)
        elif not of_output:
            _tell(asked.name, line)  # at once: the others may go on for days
        elif form == "json":
            _show_document(line, asked.name)
        else:
            _print(fronts[asked.name] + line)

    asked = _run(names, ask, heard)
    if not streamed:
        _show(asked, form, lines=word in LINES)
    for each in asked:
        for line in each.errors:
            _tell(each.name, line)
    return next((each.status for each in asked if each.status), 0)


class _Seen(io.TextIOWrapper):
    """A pipe whose other end shows what comes on a terminal."""

    def isatty(self) -> bool:
        return True


def _looked_at(ask: Ask, columns: int) -> Ask:
    """``ask`` in a host's own process, with answers as on a terminal of ``columns``: relative times, its width."""

    def seen(name: str) -> int:
        os.environ["COLUMNS"] = str(max(columns, 1))
        assert isinstance(sys.stdout, io.TextIOWrapper)
        sys.stdout = _Seen(sys.stdout.detach(), encoding="utf-8", errors="surrogateescape")
        return ask(name)

    return seen


def load_what_all_need() -> None:
    """Once, because loading it takes longer than asking; nothing is computed, read or opened by it."""
    from albatross_pki.ca import keys, oneshot
    from albatross_pki.client import credentials, pins, receive, remote
    from albatross_pki.policy import server
    from albatross_pki.transport import tls
    from albatross_pki.wire import message, reply

    del keys, oneshot, credentials, pins, receive, remote, server, tls, message, reply


def _run(names: Sequence[str], ask: Ask, heard: Callable[[_Asked, bool, str], None]) -> list[_Asked]:
    waiting, asked = list(reversed(names)), list[_Asked]()
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or selector.get_map():
                while waiting and len(selector.get_map()) < 2 * MOST_AT_ONCE:
                    asked.append(_fork(waiting.pop(), ask))
                    for descriptor in asked[-1].pipes:
                        selector.register(descriptor, selectors.EVENT_READ, asked[-1])
                for key, _ in selector.select():
                    octets = os.read(key.fd, _PIECE)
                    for of_output, line in key.data.take(key.fd, octets):
                        heard(key.data, of_output, line)
                    if not octets:
                        selector.unregister(key.fd)
                        os.close(key.fd)
        except BaseException:
            for each in asked:
                os.kill(each.pid, signal.SIGTERM)  # ours until it is waited for
            raise
        finally:
            for each in asked:
                each.status = _status(os.waitpid(each.pid, 0)[1])
    return asked


def _fork(name: str, ask: Ask) -> _Asked:
    sys.stdout.flush()
    output, errors = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = _be_one(name, output[1], errors[1], ask)
        finally:
            os._exit(status)
    os.close(output[1])
    os.close(errors[1])
    return _Asked(name, pid, {output[0]: bytearray(), errors[0]: bytearray()})


def _be_one(name: str, output: int, errors: int, ask: Ask) -> int:
    """In the new process: nobody types, and what is printed goes to the pipes."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (errors, 2)):
        os.dup2(source, target)
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115  for the
    sys.stderr = open(2, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115  whole process
    status = ask(name)
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _status(waited: int) -> int:
    code = os.waitstatus_to_exitcode(waited)
    return code if code >= 0 else 128 - code


def _show(asked: Sequence[_Asked], form: str, *, lines: bool) -> None:
    if form == "json":
        _print(json.dumps([_document(each, lines) for each in asked], indent=2))
        return
    for each in asked:
        if form == "name":
            for line in each.lines:
                _print(f"{printable(each.name)} {line}")
        elif each.lines:
            _print("\n".join([f"{printable(each.name)}:", *(_INDENT + line for line in each.lines)]))


def _document(asked: _Asked, lines: bool) -> dict[str, Any]:
    text = "\n".join(asked.lines)
    problems = [line.removeprefix("error: ") for line in asked.errors if line.startswith("error: ")]
    try:
        answer = [json.loads(line) for line in asked.lines] if lines else json.loads(text) if text else None
    except ValueError:  # it was ended while it wrote
        answer, problems = None, [*problems, "its answer is not whole"]
    return {"host": asked.name, "answer": answer, "error": "; ".join(problems) or None}


def _show_document(line: str, name: str) -> None:
    try:
        document = json.loads(line)
    except ValueError:  # its process was ended while it wrote
        _tell(name, "error: its last line is not whole")
    else:
        _print(json.dumps({**document, "host": name}))


def _tell(name: str, line: str) -> None:
    kind, colon, text = line.partition(": ")
    told = f"{kind}: {name}: {text}" if colon and kind in _KINDS else line
    print(printable(told), file=sys.stderr)  # noqa: T201


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201  this is where answers are printed
