"""The word *policy*: how much of a host may be used at and below one path."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """What a delegation allows, together, for everything at and below its path.

    ``memory_mb`` and ``block_mb`` are multiples of 2**20 octets; ``block_mb`` of ``None`` allows no block storage.
    ``cpuids`` are the CPUs that may be used, ``bridges`` the host's bridges, ``unikernels`` how many may exist.
    """

    cpuids: frozenset[int]
    unikernels: int
    memory_mb: int
    block_mb: int | None = None
    bridges: frozenset[str] = frozenset()
