"""The statistics daemon's shell: asks albatrossd whom to watch, samples, streams to subscribers.

Three things run side by side:

1. the connection to albatrossd, inverted: we connect and say ``statistics initial``; once it is accepted, commands come
   *from* albatrossd. When it breaks, what was watched is forgotten, subscribers stay, and it is tried again;
2. ``util/stat.sock``: subscriptions from anybody who can connect, ``add`` and ``remove`` from albatrossd's user, root
   and our own user only;
3. the sampling, once per interval, in short turns, so that neither of the others waits for a thousand processes.

A subscriber that does not read misses samples and delays nobody.
"""

import asyncio
import contextlib
import logging
import socket
import time

from albatross_pki.commands import StatsAdd, StatsInitial, StatsRemove, StatsSubscribe
from albatross_pki.errors import AlbatrossError
from albatross_pki.host.command_loop import answer, refuse, serve_commands
from albatross_pki.host.console_subscriber import Subscriber
from albatross_pki.host.network_links import find_link
from albatross_pki.host.network_netlink import ROUTE, Netlink, NetlinkError
from albatross_pki.host.stats import Audience, Watched, checked
from albatross_pki.host.stats_prometheus import serve_scrapes
from albatross_pki.host.stats_sampling import NoProcess, read_process, start_ticks, statistics
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.replies import Empty, Statistics, Text
from albatross_pki.text import printable
from albatross_pki.transport.channel import Channel, Served, connect, serve_unix
from albatross_pki.transport.errors import TransportError
from albatross_pki.wire.framing import frame
from albatross_pki.wire.message import decode_message, encode_message

INTERVAL = 10.0  # seconds between samples, Albatross' default
FRAME_LIMIT = 64 * 1024  # octets; the largest command is an add with 63 interfaces
MAX_CONNECTIONS = 256
BACKLOG = 512 * 1024  # octets that wait for one subscriber: about a thousand samples
FIRST_COMMAND_TIMEOUT = 30.0  # seconds for a connection to say what it wants
ANSWER_TIMEOUT = 5.0  # seconds for albatrossd to accept us
RETRY = 1.0  # seconds between attempts to reach albatrossd
TURN = 20  # unikernels sampled before others get a turn: about two milliseconds

log = logging.getLogger(__name__)


class StatsServer:
    """Everything of one statistics daemon; ``trusted`` are the users who may say whom to watch."""

    def __init__(
        self,
        daemon_path: str,
        trusted: frozenset[int],
        interval: float = INTERVAL,
        audience: Audience[Subscriber] | None = None,
        scrapes: tuple[str, int] | None = None,
    ) -> None:
        self._daemon_path = daemon_path
        self._trusted = trusted
        self._interval = interval
        self._audience: Audience[Subscriber] = Audience() if audience is None else audience
        self._scrapes = scrapes
        self._netlink: Netlink | None = None
        self.connections = Served()

    async def serve(self, listener: socket.socket) -> None:
        """Serve until cancelled."""
        with contextlib.suppress(OSError):
            self._netlink = Netlink(ROUTE)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow_daemon())
                tasks.create_task(self._sample_regularly())
                if self._scrapes is not None:
                    tasks.create_task(serve_scrapes(*self._scrapes, self.collect))
                tasks.create_task(
                    serve_unix(
                        listener,
                        self._connection,
                        max_connections=MAX_CONNECTIONS,
                        limit=FRAME_LIMIT,
                        idle_timeout=FIRST_COMMAND_TIMEOUT,
                        trusted=self._trusted,
                        per_user=MAX_CONNECTIONS // 2,  # the authoriser's, for all of its clients
                        served=self.connections,
                    )
                )
        finally:
            if self._netlink is not None:
                self._netlink.close()

    # albatrossd

    async def _follow_daemon(self) -> None:
        reported = ""
        while True:
            try:
                async with await connect(self._daemon_path, limit=FRAME_LIMIT) as channel:
                    await self._introduce(channel)
                    log.info("albatrossd tells us whom to watch")
                    reported = ""
                    while await self._obey(channel):
                        pass
                log.warning("albatrossd closed the connection")
            except AlbatrossError as error:
                if str(error) != reported:  # once, not every second
                    log.warning("no connection to albatrossd: %s", printable(str(error)))
                reported = str(error)
            self._audience.forget_all()
            await asyncio.sleep(RETRY)

    async def _introduce(self, channel: Channel) -> None:
        await channel.send(encode_message(Message(Header(), StatsInitial())))
        channel.idle_timeout = ANSWER_TIMEOUT
        payload = await channel.receive()
        answer = decode_message(payload) if payload else None
        if answer is None or answer.header != Header() or not isinstance(answer.payload, Empty):
            raise AlbatrossError("albatrossd does not take our statistics")
        channel.idle_timeout = None

    async def _obey(self, channel: Channel) -> bool:
        """Serve one command of albatrossd; returns whether the connection may go on."""
        payload = await channel.receive()
        if not payload:
            return False
        message = decode_message(payload)
        try:
            await answer(channel, message.header, self._change(message))
        except TransportError:
            raise
        except AlbatrossError as error:
            await refuse(channel, message.header, error)
        return True

    def _change(self, message: Message) -> Text:
        name = message.header.name
        match message.payload:
            case StatsAdd(_, pid, network):
                checked(pid, network)
                self._audience.watch(name, Watched(pid, start_ticks(read_process(pid)), network))
                return Text("added")
            case StatsRemove():
                if not self._audience.forget(name):
                    log.warning("%s was not watched", name)
                return Text("removed")
            case StatsInitial():
                raise AlbatrossError("unexpected message initial")
            case _:
                raise AlbatrossError("unexpected command")

    # subscribers

    async def _connection(self, channel: Channel) -> None:
        await serve_commands(channel, self._execute)

    async def _execute(self, channel: Channel, message: Message) -> bool:
        if isinstance(message.payload, StatsSubscribe):
            await self._subscribe(channel, message.header)
            return False
        if isinstance(message.payload, (StatsAdd, StatsRemove)):
            self._check_peer(channel)
        await answer(channel, message.header, self._change(message))
        return True

    def _check_peer(self, channel: Channel) -> None:
        peer = channel.peer
        if peer.uid not in self._trusted:
            log.warning("user %d (process %d) tried to change what is watched", peer.uid, peer.pid)
            raise AlbatrossError(f"user {peer.uid} may not change what is watched")

    async def _subscribe(self, channel: Channel, header: Header) -> None:
        subscriber = Subscriber(channel.socket, BACKLOG, lambda _: b"")
        former = self._audience.subscribe(header.name, subscriber)
        try:
            subscriber.answer(frame(encode_message(Message(header, Text("subscribed")))))
            if former is not None:
                former.close()
            channel.idle_timeout = None
            await channel.receive()
        finally:
            subscriber.close()
            self._audience.unsubscribe(header.name, subscriber)
            if subscriber.backlog.missed_in_all:
                log.warning("a subscriber of %s missed %d samples", header.name, subscriber.backlog.missed_in_all)

    # sampling

    async def _sample_regularly(self) -> None:
        """One pass at each multiple of the interval; a pass that takes longer makes the next one wait."""
        due = time.monotonic()
        while True:
            due = max(due + self._interval, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            await self.sample(self._audience.wanted())

    async def sample(self, names: list[Name]) -> None:
        """Sample the unikernels of those names and tell who listens."""
        for begin in range(0, len(names), TURN):
            for name in names[begin : begin + TURN]:
                self._sample(name)
            await asyncio.sleep(0)

    async def collect(self) -> list[tuple[Name, Statistics]]:
        """A sample of every unikernel, now, whoever listens."""
        samples = []
        for number, name in enumerate(self._audience.everybody()):
            if (sample := self._taken(name)) is not None:
                samples.append((name, sample))
            if number % TURN == 0:
                await asyncio.sleep(0)
        return samples

    def _sample(self, name: Name) -> None:
        sample = self._taken(name)
        if sample is None:
            return
        frames: dict[Name, bytes] = {}  # encoded once for all who see the same name
        for shown, subscriber in self._audience.listeners(name):
            if shown not in frames:
                frames[shown] = frame(encode_message(Message(Header(shown), sample)))
            subscriber.offer(frames[shown], 1)

    def _taken(self, name: Name) -> Statistics | None:
        """A sample, or ``None`` if the unikernel is not watched or its process is gone."""
        watched = self._audience.find(name)
        if watched is None:
            return None
        try:
            return self._gather(watched)
        except NoProcess as error:
            log.error("%s is no longer watched: %s", name, error)
            self._audience.forget(name)
            return None

    def _gather(self, watched: Watched) -> Statistics:
        octets = read_process(watched.pid)
        if start_ticks(octets) != watched.started:
            raise NoProcess(f"process {watched.pid} is another one now")
        interfaces = []
        for device, tap in watched.network:
            try:
                link = find_link(self._netlink, tap) if self._netlink is not None else None
            except NetlinkError as error:
                log.warning("interface %s: %s", printable(tap), error)
                link = None
            if link is not None and link.counters is not None:
                interfaces.append((device, link))
        return statistics(octets, interfaces)
