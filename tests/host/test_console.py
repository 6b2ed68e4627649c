"""Which rings live and who may listen, without any fifo or socket."""

import pytest

from albatross_pki.host.console import Console, Consoles, TooManyConsoles, newest_within
from albatross_pki.host.console_frames import LineFramer
from albatross_pki.host.console_limits import (
    LARGEST_BACKLOG,
    MEBIBYTE,
    RINGS_PER_PATH,
    SMALLEST_BACKLOG,
    SMALLEST_RING,
)
from albatross_pki.names import Name, Path


class Listening:
    """A subscriber that remembers."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, int]] = []
        self.closed = False

    def offer(self, frames: bytes, lines: int) -> None:
        self.heard.append((frames, lines))

    def close(self) -> None:
        self.closed = True


def dead(consoles: Consoles, text: str, rings: int = 0) -> Console:
    console = consoles.add(Name.parse(text), rings)
    consoles.ended(console)
    return console


def names(consoles: Consoles, path: str = "") -> list[str]:
    return [str(name) for name in consoles.inactive(Path.parse(path))]


def test_p28_a_ring_outlives_its_unikernel_and_its_restart() -> None:
    consoles = Consoles()
    console = consoles.add(Name.parse("hello"), 5)
    console.write(1, [b"first life"])
    consoles.ended(console)
    again = consoles.add(Name.parse("hello"), 5)
    assert again is console
    assert again.active
    assert again.ring is not None
    assert again.ring.last(10) == [(1, [b"first life"])]


def test_the_dead_are_listed_relative_to_the_path_asked_about() -> None:
    consoles = Consoles()
    for text in ("top", "foo:net", "foo:a:net", "foobar:x"):
        dead(consoles, text)
    consoles.add(Name.parse("foo:living"), 5)
    consoles.subscribe(Name.parse("foo:awaited"), Listening())
    assert names(consoles) == ["foobar:x", "foo:a:net", "foo:net", ":top"]
    assert names(consoles, "foo") == ["a:net", ":net"]
    assert names(consoles, "nowhere") == []


def test_p40_a_path_keeps_no_more_rings_than_it_may_have_and_forgets_the_longest_dead_first() -> None:
    consoles = Consoles()
    listening = Listening()
    consoles.add(Name.parse("foo:z"), 0)
    consoles.subscribe(Name.parse("foo:z"), listening)
    consoles.ended(consoles.add(Name.parse("foo:z"), 0))
    for number in range(RINGS_PER_PATH - 1):
        dead(consoles, f"foo:a{number}")
    assert not listening.closed
    dead(consoles, "foo:one-more")
    assert bool(listening.closed)
    assert ":z" not in names(consoles, "foo")
    assert len(names(consoles, "foo")) == RINGS_PER_PATH


def test_the_living_are_never_forgotten() -> None:
    consoles = Consoles()
    for number in range(RINGS_PER_PATH + 9):
        consoles.add(Name.parse(f"foo:u{number}"), 1)
    assert sum(console.active for console in consoles) == RINGS_PER_PATH + 9


def test_p40_when_memory_is_full_the_path_with_most_dead_makes_room() -> None:
    consoles = Consoles(max_memory=2 * 8 * SMALLEST_RING)
    dead(consoles, "small:only")
    for number in range(7):
        dead(consoles, f"large:u{number}", rings=1000)
    dead(consoles, "third:new")
    assert names(consoles, "small") == [":only"]
    assert names(consoles, "third") == [":new"]
    assert ":u0" not in names(consoles, "large")


def test_when_memory_is_full_of_the_living_a_further_one_is_refused_and_says_what_to_do() -> None:
    consoles = Consoles(max_memory=2 * 2 * SMALLEST_RING)
    consoles.add(Name.parse("a"), 5)
    consoles.add(Name.parse("b"), 5)
    with pytest.raises(TooManyConsoles) as refusal:
        consoles.add(Name.parse("c"), 5)
    assert refusal.value.rings == 2
    assert "--max-memory" in (refusal.value.hint or "")
    assert consoles.find(Name.parse("c")) is None


def test_p04_all_rings_together_stay_within_their_half_of_the_memory() -> None:
    memory = MEBIBYTE
    consoles = Consoles(max_memory=memory)
    for number in range(40):
        console = consoles.add(Name.parse(f"p{number}:u"), 5)
        for moment in range(20):
            console.write(moment, [b"x" * 500] * 100)
        assert consoles.octets <= memory // 2


def test_the_limit_of_subscribers_is_exact_and_the_oldest_makes_room() -> None:
    consoles = Consoles(max_subscribers=2)
    name = Name.parse("hello")
    first, second, third = Listening(), Listening(), Listening()
    for one in (first, second):
        consoles.subscribe(name, one)
    assert not first.closed
    console = consoles.subscribe(name, third)
    assert (first.closed, second.closed, third.closed) == (True, False, False)
    assert console.subscribers == [second, third]


def test_one_that_is_beside_the_others_closes_nobody_and_takes_no_place() -> None:
    consoles = Consoles(max_subscribers=2)
    name = Name.parse("hello")
    first, second, beside, third = (Listening() for _ in range(4))
    for one in (first, second):
        consoles.subscribe(name, one)
    console = consoles.subscribe(name, beside, beside=True)
    assert console.subscribers == [first, second, beside]
    consoles.subscribe(name, third)
    assert console.subscribers == [second, beside, third]
    assert (first.closed, second.closed, beside.closed) == (True, False, False)
    consoles.unsubscribe(console, beside)
    assert console.subscribers == [second, third]


def test_a_name_that_nobody_announced_is_forgotten_with_its_last_subscriber() -> None:
    consoles = Consoles()
    one, two = Listening(), Listening()
    console = consoles.subscribe(Name.parse("foo:later"), one)
    consoles.subscribe(Name.parse("foo:later"), two)
    consoles.unsubscribe(console, one)
    assert list(consoles) == [console]
    consoles.unsubscribe(console, two)
    assert list(consoles) == []


def test_who_waited_gets_the_lines_when_the_unikernel_comes() -> None:
    consoles = Consoles()
    waiting = Listening()
    consoles.subscribe(Name.parse("foo:later"), waiting)
    consoles.add(Name.parse("foo:later"), 5).write(0, [b"hi"])
    assert waiting.heard == [(LineFramer(Name.parse("foo:later")).frames(0, [b"hi"]), 1)]


def test_every_subscriber_gets_the_same_frames_encoded_once() -> None:
    consoles = Consoles()
    listening = [Listening() for _ in range(3)]
    console = consoles.add(Name.parse("u"), 5)
    for one in listening:
        consoles.subscribe(Name.parse("u"), one)
    console.write(5, [b"a", b"bb"])
    assert len({id(one.heard[0][0]) for one in listening}) == 1


def test_names_and_paths_are_different_things() -> None:
    consoles = Consoles()
    consoles.add(Name.parse("a:b"), 5)
    assert consoles.find(Name.parse("a:b:")) is None


@pytest.mark.parametrize("subscribers", [0, 1, 7, 100, 10_000])
def test_p04_what_waits_for_subscribers_stays_within_its_half_of_the_memory(subscribers: int) -> None:
    consoles = Consoles(max_memory=64 * MEBIBYTE)
    limit = consoles.backlog_limit(subscribers)
    assert SMALLEST_BACKLOG <= limit <= LARGEST_BACKLOG
    if subscribers <= consoles.max_connections():
        assert limit * subscribers <= 32 * MEBIBYTE


def test_of_a_history_that_is_too_large_the_newest_lines_are_shown() -> None:
    framer = LineFramer(Name.parse("u"))
    history = [(1, [b"old"] * 50), (2, [b"x" * 400] * 50), (3, [b"new"])]
    missed, kept = newest_within(history, 10_000, framer)
    shown = [line for _, lines in kept for line in lines]
    assert missed + len(shown) == 101
    assert shown[-1] == b"new"
    assert 0 < len(shown) < 20
    assert sum(len(framer.frames(moment, lines)) for moment, lines in kept) <= 5000
    assert newest_within(history, 1 << 20, framer) == (0, history)
