"""Steps with a `MixtureOfAgentsLLM` whose members are clients."""

from __future__ import annotations

import gc

import pytest
from distilabel.models.llms import MixtureOfAgentsLLM
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import NoGenerationsError, OpenAIBatchLLM
from distilabel_openai_batch.api.failure_codes import LENGTH_LIMIT
from distilabel_openai_batch.api.outcomes import SPENT_LIMIT, Answer, Failure
from distilabel_openai_batch.engine.calls import CallLog
from distilabel_openai_batch.hooks import mixtures
from distilabel_openai_batch.hooks.empty_rows import MIN_ROWS
from distilabel_openai_batch.hooks.step_process import is_stopped

SPENT = Failure(SPENT_LIMIT, code=LENGTH_LIMIT)


@pytest.fixture
def make_step(llm, monkeypatch):
    """Return a function that builds a step whose proposers answer, and whose aggregator returns a text or `None`."""

    def make(text: str | None, tasks_after=("judge",)) -> TextGeneration:
        aggregator, proposer = llm.model_copy(), llm.model_copy()

        async def agenerate(self, inputs, num_generations=1, **kwargs):
            answer = text if self is mixture.aggregator_llm else "Proposed."
            outcome = Answer.of({}) if answer else SPENT
            CallLog.active().add([outcome] * len(inputs))
            return [{"generations": [answer], "statistics": {}} for _ in inputs]

        monkeypatch.setattr(OpenAIBatchLLM, "_agenerate", agenerate)
        mixture = MixtureOfAgentsLLM(aggregator_llm=aggregator, proposers_llms=[proposer])
        step = TextGeneration(name="write", llm=mixture)
        step.load()
        for client in (aggregator, proposer):
            client.begin_run(("write", "judge"), tasks_after, frozenset())
        return step

    return make


def process(step, rows: int) -> list[dict]:
    return next(step.process_applying_mappings([{"instruction": f"Say {number}."} for number in range(rows)]))


def test_mixture_without_any_generation_ends_the_run(make_step):
    step = make_step(None)
    with pytest.raises(NoGenerationsError, match=f"None of {MIN_ROWS} rows of step 'write'.*'judge' was not started"):
        process(step, MIN_ROWS)
    assert is_stopped(step)


def test_rows_of_a_mixture_add_up_over_batches(make_step, caplog):
    step = make_step(None)
    assert len(process(step, MIN_ROWS - 1)) == MIN_ROWS - 1
    assert "Step 'judge' is billed for these rows" in caplog.text
    with pytest.raises(NoGenerationsError, match=f"None of {MIN_ROWS} rows"):
        process(step, 1)


@pytest.mark.parametrize(("text", "tasks_after"), [("Hello.", ("judge",)), (None, ())])
def test_mixture_with_a_generation_or_without_a_task_behind_goes_on(make_step, text, tasks_after):
    rows = process(make_step(text, tasks_after), MIN_ROWS)
    assert [row["generation"] for row in rows] == [text] * MIN_ROWS


def test_guards_do_not_keep_steps_alive(make_step):
    step = make_step("Hello.")
    process(step, 1)
    key = id(step)
    assert key in mixtures._guards
    del step
    gc.collect()
    assert key not in mixtures._guards
