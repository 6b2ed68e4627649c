"""Token buckets: never more than their rate allows, and no more of them kept than are in use."""

from hypothesis import given
from hypothesis import strategies as st

from albatross_pki.endpoint.rates import Rate, TokenBuckets


def test_a_burst_then_the_rate() -> None:
    buckets = TokenBuckets(Rate(3, 0.5))
    assert [buckets.try_take("a", 1, 0.0) for _ in range(4)] == [True, True, True, False]
    assert buckets.seconds_until("a", 1, 0.0) == 2.0
    assert not buckets.try_take("a", 1, 1.9)
    assert buckets.try_take("a", 1, 2.0)
    assert buckets.try_take("b", 3, 2.0), "another key has its own"


def test_a_clock_that_goes_back_gives_nothing() -> None:
    buckets = TokenBuckets(Rate(1, 1.0))
    buckets.take("a", 1, 100.0)
    assert not buckets.try_take("a", 1, 50.0)


def test_what_is_owed_comes_back_before_anything_is_had() -> None:
    buckets = TokenBuckets(Rate(10, 1.0))
    buckets.take("a", 25, 0.0)
    assert buckets.level("a", 15.0) == 0
    assert not buckets.try_take("a", 1, 15.0)
    assert buckets.try_take("a", 1, 16.0)


@given(
    st.lists(st.tuples(st.floats(0, 20), st.integers(1, 3)), max_size=60),
    st.integers(1, 10),
    st.floats(0.01, 5),
)
def test_no_one_ever_has_more_than_burst_and_rate(steps: list[tuple[float, int]], burst: int, rate: float) -> None:
    buckets = TokenBuckets(Rate(burst, rate))
    now, had = 0.0, 0
    for pause, amount in steps:
        now += pause
        had += amount if buckets.try_take("a", amount, now) else 0
        assert had <= burst + rate * now + 1e-6


def test_p04_keys_that_are_full_again_are_forgotten() -> None:
    buckets = TokenBuckets(Rate(1, 1.0))
    for number in range(10_000):
        buckets.take(number, 1, float(number))
    assert len(buckets) < 1000
