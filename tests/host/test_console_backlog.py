"""A subscriber's queue: in order, bounded, and honest about what is missing."""

from hypothesis import given
from hypothesis import strategies as st

from albatross_pki.host.console_backlog import MARKER_ROOM, Backlog


def marker(missed: int) -> bytes:
    return b"<%d>" % missed


def taken(backlog: Backlog) -> bytes:
    out = b""
    while buffers := backlog.buffers():
        octets = b"".join(buffers)
        backlog.sent(len(octets))
        out += octets
    return out


def test_what_fits_comes_out_as_it_went_in() -> None:
    backlog = Backlog(MARKER_ROOM + 100, marker)
    for piece in (b"one", b"two", b"", b"three"):
        backlog.offer(piece, 1)
    backlog.sent(4)
    assert taken(backlog) == b"wothree"
    assert len(backlog) == 0


def test_p06_who_does_not_read_misses_lines_and_is_told_how_many() -> None:
    backlog = Backlog(3 * MARKER_ROOM, marker)
    backlog.offer(b"x" * 2 * MARKER_ROOM, 10)
    backlog.offer(b"a", 7)
    backlog.offer(b"", 1)  # would fit, but would hide the gap
    assert backlog.in_gap
    assert backlog.missed_in_all == 8
    assert taken(backlog) == b"x" * 2 * MARKER_ROOM + b"<8>"


def test_a_batch_larger_than_the_whole_room_is_missed_and_said_at_once() -> None:
    backlog = Backlog(MARKER_ROOM + 10, marker)
    backlog.offer(b"a" * 20_000, 7)
    backlog.offer(b"b", 1)
    assert taken(backlog) == b"<7>b"


def test_lines_are_queued_again_after_the_marker() -> None:
    backlog = Backlog(2 * MARKER_ROOM, marker)
    backlog.offer(b"x" * (MARKER_ROOM - 1), 1)
    backlog.answer(b"y" * 10)
    backlog.offer(b"lost", 3)
    backlog.offer(b"lost", 4)
    assert taken(backlog) == b"x" * (MARKER_ROOM - 1) + b"y" * 10 + b"<7>"
    backlog.offer(b"again", 1)
    assert taken(backlog) == b"again"


@given(
    st.lists(st.one_of(st.integers(1, 3000), st.integers(-20_000, -1)), max_size=60),
)
def test_p04_every_line_is_sent_or_counted_and_the_queue_is_bounded(steps: list[int]) -> None:
    """Positive: offer so many octets; negative: send so many."""
    limit = MARKER_ROOM + 10_000
    missed: list[int] = []
    backlog = Backlog(limit, lambda count: (missed.append(count), b"!")[1])  # type: ignore[func-returns-value]
    offered = sent = 0
    for step in steps:
        if step > 0:
            offered += step
            backlog.offer(b"." * step, step)
        else:
            octets = b"".join(backlog.buffers())[:-step]
            backlog.sent(len(octets))
            sent += octets.count(b".")
        assert len(backlog) <= limit
    sent += taken(backlog).count(b".")
    assert sent + sum(missed) == offered
    assert backlog.missed_in_all == sum(missed)
