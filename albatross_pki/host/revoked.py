"""What revocation does to a host: policies of chains are forgotten, and unikernels below them stopped if so asked.

The authoriser asks which delegations are remembered (``page``) and says which of them are revoked (``revoke``). It asks
again and again, so that nothing here has to be done twice or remembered beside the policies themselves:

1. with ``stop``, everything at and below the path of a revoked delegation is stopped, unless a delegation at least as
   new that is not among the revoked ones is in use for the same path: then the path lives on through its renewal;
2. only when all of that is stopped, and recorded as to be stopped, the policies are forgotten.

A daemon that dies in between still remembers the policies, is told again, and goes on. What is being changed just now
is waited for, a short time; what could not be stopped leaves the policies for the next time.
"""

import asyncio
import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from albatross_pki.authorised import (
    MOST_CERTIFICATE_IDS,
    CertificateId,
    ChainPolicy,
    Effect,
    Outcome,
    Remembered,
    Revoked,
)
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.host.deployments import Deployments
from albatross_pki.host.events_kinds import Revoked as RevokedEvent
from albatross_pki.host.lifecycle import Phase
from albatross_pki.host.limits import REVOKED_PATIENCE, REVOKED_RETRY
from albatross_pki.host.supervisor import Supervisor
from albatross_pki.names import Name, Path
from albatross_pki.text import printable

TROUBLE = "stopped because the delegation above it was revoked"
_MOST_REASONS = 16

log = logging.getLogger(__name__)


class Revocation:
    """Revocation for the host of ``supervisor``."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._deployments = Deployments(supervisor)

    def page(self, after: CertificateId | None) -> Remembered:
        """The certificates whose policies are remembered, behind ``after``, in ascending order."""
        known = {each.certificate for each in self._supervisor.book.remembered.all()}
        rest = sorted((each for each in known if after is None or _key(each) > _key(after)), key=_key)
        return Remembered(tuple(rest[:MOST_CERTIFICATE_IDS]))

    async def revoke(self, request: Revoked) -> Outcome:
        """Do what ``request`` asks for; never raises for what is remembered or not."""
        book = self._supervisor.book
        revoked = frozenset(request.certificates)
        entries = [each for each in book.remembered.all() if each.certificate in revoked]
        if not entries:
            return Outcome(True, Effect.NONE, "nothing of that is remembered")
        try:
            stopped = await self._stop_below(self._ended_paths(entries, revoked)) if request.stop else 0
            change, confirm = book.forgetting(entries)
            for each in entries:
                self._supervisor.events.stage(Name.of_path(each.path), RevokedEvent.of(each.certificate))
            self._supervisor.state.remember(change)
        except AlbatrossError as error:
            log.error("delegations were revoked, which has not come to its end: %s", printable(str(error)))
            return Outcome(False, Effect.UNKNOWN, error.message)
        confirm()
        for each in entries:
            log.warning("the delegation %s (certificate %x) was revoked", each.path, each.certificate.serial)
        text = f"forgot {len(entries)} policies" + (f", stopped {stopped} unikernels" if request.stop else "")
        return Outcome(True, Effect.CHANGED, text)

    def _ended_paths(self, entries: Iterable[ChainPolicy], revoked: frozenset[CertificateId]) -> set[Path]:
        """The paths that no delegation at least as new and not revoked speaks for."""
        by_path, now = self._supervisor.book.remembered.by_path, datetime.now(UTC)
        return {
            entry.path
            for entry in entries
            if not any(
                other.certificate not in revoked and entry.not_before <= other.not_before and now < other.not_after
                for other in by_path.get(entry.path, ())
            )
        }

    async def _stop_below(self, paths: set[Path]) -> int:
        """How many unikernels were stopped; raises ``Refused`` if one could not be."""
        names = [name for name in self._supervisor.names() if any(path.contains(name.path) for path in paths)]
        results = await asyncio.gather(*(self._stop(name) for name in names), return_exceptions=True)
        if failed := [result for result in results if isinstance(result, BaseException)]:
            raise Refused([str(each) or type(each).__name__ for each in failed[:_MOST_REASONS]])
        return sum(result is True for result in results)

    async def _stop(self, name: Name) -> bool:
        """Stop ``name``; whether there was something to stop. What is being changed is waited for a short time."""
        supervisor = self._supervisor
        try:
            async with asyncio.timeout(REVOKED_PATIENCE):
                while supervisor.is_busy(name):
                    await asyncio.sleep(REVOKED_RETRY)
        except TimeoutError as error:
            raise Refused([f"{name} is still being changed"]) from error
        unikernel = supervisor.table.get(name)
        if unikernel is None or unikernel.phase is Phase.STOPPED:
            return False
        await self._deployments.stop(name, reason=TROUBLE)
        return True


def _key(certificate: CertificateId) -> tuple[bytes, int]:
    return certificate.issuer_key, certificate.serial
