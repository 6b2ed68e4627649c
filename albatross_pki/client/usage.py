"""What unikernels use right now, out of samples of what they have used so far: pure, no clock.

A sample counts from the start of a process; the rate is the difference of two of them over the seconds between. A
sample does not say when it was taken, so that is when it arrived. If a counter went back or the process is another one
(its start differs), there is no rate until the next sample. What was not heard of for some rounds is gone.

Memory is counted in pages of 4096 octets, those of the machines that Solo5 supports under Linux.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from albatross_pki.names import Name
from albatross_pki.replies import Statistics

PAGE = 4096
MOST_ROWS = 100_000  # as many unikernels as a host takes; further ones are not counted
SILENT_ROUNDS = 2.5  # of its own interval, after which a unikernel is gone
FIRST_INTERVAL = 10.0  # seconds, Albatross' default, as long as there is one sample
LEAST_INTERVAL = 0.005  # seconds; samples that came together after a delay give no rate
HEADING = ("NAME", "CPU", "MEMORY", "RECEIVED", "SENT", "CPU TIME")
ORDERS = ("cpu", "memory", "network", "name")


@dataclass(frozen=True, slots=True)
class Counters:
    """Of one sample: seconds of the processor and octets since the process began at ``started`` (microseconds)."""

    cpu_seconds: float
    received: int
    sent: int
    started: int | None

    @classmethod
    def of(cls, sample: Statistics) -> "Counters":
        """``sent`` is what came in at the host's end of the interfaces."""
        usage, memory = sample.usage, sample.memory
        return cls(
            cpu_seconds=sum(each.seconds + each.microseconds / 1e6 for each in (usage.utime, usage.stime)),
            received=sum(each.output_bytes for each in sample.interfaces),
            sent=sum(each.input_bytes for each in sample.interfaces),
            started=None if memory is None else memory.start.seconds * 1_000_000 + memory.start.microseconds,
        )

    def follows(self, earlier: "Counters") -> bool:
        """Whether both are of one process, in this order."""
        grown = (
            self.cpu_seconds >= earlier.cpu_seconds and self.received >= earlier.received and self.sent >= earlier.sent
        )
        return grown and self.started == earlier.started


@dataclass(frozen=True, slots=True)
class Use:
    """One unikernel: rates per second, ``None`` if unknown yet; ``at`` is when its latest sample came, in seconds."""

    name: Name
    counters: Counters
    memory_octets: int | None
    at: float
    samples: int = 1
    interval: float = FIRST_INTERVAL
    cpu_percent: float | None = None
    received: float | None = None
    sent: float | None = None


class UsageTable:
    """All unikernels of a subscription."""

    def __init__(self) -> None:
        self._uses: dict[Name, Use] = {}

    def take(self, name: Name, sample: Statistics, at: float) -> None:
        """Note a sample that came ``at`` this moment (seconds of a steady clock)."""
        earlier = self._uses.get(name)
        if earlier is None and len(self._uses) >= MOST_ROWS:
            return
        self._uses[name] = _next(earlier, name, sample, at)

    def complete(self) -> bool:
        """Whether everybody who is known has a rate, as far as waiting for another sample would help."""
        samples = [use.samples for use in self._uses.values()]
        return bool(samples) and (min(samples) >= 2 or max(samples) >= 3)

    def rows(self, order: str, now: float) -> list[Use]:
        """Who is there, the largest first; those of unknown rate last."""
        present = [use for use in list(self._uses.values()) if now - use.at <= SILENT_ROUNDS * use.interval]
        if len(present) < len(self._uses):
            self._uses = {use.name: use for use in present}
        return sorted(present, key=lambda use: (-_weight(order, use), _shown(use.name)))


def _next(earlier: Use | None, name: Name, sample: Statistics, at: float) -> Use:
    counters = Counters.of(sample)
    memory = None if sample.memory is None else sample.memory.rss * PAGE
    if earlier is None:
        return Use(name, counters, memory, at)
    seconds = at - earlier.at
    use = Use(name, counters, memory, at, samples=earlier.samples + 1, interval=max(seconds, LEAST_INTERVAL))
    if seconds < LEAST_INTERVAL or not counters.follows(earlier.counters):
        return use
    before = earlier.counters
    return Use(
        *(name, counters, memory, at, use.samples, use.interval),
        cpu_percent=(counters.cpu_seconds - before.cpu_seconds) / seconds * 100,
        received=(counters.received - before.received) / seconds,
        sent=(counters.sent - before.sent) / seconds,
    )


_WEIGHTS: dict[str, Callable[[Use], float | None]] = {
    "cpu": lambda use: use.cpu_percent,
    "memory": lambda use: use.memory_octets,
    "network": lambda use: None if use.received is None or use.sent is None else use.received + use.sent,
}


def _weight(order: str, use: Use) -> float:
    weight = _WEIGHTS[order](use) if order in _WEIGHTS else 0.0
    return -1.0 if weight is None else weight


def use_document(use: Use) -> dict[str, Any]:
    """One row for programs."""
    return {
        "name": str(use.name),
        "cpu_percent": _rounded(use.cpu_percent),
        "memory_octets": use.memory_octets,
        "received_octets_per_second": _rounded(use.received),
        "sent_octets_per_second": _rounded(use.sent),
        "cpu_seconds": round(use.counters.cpu_seconds, 6),
    }


def use_cells(use: Use) -> list[str]:
    """One row for people, below ``HEADING``."""
    return [
        _shown(use.name),
        "-" if use.cpu_percent is None else f"{use.cpu_percent:.1f} %",
        "-" if use.memory_octets is None else octets_text(use.memory_octets),
        "-" if use.received is None else f"{octets_text(use.received)}/s",
        "-" if use.sent is None else f"{octets_text(use.sent)}/s",
        f"{use.counters.cpu_seconds:.2f} s",
    ]


def _shown(name: Name) -> str:
    return str(name).removeprefix(":") or ":"


def octets_text(octets: float) -> str:
    """A number of octets for people: ``17 B``, ``1.5 kB`` (1024 octets), ``3.2 MB``."""
    if octets < 1024:
        return f"{octets:.0f} B"
    for unit in ("kB", "MB", "GB"):
        octets /= 1024
        if octets < 1024 or unit == "GB":
            break
    return f"{octets:.1f} {unit}"


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)
