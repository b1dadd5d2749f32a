"""Rows without a generation, before the next Task is billed for them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from distilabel.steps.tasks import TextGeneration, UltraFeedback

from distilabel_openai_batch import NoGenerationsError
from distilabel_openai_batch.api.failure_codes import LENGTH_LIMIT
from distilabel_openai_batch.api.outcomes import SPENT_LIMIT, Answer, Failure
from distilabel_openai_batch.engine.calls import CallLog
from distilabel_openai_batch.hooks.empty_rows import MIN_ROWS, AnswerGuard, MissingInputs

SPENT = Failure(SPENT_LIMIT, code=LENGTH_LIMIT)


def client(**attributes):
    return SimpleNamespace(**{"tasks_after": ("judge",), "stop_without_answers": True, **attributes})


def warnings(caplog) -> list[str]:
    """Return the warnings of the package."""
    return [line for line in caplog.messages if line.startswith("⚠️")]


def calls(*outcomes, has_generation: bool | None = None) -> CallLog:
    """Return the log of a row group with one call."""
    log = CallLog()
    log.add(outcomes)
    log.has_generation = has_generation
    return log


def guard(llm, **attributes) -> AnswerGuard:
    return AnswerGuard(loaded(TextGeneration(name="write", llm=llm)), client(**attributes))


def loaded(step):
    step.load()
    return step


def test_ten_rows_without_any_generation_end_the_run_with_the_advice(llm):
    watched = guard(llm)
    for _ in range(MIN_ROWS):
        watched.add(calls(SPENT, has_generation=False), 1)
    assert watched.holds_rows
    with pytest.raises(NoGenerationsError) as raised:
        watched.check()
    for part in ("None of 10 rows of step 'write'", 'on_truncated="retry"', "Step 'judge' was not started"):
        assert part in str(raised.value)


def test_the_advice_after_retries_of_cut_answers_is_a_higher_limit(llm):
    watched = guard(llm, on_truncated="retry")
    watched.add(calls(SPENT, has_generation=False), MIN_ROWS)
    with pytest.raises(NoGenerationsError, match="raise `max_new_tokens`") as raised:
        watched.check()
    assert "on_truncated" not in str(raised.value)


@pytest.mark.parametrize(("rows", "stops"), [(MIN_ROWS - 1, True), (MIN_ROWS, False)])
def test_a_few_rows_or_the_setting_leave_a_warning(llm, caplog, rows, stops):
    watched = guard(llm, stop_without_answers=stops)
    watched.add(calls(SPENT, has_generation=False), rows)
    for _ in range(2):
        watched.check()
    [line] = warnings(caplog)
    assert f"None of {rows} rows" in line
    assert "Step 'judge' is billed for these rows" in line


@pytest.mark.parametrize(
    "log",
    [
        # One of two generations is missing: the outcome of the request is a failure.
        calls(SPENT, has_generation=True),
        # Embeddings have no generations.
        calls(SPENT, Answer.of({})),
    ],
    ids=["a part of the generations", "an answer of another endpoint"],
)
def test_one_answer_releases_all_rows(llm, log):
    watched = guard(llm)
    watched.add(calls(SPENT, has_generation=False), 100)
    watched.add(log, 1)
    assert not watched.holds_rows
    watched.check()


def test_rows_of_the_last_task_never_wait(llm):
    watched = guard(llm, tasks_after=())
    watched.add(calls(SPENT, has_generation=False), 100)
    assert not watched.holds_rows
    watched.check()


def test_a_group_without_calls_is_no_failure(llm):
    watched = guard(llm)
    watched.add(CallLog(), 100)
    watched.check()


def rated(llm, rows: list[dict], **attributes) -> MissingInputs:
    """Return the inputs of a judge, which requires `instruction` and `generations`."""
    inputs = MissingInputs(
        loaded(UltraFeedback(name="judge", llm=llm)), client(answer_columns=frozenset({"generations"}), **attributes)
    )
    for row in rows:
        inputs.add(([{"instruction": "Say it."} | row],))
    return inputs


@pytest.mark.parametrize("missing", [{"generations": None}, {"generations": [None, "No."]}])
def test_rows_without_an_answer_are_counted_before_they_are_billed(llm, caplog, missing):
    inputs = rated(llm, [missing, {"generations": ["Yes.", "No."]}])
    reason = "1 of 2 rows of step 'judge' have `None` in `generations`"
    assert inputs.check() == reason
    # The same rows are reported once.
    assert inputs.check() == ""
    [line] = warnings(caplog)
    assert reason in line


def test_a_few_rows_without_an_answer_are_no_reason_to_pause(llm, caplog):
    """The warning comes before each submission with further such rows, and the pause once."""
    complete, missing = {"generations": ["Yes."]}, {"generations": [None]}
    inputs = rated(llm, [missing, *[complete] * 19])
    assert inputs.check() == ""
    inputs.add(([missing | {"instruction": "Say it."}],))
    assert inputs.check() == ""
    assert len(warnings(caplog)) == 2
    inputs.add(([missing | {"instruction": "Say it."}] * 2,))
    assert inputs.check()
    inputs.add(([missing | {"instruction": "Say it."}],))
    assert inputs.check() == ""


def test_none_in_a_column_of_the_data_is_a_value(llm, caplog):
    """The template of a Task may leave a value out: a warning tells so, and nothing pauses or ends."""
    inputs = rated(llm, [{"instruction": None, "generations": ["Yes."]}] * MIN_ROWS)
    assert inputs.check() == ""
    assert "10 of 10 rows of step 'judge' have `None` in `instruction`" in caplog.text


def test_complete_rows_and_optional_columns_are_quiet(llm, caplog):
    inputs = MissingInputs(loaded(TextGeneration(llm=llm)), client())
    inputs.add(([{"instruction": "Say it.", "system_prompt": None}],))
    assert inputs.check() == ""
    assert warnings(caplog) == []


@pytest.mark.parametrize("missing", [None, [None, None]])
def test_ten_rows_without_any_answer_of_an_earlier_step_end_the_run(llm, missing):
    """Rows of distilabel's cache come without the Task that failed."""
    rows = [{"generations": missing}] * MIN_ROWS
    with pytest.raises(NoGenerationsError, match="10 of 10 rows of step 'judge'"):
        rated(llm, rows).check()
    assert rated(llm, rows[1:]).check()
    assert rated(llm, rows, stop_without_answers=False).check()
    assert rated(llm, [*rows, {"generations": [None, "No."]}]).check()
