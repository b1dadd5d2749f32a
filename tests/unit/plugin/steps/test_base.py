"""Parts that the three steps share."""

from __future__ import annotations

from typing import ClassVar

import pytest
from distilabel.errors import DistilabelUserError
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps.tasks import EmbeddingTaskGenerator, TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM, RunError
from distilabel_openai_batch.display.brief_errors import is_brief
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

    with pytest.raises(DistilabelUserError, match=r"'step' .*input_mappings={'instruction': 'question'}") as raised:
        check_columns("step", generation(), ["question"])
    assert is_brief(raised.value)


class GroupsOf:
    """Row groups that finish in the reverse order when all are started, or fail after the first.

    Attributes:
        events: calls of the session and starts of groups.
        error: the error of the run.
    """

    events: ClassVar[list[str]] = []
    error: Exception | None = None

    def __init__(self, task, client, finished, reasons=None):
        self._finished, self._reasons, self._started = finished, reasons, []

    def hold(self):
        self.events.append("hold")

    def release(self, more_may_come=False):
        self.events.append("release for now" if more_may_come else "release")
        if more_may_come:
            self._finish()

    def start(self, index, group):
        self._started.append((index, group))
        self.events.append(f"start {index}")

    async def run(self, feed):
        await feed(self)
        if self.error:
            self._started = self._started[:1]
        self._finish()
        if self.error:
            raise self.error

    def _finish(self):
        for index, (rows,) in reversed(self._started):
            self._finished(index, [row | {"reasons": self._reasons} for row in rows])
        self._started.clear()


@pytest.fixture
def fake_groups(monkeypatch):
    monkeypatch.setattr(base, "RowGroups", GroupsOf)
    monkeypatch.setattr(GroupsOf, "events", [])
    return GroupsOf


@pytest.mark.parametrize(("ordered", "ids"), [(True, [0, 1, 2]), (False, [2, 1, 0])])
def test_row_groups_are_yielded_in_order_or_as_they_finish(fake_groups, ordered, ids):
    groups = list(process_row_groups(generation(), iter(GROUPS), ordered, "reason"))

    assert groups == [[{"id": i, "reasons": "reason"}] for i in ids]
    assert fake_groups.events == ["hold", "start 0", "start 1", "start 2", "release"]


def test_groups_are_read_when_there_is_room_for_their_rows(fake_groups):
    """Requests are released while the stream reads no rows, and at the end."""
    task = generation()
    task.llm.max_requests_per_job, task.llm.max_jobs = 2, 1
    read = []

    def groups():
        for group in GROUPS:
            read.append(group)
            yield group

    yielded = process_row_groups(task, groups(), True)
    assert next(yielded) == [{"id": 0, "reasons": None}]
    assert len(read) == 2
    assert len(list(yielded)) == 2
    assert len(read) == 3
    assert fake_groups.events[:4] == ["hold", "start 0", "start 1", "release for now"]
    assert fake_groups.events[4:6] == ["hold", "start 2"]
    assert fake_groups.events[-1] == "release"


def test_error_of_the_run_is_raised_after_the_finished_groups(fake_groups, monkeypatch):
    monkeypatch.setattr(fake_groups, "error", RunError("The quota is used up."))
    groups = process_row_groups(generation(), GROUPS, True)

    assert next(groups) == [{"id": 0, "reasons": None}]
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
