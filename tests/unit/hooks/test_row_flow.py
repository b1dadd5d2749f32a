"""Tests of the flow of rows, with a pipeline whose steps are the test itself."""

from __future__ import annotations

from collections import defaultdict

import pytest
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.pipeline.batch import _Batch
from distilabel.pipeline.batch_manager import _BatchManager
from distilabel.steps import KeepColumns, LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.hooks import stopping
from distilabel_openai_batch.hooks.row_flow import RowFlow
from distilabel_openai_batch.hooks.step_loop import Release, StepWaits

SIZE = 10


class Steps:
    """The steps' side of a pipeline: all messages that a step was sent, by the step's name."""

    def __init__(self, pipeline, tmp_path):
        self.pipeline = pipeline
        self.sent = defaultdict(list)
        pipeline._batch_manager = _BatchManager.from_dag(pipeline.dag)
        pipeline._use_fs_to_pass_data = False
        pipeline._load_groups = []
        pipeline._stages_last_batch = [[]]
        pipeline._cache_dir = tmp_path
        pipeline._is_step_running = lambda name: True
        pipeline._send_to_step = lambda name, message: self.sent[name].append(message)
        pipeline._dry_run = False
        pipeline._openai_batch_cache_location = pipeline._openai_batch_load_stages = None
        pipeline._openai_batch_flow = RowFlow(pipeline)
        stopping.running_pipelines[:] = [pipeline]

    def start(self):
        self.pipeline._request_initial_batches()

    def returns(self, name, last=False, rows=SIZE):
        """A step returns the first batch that the step was sent and has not returned."""
        index = next(i for i, message in enumerate(self.sent[name]) if isinstance(message, _Batch))
        request = self.sent[name].pop(index)
        batch = _Batch(request.seq_no, name, last_batch=last or (name != "load" and request.last_batch))
        batch.set_data([[{"instruction": "Say it.", "generation": "It."} for _ in range(rows)]])
        self.pipeline._process_batch(batch, send_last_batch_flag=False)
        self.pipeline._manage_batch_flow(batch)

    def waits(self, name, batches):
        message = StepWaits(name, batches)
        self.pipeline._process_batch(message)
        self.pipeline._manage_batch_flow(message)

    def batches(self, name):
        return [message.seq_no for message in self.sent[name] if isinstance(message, _Batch)]

    def releases(self, name):
        return [message.batches for message in self.sent[name] if isinstance(message, Release)]


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """Return a function that makes `Steps` of a list of Tasks in a row behind a generator."""
    monkeypatch.setattr(_BatchManager, "write_batch_data", lambda *arguments: None)

    def build(*kinds, size=SIZE, **fields):
        with Pipeline(name="flow", cache_dir=tmp_path) as pipeline:
            last = LoadDataFromDicts(name="load", data=[{"instruction": "Say it."}], batch_size=size)
            for name, kind in kinds:
                if kind == "keep":
                    last = last >> KeepColumns(name=name, columns=["instruction"], input_batch_size=size)
                    continue
                llm = {"ours": OpenAIBatchLLM, "other": OpenAILLM}[kind](model="gpt-4o-mini", api_key="sk-unused")
                for field, value in fields.items() if kind == "ours" else ():
                    setattr(llm, field, value)
                last = last >> TextGeneration(name=name, llm=llm, input_batch_size=size)
        pipeline.dag.G.nodes["load"]["step"].data = []
        pipeline._write_buffer = type("Buffer", (), {"add_batch": lambda *arguments: None})()
        return Steps(pipeline, tmp_path)

    yield build
    stopping.running_pipelines.clear()


def test_a_generator_is_asked_as_soon_as_its_batch_was_passed_on(steps):
    """The Task has returned nothing."""
    steps = steps(("task", "ours"), ("keep", "keep"))
    steps.start()
    for number in range(5):
        assert steps.batches("load") == [number]
        steps.returns("load")
    assert steps.batches("task") == [0, 1, 2, 3, 4]


def test_a_generator_behind_which_no_task_stands_is_asked_by_distilabels_rule(steps):
    steps = steps(("keep", "keep"), ("task", "ours"))
    steps.start()
    steps.returns("load")
    assert steps.batches("load") == []
    steps.returns("keep")
    assert steps.batches("load") == [1]


def test_a_task_is_released_when_no_rows_are_on_their_way(steps):
    """A Task that has its last batch needs no release."""
    steps = steps(("task", "ours"))
    steps.start()
    steps.returns("load")
    steps.waits("task", 1)
    assert steps.releases("task") == []
    steps.returns("load", last=True)
    steps.waits("task", 2)
    assert steps.releases("task") == []


def test_a_task_behind_a_task_is_released_while_the_first_waits(steps):
    """The rows of each of the first Task's jobs go on together."""
    steps = steps(("one", "ours"), ("keep", "keep"), ("two", "ours"))
    steps.start()
    for number in range(4):
        steps.returns("load", last=number == 3)
    steps.waits("one", 4)

    steps.returns("one")
    steps.returns("one")
    steps.returns("keep")
    steps.waits("two", 1)
    assert steps.releases("two") == []  # a batch is in `keep`
    steps.returns("keep")
    steps.waits("two", 2)
    assert steps.releases("two") == []  # `one` has not said that no more batches follow
    steps.waits("one", 4)
    assert steps.releases("two") == [2]

    steps.returns("one")
    steps.returns("keep")
    steps.waits("two", 3)
    steps.waits("one", 4)
    assert steps.releases("two") == [2, 3]


def test_an_outdated_message_releases_nothing(steps):
    """A batch was on its way to the Task when the Task said that it waits."""
    steps = steps(("one", "ours"), ("two", "ours"))
    steps.start()
    steps.returns("load")
    steps.returns("load", last=True)
    steps.waits("one", 2)
    steps.returns("one")
    steps.waits("one", 2)
    steps.waits("two", 0)
    assert steps.releases("two") == []
    steps.waits("two", 1)
    assert steps.releases("two") == [1]


def test_an_ordinary_task_before_keeps_a_task_waiting_until_it_has_ended(steps):
    """Rows are on their way all the time, so they go into one job."""
    steps = steps(("other", "other"), ("task", "ours"))
    steps.start()
    for number in range(3):
        steps.returns("load", last=number == 2)
        steps.returns("other")
        steps.waits("task", number + 1)
        assert steps.releases("task") == []
    assert steps.batches("task") == [0, 1, 2]


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_generator_pauses_while_a_task_has_enough_rows(steps, jobs):
    """Enough rows keep all jobs busy. The Task is released meanwhile, since no rows are on their way."""
    steps = steps(("task", "ours"), max_requests_per_job=2 * SIZE, max_jobs=jobs)
    steps.start()
    returned = 0
    while steps.batches("load"):
        steps.returns("load")
        returned += 1
    assert returned == 2 * jobs
    steps.waits("task", returned)
    assert steps.releases("task") == [returned]

    steps.returns("task")
    assert steps.batches("load") == [returned]


def test_rows_in_progress_of_a_hundred_thousand_stay_under_their_bound(steps):
    """Each of two Tasks in a row has at most the rows of its four jobs; the other rows are not loaded yet."""
    size, rows = 250, 100_000
    steps = steps(("one", "ours"), ("two", "ours"), size=size, max_requests_per_job=4 * size, max_jobs=4)
    steps.start()
    loaded, most = 0, 0
    while loaded < rows or steps.batches("one") or steps.batches("two"):
        while steps.batches("load"):
            loaded += size
            steps.returns("load", last=loaded == rows, rows=size)
        most = max(most, len(steps.batches("one")), len(steps.batches("two")))
        # The first job of each Task ends.
        for name in ("two", "one"):
            for _ in range(min(4, len(steps.batches(name)))):
                steps.returns(name, rows=size)
    assert loaded == rows
    assert most == 4 * 4


def test_a_step_that_got_no_rows_in_its_last_batch_ends(steps):
    """distilabel would send the step no last batch, and wait for the step for ever."""
    steps = steps(("task", "ours"))
    steps.start()
    steps.returns("load")
    steps.returns("load", last=True, rows=0)
    assert [(message.seq_no, message.last_batch) for message in steps.sent["task"]] == [(0, False), (1, True)]


def test_the_state_is_saved_at_the_end_alone(steps, monkeypatch):
    """distilabel dumps the pipeline after each batch."""
    steps, saved = steps(("task", "ours")), []
    monkeypatch.setattr(Pipeline, "save", lambda *arguments, **options: saved.append(1))
    steps.start()
    for _ in range(5):
        steps.returns("load")
    assert not saved
    steps.pipeline._save_stages_status = lambda: None
    steps.pipeline._batch_manager = None
    steps.pipeline._cache()
    assert saved


def test_pipelines_with_other_llms_are_left_alone(steps):
    steps = steps(("other", "other"))
    steps.pipeline._openai_batch_flow = None
    steps.pipeline._cache = lambda: None
    steps.start()
    steps.returns("load")
    assert steps.batches("load") == []
    steps.returns("other")
    assert steps.batches("load") == [1]
