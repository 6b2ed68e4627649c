"""A stream is over for everybody at once, whether or not the endpoint listens."""

import asyncio
import socket
from time import monotonic

from albatross_pki.endpoint.judging import Judged
from albatross_pki.endpoint.live import LiveStream
from albatross_pki.policy.judgement import refusal
from albatross_pki.transport.channel import Channel


def test_p14_an_endpoint_that_does_not_listen_gains_no_time_by_it() -> None:
    async def end() -> float:
        ours, theirs = socket.socketpair()
        daemon, answers = socket.socketpair()
        with ours, theirs, daemon, answers:
            ours.setblocking(False)
            try:
                while True:
                    ours.send(bytes(65536))
            except BlockingIOError:
                pass
            judged = Judged(refusal("chain", "revoked", "a test"), (), None)
            stream = LiveStream(judged, answers, Channel(ours), "read")
            begin = monotonic()
            await stream.end("a certificate of the chain was revoked")
            daemon.settimeout(5)
            assert daemon.recv(1) == b""
            return monotonic() - begin

    assert asyncio.run(end()) < 10
