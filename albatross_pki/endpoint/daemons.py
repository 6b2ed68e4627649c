"""Asking the daemons for others. Nobody but the authoriser does this, and only with an ``AuthorisedRequest``.

Which daemon, in this order: 1. commands about consoles and statistics go to theirs, in AV5; 2. everything else to
albatrossd's ``extended.sock``, as a whole; 3. where that socket does not exist the host runs upstream's daemon, and the
request becomes AV5: the chain's policies, the root's side first, then the command with its image inside. What AV5
cannot say is then refused: extended commands, and restarts below a constraint on images, which that daemon would not
check; and an image is compared with its binding here, because nobody behind us will.

What comes back is a connected descriptor that answers come from, and, later, what came of it.
"""

import asyncio
import contextlib
import hashlib
import itertools
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from albatross_pki.authorised import AuthorisedRequest, Effect, Outcome
from albatross_pki.commands import (
    BlockAddOld,
    BlockSetOld,
    ConsoleAdd,
    ConsoleInactive,
    ConsoleSubscribe,
    PolicyAdd,
    StatsAdd,
    StatsInitial,
    StatsRemove,
    StatsSubscribe,
    UnikernelCreate,
    UnikernelRestart,
)
from albatross_pki.endpoint.bounds import AuthoriserBounds
from albatross_pki.errors import AlbatrossError, Refused
from albatross_pki.extensions import AnyCommand, ExtendedCommand, ImageBinding
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.policy.constraints import command_word
from albatross_pki.replies import Failure, Success
from albatross_pki.text import printable
from albatross_pki.transport.channel import Channel, connect
from albatross_pki.transport.errors import ConnectionCut, TransportError, Unreachable
from albatross_pki.transport.memory import SharedOctets
from albatross_pki.transport.sockets import readable
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.message import decode_message, encode_message
from albatross_pki.wire.side import decode_side, encode_side

_UNKNOWN = Outcome(False, Effect.UNKNOWN, "handed over; what came of it is not known here")
_READ = Outcome(True, Effect.NONE, "handed over")
_PIECE = 1 << 20
_ROOM_SECONDS = 30.0  # until others have given back memory
_KEPT = 16  # connections to albatrossd that wait for the next request


class PartlyDone(AlbatrossError):
    """A request that was refused after some of the chain's policies had been set."""


@dataclass(frozen=True, slots=True)
class Handed:
    """``connection`` is where answers come from. ``outcome`` waits for what came of it.

    ``relay``, where there is one, has to run for answers to come.
    """

    connection: socket.socket
    outcome: Callable[[], Awaitable[Outcome]]
    relay: Callable[[], Awaitable[None]] | None = None


class Daemons:
    """The daemons behind the sockets below ``tmpdir``."""

    def __init__(self, tmpdir: str, bounds: AuthoriserBounds, memory: SharedOctets) -> None:
        self.directory = os.path.join(tmpdir, "util")
        self._memory = memory
        self._bounds = bounds
        self._sequence = itertools.count()
        self._kept: list[Channel] = []

    async def ask(self, authorised: AuthorisedRequest, image: int | None) -> Handed:
        """Have ``authorised`` done; ``image`` is a descriptor of spooled octets, which stays the caller's.

        Raises ``Refused`` or ``TransportError``; then nothing was changed, unless ``PartlyDone`` says otherwise.
        """
        if image is None or not self._goes_inside(authorised):
            return await self._ask(authorised, image)
        octets = os.fstat(image).st_size
        if octets > self._bounds.inline_octets:
            raise Refused([f"{octets} octets are too many for a message (at most {self._bounds.inline_octets})"])
        await self._room_for(octets)
        try:
            return await self._ask(authorised, image)
        finally:
            self._memory.give_back(octets)

    async def _room_for(self, octets: int) -> None:
        try:
            async with asyncio.timeout(_ROOM_SECONDS):
                await self._memory.take(octets)
        except TimeoutError as error:
            most = self._memory.most
            reason = f"other requests have the memory for {octets} octets ({most} for all, --request-octets)"
            raise Refused([f"{reason}, try again later"]) from error

    def _goes_inside(self, authorised: AuthorisedRequest) -> bool:
        """Whether what was spooled has to be put into a message, and so through our memory."""
        old = isinstance(authorised.command, BlockAddOld | BlockSetOld)
        return old or not os.path.exists(self._path("extended.sock"))

    async def _ask(self, authorised: AuthorisedRequest, image: int | None) -> Handed:
        match authorised.command:
            case ConsoleSubscribe() | ConsoleInactive():
                return await self._ask_helper("console.sock", authorised)
            case StatsSubscribe():
                return await self._ask_stats(authorised)
            case ConsoleAdd() | StatsAdd() | StatsRemove() | StatsInitial():
                raise Refused([f"the command {command_word(authorised.command)} is between daemons"])
        extended = self._path("extended.sock")
        if os.path.exists(extended):
            return await self._ask_extended(extended, authorised, image)
        return await self._ask_av5(authorised, image)

    def _path(self, socket_name: str) -> str:
        return os.path.join(self.directory, socket_name)

    async def _ask_extended(self, path: str, authorised: AuthorisedRequest, image: int | None) -> Handed:
        if isinstance(authorised.command, BlockAddOld | BlockSetOld) and image is not None:
            authorised, image = replace(authorised, command=self._filled(authorised, image)), None
        octets = encode_side(authorised)
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                passed = [theirs.fileno()] if image is None else [theirs.fileno(), image]
                channel = await self._send_extended(path, octets, passed)
        except BaseException:
            ours.close()
            raise
        return Handed(ours, lambda: self._outcome(channel))

    async def _send_extended(self, path: str, octets: bytes, descriptors: list[int]) -> Channel:
        """Send a request on a connection that was used before if there is one that still stands, else on a new one."""
        while self._kept:
            channel = self._kept.pop()
            if not readable(channel.socket):  # else its other end is gone: nothing is owed on it
                with contextlib.suppress(ConnectionCut):
                    await channel.send(octets, descriptors)
                    return channel
            channel.close()
        channel = await _reach(path)
        try:
            await channel.send(octets, descriptors)
        except BaseException:
            channel.close()
            raise
        return channel

    async def _outcome(self, channel: Channel) -> Outcome:
        message = None
        try:
            payload = await channel.receive()
            message = decode_side(payload) if payload else None
        except AlbatrossError as error:
            return Outcome(False, Effect.UNKNOWN, f"albatrossd did not report: {error.message}")
        finally:
            if isinstance(message, Outcome) and len(self._kept) < _KEPT:
                self._kept.append(channel)
            else:
                channel.close()
        if isinstance(message, Outcome):
            return message
        return Outcome(False, Effect.UNKNOWN, "albatrossd went away without a report")

    def close(self) -> None:
        while self._kept:
            self._kept.pop().close()

    async def _ask_helper(self, socket_name: str, authorised: AuthorisedRequest) -> Handed:
        channel = await _reach(self._path(socket_name))
        try:
            await self._send(channel, authorised.name, authorised.command)
            return Handed(channel.detach(), _handed_over(_READ))
        finally:
            channel.close()

    async def _ask_stats(self, authorised: AuthorisedRequest) -> Handed:
        """Statistics go through us: their daemon goes on reading commands on the same connection."""
        channel = await _reach(self._path("stat.sock"))
        ours, theirs = socket.socketpair()
        try:
            await self._send(channel, authorised.name, authorised.command)
        except BaseException:
            ours.close()
            theirs.close()
            channel.close()
            raise
        return Handed(theirs, _handed_over(_READ), lambda: _relay(channel, Channel(ours)))

    async def _ask_av5(self, authorised: AuthorisedRequest, image: int | None) -> Handed:
        command = self._as_av5(authorised, image)
        channel = await _reach(self._path("vmmd.sock"))
        added = 0
        try:
            for policy in authorised.policies:
                name = Name.of_path(policy.path)
                await self._send(channel, name, PolicyAdd(policy.policy))
                await self._expect_success(channel)
                added += 1
            await self._send(channel, authorised.name, command)
            return Handed(channel.detach(), _handed_over(_UNKNOWN))
        except Refused as error:
            if added:
                raise PartlyDone(error.message) from error
            raise
        finally:
            channel.close()

    def _as_av5(self, authorised: AuthorisedRequest, image: int | None) -> AnyCommand:
        command = authorised.command
        if isinstance(command, ExtendedCommand):
            raise Refused([f"this host's albatrossd does not know the command {command_word(command)}"])
        constrained = authorised.images is not None or authorised.deployments is not None
        if isinstance(command, UnikernelRestart) and constrained:
            raise Refused(["this host's albatrossd cannot hold a restart to the images that the chain allows"])
        if image is None:
            return command
        return self._filled(authorised, image)

    def _filled(self, authorised: AuthorisedRequest, image: int) -> AnyCommand:
        """The command with the spooled octets inside."""
        octets = _content(image, self._bounds.inline_octets)
        match authorised.command:
            case UnikernelCreate(config=config) as create:
                if authorised.binding is not None:
                    check_binding(octets, config.compressed, authorised.binding)
                return replace(create, config=replace(config, image=octets))
            case BlockAddOld() | BlockSetOld() as old:
                return replace(old, content=octets)
        return authorised.command

    async def _send(self, channel: Channel, name: Name, command: AnyCommand) -> None:
        if isinstance(command, ExtendedCommand):
            raise RuntimeError("an extended command has no AV5 form")
        await channel.send(encode_message(Message(Header(name, next(self._sequence)), command)))

    async def _expect_success(self, channel: Channel) -> None:
        try:
            async with asyncio.timeout(self._bounds.daemon_seconds):
                payload = await channel.receive()
        except TimeoutError as error:
            raise PartlyDone("albatrossd did not answer when a policy was added") from error
        answer = decode_message(payload).payload if payload else None
        if isinstance(answer, Failure):
            raise Refused([f"expected success when adding policy, got: {printable(answer.text)}"])
        if not isinstance(answer, Success):
            raise PartlyDone("read error after writing policy")


def check_binding(octets: bytes, compressed: bool, binding: ImageBinding) -> None:
    """Refuse an image that is not the bound one; raises ``Refused``."""
    digest, size = hashlib.sha256(), 0
    if compressed:
        from albatross_pki.wire.compression import Inflater

        inflater = Inflater(binding.size)
        try:
            for piece in inflater.pieces(octets):
                digest.update(piece)
                size += len(piece)
            inflater.finish()
        except MalformedMessage as error:
            raise Refused([f"the image cannot be decompressed: {error.message}"]) from error
    else:
        digest.update(octets)
        size = len(octets)
    if (digest.digest(), size) != (binding.digest, binding.size):
        raise Refused([not_the_bound_image(digest.digest(), size, binding)])


def not_the_bound_image(digest: bytes, size: int, binding: ImageBinding) -> str:
    return (
        f"the image that was streamed has digest {digest.hex()} ({size} octets), "
        f"the certificate binds {binding.digest.hex()} ({binding.size} octets)"
    )


def _content(descriptor: int, limit: int) -> bytes:
    size = os.fstat(descriptor).st_size
    if size > limit:
        raise Refused([f"{size} octets are too many for this host's albatrossd (at most {limit})"])
    return read_spool(descriptor, size)


def read_spool(descriptor: int, most: int) -> bytes:
    """At most ``most`` of the octets that an endpoint spooled, as they are now; raises ``Refused``."""
    pieces: list[bytes] = []
    position = 0
    try:
        while position < most and (piece := os.pread(descriptor, min(_PIECE, most - position), position)):
            pieces.append(piece)
            position += len(piece)
    except OSError as error:
        raise Refused([f"what was spooled cannot be read: {os.strerror(error.errno or 0).lower()}"]) from error
    return b"".join(pieces)


async def _reach(path: str) -> Channel:
    try:
        return await connect(path)
    except Unreachable as error:
        daemon = {"console.sock": "albatross-console", "stat.sock": "albatross-stats"}.get(
            os.path.basename(path), "albatrossd"
        )
        raise Refused([f"couldn't reach service: {daemon} is not running ({error.reason})"]) from error


def _handed_over(outcome: Outcome) -> Callable[[], Awaitable[Outcome]]:
    async def known() -> Outcome:
        return outcome

    return known


async def _relay(source: Channel, target: Channel) -> None:
    """Frames from ``source`` to ``target`` until either ends; what ``target`` says ends it as well."""

    async def forward() -> None:
        while (payload := await source.receive()) is not None:
            await target.send(payload)

    async with source, target:
        tasks = [asyncio.ensure_future(forward()), asyncio.ensure_future(target.receive())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, TransportError):
                    raise result
