"""Revocation carried to albatrossd, which remembers delegations and runs what is below them.

Whenever a list changed, and every minute besides, albatrossd is asked which delegations it remembers, page by page, and
told which of them are revoked; with ``stop`` it stops what runs below them. The lists themselves, which may be long,
are not sent. What was told is not noted here: what albatrossd still remembers is asked about again, so restarts of
either program, in any order, and failures in between lose nothing. What is told goes to the audit log first.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

from albatross_pki.authorised import (
    MOST_CERTIFICATE_IDS,
    AskRemembered,
    CertificateId,
    Outcome,
    Remembered,
    Revoked,
    SideMessage,
)
from albatross_pki.endpoint.audit import AuditLog
from albatross_pki.endpoint.issuers import Issuers
from albatross_pki.endpoint.revocation import RevocationLists
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.policy.certificates import CertificateFacts
from albatross_pki.text import printable
from albatross_pki.transport.channel import Channel, connect
from albatross_pki.transport.errors import Unreachable
from albatross_pki.wire.side import decode_side, encode_side

LOOK_SECONDS = 1.0  # at whether there is something to do
AGAIN_SECONDS = 60.0  # after success or failure
ABSENT_SECONDS = 5.0  # while albatrossd is not there
_ANSWER_SECONDS = 120.0  # unikernels may take their grace period to stop

log = logging.getLogger(__name__)


@dataclass
class Enforcement:
    """``anchors`` gives the roots as they are now; with ``stop`` more is done than forgetting."""

    tmpdir: str
    lists: RevocationLists
    issuers: Issuers
    audit: AuditLog
    anchors: Callable[[], Sequence[CertificateFacts]]
    clock: Callable[[], datetime]
    stop: bool = False

    async def run(self) -> None:
        """For ever; what goes wrong is logged and tried again."""
        done, due, trouble = -1, 0.0, ""
        while True:
            generation = self.lists.generation
            if monotonic() >= due or (generation != done and not trouble):
                try:
                    await self.enforce()
                    done, due, problem = generation, monotonic() + AGAIN_SECONDS, ""
                except Unreachable as error:
                    due, problem = monotonic() + ABSENT_SECONDS, error.message
                except AlbatrossError as error:
                    due, problem = monotonic() + AGAIN_SECONDS, error.message
                if problem and problem != trouble:
                    log.warning("revocation could not be carried to albatrossd, which is tried again: %s", problem)
                trouble = problem
            await asyncio.sleep(LOOK_SECONDS)

    async def enforce(self) -> None:
        """Ask and tell once; raises ``AlbatrossError`` if that did not come to its end."""
        path = os.path.join(self.tmpdir, "util", "extended.sock")
        if not os.path.exists(path):  # upstream's albatrossd, or none: nobody remembers anything
            raise Unreachable(path, "no such socket")
        async with await connect(path, idle_timeout=_ANSWER_SECONDS) as channel:
            after: CertificateId | None = None
            while True:
                answer = await _ask(channel, AskRemembered(after))
                if not isinstance(answer, Remembered):
                    raise Refused(["albatrossd did not say what it remembers"])
                if found := self._revoked(answer.certificates):
                    await self._tell(channel, found)
                if len(answer.certificates) < MOST_CERTIFICATE_IDS:
                    return
                after = answer.certificates[-1]

    def _revoked(self, certificates: Sequence[CertificateId]) -> tuple[CertificateId, ...]:
        now = self.clock()

        def listed(issuer: CertificateFacts) -> frozenset[int]:
            crl = self.lists.view([issuer], now).find(issuer.spki_sha256, issuer.subject)
            return frozenset() if crl is None else crl.serials

        return self.issuers.revoked_among(certificates, self.anchors(), listed, now)

    async def _tell(self, channel: Channel, found: tuple[CertificateId, ...]) -> None:
        entry = {
            "kind": "revoked",
            "time": self.clock().isoformat(),
            "certificates": [{"issuer_key": each.issuer_key.hex(), "serial": f"{each.serial:x}"} for each in found],
            "action": "stop" if self.stop else "keep",
        }
        await self.audit.record(entry)
        outcome = await _ask(channel, Revoked(found, self.stop))
        text = outcome.text if isinstance(outcome, Outcome) else "albatrossd gave no outcome"
        log.warning("%d delegations that albatrossd remembered are revoked: %s", len(found), printable(text, 512))
        succeeded = isinstance(outcome, Outcome) and outcome.succeeded
        with contextlib.suppress(AlbatrossError):
            self.audit.note({"kind": "enforced", "time": self.clock().isoformat(), "succeeded": succeeded,
                             "text": printable(text, 512)})  # fmt: skip
        if not succeeded:
            raise Refused([text])


async def _ask(channel: Channel, message: SideMessage) -> SideMessage | None:
    await channel.send(encode_side(message))
    payload = await channel.receive()
    return decode_side(payload) if payload else None
