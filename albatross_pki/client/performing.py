"""Doing steps that wait for each other, several at once, as far as they go.

1. a step begins when all that it waits for has succeeded, at most ``WORKERS`` at a time;
2. one that fails stops what waits for it, directly or not; everything else is still done;
3. an interruption by the keyboard (Ctrl-C), or a reader that goes away, lets no further step begin, and waits for those
   that have begun, so that nothing is left half made; a second Ctrl-C does not wait.

What a step does is the caller's, and no business of this module.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from albatross_pki.client.difference import Kind, Step
from albatross_pki.client.wanted import shown
from albatross_pki.errors import AlbatrossError, system_error_text

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
    run = _Run(steps, do, workers)
    results = []
    try:
        while (result := run.next()) is not None:
            results.append(result)
            on_result(result)
    except BaseException:  # Ctrl-C, or nobody reads what ``on_result`` prints
        run.drain()
        raise
    return results


class _Run:
    """What may begin, what runs and what never will; each edge between two steps is looked at once."""

    def __init__(self, steps: Sequence[Step], do: Do, workers: int) -> None:
        self._do, self._workers = do, workers
        self._ended: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()
        self._waits_for = {step.number: len(step.after) for step in steps}  # steps that have not succeeded yet
        self._waiting: dict[int, list[Step]] = {step.number: [] for step in steps}
        self._ready = deque(step for step in steps if not step.after)
        for step in steps:
            for number in step.after:
                self._waiting[number].append(step)
        self._failed: dict[int, Step] = {}
        self._stopped: deque[tuple[Step, Step]] = deque()  # what will not be tried, and why
        self._running = 0

    def next(self) -> Result | None:
        """The next step that has ended, or will never begin; ``None`` if there is no more."""
        self._begin()
        if self._stopped:
            step, cause = self._stopped.popleft()
            return Result(step, Outcome.NOT_TRIED, f"it waits for: {sentence(cause)}")
        if not self._running:
            return None
        result = self._taken()
        if result.outcome is Outcome.DONE:
            self._succeeded(result.step)
        else:
            self._stop(result.step)
        return result

    def drain(self) -> None:
        """Wait for what has begun."""
        while self._running:
            self._ended.get()
            self._running -= 1

    def _begin(self) -> None:
        while self._ready and self._running < self._workers:
            self._running += 1
            threading.Thread(target=self._work, args=(self._ready.popleft(),), daemon=True).start()

    def _succeeded(self, step: Step) -> None:
        for waiting in self._waiting[step.number]:
            self._waits_for[waiting.number] -= 1
            if not self._waits_for[waiting.number]:
                self._ready.append(waiting)

    def _stop(self, failed: Step) -> None:
        """Note everything that waits for ``failed``, directly or not."""
        self._failed[failed.number] = failed
        causes = deque([failed])
        while causes:
            cause = causes.popleft()
            for step in self._waiting[cause.number]:
                if step.number not in self._failed:
                    self._failed[step.number] = step
                    self._stopped.append((step, cause))
                    causes.append(step)

    def _taken(self) -> Result:
        ended = self._ended.get()
        self._running -= 1
        if isinstance(ended, BaseException):
            raise ended
        return ended

    def _work(self, step: Step) -> None:
        try:
            self._ended.put(Result(step, Outcome.DONE, self._do(step)))
        except AlbatrossError as error:
            self._ended.put(Result(step, Outcome.FAILED, error.message))
        except OSError as error:
            self._ended.put(Result(step, Outcome.FAILED, system_error_text(error)))
        except BaseException as error:  # noqa: BLE001  a defect is raised where it is reported
            self._ended.put(error)


def sentence(step: Step) -> str:
    """A step in words: ``create unikernel dev:hello``, ``set policy of dev``."""
    if step.kind is Kind.POLICY:
        return f"{step.action.value} policy of {str(step.name.path) or 'the path itself'}"
    return f"{step.action.value} {step.kind.value} {shown(step.name)}"
