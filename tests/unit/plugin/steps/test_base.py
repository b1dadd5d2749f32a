"""Parts that the three steps share."""

from __future__ import annotations

import pytest
from distilabel.errors import DistilabelUserError
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps.tasks import EmbeddingTaskGenerator, TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM, RunError
from distilabel_openai_batch.engine.settings import SubmissionRun
from distilabel_openai_batch.plugin.steps import base
from distilabel_openai_batch.plugin.steps.base import (
    TaskStep,
    check_columns,
    check_task,
    process_row_groups,
    remove_from_pipeline,
    split_into_batches,
)
from tests.unit.plugin.stubs import CONNECTION

GROUPS = [([{"id": 0}],), ([{"id": 1}],), ([{"id": 2}],)]


def generation(llm_class=OpenAIBatchLLM, **fields) -> TextGeneration:
    return TextGeneration(llm=llm_class(**CONNECTION), **fields)


def test_task_with_a_batch_llm_is_accepted():
    task = generation()

    assert check_task(task) is task


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (generation(OpenAILLM), r"holds OpenAILLM. Write TextGeneration\(llm=OpenAIBatchLLM\(model=…\)\)"),
        (
            EmbeddingTaskGenerator(category="text-retrieval", llm=OpenAIBatchLLM(**CONNECTION)),
            "makes its own rows and takes no input",
        ),
    ],
    ids=["other LLM", "generator"],
)
def test_other_tasks_are_refused(task, message):
    with pytest.raises(ValueError, match=message):
        check_task(task)


def test_task_is_removed_from_its_pipeline():
    with Pipeline(name="pipeline") as pipeline:
        task, other = generation(name="task"), generation(name="other")

    remove_from_pipeline(task)
    remove_from_pipeline(task)

    assert list(pipeline.dag) == ["other"]
    assert task.pipeline is None
    assert other.pipeline is pipeline


def test_step_removes_and_loads_its_task(monkeypatch):
    """A step with a submission makes the Task's LLM part of the submission before the LLM is loaded."""
    submission = SubmissionRun("numbers", waits=True, submits=False)

    class Step(TaskStep):
        def process(self):
            yield []

        def _submission(self):
            return submission

    with Pipeline(name="pipeline") as pipeline:
        step = Step(name="step", task=generation(name="task"))
    step.load()

    assert list(pipeline.dag) == ["step"]
    assert step.task.llm._run is submission
    assert step.task.llm._sessions is not None
    step.unload()
    assert step.task.llm._sessions is None


def test_missing_column_is_an_error_that_suggests_a_mapping():
    check_columns("step", generation(), ["instruction", "id"])

    with pytest.raises(DistilabelUserError, match=r"'step' .*input_mappings={'instruction': 'question'}"):
        check_columns("step", generation(), ["question"])


@pytest.fixture
def reversed_groups(monkeypatch):
    """Row groups that finish in the reverse order."""

    async def process_side_by_side(task, client, groups, finished, reasons=None):
        for index in reversed(range(len(groups))):
            finished(index, [row | {"reasons": reasons} for row in groups[index][0]])

    monkeypatch.setattr(base, "process_side_by_side", process_side_by_side)


@pytest.mark.parametrize(("ordered", "ids"), [(True, [0, 1, 2]), (False, [2, 1, 0])])
def test_row_groups_are_yielded_in_order_or_as_they_finish(reversed_groups, ordered, ids):
    groups = list(process_row_groups(generation(), GROUPS, ordered, "reason"))

    assert groups == [[{"id": i, "reasons": "reason"}] for i in ids]


def test_error_of_the_run_is_raised_after_the_finished_groups(monkeypatch):
    async def process_side_by_side(task, client, groups, finished, reasons=None):
        finished(0, groups[0][0])
        raise RunError("The quota is used up.")

    monkeypatch.setattr(base, "process_side_by_side", process_side_by_side)
    groups = process_row_groups(generation(), GROUPS, True)

    assert next(groups) == [{"id": 0}]
    with pytest.raises(RunError, match="quota"):
        next(groups)


@pytest.mark.parametrize(
    ("sizes", "offset", "batches"),
    [
        ([4, 4, 2], 0, [([0, 1, 2], False), ([3, 4, 5], False), ([6, 7, 8], False), ([9], True)]),
        ([3, 3], 0, [([0, 1, 2], False), ([3, 4, 5], True)]),
        ([4, 4], 5, [([5, 6, 7], True)]),
        ([], 0, [([], True)]),
        ([3, 0], 0, [([0, 1, 2], True)]),
    ],
)
def test_rows_are_split_into_batches_of_one_size(sizes, offset, batches):
    """Only the last batch may be smaller, and is marked as the last."""
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    row_lists = ([{"id": start + i} for i in range(size)] for start, size in zip(starts, sizes, strict=True))

    found = split_into_batches(row_lists, 3, offset)

    assert [([row["id"] for row in rows], last) for rows, last in found] == batches
