"""Places on a unix socket: one user of the host cannot keep out another, nor root."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from albatross_pki.errors import Refused
from albatross_pki.replies import Failure
from albatross_pki.transport import channel as channels
from albatross_pki.transport.blocking import Connection
from albatross_pki.transport.channel import Channel
from albatross_pki.transport.places import MOST_WAITING, Places
from albatross_pki.wire.message import decode_message

HOSTILE, OTHER = 65534, 65533


def test_p06_a_user_has_a_part_of_the_places_and_others_have_theirs() -> None:
    async def work() -> None:
        places = Places(8, trusted=frozenset({0}))
        served: list[int] = []

        async def one(uid: int) -> None:
            async with places.place(uid):
                served.append(uid)
                await asyncio.Event().wait()

        tasks = [asyncio.create_task(one(HOSTILE)) for _ in range(100)]
        tasks += [asyncio.create_task(one(number)) for number in range(1000, 1100)]
        tasks += [asyncio.create_task(one(0)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert served.count(HOSTILE) == 2
        assert len(served) == 8, "seven for all others, one that is kept for root"
        assert served.count(0) == 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(work())


def test_p04_only_so_many_of_one_user_wait() -> None:
    places = Places(8, trusted=frozenset({0}))
    for _ in range(2 + MOST_WAITING):
        places.enter(HOSTILE)
    with pytest.raises(Refused, match="user 65534 has 130 connections to this socket already"):
        places.enter(HOSTILE)
    places.enter(OTHER)
    places.enter(0)
    places.leave(HOSTILE)
    places.enter(HOSTILE)


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user can reach."""
    with tempfile.TemporaryDirectory(prefix="albatross-") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


FLOOD = """
import socket, sys, time
kept = []
for number in range(800):
    one = socket.socket(socket.AF_UNIX)
    one.connect(sys.argv[1])
    kept.append(one)
print("flooding", flush=True)
sys.stdin.read()
"""


def test_p06_800_half_open_connections_of_one_user_keep_nobody_out(public: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("playing another user needs root")

    async def handler(channel: Channel) -> None:
        if await channel.receive() is not None:
            await channel.send(b"answer")

    async def serve() -> tuple[bytes | None, bytes | None]:
        path = str(public / "s")
        with channels.listen(path, 0o666) as listener:
            server = asyncio.create_task(channels.serve_unix(listener, handler, max_connections=128))
            flood = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                FLOOD,
                path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                user=HOSTILE,
                group=HOSTILE,
                extra_groups=[],
                cwd="/",
            )
            assert flood.stdout is not None
            assert await asyncio.wait_for(flood.stdout.readline(), 60) == b"flooding\n"
            try:
                async with await channels.connect(path) as own:
                    await own.send(b"hello")
                    answer = await asyncio.wait_for(own.receive(), 20)
                refused = await asyncio.to_thread(asked_by, OTHER, path)
            finally:
                flood.kill()
                await flood.wait()
                server.cancel()
                await asyncio.gather(server, return_exceptions=True)
            return answer, refused

    assert asyncio.run(serve()) == (b"answer", b"answer")


def asked_by(uid: int, path: str) -> bytes:
    code = (
        "import socket, struct, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(sys.argv[1]); "
        "s.sendall(struct.pack('!I', 5) + b'hello'); sys.stdout.buffer.write(s.recv(4096)[4:])"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, path], stdout=subprocess.PIPE, user=uid, group=uid, extra_groups=[], cwd="/",
        check=True,
    )  # fmt: skip
    return told.stdout


def test_who_is_refused_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albatross_pki.transport.places.MOST_WAITING", 1)

    async def handler(channel: Channel) -> None:
        await channel.receive()

    async def serve() -> Failure:
        path = str(tmp_path / "s")
        with channels.listen(path) as listener, contextlib.ExitStack() as kept:
            server = asyncio.create_task(
                channels.serve_unix(listener, handler, max_connections=8, trusted=frozenset(), per_user=2)
            )
            for _ in range(3):
                one = kept.enter_context(socket.socket(socket.AF_UNIX))
                one.connect(path)
            await asyncio.sleep(0)

            def refused() -> Failure:
                with Connection(path, timeout=20) as connection:
                    payload = connection.receive_payload()
                assert payload is not None
                failure = decode_message(payload).payload
                assert isinstance(failure, Failure)
                return failure

            failure = await asyncio.to_thread(refused)
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)
            return failure

    assert "has 3 connections to this socket already, which is the limit of the host" in asyncio.run(serve()).text
