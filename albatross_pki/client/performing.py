"""Doing steps that wait for each other, several at once, as far as they go.

1. a step begins when all that it waits for has succeeded, at most ``WORKERS`` at a time;
2. one that fails stops what waits for it, directly or not; everything else is still done;
3. an interruption by the keyboard (Ctrl-C) lets no further step begin, and waits for those that have begun, so that
   nothing is left half made; a second one does not wait.

What a step does is the caller's, and no business of this module.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from albatross_pki.client.difference import Kind, Step
from albatross_pki.client.wanted import shown
from albatross_pki.errors import AlbatrossError

WORKERS = 4  # a host prepares few unikernels at a time, and a delegation has few connections


class Outcome(Enum):
    DONE = "done"
    FAILED = "failed"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a step: the host's text, or why not."""

    step: Step
    outcome: Outcome
    text: str


Do = Callable[[Step], str]


def perform(steps: Sequence[Step], do: Do, on_result: Callable[[Result], None], workers: int = WORKERS) -> list[Result]:
    """Do ``steps``; ``do`` gives a text or raises. ``on_result`` is called in the caller's thread, as they end."""
    run = _Run(list(steps), do, workers)
    results = []
    try:
        while (result := run.next()) is not None:
            results.append(result)
            on_result(result)
    except KeyboardInterrupt:
        run.drain()
        raise
    return results


class _Run:
    def __init__(self, steps: list[Step], do: Do, workers: int) -> None:
        self._waiting, self._do, self._workers = steps, do, workers
        self._ended: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()
        self._done: set[int] = set()
        self._failed: dict[int, Step] = {}
        self._running = 0

    def next(self) -> Result | None:
        """The next step that has ended, or will never begin; ``None`` if there is no more."""
        self._begin()
        for step in self._waiting:
            if because := step.after & self._failed.keys():
                self._waiting.remove(step)
                self._failed[step.number] = step
                cause = self._failed[min(because)]
                return Result(step, Outcome.NOT_TRIED, f"it waits for: {sentence(cause)}")
        if not self._running:
            return None
        result = self._taken()
        if result.outcome is Outcome.DONE:
            self._done.add(result.step.number)
        else:
            self._failed[result.step.number] = result.step
        return result

    def drain(self) -> None:
        """Wait for what has begun."""
        while self._running:
            self._taken()

    def _begin(self) -> None:
        ready = [step for step in self._waiting if step.after <= self._done]
        for step in ready[: self._workers - self._running]:
            self._waiting.remove(step)
            self._running += 1
            threading.Thread(target=self._work, args=(step,), daemon=True).start()

    def _taken(self) -> Result:
        ended = self._ended.get()
        self._running -= 1
        if isinstance(ended, BaseException):
            raise ended
        return ended

    def _work(self, step: Step) -> None:
        try:
            self._ended.put(Result(step, Outcome.DONE, self._do(step)))
        except (AlbatrossError, OSError) as error:
            self._ended.put(Result(step, Outcome.FAILED, str(error)))
        except BaseException as error:  # noqa: BLE001  a defect is raised where it is reported
            self._ended.put(error)


def sentence(step: Step) -> str:
    """A step in words: ``create unikernel dev:hello``, ``set policy of dev``."""
    if step.kind is Kind.POLICY:
        return f"{step.action.value} policy of {str(step.name.path) or 'the path itself'}"
    return f"{step.action.value} {step.kind.value} {shown(step.name)}"
