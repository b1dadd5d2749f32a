"""Tests of the bookkeeping of pipelines: equal to distilabel's, with work that does not grow with the run."""

from __future__ import annotations

import copy

import pytest
from distilabel.pipeline import Pipeline
from distilabel.pipeline.batch import _Batch
from distilabel.pipeline.batch_manager import _BatchManager, _BatchManagerStep
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from hypothesis import given
from hypothesis import strategies as st

from distilabel_openai_batch.hooks import stopping


@pytest.fixture
def running():
    """A pipeline with a client runs."""
    stopping.running_pipelines.append(object())
    yield
    stopping.running_pipelines.clear()


def batch_of(seq_no: int, rows: int, last: bool = False, step_name: str = "load") -> _Batch:
    batch = _Batch(seq_no, step_name, last_batch=last)
    batch.set_data([[{"id": f"{seq_no}.{row}"} for row in range(rows)]])
    return batch


def step_of(input_batch_size: int) -> _BatchManagerStep:
    return _BatchManagerStep(
        "task",
        accumulate=False,
        input_batch_size=input_batch_size,
        data={"load": []},
        next_expected_seq_no={"load": (0, 0)},
        step_offset={"load": (0, 0)},
    )


def made_batches(size: int, sizes: list[int], order: list[int]) -> list[tuple]:
    """Add batches to a step in some order, and take all batches that the step can make after each."""
    step, made = step_of(size), []
    for seq_no in order:
        step.add_batch(batch_of(seq_no, sizes[seq_no], last=seq_no == len(sizes) - 1))
        made.append(step.empty_buffers())
        while (batch := step.get_batch()) is not None and len(made) < 200:
            made.append((batch.seq_no, batch.last_batch, batch.data, batch.created_from, batch.size))
    return made


@given(st.integers(1, 7), st.lists(st.integers(1, 12), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_batches_are_made_as_by_distilabel(size, sizes, random):
    order = list(range(len(sizes)))
    random.shuffle(order)
    stopping.running_pipelines.clear()
    expected = made_batches(size, sizes, order)
    stopping.running_pipelines.append(object())
    try:
        assert made_batches(size, sizes, order) == expected
    finally:
        stopping.running_pipelines.clear()


def test_taking_rows_of_a_large_batch_hashes_and_copies_no_other_rows(running):
    """distilabel hashes and copies all remaining rows each time."""

    class Row(dict):
        """A row that counts the texts made of it."""

        texts = 0

        def __repr__(self):
            Row.texts += 1
            return super().__repr__()

    batch = _Batch(0, "load", last_batch=True)
    batch.set_data([[Row(id=number) for number in range(1_000)]])
    taken = [batch.get_data(10) for _ in range(100)]
    assert [row["id"] for rows in taken for row in rows] == list(range(1_000))
    assert len(batch.data[0]) == 0
    assert Row.texts == 0


def test_all_rows_are_taken_from_a_batch_of_which_some_are_gone(running):
    batch = batch_of(0, 5)
    batch.get_data(2)
    assert [row["id"] for row in batch.get_data()] == ["0.2", "0.3", "0.4"]
    assert batch.data == []


def test_a_copied_batch_keeps_its_rows_when_the_original_is_used_up(running):
    batch = batch_of(0, 3, last=True)
    batch.created_from = {"load": [(0, 3, 3)]}
    copied = batch.copy()
    batch.get_data(1)
    batch.get_data()
    assert [row["id"] for row in copied.data[0]] == ["0.0", "0.1", "0.2"]
    assert (copied.seq_no, copied.last_batch, copied.size, copied.created_from) == (0, True, 3, batch.created_from)


@pytest.mark.parametrize("received", [[], [0], [0, 1], [1, 0, 2], [2], [0, 1, 2, 3]])
def test_missing_batches_are_found_by_their_number(running, llm, received):
    with Pipeline(name="numbers") as pipeline:
        LoadDataFromDicts(name="load", data=[{"instruction": "Say it."}]) >> TextGeneration(name="task", llm=llm)
    manager = _BatchManager.from_dag(pipeline.dag)
    manager._received_batch_seq_nos["load"] = received
    assert manager._missing_seq_no(batch_of(3, 1, last=True)) is (set(received) < {0, 1, 2, 3})


@pytest.mark.parametrize("offset", [0, 3, 10, 11])
def test_rows_of_dicts_are_loaded_as_by_distilabel(offset):
    def load():
        step = LoadDataFromDicts(data=[{"id": number} for number in range(10)], batch_size=3)
        return [copy.deepcopy(batch) for batch in step.process(offset)]

    stopping.running_pipelines.clear()
    expected = load()
    stopping.running_pipelines.append(object())
    try:
        assert load() == expected
    finally:
        stopping.running_pipelines.clear()


def test_other_pipelines_keep_their_hashes():
    assert batch_of(0, 1).data_hash


def test_paths_and_stages_are_computed_once_in_a_run(tmp_path, llm, monkeypatch):
    """distilabel dumps every step for each batch."""
    with Pipeline(name="once", cache_dir=tmp_path) as pipeline:
        LoadDataFromDicts(name="load", data=[{"instruction": "Say it."}]) >> TextGeneration(name="task", llm=llm)
    pipeline._load_groups = []
    expected = pipeline._cache_location, pipeline._get_steps_load_stages()
    pipeline._openai_batch_cache_location = pipeline._openai_batch_load_stages = None
    stopping.running_pipelines.append(pipeline)
    dumps = []
    original = Pipeline.dump
    monkeypatch.setattr(Pipeline, "dump", lambda self, **options: dumps.append(1) or original(self, **options))
    try:
        found = [(pipeline._cache_location, pipeline._get_steps_load_stages()) for _ in range(20)]
    finally:
        stopping.running_pipelines.clear()
    assert found == [expected] * 20
    assert len(dumps) == 1
