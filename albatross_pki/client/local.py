"""A command over the unix sockets of this host.

1. what goes with the command is read and judged (an image, a block's content);
2. the command is sent, and the content after it where there is one;
3. the answer is followed. If the daemon refuses while content is being sent, its reason is what is shown.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import BinaryIO, cast

from albatross_pki.client.conversation import Streamed, answers_of, converse, socket_of
from albatross_pki.client.files import BadFile, read_image
from albatross_pki.client.progress import Readable, Watched, answer_awaited, upload_meter
from albatross_pki.command_line import TypedCommand
from albatross_pki.commands import BlockAdd, BlockSet, Command, PolicyAdd, UnikernelCreate
from albatross_pki.errors import Refused
from albatross_pki.extensions import ExtendedCommand
from albatross_pki.messages import Header, Message
from albatross_pki.names import Name
from albatross_pki.policies import Policy
from albatross_pki.replies import Success
from albatross_pki.transport.blocking import Connection

NOBODY = "-"  # in place of a socket or a host: what would be sent is shown
EXTENDED_SOCKET = "util/extended.sock"

OnSuccess = Callable[[Header, Success], None]
OnData = Callable[[Header, Streamed], bool]


def send_locally(typed: TypedCommand, tmpdir: str, socket: str | None, on_success: OnSuccess, on_data: OnData) -> None:
    """Send what was typed to the socket of its daemon and follow the answers.

    ``tmpdir`` is the daemons' directory; ``socket``, if given, the one to talk to.
    """
    if isinstance(typed.command, ExtendedCommand):
        _send_extended(typed.name, typed.command, socket or os.path.join(tmpdir, EXTENDED_SOCKET), on_success, on_data)
        return
    if isinstance(typed.command, PolicyAdd):
        check_policy(typed.command.policy)
    command = with_image(typed, typed.command)
    if socket == NOBODY:
        from albatross_pki.client.unsent import show_frame
        from albatross_pki.wire.message import encode_message

        show_frame(encode_message(Message(Header(typed.name), command)))
    with Connection(socket or os.path.join(tmpdir, socket_of(command))) as connection:
        message = Message(Header(typed.name), command)
        uploaded = isinstance(command, BlockSet | UnikernelCreate)
        if isinstance(command, UnikernelCreate):
            with upload_meter(str(typed.image), len(command.config.image)) as meter:
                connection.send(message, progress=meter.add)
        else:
            connection.send(message)
        if isinstance(command, BlockSet):
            with content_source(typed) as (source, size), upload_meter(str(typed.content), size) as meter:
                connection.send_stream(cast(BinaryIO, Watched(source, meter)))
        with answer_awaited(uploaded):
            converse(connection, answers_of(command), on_success, on_data)
    if isinstance(command, BlockAdd) and typed.content is not None:
        # only reached if the block device was made by us: nothing that exists is ever overwritten
        content = replace(typed, command=BlockSet(compressed=bool(typed.level)))
        send_locally(content, tmpdir, socket, on_success, on_data)


def _send_extended(name: Name, command: ExtendedCommand, socket: str, on_success: OnSuccess, on_data: OnData) -> None:
    """Ask what AV5 has no place for; the answers are ordinary messages on the same connection."""
    from albatross_pki.authorised import LocalRequest
    from albatross_pki.wire.side import encode_side

    payload = encode_side(LocalRequest(name, command))
    if socket == NOBODY:
        from albatross_pki.client.unsent import show_frame

        show_frame(payload)
    with Connection(socket) as connection:
        connection.send_payload(payload)
        converse(connection, answers_of(command), on_success, on_data)


def check_policy(policy: Policy) -> None:
    """Refuse a policy that nobody could use, with every reason."""
    from albatross_pki.policy.rules import usable

    violations = usable(policy)
    if violations:
        raise Refused([violation.text for violation in violations])


def with_image(typed: TypedCommand, command: Command) -> Command:
    """``command`` with the image that it names, compressed if a level was asked for."""
    check_content(typed)
    if not isinstance(command, UnikernelCreate) or typed.image is None:
        return command
    image = read_image(typed.image, command.config, typed.digest)
    if typed.level and image:
        from albatross_pki.wire.compression import compress

        return replace(command, config=replace(command.config, image=compress(image, typed.level), compressed=True))
    return replace(command, config=replace(command.config, image=image))


def check_content(typed: TypedCommand) -> None:
    """Refuse content that does not fit into the block device that is to be made for it."""
    if isinstance(typed.command, BlockAdd) and typed.content is not None:
        size = os.stat(typed.content).st_size
        if size > typed.command.size_mb << 20:
            raise BadFile(typed.content, f"data exceeds size: {size} octets, {typed.command.size_mb} MB were asked for")


@contextlib.contextmanager
def content_source(typed: TypedCommand) -> Iterator[tuple[Readable, int | None]]:
    """The content of a block device as it is to be sent, compressed if a level was asked for, and its size if known."""
    if typed.content is None:
        raise RuntimeError("a block set has content")
    with open(typed.content, "rb") as file:
        if typed.level:
            yield Compressed(file, typed.level), None
        else:
            yield file, os.fstat(file.fileno()).st_size


class Compressed:
    """The zlib stream of ``source``, made while it is read."""

    def __init__(self, source: Readable, level: int) -> None:
        import zlib

        self._source = source
        self._deflate = zlib.compressobj(level)
        self._ended = False

    def read(self, size: int = -1, /) -> bytes:
        """Some octets of the stream, at most about ``size`` plus what zlib held back; empty at its end."""
        while not self._ended:
            octets = self._source.read(max(size, 4096))
            out = self._deflate.compress(octets) if octets else self._deflate.flush()
            self._ended = not octets
            if out:
                return out
        return b""
