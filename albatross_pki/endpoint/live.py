"""A stream that is under way, and how the authoriser ends it for everybody.

The authoriser holds a second descriptor of every connection that it handed to an endpoint. Shutting that one down ends
the stream whatever the endpoint does, and a word to the endpoint goes before it, so that the client can be told why.
Answers that are one message get no such word: they are over before it could matter, and the connection to the endpoint
is used again.
"""

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass

from albatross_pki.authorised import Verdict
from albatross_pki.endpoint.judging import Judged
from albatross_pki.messages import ROOT
from albatross_pki.transport.channel import Channel
from albatross_pki.transport.errors import TransportError
from albatross_pki.wire.side import encode_side

_WORD_SECONDS = 1.0

log = logging.getLogger(__name__)


@dataclass(eq=False)
class LiveStream:
    """A stream under way: our descriptor of it, and the chain that it stands on."""

    judged: Judged
    connection: socket.socket
    endpoint: Channel
    answers: str

    async def end(self, why: str) -> None:
        """Tell the endpoint why, then shut the stream down for everybody who has it."""
        log.info("a stream of %s was ended: %s", self.judged.judgement.name, why)
        if self.answers != "single":
            with contextlib.suppress(TransportError, TimeoutError):
                async with asyncio.timeout(_WORD_SECONDS):  # an endpoint that does not listen gains no time by it
                    await self.endpoint.send(encode_side(Verdict(self.judged.judgement.name or ROOT, (why,))))
        self.shut()

    def shut(self) -> None:
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
