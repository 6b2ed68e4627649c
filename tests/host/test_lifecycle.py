"""The table of a unikernel's life, and the picture that is drawn from it."""

from pathlib import Path

import pytest

from albatross_pki.host.lifecycle import TRANSITIONS, WITH_PROCESS, Event, Phase, advance, mermaid, possible

DOCUMENT = Path(__file__).parents[2] / "docs" / "lifecycle.md"


def test_every_phase_can_be_reached_and_left() -> None:
    reached = {Phase.ABSENT}
    while more := {after for (before, _), after in TRANSITIONS.items() if before in reached} - reached:
        reached |= more
    assert reached == set(Phase)
    assert {before for before, _ in TRANSITIONS} == set(Phase)


def test_every_event_means_something() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.WAITING, Phase.STOPPED])
def test_destroy_works_whenever_nothing_is_in_progress(phase: Phase) -> None:
    assert possible(phase, Event.DESTROY)


def test_a_process_appears_only_by_starting_and_goes_only_by_ending() -> None:
    for (before, event), after in TRANSITIONS.items():
        if after in WITH_PROCESS and before not in WITH_PROCESS:
            assert (before, event) == (Phase.STARTING, Event.UP)
        if before in WITH_PROCESS and after not in WITH_PROCESS:
            assert event in (Event.GONE, Event.FINISHED, Event.FAILED)


def test_what_the_table_does_not_know_is_a_defect() -> None:
    with pytest.raises(RuntimeError, match="absent cannot meet the event: destroy"):
        advance(Phase.ABSENT, Event.DESTROY)


def test_the_picture_in_the_documentation_is_the_table() -> None:
    assert f"```mermaid\n{mermaid()}```" in DOCUMENT.read_text()
