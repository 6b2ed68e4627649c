"""Answers and data as text: a table for people, JSON or bare names for programs.

Pure but for ``Screen``, which knows where the text goes: whether somebody looks (a terminal: its width, relative
times, colours never) or a program reads (full width, ISO 8601). Everything untrusted has been escaped by the
documents that the tables are made from.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from albatross_pki.client.documents import data_document, success_document, timestamp
from albatross_pki.client.table import layout
from albatross_pki.names import Name
from albatross_pki.replies import (
    BlockChunk,
    BlockDevices,
    ConsoleLine,
    Consoles,
    Data,
    Empty,
    Policies,
    Success,
    Text,
    Unikernels,
)
from albatross_pki.text import printable
from albatross_pki.upstream_words import everything_wanted

_STEPS = ((86400 * 2, 86400, "days"), (3600 * 2, 3600, "hours"), (60 * 2, 60, "minutes"), (0, 1, "seconds"))


@dataclass(frozen=True, slots=True)
class Screen:
    """Where answers are printed: ``width`` is ``None`` when nobody looks; ``now`` is for relative times."""

    form: str = "table"
    quiet: bool = False
    width: int | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    everything: bool = False  # with the words of Albatross' own client: what it shows to those who debug, too

    @classmethod
    def standard(cls, form: str, quiet: bool) -> "Screen":
        """Standard output as it is."""
        everything = everything_wanted()
        if not sys.stdout.isatty():
            return cls(form, quiet, everything=everything)
        import shutil

        return cls(form, quiet, shutil.get_terminal_size().columns, everything=everything)

    def answer(self, name: Name, reply: Success, prefix: str = "") -> None:
        """Print an answer about ``name``; ``prefix`` stands in front of it for people."""
        if self.quiet:
            return
        if self.form == "json":
            self._print(_json(success_document(name, reply), indent=2))
        elif self.form == "name":
            self._print("\n".join(names_of(reply)))
        elif self.form == "upstream" and not _is_document(reply):
            from albatross_pki.client.upstream import answer_text

            self._print(prefix + answer_text(name, reply, everything=self.everything))
        else:
            self._print(prefix + self._table(name, reply))

    def data(self, name: Name, data: Data, prefix: str = "") -> None:
        """Print one piece of a stream on a line of its own, and make it seen at once."""
        if self.quiet or isinstance(data, BlockChunk):
            return
        if self.form == "upstream":
            from albatross_pki.client.upstream import data_text

            self._print(prefix + data_text(data))
            return
        document = data_document(name, data)
        if self.form == "json":
            self._print(_json(document))
        elif isinstance(data, ConsoleLine):
            when = data.timestamp.astimezone().strftime("%H:%M:%S") if self.width else timestamp(data.timestamp)
            self._print(f"{prefix}{when} {document['line']}")
        else:
            self._print(statistics_line(document))

    def document(self, document: Any, text: str) -> None:
        """Print one document of a stream on a line of its own, ``text`` for people, and make it seen at once."""
        if not self.quiet:
            self._print(_json(document) if self.form == "json" else text)

    def whole_document(self, document: Any, text: str) -> None:
        """Print one document that is the whole answer, ``text`` for people."""
        if not self.quiet:
            self._print(_json(document, indent=2) if self.form == "json" else text)

    def note(self, text: str) -> None:
        """Print a sentence of our own for people; programs that asked for JSON or names do not get it."""
        if not self.quiet and self.form == "table":
            self._print(text)

    def upstream(self, text: str) -> None:
        """Print a line that only those get who asked for the words of Albatross' own client."""
        if not self.quiet and self.form == "upstream":
            self._print(text)

    def _print(self, text: str) -> None:
        if text:
            print(text, flush=True)  # noqa: T201  this is where answers are printed

    def _table(self, name: Name, reply: Success) -> str:
        match reply:
            case Text() if _is_document(reply):
                return _document_table(success_document(name, reply), self.width)
            case Text(text):
                return printable(text)
            case Empty():
                return "done"
            case Unikernels():
                return self._list("no unikernels", UNIKERNEL_HEADING, self._unikernel_rows(name, reply))
            case Policies():
                return self._list("no policies", POLICY_HEADING, policy_rows(success_document(name, reply)))
            case BlockDevices():
                return self._list("no block devices", BLOCK_HEADING, _block_rows(name, reply))
            case Consoles(names):
                return "\n".join(short(each) for each in names) or "no consoles"
            case _:
                return ""

    def _list(self, nothing: str, heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        return layout(heading, rows, self.width) if rows else nothing

    def _unikernel_rows(self, name: Name, reply: Unikernels) -> list[list[str]]:
        return [
            [
                short_text(document["name"]),
                f"{document['memory_mb']} MB",
                ",".join(map(str, document["cpuids"])),
                self._when(document["started"]),
                restart_text(document["restart"]),
                ", ".join(f"{each['name']} on {each['bridge']}" for each in document["networks"]) or "-",
                ", ".join(f"{each['name']} on {each['device']}" for each in document["blocks"]) or "-",
                document["digest"],
            ]
            for document in success_document(name, reply)
        ]

    def _when(self, text: str | None) -> str:
        if text is None:
            return "-"
        return text if self.width is None else ago(datetime.fromisoformat(text), self.now())


_LAST = {"image", "digest"}
UNIKERNEL_HEADING = ("NAME", "MEMORY", "CPU", "STARTED", "RESTART", "NETWORK", "BLOCK", "IMAGE")
POLICY_HEADING = ("PATH", "UNIKERNELS", "MEMORY", "CPU", "BLOCK", "BRIDGES")
BLOCK_HEADING = ("NAME", "SIZE", "USED")


def policy_rows(documents: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Policies as rows of a table."""
    return [
        [
            document["path"] or ":",
            str(document["unikernels"]),
            f"{document['memory_mb']} MB",
            ",".join(map(str, document["cpuids"])),
            "-" if document["block_mb"] is None else f"{document['block_mb']} MB",
            ", ".join(document["bridges"]) or "-",
        ]
        for document in documents
    ]


def _block_rows(name: Name, reply: BlockDevices) -> list[list[str]]:
    return [
        [short_text(document["name"]), f"{document['size_mb']} MB", "yes" if document["active"] else "no"]
        for document in success_document(name, reply)
    ]


def _is_document(reply: Success) -> bool:
    """Whether this is an answer to an extended command, which is a JSON document in a text."""
    return isinstance(reply, Text) and reply.text.startswith(("{", "["))


def names_of(reply: Success) -> list[str]:
    """What ``-o name`` prints: one name or path per line, nothing for other answers."""
    match reply:
        case Unikernels(unikernels):
            return [short(name) for name, _ in unikernels]
        case Policies(policies):
            return [str(name.path) or ":" for name, _ in policies]
        case BlockDevices(devices):
            return [short(device.name) for device in devices]
        case Consoles(names):
            return [short(name) for name in names]
        case Text() if _is_document(reply):
            documents = success_document(Name(), reply)
            named = [each for each in documents if isinstance(each, dict)] if isinstance(documents, list) else []
            return [short_text(printable(str(each["name"]))) for each in named if "name" in each]
        case _:
            return []


def short(name: Name) -> str:
    """A name as people type it: without the colon that stands before a name at the root."""
    return short_text(str(name))


def short_text(text: str) -> str:
    """The text of a name as people type it."""
    return text.removeprefix(":") or text


def restart_text(codes: Sequence[int] | None) -> str:
    """When a unikernel is started again: ``no``, ``on failure`` or ``on 3, 5``."""
    if codes is None:
        return "no"
    return "on " + (", ".join(map(str, codes)) or "failure")


def ago(moment: datetime, now: datetime) -> str:
    """How long ago ``moment`` was, for people: ``3 minutes ago``."""
    elapsed = max(0, int((now - moment).total_seconds()))
    unit, name = next((unit, name) for least, unit, name in _STEPS if elapsed >= least)
    return f"{elapsed // unit} {name} ago"


def statistics_line(document: dict[str, Any]) -> str:
    """One sample on one line."""
    usage, memory = document["usage"], document["memory"]
    pieces = [f"{document['name']} user {usage['user_seconds']:.2f} s system {usage['system_seconds']:.2f} s"]
    if memory:
        pieces.append(f"memory {memory['virtual_octets']} octets, {memory['resident_pages']} pages resident")
    pieces += [
        f"{each['name']} in {each['input']['octets']} out {each['output']['octets']} octets"
        for each in document["networks"]
    ]
    return "; ".join(pieces)


def _document_table(document: Any, width: int | None) -> str:
    """A document of an extended command: a list of objects as a table, one object as its fields."""
    if document == []:
        return "nothing"
    if isinstance(document, list) and document and all(isinstance(each, dict) for each in document):
        heading = list(dict.fromkeys(key for each in document for key in each))
        heading.sort(key=lambda key: key in _LAST)  # stable: digests go to the end, where tables give way first
        rows = [[_field(key, each.get(key)) for key in heading] for each in document]
        return layout([printable(str(key)).upper() for key in heading], rows, width)
    if isinstance(document, dict):
        room = max((len(str(key)) for key in document), default=0)
        return "\n".join(f"{printable(str(key)):<{room}}  {_plain(value)}" for key, value in document.items())
    return _plain(document)


def _field(key: str, value: Any) -> str:
    return short_text(_plain(value)) if key == "name" else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return printable(value)
    return "-" if value is None else printable(_json(value))


def _json(document: Any, indent: int | None = None) -> str:
    import json  # a table needs none

    return json.dumps(document, indent=indent)
