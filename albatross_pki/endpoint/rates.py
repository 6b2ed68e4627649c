"""Token buckets: how often something may be had. Pure; time is a parameter, in seconds of any steady clock.

A key has ``burst`` tokens after a while without use, and gets ``per_second`` of them back. Keys that are full again are
forgotten, so what is kept is bounded by what can be taken within the time that it takes to fill one.
"""

from collections.abc import Hashable
from dataclasses import dataclass

_PRUNE_FROM = 256  # keys; below that nobody looks for full ones


@dataclass(frozen=True, slots=True)
class Rate:
    """At most ``burst`` at once, and ``per_second`` in the long run."""

    burst: float
    per_second: float

    def half(self) -> "Rate":
        return Rate(max(1.0, self.burst / 2), self.per_second / 2)


class TokenBuckets:
    """One bucket for each key, all of one ``rate``."""

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._levels: dict[Hashable, tuple[float, float]] = {}  # tokens, and when that was
        self._prune_at = _PRUNE_FROM

    def __len__(self) -> int:
        return len(self._levels)

    def level(self, key: Hashable, now: float) -> float:
        """The tokens that ``key`` has."""
        tokens, when = self._levels.get(key, (self.rate.burst, now))
        return min(self.rate.burst, tokens + max(0.0, now - when) * self.rate.per_second)

    def seconds_until(self, key: Hashable, amount: float, now: float) -> float:
        """How long until ``key`` has ``amount`` tokens; 0 if it has them."""
        return max(0.0, (amount - self.level(key, now)) / self.rate.per_second)

    def take(self, key: Hashable, amount: float, now: float) -> None:
        """Take ``amount`` whether it is there or not; what is missing is owed, and nothing is had until it is back."""
        self._levels[key] = (self.level(key, now) - amount, now)
        if len(self._levels) >= self._prune_at:
            self._levels = {
                each: kept for each, kept in self._levels.items() if self.level(each, now) < self.rate.burst
            }
            self._prune_at = max(_PRUNE_FROM, 2 * len(self._levels))

    def try_take(self, key: Hashable, amount: float, now: float) -> bool:
        """Take ``amount`` if it is there; whether it was."""
        if self.level(key, now) < amount:
            return False
        self.take(key, amount, now)
        return True
