"""Lines and rings: what is a line, what is kept, and that nothing grows."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from albatross_pki.host.ring import (
    LINE_LIMIT,
    LONGEST_LINE,
    RING_LINES,
    SEGMENT_OVERHEAD,
    TRUNCATED,
    LineSplitter,
    Ring,
)

PLENTY = 1 << 24


def split(*pieces: bytes) -> list[bytes]:
    splitter = LineSplitter()
    return [line for piece in pieces for line in splitter.feed(piece)] + splitter.finish()


def flat(history: list[tuple[int, list[bytes]]]) -> list[bytes]:
    return [line for _, lines in history for line in lines]


def test_lines_end_at_newlines_alone() -> None:
    assert split(b"one\r\ntwo\x00\x1b[31m\xff\n") == [b"one\r", b"two\x00\x1b[31m\xff"]


def test_empty_lines_are_dropped() -> None:
    assert split(b"\n\na\n\n\nb\n\n") == [b"a", b"b"]


def test_p28_the_unterminated_last_line_is_kept() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"first\nlast wo") == [b"first"]
    assert splitter.feed(b"rds") == []
    assert splitter.finish() == [b"last words"]
    assert splitter.finish() == []


def test_a_line_of_the_limit_is_whole_and_one_octet_more_is_cut() -> None:
    assert split(b"x" * LINE_LIMIT + b"\n") == [b"x" * LINE_LIMIT]
    assert split(b"x" * (LINE_LIMIT + 1) + b"\nnext\n") == [b"x" * LINE_LIMIT + TRUNCATED, b"next"]


def test_a_long_line_is_shown_before_it_ends_and_its_rest_is_thrown_away() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"y" * 600) == [b"y" * LINE_LIMIT + TRUNCATED]
    assert splitter.feed(b"y" * 100_000) == []
    assert splitter.pending == 0
    assert splitter.feed(b"yyy\nnext") == []
    assert splitter.finish() == [b"next"]


def test_p04_a_line_of_ten_megabytes_costs_nothing() -> None:
    splitter = LineSplitter()
    lines = [line for _ in range(160) for line in splitter.feed(b"z" * 65536)]
    assert lines == [b"z" * LINE_LIMIT + TRUNCATED]
    assert splitter.pending == 0


@given(st.lists(st.binary(max_size=1200), max_size=12))
def test_how_octets_are_chopped_makes_no_difference(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert split(*pieces) == split(whole)
    assert split(*(whole[at : at + 1] for at in range(len(whole)))) == split(whole)


@given(st.lists(st.sampled_from([b"\n", b"ab", b"x" * 300, b"\r", b"\xff"]), max_size=30))
def test_lines_are_what_a_plain_reading_of_the_rules_gives(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    expected = [
        line if len(line) <= LINE_LIMIT else line[:LINE_LIMIT] + TRUNCATED for line in whole.split(b"\n") if line
    ]
    assert split(*pieces) == expected


def test_the_ring_gives_the_last_lines_oldest_first() -> None:
    ring = Ring(PLENTY)
    ring.append(1, [b"a", b"b"])
    ring.append(2, [b"c", b"d"])
    assert ring.last(3) == [(1, [b"b"]), (2, [b"c", b"d"])]
    assert ring.last(100) == [(1, [b"a", b"b"]), (2, [b"c", b"d"])]


def test_p01_counts_below_one_give_nothing_and_large_ones_everything() -> None:
    ring = Ring(PLENTY)
    for number in range(3000):
        ring.append(number, [b"%d" % number])
    assert ring.last(0) == ring.last(-1) == ring.last(-(2**62)) == []
    assert flat(ring.last(2**60)) == [b"%d" % number for number in range(3000 - RING_LINES, 3000)]


def test_since_takes_lines_of_exactly_that_time_and_stops_at_an_older_one() -> None:
    ring = Ring(PLENTY)
    for moment, line in ((5, b"a"), (9, b"b"), (3, b"c"), (7, b"d"), (7, b"e"), (8, b"f")):
        ring.append(moment, [line])
    assert flat(ring.since(7)) == [b"d", b"e", b"f"]
    assert flat(ring.since(8)) == [b"f"]
    assert ring.since(10**15) == []
    assert len(flat(ring.since(-(10**15)))) == 6


@given(st.lists(st.integers(0, 2500), max_size=8), st.integers(0, 1500))
def test_the_ring_keeps_exactly_the_newest(sizes: list[int], count: int) -> None:
    ring, written = Ring(PLENTY), []
    for moment, size in enumerate(sizes):
        lines = [b"%d-%d" % (moment, number) for number in range(size)]
        ring.append(moment, lines)
        written += lines
    assert flat(ring.last(count)) == written[-RING_LINES:][max(0, min(len(written), RING_LINES) - count) :]
    assert len(ring) == min(len(written), RING_LINES)


@given(
    st.integers(0, 20_000),
    st.lists(st.lists(st.binary(min_size=1, max_size=LONGEST_LINE).map(lambda b: b.replace(b"\n", b" ")), max_size=40)),
)
def test_p04_a_ring_never_takes_more_than_its_limit(limit: int, appends: list[list[bytes]]) -> None:
    ring = Ring(limit)
    written: list[bytes] = []
    for moment, lines in enumerate(appends):
        ring.append(moment, lines)
        written += lines
        assert ring.octets <= limit
        kept = flat(ring.last(RING_LINES))
        assert kept == written[len(written) - len(kept) :]


def test_a_smaller_limit_takes_effect_at_once() -> None:
    ring = Ring(PLENTY)
    ring.append(1, [b"a" * 100] * 100)
    ring.set_limit(SEGMENT_OVERHEAD + 301)
    assert flat(ring.last(1000)) == [b"a" * 100] * 2
    ring.set_limit(0)
    assert (ring.octets, len(ring)) == (0, 0)


def test_the_overhead_that_is_charged_is_not_less_than_what_is_taken() -> None:
    ring = Ring(PLENTY)
    ring.append(10**12, [b"x"])
    segment = ring._segments[0]
    taken = sys.getsizeof(segment) + sys.getsizeof(segment.joined) + sys.getsizeof(segment.moment) + 8
    assert taken <= segment.octets
