"""Tests of the end of a pipeline, with stand-ins for its processes; whole runs are in `tests/pipelines`."""

from __future__ import annotations

import ast
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from logging.handlers import QueueListener
from queue import SimpleQueue

import pytest
from distilabel.exceptions import DistilabelOfflineBatchGenerationNotFinishedException
from distilabel.models.llms import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.pipeline.base import _STEP_LOAD_FAILED_CODE
from distilabel.pipeline.step_wrapper import _StepWrapperException
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from distilabel.utils import logging

from distilabel_openai_batch import AuthenticationError, OpenAIBatchLLM
from distilabel_openai_batch.display.task_counts import TaskCounts
from distilabel_openai_batch.hooks import stopping
from distilabel_openai_batch.hooks.run_report import RunReport
from distilabel_openai_batch.hooks.step_reports import StepReport

NOT_FINISHED = DistilabelOfflineBatchGenerationNotFinishedException(jobs_ids=("batch_1",))


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def pipeline_of(tmp_path, llm_class=OpenAIBatchLLM, siblings=("one",)) -> Pipeline:
    """A pipeline whose Tasks have each been sent a batch, and have sent none."""
    with Pipeline(name="stopped", cache_dir=tmp_path) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"instruction": "Say it."}])
        load >> [
            TextGeneration(name=name, llm=llm_class(model="gpt-4o-mini", api_key="sk-unused")) for name in siblings
        ]
    pipeline._batch_manager = types.SimpleNamespace(
        _last_batch_sent={name: types.SimpleNamespace(seq_no=0, last_batch=True) for name in siblings},
        _last_batch_received={},
    )
    pipeline._load_queue, pipeline._output_queue = SimpleQueue(), SimpleQueue()
    pipeline._load_steps_thread = threading.Thread(target=lambda: None)
    pipeline._load_steps_thread.start()
    pipeline._steps_load_status = {}
    pipeline._pool = None
    return pipeline


def error_of(pipeline: Pipeline, error: Exception, step_name="one", is_load_error=False) -> _StepWrapperException:
    return _StepWrapperException("", pipeline.dag.get_step(step_name)["step"], 1 if is_load_error else 2, error)


@pytest.fixture
def killed(monkeypatch) -> list[Pipeline]:
    """The pipelines that would have been killed."""
    found: list[Pipeline] = []
    monkeypatch.setattr(stopping, "_kill_pipeline", found.append)
    return found


def test_a_stopped_pipeline_ends_its_loops(tmp_path, monkeypatch, killed):
    """The second call hurries, the third one kills; none waits for a lock."""
    monkeypatch.setattr(stopping, "_STEPS_SECONDS", 60.0)
    pipeline = pipeline_of(tmp_path)
    pipeline._stop()
    assert pipeline._stop_called
    assert pipeline._output_queue.empty()

    pipeline._stop()

    wait_until(lambda: not pipeline._output_queue.empty())
    assert pipeline._output_queue.get() is None
    assert set(pipeline._steps_load_status) == {"load", "one"}
    assert not killed
    pipeline._stop()
    assert killed == [pipeline]


@pytest.mark.parametrize(
    ("statuses", "text"),
    [
        (None, "Nothing more is submitted."),
        ({}, "Nothing more is submitted."),
        ({"in_progress": 1}, "Nothing more is submitted; 1 batch job continues at the server."),
        ({"in_progress": 2, "validating": 1}, "Nothing more is submitted; 3 batch jobs continue at the server."),
    ],
)
def test_the_steps_have_their_signal_before_the_stop_is_announced(tmp_path, monkeypatch, statuses, text):
    """No job begins after the announcement, which counts the jobs that continue."""
    events: list[object] = []
    monkeypatch.setattr(stopping, "_signal_steps", lambda pipeline, number: events.append(number))
    pipeline = pipeline_of(tmp_path)
    pipeline._logger = types.SimpleNamespace(info=events.append)
    if statuses is not None:
        pipeline._openai_batch_report = RunReport(pipeline)
        pipeline._openai_batch_report.add(StepReport("one", TaskCounts(statuses=statuses)))
    pipeline._stop()
    assert events[:2] == [signal.SIGINT, f"🛑 Stopping pipeline. {text}"]
    pipeline._openai_batch_stop.hurry()
    pipeline._openai_batch_stop._thread.join(10.0)
    assert ("collect the answers" in str(events[2])) is bool(statuses)


def test_a_stop_waits_a_second_for_the_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "_STEPS_SECONDS", 0.1)
    pipeline = pipeline_of(tmp_path)
    pipeline._stop()
    wait_until(lambda: not pipeline._output_queue.empty())


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_run_that_ends_during_a_stop_ends_the_stop_too(tmp_path, monkeypatch):
    """The end of a run removes the batch manager and closes the queues."""
    monkeypatch.setattr(stopping, "_STEPS_SECONDS", 60.0)
    pipeline = pipeline_of(tmp_path)
    pipeline._stop()
    pipeline._output_queue = pipeline._load_queue = types.SimpleNamespace(put=None)
    pipeline._batch_manager = None
    pipeline._openai_batch_stop._thread.join(10.0)
    assert not pipeline._openai_batch_stop._thread.is_alive()


def test_a_pipeline_without_a_client_stops_as_distilabel_does(tmp_path):
    pipeline = pipeline_of(tmp_path, OpenAILLM)
    pipeline._stop_called, pipeline._stop_calls = True, 0
    pipeline._stop()
    assert pipeline._stop_calls == 1
    assert not hasattr(pipeline, "_openai_batch_stop")


def test_an_error_of_the_run_stops_the_pipeline_and_is_raised(tmp_path):
    """The first error is kept."""
    pipeline, error = pipeline_of(tmp_path), AuthenticationError("The key was withdrawn.")
    pipeline._error_callback(error_of(pipeline, error))
    pipeline._error_callback(error_of(pipeline, AuthenticationError("Another.")))
    assert pipeline._exception is error
    assert pipeline._stop_called
    wait_until(lambda: not pipeline._output_queue.empty())


def test_a_task_that_does_not_wait_lets_its_siblings_submit(tmp_path):
    """The pipeline stops without an error when the last of them has submitted."""
    pipeline = pipeline_of(tmp_path, siblings=("one", "two"))
    pipeline._error_callback(error_of(pipeline, NOT_FINISHED))
    time.sleep(0.2)
    assert pipeline._output_queue.empty()

    pipeline._error_callback(error_of(pipeline, NOT_FINISHED, "two"))

    wait_until(lambda: not pipeline._output_queue.empty())
    assert pipeline._exception is None


def test_an_error_while_loading_is_raised_as_it_is(tmp_path):
    """The error has no traceback of the step's process, and distilabel's general error does not replace the error."""
    pipeline = pipeline_of(tmp_path)
    try:
        raise AuthenticationError("No key.")
    except AuthenticationError as raised:
        error = raised
    pipeline._error_callback(error_of(pipeline, error, is_load_error=True))
    pipeline._set_steps_not_loaded_exception()
    assert pipeline._exception is error
    assert error.__traceback__ is None


def test_an_error_that_arrives_behind_the_load_status_is_raised(tmp_path):
    """A loaded machine can deliver the status first."""
    pipeline = pipeline_of(tmp_path)
    pipeline._steps_load_status = {"one": _STEP_LOAD_FAILED_CODE}
    try:
        raise AuthenticationError("The key is wrong.")
    except AuthenticationError as raised:
        error = raised
    late = threading.Timer(0.2, pipeline._error_callback, [error_of(pipeline, error, is_load_error=True)])
    late.start()

    pipeline._set_steps_not_loaded_exception()

    late.join()
    assert pipeline._exception is error


def test_other_errors_are_left_to_distilabel(tmp_path):
    pipeline = pipeline_of(tmp_path)
    pipeline._set_steps_not_loaded_exception()
    assert type(pipeline._exception) is RuntimeError
    other = pipeline_of(tmp_path, OpenAILLM)
    other._stop_called, other._stop_calls, other._exception = True, 0, None
    other._error_callback(error_of(other, KeyError("instruction")))
    assert other._stop_calls == 1
    assert other._exception is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_stop_a_running_pipeline(tmp_path, monkeypatch, killed, number):
    """A pipeline that still runs after some seconds is killed."""
    monkeypatch.setattr(stopping, "_WIND_UP_SECONDS", 0.1)
    pipeline = pipeline_of(tmp_path)
    pipeline._openai_batch_stop = None
    stopping.running_pipelines.append(pipeline)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        pipeline._handle_keyboard_interrupt()
        assert pipeline._openai_batch_handlers == handlers
        signal.raise_signal(number)
        assert pipeline._stop_called
        wait_until(lambda: killed)
    finally:
        stopping.running_pipelines.clear()
        for each, handler in handlers.items():
            signal.signal(each, handler)


# The process of a pipeline forks two steps, each of which opens a session's directory. It terminates the first step,
# prints its exit code and the id of the second one, and exits.
FORKING_PROGRAM = """
import os, signal, time
from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.engine.scratch import scratch_directory
from distilabel_openai_batch.hooks import stopping

def fork_step():
    is_open, open_end = os.pipe()
    if step := os.fork():
        os.read(is_open, 1)
        return step
    with scratch_directory():
        os.write(open_end, b"x")
        time.sleep(600)

stopping.running_pipelines.append(object())
with scratch_directory() as directory:
    terminated, orphan = fork_step(), fork_step()
    os.kill(terminated, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(terminated, 0)[1]), orphan, directory.exists(), flush=True)
os._exit(0)
"""


def test_a_step_ends_with_its_parent_or_by_a_signal_and_deletes_its_directory(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING_PROGRAM],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    exit_code, child, parent_keeps_its_directory = map(ast.literal_eval, ran.stdout.split())
    assert exit_code == -signal.SIGTERM
    assert parent_keeps_its_directory

    def is_gone() -> bool:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return True
        with open(f"/proc/{child}/stat") as file:
            return ") Z " in file.read()

    wait_until(is_gone)
    assert list(tmp_path.iterdir()) == []


def test_a_process_outside_a_pipeline_watches_no_parent():
    threads = threading.active_count()
    stopping.exit_when_orphaned()
    assert threading.active_count() == threads


def test_a_pool_whose_end_hangs_is_killed(monkeypatch):
    """`pool.terminate` waits for a lock that died with a process."""
    monkeypatch.setattr(stopping, "_POOL_SECONDS", 0.05)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    process.is_alive = lambda: process.poll() is None
    locked = threading.Event()
    pool = types.SimpleNamespace(terminate=locked.wait, _pool=[process])
    pipeline = types.SimpleNamespace(_pool=pool)

    stopping.terminate_pool(pipeline)
    locked.set()

    assert process.wait(timeout=30) == -signal.SIGKILL
    assert pipeline._pool is None


def test_a_log_queue_whose_lock_died_does_not_block_the_end(monkeypatch):
    """A process was killed while writing to the log's queue: no record passes the queue any more."""
    queue = multiprocessing.Queue()
    queue._wlock.acquire()
    listener = QueueListener(queue)
    listener.start()
    monkeypatch.setattr(logging, "queue_listener", listener)
    monkeypatch.setattr(stopping, "_LOG_SECONDS", 0.1)

    ending = threading.Thread(target=stopping.stop_log_listener, daemon=True)
    ending.start()
    ending.join(timeout=30)

    assert not ending.is_alive()
    assert logging.queue_listener is None
    queue._wlock.release()
