"""Tests of a step's process, run in the process of the test."""

from __future__ import annotations

import logging
import pickle
import random
import tracemalloc
from contextlib import ExitStack
from queue import SimpleQueue
from weakref import WeakValueDictionary

import numpy as np
import pytest
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline.batch import _Batch
from distilabel.pipeline.step_wrapper import _StepWrapper, _StepWrapperException
from distilabel.steps import StepInput, step
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch import AuthenticationError
from distilabel_openai_batch.hooks import step_process, stopping
from distilabel_openai_batch.hooks.row_storage import keeps_row_types
from distilabel_openai_batch.hooks.step_process import (
    is_dry_run,
    is_stopped,
    mark_stopped,
    random_state_preserved,
    running_step,
    seed_random_numbers,
)
from distilabel_openai_batch.hooks.step_reports import StepReport

ROWS = [{"instruction": "Say it."}]


@pytest.fixture(autouse=True)
def process_state(monkeypatch):
    """The names and flags that a step's process keeps, restored when the test ends."""
    monkeypatch.setattr(stopping, "_is_child", False)
    monkeypatch.setattr(step_process, "_running_step", "")
    monkeypatch.setattr(step_process, "_dry_run", False)
    monkeypatch.setattr(step_process, "_stopped_steps", WeakValueDictionary())
    token = keeps_row_types.set(False)
    yield
    keeps_row_types.reset(token)


def wrapper_of(task, dry_run=False) -> _StepWrapper:
    """A step's wrapper with one batch in its input queue."""
    queues = [SimpleQueue() for _ in range(3)]
    queues[0].put(_Batch(seq_no=0, step_name=task.name, last_batch=True, data=[ROWS]))
    return _StepWrapper(task, 0, *queues, dry_run=dry_run)


def failing_task(monkeypatch, llm, error) -> TextGeneration:
    """A Task whose class is local, and so cannot be pickled."""

    class Failing(TextGeneration):
        def process(self, inputs):
            raise error

    return Failing(name="generate", llm=llm)


@step(inputs=["instruction"], outputs=["instruction"])
def Pass(inputs: StepInput):
    yield inputs


def test_a_process_knows_its_step():
    assert (running_step(), is_dry_run()) == ("", False)
    wrapper_of(Pass(name="pass"), dry_run=True).run()
    assert (running_step(), is_dry_run()) == ("pass", True)
    assert not keeps_row_types.get()


def test_an_error_that_stops_the_pipeline_is_sent_without_the_step(monkeypatch, llm):
    """The error can be pickled, keeps its message, and no batch follows."""
    task = failing_task(monkeypatch, llm, AuthenticationError("The key was withdrawn."))
    wrapper = wrapper_of(task)

    with pytest.raises(_StepWrapperException) as raised:
        wrapper.run()

    error = pickle.loads(pickle.dumps(raised.value.step)), raised.value.subprocess_exception
    assert (error[0].name, error[0].is_global, str(error[1])) == ("generate", True, "The key was withdrawn.")
    assert raised.value.message.count("For further information") == 1
    assert raised.value.message.startswith("The key was withdrawn.")
    # The session reports its numbers, and sends nothing else.
    while not wrapper.output_queue.empty():
        assert isinstance(wrapper.output_queue.get(), StepReport)
    assert is_stopped(task)
    assert keeps_row_types.get()


def test_other_errors_of_a_step_are_as_distilabel_has_them(monkeypatch):
    """An ordinary step sends `None`s."""
    llm = OpenAILLM(model="gpt-4o-mini", api_key="sk-unused")
    wrapper = wrapper_of(failing_task(monkeypatch, llm, KeyError("instruction")))
    wrapper.run()
    assert wrapper.output_queue.get().data[0][0]["generation"] is None


def test_a_step_with_the_id_of_a_stopped_step_that_is_gone_sends_its_batches(monkeypatch):
    """Otherwise the pipeline would wait for these batches for ever."""
    wrapper, stopped = wrapper_of(Pass(name="pass")), Pass(name="stopped")
    mark_stopped(stopped)
    step_process._stopped_steps[id(wrapper.step)] = stopped
    wrapper.run()
    assert not wrapper.output_queue.empty()


def test_a_stopped_step_sends_no_batch():
    wrapper = wrapper_of(Pass(name="pass"))
    mark_stopped(wrapper.step)
    wrapper.run()
    assert wrapper.output_queue.empty()


def draws() -> tuple[float, float]:
    return random.random(), np.random.rand()


def test_random_numbers_depend_on_the_step_and_the_group():
    step_one, step_two = Pass(name="one"), Pass(name="two")
    drawn = []
    for arguments in ((step_one,), (step_one,), (step_one, 0), (step_one, 1), (step_two,)):
        seed_random_numbers(*arguments)
        drawn.append(draws())
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4


@pytest.mark.parametrize("drawn_before", [0, 1])
@pytest.mark.parametrize("draw", [random.random, np.random.rand, draws])
def test_random_state_is_preserved(drawn_before, draw):
    """Numbers that were drawn before count, of either generator."""

    def seeded() -> None:
        seed_random_numbers(Pass(name="one"), 0)
        for _ in range(drawn_before):
            draw()

    seeded()
    expected = draws()
    seeded()
    with random_state_preserved():
        random.seed(0)
        np.random.seed(0)
    assert draws() == expected


def test_a_group_without_random_numbers_keeps_its_seed_alone():
    """The states of both generators would take 5 kB for each row group that waits."""
    group = random_state_preserved()
    seed_random_numbers(Pass(name="one"), 0)
    tracemalloc.start()
    try:
        with ExitStack() as stack:
            stack.enter_context(group)
            kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2_000


@pytest.mark.parametrize(("step_name", "line"), [("generate", "[generate] It is 7."), ("", "It is 7.")])
def test_logger_names_the_step_once(monkeypatch, caplog, step_name, line):
    """A client may be loaded several times."""
    monkeypatch.setattr(step_process, "_running_step", step_name)
    logger = logging.getLogger("test.step_process")
    for _ in range(2):
        step_process.name_step(logger)
    logger.warning("It is %d.", 7)
    assert caplog.messages == [line]
