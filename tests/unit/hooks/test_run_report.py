"""Tests of `hooks.run_report`."""

from __future__ import annotations

import logging
import multiprocessing
import types
from logging.handlers import QueueHandler
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest
from distilabel.pipeline import Pipeline
from distilabel.steps import KeepColumns, LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

from distilabel_openai_batch.display.task_counts import TaskCounts
from distilabel_openai_batch.hooks.run_report import RunReport, report_of, shown
from distilabel_openai_batch.hooks.step_reports import StepReport

ROWS_IN, ROWS_OUT = 7, 6


@pytest.fixture
def pipeline(llm, tmp_path):
    """Return a pipeline with a Task, whose batches have been counted."""
    llm.ledger_dir = "/my ledger"
    with Pipeline(name="shown", cache_dir=tmp_path) as pipeline:
        load = LoadDataFromDicts(name="load", data=[{"instruction": "Say it."}])
        load >> TextGeneration(name="generate", llm=llm) >> KeepColumns(name="keep", columns=["generation"])
    pipeline._openai_batch_flow = types.SimpleNamespace(rows_of=lambda name: (ROWS_IN, ROWS_OUT))
    pipeline._openai_batch_cache_location = {"data": Path("/cache/data")}
    pipeline._output_queue = SimpleQueue()
    return pipeline


@pytest.fixture
def log(caplog, monkeypatch):
    """Return the log of a run without a terminal."""
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("DISTILABEL_OPENAI_BATCH_PROGRESS", "0")
    return caplog


def test_the_end_reads_the_last_numbers_and_logs_the_summary(pipeline, log):
    report = RunReport(pipeline)
    report.attach(None)
    report.start()
    report.add(StepReport("generate", TaskCounts(1)))
    # Messages of other kinds are left over when a run stops.
    for message in (None, StepReport("generate", TaskCounts(7, 6, 1, {"500": 1}), ("shown/generate",)), "a batch"):
        pipeline._output_queue.put(message)
    report.end(is_complete=True)
    lines = log.messages
    assert lines[0] == "📊 shown: 6 rows in, 6 in the dataset."
    assert lines[1].startswith("📊 generate: 7 rows in, 6 out; 6 of 7 requests answered, 1 failed (1 × 500)")
    assert lines[2].startswith("📂 Dataset: ")
    assert "failures shown/generate --ledger-dir '/my ledger'`" in lines[3]
    with pytest.raises(Empty):
        pipeline._output_queue.get_nowait()


def test_an_incomplete_run_names_no_dataset(pipeline, log):
    report = RunReport(pipeline)
    report.add(StepReport("generate", TaskCounts(7, 3)))
    report.end(is_complete=False)
    assert log.messages[0] == "📊 shown: 6 rows in, the dataset is incomplete."
    assert "Dataset:" not in log.text


def test_a_run_without_requests_has_no_summary(pipeline, log):
    report = RunReport(pipeline)
    report.end(is_complete=True)
    report.close()
    assert log.messages == []


def test_errors_of_the_display_and_of_the_queue_end_no_run(pipeline, log):
    del pipeline._openai_batch_flow
    pipeline._output_queue = types.SimpleNamespace(get_nowait=lambda: 1 / 0)
    report = RunReport(pipeline)
    report.add(StepReport("generate", TaskCounts(7, 3)))
    report.end(is_complete=True)
    report.close()
    assert log.messages == []


def test_the_log_is_as_before_when_a_run_has_ended(pipeline, monkeypatch):
    """A closed queue of an earlier run is removed, and the run's own queue too."""
    closed, open_queue = multiprocessing.Queue(), multiprocessing.Queue()
    closed.close()
    root, kept = logging.getLogger(), logging.NullHandler()
    monkeypatch.setattr(root, "handlers", [kept, QueueHandler(closed)])
    monkeypatch.setattr(root, "level", logging.ERROR)
    with shown(pipeline):
        assert report_of(pipeline) is not None
        root.handlers[:] = [QueueHandler(open_queue)]
        root.setLevel(logging.INFO)
    assert (root.handlers, root.level) == ([kept], logging.ERROR)
    assert report_of(pipeline) is None
    open_queue.close()
