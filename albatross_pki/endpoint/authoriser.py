"""The authoriser's sessions: one connection of an endpoint is one client's request after the other.

For each ``JudgeRequest``:

1. the clock must not have gone back, and the chain is judged; what it allows must have a place (``allowances``);
2. a refusal is noted (``recording``) and told with all its reasons;
3. what has to be streamed is asked for; when it is complete the chain is judged again, at that time and by the lists
   of that time;
4. what came is compared with the binding as far as that is possible without opening it;
5. the intent is recorded, and a one-time certificate used up, both on disk;
6. a daemon is asked, and the descriptor that answers come from is passed on;
7. the outcome is recorded, and a one-time certificate released if there provably was no effect.

The session's stream ends when the endpoint closes the connection or comes with the next request, at the end of the
chain's validity, and when a revocation list takes a certificate of the chain back. We hold a second descriptor of the
stream for that, and shut it down for everybody.
"""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

from albatross_pki.authorised import (
    AuthorisedRequest,
    Effect,
    ExecuteRequest,
    Executing,
    JudgeRequest,
    Outcome,
    Stream,
    Verdict,
)
from albatross_pki.commands import UnikernelCreate
from albatross_pki.endpoint.allowances import Allowances, Load, Place
from albatross_pki.endpoint.audit import authorised_entry, most_of, request_entry
from albatross_pki.endpoint.bounds import AuthoriserBounds
from albatross_pki.endpoint.daemons import Daemons, Handed, not_the_bound_image, read_spool
from albatross_pki.endpoint.host_names import HostNames
from albatross_pki.endpoint.issuers import Issuers
from albatross_pki.endpoint.judging import (
    Judged,
    answers_of,
    changes_something,
    dumps_something,
    judge_certificates,
    judge_path,
    verdict_of,
)
from albatross_pki.endpoint.live import LiveStream
from albatross_pki.endpoint.rates import Rate, TokenBuckets
from albatross_pki.endpoint.recording import Recording, Source
from albatross_pki.endpoint.replay import ReplayStore, StoreUnusable
from albatross_pki.endpoint.revocation import RevocationLists
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.extensions import CrlUpdate
from albatross_pki.messages import ROOT, Header, Message
from albatross_pki.policy.certificates import CertificateFacts
from albatross_pki.policy.chain import JudgeOptions
from albatross_pki.replies import Text
from albatross_pki.text import printable
from albatross_pki.transport.channel import Channel
from albatross_pki.transport.descriptors import refuse_unless_file
from albatross_pki.transport.errors import TransportError
from albatross_pki.transport.sockets import close_all
from albatross_pki.wire.framing import frame
from albatross_pki.wire.message import encode_message
from albatross_pki.wire.side import decode_side, encode_side

_COUNTS_SECONDS = 60.0
_COMPLAINTS = Rate(20, 1 / 60)  # warnings about one user of the host

log = logging.getLogger(__name__)


def wall_clock() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class _Asked:
    """One request: its number in the audit log, the client's address, its place, and whether it is listed there."""

    number: str
    peer: str
    place: Place
    listed: bool = True


@dataclass
class Authoriser:
    """What all sessions share. ``peers`` are the user ids that may ask; ``clock`` gives aware UTC."""

    anchors: Sequence[CertificateFacts]
    options: JudgeOptions
    store: ReplayStore
    recording: Recording
    lists: RevocationLists
    issuers: Issuers
    daemons: Daemons
    bounds: AuthoriserBounds
    peers: frozenset[int]
    names: HostNames
    clock: Callable[[], datetime] = wall_clock
    allowances: Allowances = field(init=False)
    streams: set[LiveStream] = field(default_factory=set)
    _outcomes: "set[asyncio.Task[None]]" = field(default_factory=set)
    _requests: int = 0
    _complaints: TokenBuckets = field(default_factory=lambda: TokenBuckets(_COMPLAINTS))

    def __post_init__(self) -> None:
        self.allowances = Allowances(self.bounds)

    async def session(self, channel: Channel) -> None:
        """Serve one connection until it ends."""
        peer = channel.peer
        if peer.uid not in self.peers:
            self._complain(peer.uid, "user %d (process %d) is not an endpoint and was sent away", peer.uid, peer.pid)
            return
        try:
            await self._serve_all(channel)
        except AlbatrossError as error:
            self._complain(peer.uid, "the connection of process %d ended: %s", peer.pid, printable(str(error), 512))

    def _complain(self, uid: int, text: str, *about: object) -> None:
        """Log a warning about a user, who cannot fill the log with them."""
        level = logging.WARNING if self._complaints.try_take(uid, 1, monotonic()) else logging.DEBUG
        log.log(level, text, *about)

    async def _serve_all(self, channel: Channel) -> None:
        request = await channel.receive()
        while request is not None:
            message = decode_side(request)
            del request  # what it says is in the message now
            if not isinstance(message, JudgeRequest):
                raise Refused([f"a request to judge was expected, and {type(message).__name__} came"])
            request = await self._serve(channel, message)
            channel.keep(len(request or b""))  # the one before is over

    async def _serve(self, channel: Channel, request: JudgeRequest) -> bytes | None:
        """Judge and do one request; the next one, ``None`` at the end of the connection."""
        now = self.clock()
        peer = printable(request.peer, 128)
        self._requests += 1
        number = f"{os.getpid()}-{self._requests}"
        judged = self._judge(request, now)
        verdict = verdict_of(judged.judgement, self.bounds)
        place = None
        if judged.judgement.authorised is not None:
            try:
                place = self._place(judged, judged.judgement.authorised, peer)
            except Refused as error:
                verdict = Verdict(verdict.name, error.reasons)
        if place is None:
            await channel.send(encode_side(verdict))
            self._note_refusal(number, now, peer, judged, verdict.reasons)
            return await channel.receive()
        try:
            return await self._serve_accepted(channel, _Asked(number, peer, place), judged, verdict)
        finally:
            place.give_up()

    async def _serve_accepted(self, channel: Channel, asked: _Asked, judged: Judged, verdict: Verdict) -> bytes | None:
        if verdict.stream in (Stream.NOTHING, Stream.BLOCK):  # nothing to wait for: the verdict brings the descriptor
            return await self._execute(channel, asked, judged, None, None)
        await channel.send(encode_side(verdict))
        received = await self._await_spool(channel)
        if received is None:
            return None
        payload, descriptors = received
        try:
            message = decode_side(payload)
            if isinstance(message, JudgeRequest):  # the client went away meanwhile
                return payload
            if not isinstance(message, ExecuteRequest) or len(descriptors) != 1:
                raise Refused(["an execution with one descriptor was expected"])
            return await self._execute(channel, asked, judged, message, descriptors[0])
        finally:
            close_all(descriptors)

    async def _await_spool(self, channel: Channel) -> tuple[bytes, list[int]] | None:
        try:
            async with asyncio.timeout(self.bounds.idle_seconds):
                return await channel.receive_with_descriptors()
        except TimeoutError:
            return None

    # steps 1 and 2

    def _judge(self, request: JudgeRequest, now: datetime) -> Judged:
        self._refresh_lists()
        judged = judge_certificates(request.certificates, self.anchors, self.lists, now=now, options=self.options)
        return self._with_clock(judged, now)

    def _with_clock(self, judged: Judged, now: datetime) -> Judged:
        from albatross_pki.policy.judgement import refusal

        if now < self.store.latest - timedelta(seconds=self.bounds.clock_back_seconds):
            text = (
                f"this host's clock went back behind {self.store.latest.isoformat()}, to "
                f"{now.isoformat(timespec='seconds')}, and nothing is decided by it"
            )
            return Judged(refusal("clock", text, "docs/endpoint.md"), judged.path, judged.anchor)
        self.store.see(now)
        return judged

    def _place(self, judged: Judged, authorised: AuthorisedRequest, peer: str) -> Place:
        """A place for what the chain allows; raises ``Refused``."""
        if self._once(judged, authorised) and self.store.used(authorised.leaf):
            raise Refused(["this certificate was used before, and has effect only once"])
        load = Load(changes_something(authorised.command), dumps_something(authorised.command))
        return self.allowances.admit(authorised.name.path, peer, load, monotonic())

    @staticmethod
    def _once(judged: Judged, authorised: AuthorisedRequest) -> bool:
        return judged.judgement.once and changes_something(authorised.command)

    def _note_refusal(self, number: str, now: datetime, peer: str, judged: Judged, reasons: Sequence[str]) -> None:
        shown = [printable(reason, 512) for reason in most_of(reasons)]
        log.info("refused %s: %s", peer, "; ".join(shown))

        def entry() -> dict[str, Any]:
            return request_entry("refused", number, now, peer, judged.path, judged.anchor) | {"reasons": shown}

        self.recording.refused(Source.of(judged.path), entry, now, monotonic())

    # steps 3 to 7

    async def _execute(
        self,
        channel: Channel,
        asked: _Asked,
        judged: Judged,
        spooled: ExecuteRequest | None,
        spool: int | None,
    ) -> bytes | None:
        now = self.clock()
        if spooled is not None and judged.anchor is not None:
            self._refresh_lists()
            again = judge_path(judged.path, judged.anchor, self.lists, now=now, options=self.options)
            judged = self._with_clock(again, now)
        authorised = judged.judgement.authorised
        try:
            if authorised is None:
                raise Refused(judged.judgement.reasons)
            if spooled is not None and spool is not None:
                refuse_unless_file(spool, self.daemons.directory)
                _check_spool(authorised, spooled, spool, verdict_of(judged.judgement, self.bounds).stream_limit)
            handed = await self._begin(asked, now, judged, authorised, spool)
        except AlbatrossError as error:
            reasons = error.reasons if isinstance(error, Refused) else (error.message,)
            self._note_refusal(asked.number, now, asked.peer, judged, reasons)
            asked.place.give_up()
            await channel.send(encode_side(Verdict(judged.judgement.name or ROOT, reasons)))
            return await channel.receive()
        return await self._pass_on(channel, asked, judged, authorised, handed)

    async def _begin(
        self, asked: _Asked, now: datetime, judged: Judged, authorised: AuthorisedRequest, spool: int | None
    ) -> Handed:
        """Steps 5 and 6, undone as far as they can be if the daemon cannot be asked."""

        def intent() -> dict[str, Any]:
            entry = request_entry("intent", asked.number, now, asked.peer, judged.path, judged.anchor)
            entry |= authorised_entry(authorised, judged.crl_numbers)
            log.info("%s: %s %s", asked.peer, entry["command"], entry["name"])
            return entry

        source = Source.of(judged.path)
        if not changes_something(authorised.command):
            asyncio.get_running_loop().call_soon(self._note_read, asked, source, intent, now)
            return await self._ask(judged, authorised, spool, now)  # reads are not held up
        await self.recording.change(source, intent(), monotonic())
        delegation = authorised.name.path.labels[0] if authorised.name.path.labels else ""
        self.issuers.saw(judged.cas, delegation, now)
        once = self._once(judged, authorised)
        if once:
            self.store.consume(authorised.leaf, authorised.not_after, delegation)
        try:
            return await self._ask(judged, authorised, spool, now)
        except Refused:
            if once:
                self._release(authorised)
            raise

    def _release(self, authorised: AuthorisedRequest) -> None:
        try:
            self.store.release(authorised.leaf)
        except StoreUnusable as error:  # it stays used, which is the safe side
            log.error("%s", error)

    def _note_read(self, asked: _Asked, source: Source, entry: Callable[[], dict[str, Any]], now: datetime) -> None:
        asked.listed = self.recording.read(source, entry, now, monotonic())

    async def _ask(self, judged: Judged, authorised: AuthorisedRequest, spool: int | None, now: datetime) -> Handed:
        if isinstance(authorised.command, CrlUpdate) and spool is not None:
            return self._take_list(judged, authorised, spool, now)
        return await self.daemons.ask(authorised, spool)

    def _take_list(self, judged: Judged, authorised: AuthorisedRequest, spool: int, now: datetime) -> Handed:
        octets = read_spool(spool, self.bounds.crl_octets + 1)
        delegation = authorised.policies[0].path.labels[0] if authorised.policies else ""
        crl = self.lists.push(octets, judged.cas, delegation, now)
        self.end_revoked()
        text = f"revocation list number {crl.number} with {len(crl.serials)} entries is in force"
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.sendall(frame(encode_message(Message(Header(authorised.name), Text(text)))))

        async def outcome() -> Outcome:
            return Outcome(True, Effect.CHANGED, text)

        return Handed(ours, outcome)

    async def _pass_on(
        self, channel: Channel, asked: _Asked, judged: Judged, authorised: AuthorisedRequest, handed: Handed
    ) -> bytes | None:
        verdict = verdict_of(judged.judgement, self.bounds)
        told = Executing() if verdict.stream in (Stream.IMAGE, Stream.CRL) else verdict
        stream = LiveStream(judged, handed.connection, channel, answers_of(authorised.command))
        self.streams.add(stream)
        relay = asyncio.ensure_future(handed.relay()) if handed.relay is not None else None
        try:
            self._spawn(self._settle(asked, judged, authorised, handed.outcome))
            await channel.send(encode_side(told), [handed.connection.fileno()])
            return await self._until_over(channel, stream, authorised.not_after)
        finally:
            stream.shut()
            handed.connection.close()
            self.streams.discard(stream)
            if relay is not None:
                relay.cancel()
                await asyncio.gather(relay, return_exceptions=True)

    async def _until_over(self, channel: Channel, stream: LiveStream, not_after: datetime) -> bytes | None:
        """Wait for the endpoint; the stream ends with the chain's validity."""
        left = (not_after - self.clock()).total_seconds()
        timer = asyncio.get_running_loop().call_later(
            max(0.0, left), lambda: self._spawn(stream.end("a certificate of the chain has expired"))
        )
        try:
            return await channel.receive()
        finally:
            timer.cancel()

    def _spawn(self, settling: "Awaitable[None]") -> None:
        task = asyncio.ensure_future(settling)
        self._outcomes.add(task)
        task.add_done_callback(self._outcomes.discard)

    async def _settle(
        self, asked: _Asked, judged: Judged, authorised: AuthorisedRequest, outcome: Callable[[], Awaitable[Outcome]]
    ) -> None:
        result = await outcome()
        if answers_of(authorised.command) == "single":  # nothing more comes; others end with their connection
            asked.place.give_up()
        if result.effect is Effect.NONE and self._once(judged, authorised):
            self._release(authorised)
        if not asked.listed:
            return
        entry = {
            "kind": "outcome",
            "time": self.clock().isoformat(),
            "request": asked.number,
            "succeeded": result.succeeded,
            "effect": result.effect.value,
            "text": printable(result.text, 512),
        }
        self.recording.outcome(entry)

    def _refresh_lists(self) -> None:
        if self.lists.refresh() and self.streams:
            self.end_revoked()

    def refresh_names(self) -> None:
        """Look at the endpoint's certificate; streams that its names do not allow any more end."""
        if self.names.refresh(self.anchors, self.clock()):
            self.options = replace(self.options, hosts=self.names.names)
            self.end_revoked()

    def end_revoked(self) -> None:
        """End the streams whose chain is revoked by the lists as they are now."""
        now = self.clock()
        for stream in tuple(self.streams):
            judged = stream.judged
            if judged.anchor is None:
                continue
            again = judge_path(judged.path, judged.anchor, self.lists, now=now, options=self.options)
            if again.judgement.authorised is None:
                self._spawn(stream.end("; ".join(again.judgement.reasons)))

    async def watch_lists(self, seconds: float = 1.0) -> None:
        """Look at the directory of lists for ever, so that a new list ends streams within ``seconds``."""
        due = monotonic() + _COUNTS_SECONDS
        while True:
            await asyncio.sleep(seconds)
            self._refresh_lists()
            self.refresh_names()
            if monotonic() >= due:
                due = monotonic() + _COUNTS_SECONDS
                self.recording.tell_counts(self.clock())

    async def drain(self, seconds: float) -> None:
        """Wait for outcomes that are still owed, but not for ever."""
        if self._outcomes:
            await asyncio.wait(tuple(self._outcomes), timeout=seconds)
        self.recording.tell_counts(self.clock())


def _check_spool(authorised: AuthorisedRequest, spooled: ExecuteRequest, spool: int, limit: int) -> None:
    """What can be said about the spooled octets without reading them; albatrossd reads and judges them anyway."""
    size = os.fstat(spool).st_size
    if size > limit:
        raise Refused([f"{size} octets were spooled where the certificate allows {limit}"])
    if size != spooled.spooled:
        raise TransportError(f"the endpoint spooled {size} octets and says {spooled.spooled}")
    match authorised.command:
        case UnikernelCreate(config=config) if authorised.binding is not None and not config.compressed:
            if (spooled.digest, size) != (authorised.binding.digest, authorised.binding.size):
                raise Refused([not_the_bound_image(spooled.digest, size, authorised.binding)])
        case UnikernelCreate() if size == 0:
            raise Refused(["the image that was streamed is empty"])
