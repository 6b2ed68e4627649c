"""Octets that connections share: what is announced is taken before anything is received, and given back at the end."""

import asyncio
import struct
from pathlib import Path

import pytest

from albatross_pki.transport import channel as channels
from albatross_pki.transport.channel import Channel
from albatross_pki.transport.errors import FrameOverLimit
from albatross_pki.transport.memory import SharedOctets

MIB = 1 << 20


def test_p04_what_is_not_there_is_waited_for_and_small_ones_pass() -> None:
    async def work() -> list[str]:
        memory = SharedOctets(8 * MIB)
        order = []

        async def large(name: str) -> None:
            await memory.take(5 * MIB)
            order.append(name)

        await large("first")
        second = asyncio.create_task(large("second"))
        await asyncio.sleep(0)
        assert memory.try_take(64 * 1024)
        order.append("small")
        memory.give_back(5 * MIB)
        await second
        return order

    assert asyncio.run(work()) == ["first", "small", "second"]


def test_p04_what_never_fits_is_an_error_at_once() -> None:
    with pytest.raises(FrameOverLimit):
        asyncio.run(SharedOctets(8 * MIB).take(8 * MIB))


def test_p04_connections_share_what_they_announce_and_give_it_back(tmp_path: Path) -> None:
    async def talk() -> None:
        memory = SharedOctets(16 * MIB)
        received = asyncio.Event()

        async def handler(channel: Channel) -> None:
            payload = await channel.receive()
            assert payload is not None
            received.set()
            channel.keep(0)
            await channel.receive()

        path = str(tmp_path / "s")
        with channels.listen(path) as listener:
            server = asyncio.create_task(channels.serve_unix(listener, handler, limit=12 * MIB, memory=memory))
            async with await channels.connect(path) as idle, await channels.connect(path) as busy:
                idle.socket.send(struct.pack("!I", 12 * MIB) + b"nothing more")
                while memory.free > 4 * MIB:
                    await asyncio.sleep(0.01)
                sending = asyncio.create_task(busy.send(bytes(12 * MIB)))
                await asyncio.sleep(0.1)
                assert not received.is_set(), "it waits for the one that announced"
                idle.close()
                await asyncio.wait_for(received.wait(), 20)
                await sending
                assert memory.free == 16 * MIB
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)
        assert memory.free == 16 * MIB

    asyncio.run(talk())
