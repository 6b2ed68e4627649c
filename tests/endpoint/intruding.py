"""The endpoint's side of the authoriser's socket, played by a test: with any certificates, descriptors and octets."""

import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from albatross_pki.authorised import ExecuteRequest, JudgeRequest, SideMessage, Verdict
from albatross_pki.transport.sockets import close_all
from albatross_pki.wire.framing import frame
from albatross_pki.wire.message import decode_message
from albatross_pki.wire.side import decode_side, encode_side
from tests.endpoint.deployment import receive_frame
from tests.pki_builder import Issued


class Intruder:
    """One connection to the authoriser."""

    def __init__(self, path: Path, seconds: float = 20) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(seconds)
        try:
            self.socket.connect(str(path))
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, message: SideMessage, descriptors: Sequence[int] = ()) -> None:
        self.say_octets(frame(encode_side(message)), descriptors)

    def say_octets(self, octets: bytes, descriptors: Sequence[int] = ()) -> None:
        socket.send_fds(self.socket, [octets], list(descriptors))

    def hear(self) -> tuple[SideMessage | None, socket.socket | None]:
        """The next message and the connection beside it; ``None`` if the authoriser closed."""
        octets, descriptors, _, _ = socket.recv_fds(self.socket, 4, 8)
        if not octets:
            return None, None
        (length,) = struct.unpack("!I", octets)
        payload = b""
        while len(payload) < length:
            payload += self.socket.recv(length - len(payload))
        answers = None
        if descriptors:
            close_all(descriptors[1:])
            answers = socket.socket(fileno=descriptors[0])
            answers.settimeout(20)
        return decode_side(payload), answers

    def judge(self, issued: Issued, peer: str = "192.0.2.1:1") -> tuple[SideMessage | None, socket.socket | None]:
        self.say(JudgeRequest(peer, tuple(issued.ders)))
        return self.hear()

    def execute(
        self, size: int, digest: bytes, descriptors: Sequence[int]
    ) -> tuple[SideMessage | None, socket.socket | None]:
        self.say(ExecuteRequest(size, digest), descriptors)
        return self.hear()

    def ask(self, issued: Issued) -> Any:
        """The payload of the first answer to a command without a stream, or the reasons of its refusal."""
        verdict, answers = self.judge(issued)
        assert isinstance(verdict, Verdict), verdict
        if not verdict.accepted:
            return verdict.reasons
        assert answers is not None
        with answers:
            return first(answers)


def first(answers: socket.socket) -> Any:
    payload = receive_frame(answers)
    return None if payload is None else decode_message(payload).payload
