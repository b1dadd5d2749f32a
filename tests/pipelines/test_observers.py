"""Observers in the process of a step, in whole pipelines against the sandbox."""

from __future__ import annotations

import json
import os
from functools import partial

import pytest
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import Observer, OpenAIBatchLLM, StreamBatchResults

ROWS = [{"instruction": f"Say number {number}."} for number in range(6)]


class EventWriter(Observer):
    """Observer that appends events to a file, each with its scope and the id of its process."""

    def __init__(self, path, scope):
        self.path = path
        self.scope = scope

    def on_requested(self, requests):
        self.write("requested", requests)

    def on_job_created(self, batch, shard):
        self.write("job_created", batch.id)

    def on_answered(self, requests):
        self.write("answered", requests)

    def on_finished(self):
        self.write("finished", None)

    def write(self, event, value):
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([self.scope.label, os.getpid(), event, value]) + "\n")


def generation_task(path) -> TextGeneration:
    llm = OpenAIBatchLLM(model="gpt-4o-mini", min_poll_interval=0.05)
    llm.add_observer(partial(EventWriter, path))
    return TextGeneration(name="generate", llm=llm, input_batch_size=2)


def task_pipeline(path, cache_dir) -> Pipeline:
    with Pipeline(name="observed", cache_dir=cache_dir) as pipeline:
        LoadDataFromDicts(data=ROWS) >> generation_task(path)
    return pipeline


def streaming_pipeline(path, cache_dir) -> Pipeline:
    with Pipeline(name="observed", cache_dir=cache_dir) as pipeline:
        StreamBatchResults(task=generation_task(path), data=ROWS, name="stream")
    return pipeline


@pytest.mark.parametrize(("make_pipeline", "step_name"), [(task_pipeline, "generate"), (streaming_pipeline, "stream")])
def test_an_observer_receives_the_events_in_the_process_of_its_step(sandbox, tmp_path, make_pipeline, step_name):
    path = tmp_path / "events.jsonl"
    distiset = make_pipeline(path, tmp_path / "cache").run(use_cache=False)

    assert None not in distiset["default"]["train"]["generation"]
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    scopes, processes = ({event[part] for event in events} for part in (0, 1))
    assert scopes == {f"observed/{step_name}"}
    assert len(processes) == 1
    assert os.getpid() not in processes
    for name in ("requested", "answered"):
        assert sum(value for _, _, event, value in events if event == name) == len(ROWS)
    batch_ids = [batch["id"] for batch in sandbox.books().batches]
    assert [value for _, _, event, value in events if event == "job_created"] == batch_ids
    assert [event[2] for event in events].count("finished") == 1
    assert events[-1][2] == "finished"
