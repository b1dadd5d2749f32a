"""End of a pipeline whose step lost its process."""

from __future__ import annotations

import logging
import types

import pytest

from distilabel_openai_batch.errors import RunError
from distilabel_openai_batch.hooks import step_deaths

SIGTERM_GRACE_SECONDS = step_deaths._SIGTERM_GRACE_SECONDS


class FakePipeline:
    """Pipeline that counts its stops."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("test.step_deaths")
        self._openai_batch_stop = None
        self._exception: Exception | None = None
        self._pool = object()
        self.stops = 0

    def _stop(self) -> None:
        self.stops += 1


@pytest.fixture
def pipeline(monkeypatch):
    pipeline = FakePipeline()
    monkeypatch.setattr(step_deaths, "running_pipelines", [pipeline])
    monkeypatch.setattr(step_deaths, "_GRACE_SECONDS", 0.0)
    monkeypatch.setattr(step_deaths, "_SIGTERM_GRACE_SECONDS", 0.0)
    monkeypatch.setattr(step_deaths, "_CHECK_SECONDS", 0.0)
    return pipeline


class Process:
    """Process of a step that shows its exit codes one by one."""

    def __init__(self, *codes: int | None) -> None:
        self._codes = list(codes)

    @property
    def exitcode(self) -> int | None:
        return self._codes.pop(0) if len(self._codes) > 1 else self._codes[0]


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (-9, "was ended by SIGKILL, perhaps for lack of memory."),
        (-11, "was ended by SIGSEGV."),
        (-15, "was ended by SIGTERM."),
        (1, "ended with exit code 1."),
    ],
)
def test_the_death_of_a_process_ends_the_run_with_an_error(pipeline, caplog, code, cause):
    step_deaths.watch_steps(pipeline, [Process(0), Process(None, None, code)])
    assert pipeline.stops == 1
    assert isinstance(pipeline._exception, RunError)
    assert f"The process of a step {cause}" in str(pipeline._exception)
    assert caplog.messages == [f"❌ {pipeline._exception}"]


def test_the_main_process_has_longer_to_stop_after_a_sigterm(pipeline, monkeypatch):
    """The signal may have gone to all processes; the main process stops the run without an error then."""

    def begin_stop_late(seconds: float) -> None:
        if seconds > 5:
            begin_stop(pipeline)

    monkeypatch.setattr(step_deaths, "_SIGTERM_GRACE_SECONDS", SIGTERM_GRACE_SECONDS)
    monkeypatch.setattr(step_deaths, "time", types.SimpleNamespace(sleep=begin_stop_late))
    step_deaths.watch_steps(pipeline, [Process(-15)])
    assert (pipeline._exception, pipeline.stops) == (None, 0)


def test_an_earlier_error_of_the_run_is_kept(pipeline):
    pipeline._exception = error = RunError("no key")
    step_deaths.watch_steps(pipeline, [Process(-9)])
    assert (pipeline._exception, pipeline.stops) == (error, 1)


def end_run(pipeline) -> None:
    step_deaths.running_pipelines.clear()


def begin_stop(pipeline) -> None:
    pipeline._openai_batch_stop = object()


def terminate(pipeline) -> None:
    pipeline._pool = None


@pytest.mark.parametrize("end", [end_run, begin_stop, terminate])
def test_a_process_that_ends_with_its_pipeline_is_no_death(pipeline, monkeypatch, end):
    """The stop may begin after the end of the process: a signal reaches all processes at once."""
    monkeypatch.setattr(step_deaths, "time", types.SimpleNamespace(sleep=lambda seconds: end(pipeline)))
    step_deaths.watch_steps(pipeline, [Process(-15)])
    assert (pipeline._exception, pipeline.stops) == (None, 0)
