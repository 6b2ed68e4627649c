"""The authoriser's audit log: who asked what, what was decided and why, and what came of it.

Entries are lines of a hash-chained journal (``journal.log``). Their kinds, in the order in which they come:

* ``refused``: a request that the chain does not allow, with every reason;
* ``intent``: a request that is about to be done, before any daemon hears of it;
* ``outcome``: what came of the ``intent`` with the same ``request`` number;
* ``counted``: requests that were not listed, because too many came (``recording``);
* ``started``: the program itself;
* ``continues``: the first one of a log whose predecessor was moved away, with the head of that.

A thread writes, and all that waits at the same time goes to disk together. ``record`` returns when the entry is on
disk, which a change of state waits for. What is ``note``d goes with the next record, or a moment later. The order is
that of the calls. ``docs/endpoint.md`` has the schema.
"""

import asyncio
import contextlib
import logging
import os
import queue
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from albatross_pki.authorised import AuthorisedRequest
from albatross_pki.commands import BlockAddOld, BlockSetOld, UnikernelCreate
from albatross_pki.errors import AlbatrossError
from albatross_pki.journal.log import BadJournal, Journal, end_of
from albatross_pki.policy.certificates import CertificateFacts
from albatross_pki.policy.constraints import command_word
from albatross_pki.text import printable

MOST_LISTED = 32  # reasons, bridges and processors of one entry
_MOST_WAITING = 4096
_GATHER_SECONDS = 0.1  # entries that nobody waits for share one write to the disk

log = logging.getLogger(__name__)

Entry = Mapping[str, Any]
_Waiting = tuple[list[Entry], "asyncio.Future[None] | None"]


class NotRecorded(AlbatrossError):
    """The audit log cannot be written, so nothing may be changed."""


class AuditLog:
    """The open log at ``path``. ``head`` is the digest of its last line. For the thread of one event loop."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._journal = Journal.open(path, wait=False)
        if not self._journal.entries:
            self._follow_the_last()
        self._broken = False
        self._noted: list[Entry] = []
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: queue.Queue[_Waiting | str] = queue.Queue(_MOST_WAITING)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._write_all, name="audit", daemon=True)
        self._thread.start()

    @property
    def head(self) -> str:
        return self._journal.head

    @property
    def entries(self) -> int:
        return self._journal.entries

    async def record(self, entry: Entry) -> None:
        """Return when ``entry`` is on disk; raises ``NotRecorded``."""
        self._loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = self._loop.create_future()
        self._hand_over([entry], done)
        await done

    def note(self, entry: Entry) -> None:
        """Have ``entry`` written soon; raises ``NotRecorded`` if too many wait already."""
        if len(self._noted) >= _MOST_WAITING:
            raise NotRecorded("the audit log cannot keep up")
        self._noted.append(entry)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._flush)

    def reopen(self) -> None:
        """Open the file anew, for instance after it was moved away."""
        self._flush()
        self._waiting.put("reopen")

    def close(self) -> None:
        """Write what waits, and close."""
        self._flush()
        self._waiting.put("close")
        self._thread.join()

    def _follow_the_last(self) -> None:
        """Continue the newest log beside us that was moved away (``audit.log.1``) while we did not run."""
        directory, name = os.path.split(self.path)
        older = [os.path.join(directory, each) for each in os.listdir(directory or ".") if each.startswith(f"{name}.")]
        for path in sorted(older, key=os.path.getmtime, reverse=True):
            with contextlib.suppress(OSError, BadJournal):
                entries, head = end_of(path)
                if entries:
                    self._journal.follow(head, entries)
                    return

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._noted:
            with contextlib.suppress(NotRecorded):  # they stay, and go with the next one
                self._hand_over([], None)

    def _hand_over(self, entries: list[Entry], done: "asyncio.Future[None] | None") -> None:
        """Everything noted and ``entries`` to the thread, which is woken once for all of them."""
        try:
            self._waiting.put_nowait(([*self._noted, *entries], done))
        except queue.Full:
            raise NotRecorded("the audit log cannot keep up") from None
        self._noted = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write_all(self) -> None:
        while True:
            order = self._waiting.get()
            batch: list[_Waiting] = []
            while not isinstance(order, str):
                batch.append(order)
                if self._waiting.empty():
                    break
                order = self._waiting.get()
            if batch:
                self._write(batch)
            if order == "reopen":
                self._broken = True  # the next write opens it
            elif order == "close":
                self._journal.close()
                return

    def _write(self, batch: list[_Waiting]) -> None:
        problem = None
        try:
            if self._broken:
                self._reopen()
            self._journal.append_all([entry for entries, _ in batch for entry in entries])
        except (OSError, BadJournal) as error:
            self._broken = True
            problem = f"cannot write the audit log: {error}"
            log.error("%s", problem)
        waiting = [done for _, done in batch if done is not None]
        if waiting and self._loop is not None:
            self._loop.call_soon_threadsafe(_settle, waiting, problem)

    def _reopen(self) -> None:
        """Raises ``OSError`` or ``BadJournal``; then the next write tries again."""
        self._broken = True
        self._journal.close()
        reopened = Journal.open(self.path, wait=False)
        if not reopened.entries and self._journal.entries:  # the old one was moved away
            reopened.follow(self._journal.head, self._journal.entries)
        self._journal = reopened
        self._broken = False


def _settle(waiting: "Sequence[asyncio.Future[None]]", problem: str | None) -> None:
    for done in waiting:
        if done.done():
            continue
        if problem is None:
            done.set_result(None)
        else:
            done.set_exception(NotRecorded(problem))


def most_of(listed: Sequence[Any], most: int = MOST_LISTED) -> list[Any]:
    """The first ones, and how many more there are: an entry has a bound however much a certificate says."""
    return list(listed) if len(listed) <= most else [*listed[:most], f"and {len(listed) - most} more"]


def chain_entry(path: Sequence[CertificateFacts]) -> list[dict[str, str]]:
    """A chain as the log shows it, leaf first."""
    return [
        {"serial": f"{facts.serial:x}", "sha256": facts.digest.hex(), "subject": printable(facts.common_name or "", 64)}
        for facts in path
    ]


def request_entry(
    kind: str, number: str, now: datetime, peer: str, path: Sequence[CertificateFacts], anchor: CertificateFacts | None
) -> dict[str, Any]:
    """What every entry about a request begins with. ``anchor`` is the root that the chain ends at, if it does."""
    entry: dict[str, Any] = {"kind": kind, "time": now.isoformat(), "request": number, "peer": peer}
    entry["chain"] = chain_entry(path)
    entry["anchor"] = None if anchor is None else anchor.digest.hex()
    return entry


def authorised_entry(authorised: AuthorisedRequest, lists: Sequence[int | None]) -> dict[str, Any]:
    """What is asked, without arguments and contents, which may be secrets. ``lists`` are CRL numbers, root first."""
    entry: dict[str, Any] = {
        "name": str(authorised.name),
        "command": command_word(authorised.command),
        "not_after": authorised.not_after.isoformat(),
        "crl_numbers": [None if number is None else str(number) for number in lists],
        "policies": [
            {
                "path": str(policy.path),
                "cpuids": most_of(sorted(policy.policy.cpuids)),
                "unikernels": policy.policy.unikernels,
                "memory_mb": policy.policy.memory_mb,
                "block_mb": policy.policy.block_mb,
                "bridges": most_of([printable(bridge, 64) for bridge in sorted(policy.policy.bridges)]),
            }
            for policy in authorised.policies
        ],
    }
    if authorised.binding is not None:
        entry["image"] = {"sha256": authorised.binding.digest.hex(), "octets": authorised.binding.size}
    match authorised.command:
        case UnikernelCreate(config=config) if authorised.binding is not None:
            from albatross_pki.wire.configuration import deployment_digest

            entry["deployment"] = deployment_digest(config, authorised.binding.digest).hex()
        case UnikernelCreate(config=config) if config.image:
            import hashlib

            entry["image"] = {"sha256_as_sent": hashlib.sha256(config.image).hexdigest(), "octets": len(config.image)}
        case BlockAddOld(content=content) | BlockSetOld(content=content) if content:
            entry["content_octets"] = len(content)
    return entry
