"""The two sockets of albatrossd: who may say what on them, and when a connection ends.

``vmmd.sock`` speaks AV5 and nothing else: one command, one answer, then it is closed, except after a ``policy add``
that succeeded (the next command follows) and after ``statistics initial`` (from then on we ask). The socket's mode says
who may connect; whoever can is the operator, except users who are named as being there for statistics alone.

``extended.sock`` takes authorised requests as a whole, from root, our own user and the authoriser's users alone. With
each comes a descriptor for the answers and, for some, one with an image; the outcome goes back on the connection
itself. Extended commands of people on the host come there too, because AV5 has no place for them: from whoever may
connect to ``vmmd.sock``, and answered on the same connection.
"""

import logging
import os
import socket
import stat
from dataclasses import replace

from albatross_pki.authorised import (
    AskRemembered,
    AuthorisedRequest,
    Effect,
    LocalRequest,
    Outcome,
    Remembered,
    Revoked,
)
from albatross_pki.commands import PolicyAdd, StatsInitial
from albatross_pki.host.commands import Commands, Request
from albatross_pki.host.conversation import Conversation
from albatross_pki.host.limits import IDLE_TIMEOUT, MAX_FRAME
from albatross_pki.host.revoked import Revocation
from albatross_pki.host.rights import OPERATOR, Rights
from albatross_pki.host.statistics_link import told_of
from albatross_pki.host.supervisor import Supervisor
from albatross_pki.messages import Header, Message
from albatross_pki.replies import Empty, Failure
from albatross_pki.text import printable
from albatross_pki.transport.channel import Channel
from albatross_pki.transport.descriptors import refuse_unless_file
from albatross_pki.transport.errors import TransportError
from albatross_pki.transport.sockets import close_all, may_connect
from albatross_pki.wire.errors import MalformedMessage
from albatross_pki.wire.message import decode_message, encode_message
from albatross_pki.wire.side import decode_side, encode_side

log = logging.getLogger(__name__)


class Server:
    """What happens on the connections of one daemon.

    ``trusted`` are the users who may authorise requests; of ``statisticians`` only the request for statistics is taken.
    """

    def __init__(
        self, supervisor: Supervisor, trusted: frozenset[int], statisticians: frozenset[int] = frozenset()
    ) -> None:
        self._supervisor = supervisor
        self._commands = Commands(supervisor)
        self._revocation = Revocation(supervisor)
        self._trusted = trusted
        self._statisticians = statisticians - trusted
        self._local_path = os.path.join(supervisor.host.tmpdir, "util", "vmmd.sock")

    async def local(self, channel: Channel) -> None:
        """One connection to ``vmmd.sock``."""
        peer = f"user {channel.peer.uid}"
        try:
            while payload := await channel.receive():
                if not await self._local_command(channel, payload, peer):
                    return
        except TransportError as error:
            log.info("a connection of %s ended: %s", peer, error)

    async def _local_command(self, channel: Channel, payload: bytes, peer: str) -> bool:
        """Whether another command may follow."""
        try:
            message = decode_message(payload)
        except MalformedMessage as error:
            log.warning("error while parsing data of %s: %s", peer, printable(str(error)))
            await channel.send(encode_message(Message(Header(), Failure(str(error)))))
            return False
        command, header = message.payload, message.header
        if isinstance(command, StatsInitial):
            await self._statistics(channel, header)
            return False
        conversation = Conversation(channel, header)
        if channel.peer.uid in self._statisticians:
            log.warning("%s asked for more than statistics", peer)
            await conversation.answer(Failure("only statistics are for this user"))
            return False
        if not self._commands.knows(command):
            await conversation.answer(Failure("unknown command"))
            return False
        rights = replace(OPERATOR, by=channel.peer.uid)
        outcome = await self._commands.execute(Request(header.name, command, rights, peer), conversation)
        return outcome.succeeded and isinstance(command, PolicyAdd)

    async def _statistics(self, channel: Channel, header: Header) -> None:
        await channel.send(encode_message(Message(header, Empty())))
        present = [
            (each.name, told_of(each.running.process.pid, each.running.record.taps))
            for each in self._supervisor.table.values()
            if each.running is not None
        ]
        channel.idle_timeout = IDLE_TIMEOUT
        await self._supervisor.statistics.serve(channel, header.sequence, present)

    async def extended(self, channel: Channel) -> None:
        """One connection to ``extended.sock``."""
        uid = channel.peer.uid
        if not self._may_speak(channel):
            log.warning("user %d may not authorise requests, nor make any", uid)
            return
        try:
            while received := await channel.receive_with_descriptors():
                payload, descriptors = received
                try:
                    answer = await self._extended_request(channel, payload, descriptors)
                finally:
                    close_all(descriptors)
                if answer is None:
                    return
                await channel.send(encode_side(answer))
        except TransportError as error:
            log.info("a connection to extended.sock of user %d ended: %s", uid, error)

    async def _extended_request(
        self, channel: Channel, payload: bytes, descriptors: list[int]
    ) -> Outcome | Remembered | None:
        """What came of a request of the authoriser; ``None`` if the connection is over."""
        uid = channel.peer.uid
        trusted = uid in self._trusted
        try:
            request = decode_side(payload)
        except MalformedMessage as error:
            log.warning("a request of user %d cannot be understood: %s", uid, printable(str(error)))
            return Outcome(False, Effect.NONE, str(error)) if trusted else None
        if isinstance(request, LocalRequest):
            await self._local_request(channel, request)
            return None
        if not trusted:
            log.warning("user %d may not authorise requests", uid)
            return None
        match request:
            case AuthorisedRequest():
                return await self._authorised(request, descriptors)
            case AskRemembered(after=after):
                return self._revocation.page(after)
            case Revoked():
                return await self._revocation.revoke(request)
        return Outcome(False, Effect.NONE, "only requests are taken here")

    def _may_speak(self, channel: Channel) -> bool:
        return channel.peer.uid in self._trusted or self._is_operator(channel)

    def _is_operator(self, channel: Channel) -> bool:
        """Whoever may connect to ``vmmd.sock`` and is not there for statistics alone."""
        return channel.peer.uid not in self._statisticians and may_connect(channel.socket, self._local_path)

    async def _local_request(self, channel: Channel, request: LocalRequest) -> None:
        uid = channel.peer.uid
        conversation = Conversation(channel, Header(request.name))
        if not self._is_operator(channel):  # the authoriser's user is not
            log.warning("user %d may not make requests of its own", uid)
            await conversation.answer(Failure("only those who may connect to vmmd.sock may ask this"))
            return
        rights = replace(OPERATOR, by=uid)
        await self._commands.execute(Request(request.name, request.command, rights, f"user {uid}"), conversation)

    async def _authorised(self, request: AuthorisedRequest, descriptors: list[int]) -> Outcome:
        try:
            answers, image = self._descriptors(descriptors)
        except TransportError as error:
            log.warning("a request of the authoriser cannot be taken: %s", error)
            return Outcome(False, Effect.NONE, str(error))
        asked = Request(
            name=request.name,
            command=request.command,
            rights=Rights.of(request),
            peer=f"certificate {request.leaf.serial:x}",
            image=image,
            show_arguments=request.may_get,
        )
        async with Channel(answers, limit=MAX_FRAME, idle_timeout=IDLE_TIMEOUT) as channel:
            return await self._commands.execute(asked, Conversation(channel, Header(request.name)))

    def _descriptors(self, descriptors: list[int]) -> tuple[socket.socket, int | None]:
        """The socket for the answers (a descriptor of its own) and the image's descriptor, if there is one."""
        if not 1 <= len(descriptors) <= 2:
            raise WrongDescriptors(f"a request comes with one or two descriptors, not {len(descriptors)}")
        image = descriptors[1] if len(descriptors) == 2 else None
        if image is not None:
            refuse_unless_file(image, os.path.dirname(self._local_path))
        if not stat.S_ISSOCK(os.fstat(descriptors[0]).st_mode):
            raise WrongDescriptors("the descriptor for answers is not a socket")
        return socket.socket(fileno=os.dup(descriptors[0])), image


class WrongDescriptors(TransportError):
    """What came beside a request is not a socket and perhaps a file."""
