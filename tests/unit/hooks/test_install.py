"""What is wrapped of distilabel, and for whom; whole pipelines are in `test_pipeline.py`."""

from __future__ import annotations

import pytest
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline._dag import DAG
from distilabel.pipeline.local import Pipeline
from distilabel.steps.tasks import TextGeneration, UltraFeedback
from distilabel.steps.tasks.base import GlobalTask, _Task

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.hooks.install import _check_targets
from distilabel_openai_batch.hooks.row_groups import _row_groups


class UsersTask(TextGeneration):
    """A Task as users write them."""


class UsersGlobalTask(GlobalTask, TextGeneration):
    """One that wants all rows at once by its own nature."""


@pytest.mark.parametrize("task", [TextGeneration, UltraFeedback, UsersTask])
def test_a_task_of_ours_is_given_all_rows(task):
    """Also a class that the user derived; with another LLM it is what it was."""
    assert task(llm=OpenAIBatchLLM(model="gpt-4o-mini")).is_global
    assert not task(llm=OpenAILLM(model="gpt-4o-mini")).is_global


def test_a_different_distilabel_is_refused(monkeypatch):
    """By what differs, and with what to install."""
    monkeypatch.setattr(DAG, "get_steps_load_stages", lambda self: None)
    monkeypatch.delattr(Pipeline, "_error_callback")
    monkeypatch.setattr(_Task, "is_global", False)

    with pytest.raises(ImportError) as raised:
        _check_targets()

    told = str(raised.value)
    assert all(name in told for name in ("DAG.get_steps_load_stages", "Pipeline._error_callback", "_Task.is_global"))
    assert "pip install 'distilabel==1.5.3'" in told


@pytest.mark.parametrize(
    ("task", "rows", "sizes"),
    [(TextGeneration, 7, [3, 3, 1]), (TextGeneration, 3, [3]), (TextGeneration, 0, [0]), (UsersGlobalTask, 7, [7])],
)
def test_rows_are_cut_as_distilabel_would_have(task, rows, sizes):
    """Into groups of `input_batch_size`, unless the Task is global by its own nature."""
    task = task(llm=OpenAIBatchLLM(model="gpt-4o-mini"), **({} if task is UsersGlobalTask else {"input_batch_size": 3}))

    groups = _row_groups(task, ([{"instruction": f"{i}"} for i in range(rows)],))

    assert [len(group) for (group,) in groups] == sizes
    assert [row["instruction"] for (group,) in groups for row in group] == [f"{i}" for i in range(rows)]
