"""The life of one unikernel as a table, and nothing else.

A *phase* is what a unikernel is in; an *event* is what happens to it. ``TRANSITIONS`` holds every pair that is
possible; a pair that is not in it is a defect of ours, not of a peer. The supervisor asks ``advance`` before it does
anything; the picture in ``docs/lifecycle.md`` is drawn by ``mermaid`` from the same table, and a test compares them.

What a unikernel is *wanted* to be is a second record (``wanted``): it survives the machine, the phase does not.
"""

from enum import Enum


class Phase(Enum):
    """What a unikernel is in. The value is the word that ``status`` shows."""

    ABSENT = "absent"  # not there; its name is free
    STARTING = "starting"  # prepared, its process about to be made
    RUNNING = "running"
    ENDING = "ending"  # told to end, for good
    HALTING = "halting"  # told to end, to be kept
    SWAPPING = "swapping"  # told to end, to make room for its successor
    WAITING = "waiting"  # wanted, without a process; tried again when its delay is over
    STOPPED = "stopped"  # kept, not to run


class Event(Enum):
    """What happens to a unikernel."""

    CREATE = "create"
    UP = "process made"
    REFUSED = "did not start, nobody wants it"
    DEFERRED = "did not start, still wanted"
    FINISHED = "ended, not to be restarted"
    FAILED = "ended, to be restarted"
    DUE = "delay over"
    DESTROY = "destroy"
    STOP = "stop"
    START = "start"
    SWAP = "replace"
    GONE = "process gone"


class Wanted(Enum):
    """What the record on disk says; ``NOTHING`` is no record at all."""

    NOTHING = "nothing"
    RUNNING = "running"
    STOPPED = "stopped"


TRANSITIONS: dict[tuple[Phase, Event], Phase] = {
    (Phase.ABSENT, Event.CREATE): Phase.STARTING,
    (Phase.STARTING, Event.UP): Phase.RUNNING,
    (Phase.STARTING, Event.REFUSED): Phase.ABSENT,
    (Phase.STARTING, Event.DEFERRED): Phase.WAITING,
    (Phase.RUNNING, Event.FINISHED): Phase.ABSENT,
    (Phase.RUNNING, Event.FAILED): Phase.WAITING,
    (Phase.RUNNING, Event.DESTROY): Phase.ENDING,
    (Phase.RUNNING, Event.STOP): Phase.HALTING,
    (Phase.RUNNING, Event.SWAP): Phase.SWAPPING,
    (Phase.ENDING, Event.GONE): Phase.ABSENT,
    (Phase.HALTING, Event.GONE): Phase.STOPPED,
    (Phase.SWAPPING, Event.GONE): Phase.STARTING,
    (Phase.WAITING, Event.DUE): Phase.STARTING,
    (Phase.WAITING, Event.START): Phase.STARTING,
    (Phase.WAITING, Event.SWAP): Phase.STARTING,
    (Phase.WAITING, Event.STOP): Phase.STOPPED,
    (Phase.WAITING, Event.DESTROY): Phase.ABSENT,
    (Phase.STOPPED, Event.START): Phase.STARTING,
    (Phase.STOPPED, Event.SWAP): Phase.STARTING,
    (Phase.STOPPED, Event.DESTROY): Phase.ABSENT,
}

WITH_PROCESS = frozenset({Phase.RUNNING, Phase.ENDING, Phase.HALTING, Phase.SWAPPING})
TOLD_TO_END = frozenset({Phase.ENDING, Phase.HALTING, Phase.SWAPPING})


def advance(phase: Phase, event: Event) -> Phase:
    """The phase after ``event``; raises ``RuntimeError`` for a pair that the table does not know."""
    try:
        return TRANSITIONS[phase, event]
    except KeyError:
        raise RuntimeError(f"a unikernel that is {phase.value} cannot meet the event: {event.value}") from None


def possible(phase: Phase, event: Event) -> bool:
    """Whether the table knows ``event`` in ``phase``."""
    return (phase, event) in TRANSITIONS


def mermaid() -> str:
    """The table as a Mermaid state diagram, one line per transition, in the table's order."""
    lines = ["stateDiagram-v2", "    [*] --> absent"]
    lines += [f"    {before.value} --> {after.value}: {event.value}" for (before, event), after in TRANSITIONS.items()]
    return "\n".join(lines) + "\n"
