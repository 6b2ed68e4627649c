"""What follows an end, by exit code, and how long a series of failures waits."""

import signal

import pytest

from albatross_pki.host.restarts import Decision, Exit, delay, failures_after, judge_exit
from albatross_pki.unikernels import FailBehaviour, Settings

QUIT, ALWAYS, SOME = FailBehaviour(), FailBehaviour(frozenset()), FailBehaviour(frozenset({0, 1, 2, 60, 64}))
OVER, AGAIN = Decision.OVER, Decision.AGAIN


@pytest.mark.parametrize(
    ("ended", "quitting", "always", "listed"),
    [
        (Exit(signal=signal.SIGTERM), OVER, OVER, OVER),
        (Exit(signal=signal.SIGSEGV), OVER, OVER, OVER),
        (Exit(code=1), OVER, OVER, OVER),
        *((Exit(code=code), OVER, OVER, OVER) for code in (60, 61, 62, 63, 64)),
        (Exit(code=0), OVER, AGAIN, AGAIN),
        (Exit(code=2), OVER, AGAIN, AGAIN),
        (Exit(code=3), OVER, AGAIN, OVER),
        (Exit(code=255), OVER, AGAIN, OVER),
        (Exit(), OVER, AGAIN, AGAIN),  # adopted, its status unknown: a failure
    ],
)
def test_exit_codes_decide(ended: Exit, quitting: Decision, always: Decision, listed: Decision) -> None:
    for behaviour, expected in ((QUIT, quitting), (ALWAYS, always), (SOME, listed)):
        assert judge_exit(Settings(fail_behaviour=behaviour, add_name=False), ended) is expected


@pytest.mark.parametrize("behaviour", [QUIT, ALWAYS, SOME])
def test_exit_64_with_an_injected_name_is_tried_without_it(behaviour: FailBehaviour) -> None:
    assert judge_exit(Settings(fail_behaviour=behaviour, add_name=True), Exit(code=64)) is Decision.WITHOUT_NAME


def test_p08_repeated_failures_wait_longer_and_longer() -> None:
    assert [delay(failures) for failures in range(1, 11)] == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert delay(10**9) == 60


def test_p08_a_long_run_ends_a_series() -> None:
    assert failures_after(5, 0.1) == 6
    assert failures_after(5, 3600) == 1


def test_ends_are_told_in_words() -> None:
    assert str(Exit(code=3)) == "exit 3"
    assert str(Exit(signal=15)) == "signal SIGTERM"
    assert str(Exit(signal=63)) == "signal 63"
    assert str(Exit()) == "an unknown end"
