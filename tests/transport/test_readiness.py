"""One registration for many waits: nothing is lost, nobody is woken in vain, and nothing is left registered."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

import pytest

from albatross_pki.transport.readiness import Reading


class Pair:
    """Two ends of a connection, and the ``Reading`` of one, which counts its registrations and reads."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.reading = Reading(self.ours)
        self.registrations = self.reads = 0
        loop = asyncio.get_running_loop()
        add_reader = loop.add_reader

        def counted(*arguments: object) -> None:
            self.registrations += 1
            add_reader(*arguments)  # type: ignore[arg-type]

        loop.add_reader = counted  # type: ignore[method-assign,assignment]

    def take(self) -> bytes | None:
        self.reads += 1
        try:
            return self.ours.recv(100)
        except BlockingIOError:
            return None

    async def next(self) -> bytes:
        return await self.reading.until(self.take)

    def registered(self) -> bool:
        return asyncio.get_running_loop().remove_reader(self.ours.fileno())

    def close(self) -> None:
        self.reading.close()
        self.ours.close()
        self.theirs.close()


def with_a_pair(talk: Callable[[Pair], Awaitable[None]]) -> None:
    async def run() -> None:
        pair = Pair()
        try:
            await asyncio.wait_for(talk(pair), 30)
        finally:
            pair.close()

    asyncio.run(run())


def test_many_waits_are_one_registration_and_one_read_each() -> None:
    async def talk(pair: Pair) -> None:
        for number in range(50):
            waiting = asyncio.ensure_future(pair.next())
            await asyncio.sleep(0)
            pair.theirs.send(b"%d" % number)
            assert await waiting == b"%d" % number
        assert (pair.registrations, pair.reads) == (1, 50)

    with_a_pair(talk)


def test_octets_that_nobody_waits_for_stay_where_they_are() -> None:
    """And end the registration, or the event loop would turn for ever."""

    async def talk(pair: Pair) -> None:
        waiting = asyncio.ensure_future(pair.next())
        await asyncio.sleep(0)
        pair.theirs.send(b"first")
        assert await waiting == b"first"
        pair.theirs.send(b"second")
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert pair.reads == 1
        assert not pair.registered()
        assert await pair.next() == b"second"

    with_a_pair(talk)


def test_an_end_is_told_like_octets() -> None:
    async def talk(pair: Pair) -> None:
        pair.theirs.close()
        assert await pair.next() == b""

    with_a_pair(talk)


def test_what_reading_raises_reaches_who_waits_and_the_next_wait_goes_on() -> None:
    async def talk(pair: Pair) -> None:
        def broken() -> bytes:
            raise ConnectionResetError("gone")

        pair.theirs.send(b"x")
        with pytest.raises(ConnectionResetError, match="gone"):
            await pair.reading.until(broken)
        assert await pair.next() == b"x"

    with_a_pair(talk)


def test_a_wait_that_is_cancelled_takes_nothing() -> None:
    async def talk(pair: Pair) -> None:
        waiting = asyncio.ensure_future(pair.next())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        pair.theirs.send(b"for the next one")
        assert await pair.next() == b"for the next one"

    with_a_pair(talk)


def test_two_that_wait_at_once_are_a_mistake() -> None:
    async def talk(pair: Pair) -> None:
        first = asyncio.ensure_future(pair.next())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await pair.next()
        pair.theirs.send(b"x")
        assert await first == b"x"

    with_a_pair(talk)


def test_a_closed_one_leaves_its_descriptor_to_whoever_gets_it_next() -> None:
    async def talk(pair: Pair) -> None:
        pair.theirs.send(b"x")
        await pair.next()
        number = pair.ours.fileno()
        pair.reading.close()
        pair.ours.close()
        again, other = socket.socketpair()
        with other:
            if again.fileno() != number:
                os.dup2(again.fileno(), number)
                again.close()
                again = socket.socket(fileno=number)
            with again:
                again.setblocking(False)
                other.send(b"y")
                assert await asyncio.get_running_loop().sock_recv(again, 9) == b"y"
                reading = Reading(again)
                other.send(b"z")
                assert await reading.until(lambda: again.recv(9)) == b"z"
                reading.close()

    with_a_pair(talk)
