"""Frames and descriptors between two ends of a real unix socket."""

import asyncio
import os
import socket
import struct
from pathlib import Path

import pytest

from albatross_pki.transport import channel as channels
from albatross_pki.transport.blocking import Connection
from albatross_pki.transport.channel import Channel
from albatross_pki.transport.errors import ConnectionCut, FrameOverLimit, NotListening, TimedOut, Unreachable
from albatross_pki.transport.sockets import PeerCredentials, read_xucred


def pair(**bounds: float | None) -> tuple[Channel, socket.socket]:
    ours, theirs = socket.socketpair()
    return Channel(ours, **bounds), theirs  # type: ignore[arg-type]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_frames_arrive_whole_and_in_order() -> None:
    async def talk() -> list[bytes | None]:
        left, right = socket.socketpair()
        async with Channel(left) as sender, Channel(right) as receiver:
            payloads = [b"", b"x", b"y" * 3_000_000]

            async def send() -> None:
                for payload in payloads:
                    await sender.send(payload)
                sender.half_close()

            sending = asyncio.create_task(send())
            got = [await receiver.receive() for _ in range(4)]
            await sending
            return got

    assert asyncio.run(talk()) == [b"", b"x", b"y" * 3_000_000, None]


def test_descriptors_stay_with_their_frame() -> None:
    async def talk() -> list[tuple[bytes, int]]:
        left, right = socket.socketpair()
        async with Channel(left) as sender, Channel(right) as receiver:
            reader, writer = os.pipe()
            await sender.send(b"none")
            await sender.send(b"two", [reader, writer])
            await sender.send(b"again none")
            os.close(reader)
            os.close(writer)
            got = []
            for _ in range(3):
                received = await receiver.receive_with_descriptors()
                assert received is not None
                payload, descriptors = received
                assert not any(os.get_inheritable(descriptor) for descriptor in descriptors)
                got.append((payload, len(descriptors)))
                for descriptor in descriptors:
                    os.close(descriptor)
            return got

    assert asyncio.run(talk()) == [(b"none", 0), (b"two", 2), (b"again none", 0)]


def test_unwanted_descriptors_are_closed() -> None:
    async def talk() -> bytes | None:
        receiver, other = pair()
        reader, writer = os.pipe()
        socket.send_fds(other, [struct.pack("!I", 2) + b"ab"], [reader, writer])
        os.close(reader)
        os.close(writer)
        async with receiver:
            payload = await receiver.receive()
        other.close()
        return payload

    before = open_descriptors()
    assert asyncio.run(talk()) == b"ab"
    assert open_descriptors() == before


def test_too_many_descriptors_end_the_connection() -> None:
    async def talk() -> None:
        receiver, other = pair()
        with other:
            socket.send_fds(other, [struct.pack("!I", 1) + b"a"], [other.fileno()] * 20)
            async with receiver:
                await receiver.receive()

    before = open_descriptors()
    with pytest.raises(ConnectionCut, match="descriptors"):
        asyncio.run(talk())
    assert open_descriptors() == before


def test_p04_a_claimed_length_over_the_limit_is_refused_before_it_is_read() -> None:
    async def talk() -> None:
        receiver, other = pair(limit=100)
        with other:
            other.sendall(struct.pack("!I", 0xFFFFFFFF))
            async with receiver:
                await receiver.receive()

    with pytest.raises(FrameOverLimit) as refused:
        asyncio.run(talk())
    assert (refused.value.announced, refused.value.limit) == (0xFFFFFFFF, 100)


@pytest.mark.parametrize("octets", [b"\0", b"\0\0\0\5", b"\0\0\0\5abcd"])
def test_a_cut_inside_a_frame_is_not_an_end(octets: bytes) -> None:
    async def talk() -> None:
        receiver, other = pair()
        other.sendall(octets)
        other.close()
        async with receiver:
            await receiver.receive()

    with pytest.raises(ConnectionCut):
        asyncio.run(talk())


@pytest.mark.parametrize(("octets", "what"), [(b"", "waiting for a frame"), (b"\0\0\0\5ab", "receiving a frame")])
def test_p05_silence_ends_at_a_deadline(octets: bytes, what: str) -> None:
    async def talk() -> None:
        receiver, other = pair(idle_timeout=0.05, frame_timeout=0.05)
        with other:
            other.sendall(octets)
            async with receiver:
                await receiver.receive()

    with pytest.raises(TimedOut, match=what):
        asyncio.run(talk())


def test_p05_who_does_not_read_cannot_hold_the_writer() -> None:
    async def talk() -> None:
        sender, other = pair(frame_timeout=0.05)
        with other:
            async with sender:
                await sender.send(b"x" * 10_000_000)

    with pytest.raises(TimedOut, match="sending a frame"):
        asyncio.run(talk())


def test_p03_a_handler_that_fails_ends_its_connection_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(channel: Channel) -> None:
        if await channel.receive() == b"bad":
            raise RuntimeError("on purpose")
        await channel.send(b"answer")

    async def talk() -> tuple[bytes | None, bytes | None]:
        path = str(tmp_path / "s")
        with channels.listen(path) as listener:
            server = asyncio.create_task(channels.serve_unix(listener, handler))
            async with await channels.connect(path) as first, await channels.connect(path) as second:
                await first.send(b"bad")
                got = await first.receive()
                await second.send(b"good")
                answer = await second.receive()
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)
            return got, answer

    assert asyncio.run(talk()) == (None, b"answer")
    assert "on purpose" in caplog.text


def test_p04_connections_over_the_limit_wait_for_a_place(tmp_path: Path) -> None:
    open_now = 0
    most = 0

    async def handler(channel: Channel) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        await channel.receive()
        await channel.send(b"answer")
        open_now -= 1

    async def one(path: str) -> bytes | None:
        async with await channels.connect(path) as channel:
            await channel.send(b"hello")
            return await channel.receive()

    async def talk() -> list[bytes | None]:
        path = str(tmp_path / "s")
        with channels.listen(path) as listener:
            server = asyncio.create_task(channels.serve_unix(listener, handler, max_connections=2))
            answers = await asyncio.gather(*(one(path) for _ in range(10)))
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)
            return answers

    assert asyncio.run(talk()) == [b"answer"] * 10
    assert most <= 2


def test_nobody_there_is_a_refusal_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no such file"):
        asyncio.run(channels.connect(str(tmp_path / "absent")))
    with pytest.raises(Unreachable) as refused:
        Connection(str(tmp_path / "absent"))
    assert refused.value.hint is not None


def test_listening_replaces_a_dead_socket_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "s"
    channels.listen(str(path), 0o620).close()
    with channels.listen(str(path), 0o620):
        assert path.stat().st_mode & 0o777 == 0o620
        with pytest.raises(NotListening, match="another process"):
            channels.listen(str(path))
    ordinary = tmp_path / "file"
    ordinary.write_bytes(b"kept")
    with pytest.raises(NotListening, match="not a socket"):
        channels.listen(str(ordinary))
    assert ordinary.read_bytes() == b"kept"


def test_peer_credentials_are_those_of_the_process_at_the_other_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = channels.peer_credentials(ours)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())


def test_the_blocking_twin_speaks_the_same_frames(tmp_path: Path) -> None:
    async def handler(channel: Channel) -> None:
        while (payload := await channel.receive()) is not None:
            await channel.send(payload * 2)

    async def talk() -> list[bytes | None]:
        path = str(tmp_path / "s")

        def client() -> list[bytes | None]:
            with Connection(path, timeout=5) as connection:
                got = []
                for payload in (b"ab", b"", b"z" * 200_000):
                    connection.send_payload(payload)
                    got.append(connection.receive_payload())
                connection.socket.shutdown(socket.SHUT_WR)
                return [*got, connection.receive_payload()]

        with channels.listen(path) as listener:
            server = asyncio.create_task(channels.serve_unix(listener, handler))
            got = await asyncio.to_thread(client)
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)
            return got

    assert asyncio.run(talk()) == [b"abab", b"", b"z" * 400_000, None]


def test_an_upload_stops_at_the_first_answer(tmp_path: Path) -> None:
    async def refuse(channel: Channel) -> None:
        await channel.receive()
        await channel.send(b"refused")

    async def talk() -> tuple[bool, bytes | None]:
        path = str(tmp_path / "s")

        def client() -> tuple[bool, bytes | None]:
            with Connection(path, timeout=5) as connection, open("/dev/zero", "rb") as endless:
                return connection.send_stream(endless), connection.receive_payload()

        with channels.listen(path) as listener:
            server = asyncio.create_task(channels.serve_unix(listener, refuse))
            result = await asyncio.to_thread(client)
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)
            return result

    assert asyncio.run(talk()) == (False, b"refused")


def test_sockets_of_systemd_are_taken_only_by_the_process_they_are_meant_for() -> None:
    assert channels.activated_sockets({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == []
    assert channels.activated_sockets({}) == []
    assert channels.activated_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "99999"}) == []


def test_freebsd_s_credentials_of_a_peer_are_read() -> None:
    """struct xucred of <sys/ucred.h> with 64 bits; not tried on FreeBSD."""
    groups = struct.pack("16I", 20, 5, *[0] * 14)
    octets = struct.pack("IIh2x", 0, 1001, 2) + groups + struct.pack("4xi4x", 4711)
    assert len(octets) == 88
    assert read_xucred(octets) == (PeerCredentials(4711, 1001, 20), (20, 5))
    assert read_xucred(octets[:8] + struct.pack("h", 0) + octets[10:])[1] == ()
