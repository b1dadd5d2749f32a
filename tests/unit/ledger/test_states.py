"""States of jobs, and labels of scopes."""

from __future__ import annotations

from distilabel_openai_batch.ledger.states import OPEN_STATES, TRANSITIONS, JobState, ScopeName


def test_each_state_has_its_transitions():
    assert set(TRANSITIONS) == set(JobState)
    assert set(JobState) - set(OPEN_STATES) == {JobState.COLLECTED, JobState.DROPPED}


def test_a_scope_has_a_label_and_a_full_label():
    """A script may have the name of a pipeline and its task; only the full labels differ then."""
    task, script = ScopeName("preferences", "judge", "u"), ScopeName("preferences/judge", "", "u")
    assert task.label == script.label == "preferences/judge"
    assert (task.full_label, script.full_label) == ("preferences//judge", "preferences/judge//")


def test_the_words_in_the_file_stay():
    """Ledgers of older releases have these words in the column `jobs.state`."""
    assert [state.value for state in JobState] == [
        "synchronous",
        "planned",
        "uploaded",
        "created",
        "ended",
        "collected",
        "dropped",
    ]
