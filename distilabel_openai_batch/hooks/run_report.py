"""Show a pipeline's run in the pipeline's process, and restore the log when the run has ended.

The steps report the numbers of their Tasks, see `step_reports`. `RunReport` passes the numbers to the display, and
makes the summary of the run.

Replaced: `run`, which a run begins and ends with; `setup_logging` of the pipeline's process, whose handlers write to
the terminal or the notebook that the display uses.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import QueueHandler
from typing import Any

from distilabel.pipeline import base
from distilabel.pipeline.local import Pipeline
from distilabel.utils import logging as distilabel_logging

from distilabel_openai_batch.display.run_display import RunDisplay
from distilabel_openai_batch.display.summary import RunSummary, TaskSummary
from distilabel_openai_batch.display.task_counts import TaskCounts
from distilabel_openai_batch.hooks.cached_tasks import summarize_cached_task
from distilabel_openai_batch.hooks.clients import batch_clients, pipeline_uses_batch_client, uses_batch_client
from distilabel_openai_batch.hooks.registry import patch
from distilabel_openai_batch.hooks.step_reports import StepReport
from distilabel_openai_batch.ledger.files import ledger_directory


class RunReport:
    """The numbers of one run of a pipeline, and their display.

    Args:
        pipeline: the pipeline.
    """

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._steps = {name: pipeline.dag.get_step(name)["step"] for name in pipeline.dag}
        self._tasks = [name for name, step in self._steps.items() if uses_batch_client(step)]
        self._counts: dict[str, TaskCounts] = {}
        self._scopes: dict[str, tuple[str, ...]] = {}
        self._display = RunDisplay(self._tasks, pipeline._logger)
        self._is_complete = False

    @property
    def open_jobs(self) -> int:
        """Number of batches in progress, as the steps reported it last."""
        return sum(sum(counts.statuses.values()) for counts in self._counts.values())

    def attach(self, listener: Any) -> None:
        """Choose the place of the display; `listener` is distilabel's listener of the log."""
        self._display.attach(listener)

    def start(self) -> None:
        """Show the Tasks, when the steps' processes have started."""
        self._display.start()

    def add(self, report: StepReport) -> None:
        """Show the numbers of a step."""
        self._counts[report.step_name] = report.counts
        self._scopes[report.step_name] = report.scopes
        self._display.update(report.step_name, report.counts)

    def end(self, is_complete: bool) -> None:
        """Read the last numbers of the steps, end the bars, and log the summary if there is no terminal.

        The pipeline stops to read the steps' messages when it has the last batch.

        Args:
            is_complete: whether the dataset has all its rows.
        """
        self._is_complete = is_complete
        # Other errors than an empty queue: the process of the queues may be gone.
        with suppress(Exception):
            while True:
                message = self._pipeline._output_queue.get_nowait()
                if isinstance(message, StepReport):
                    self.add(message)
        self._display.close()
        if self._counts:
            self._display.log_summary(self._summary)

    def close(self) -> None:
        """Show the summary where there is a terminal or a notebook."""
        self._display.close()
        if self._counts:
            self._display.show_summary(self._summary)

    def _summary(self) -> RunSummary:
        pipeline = self._pipeline
        rows_of = pipeline._openai_batch_flow.rows_of
        tasks = self._cached_tasks()
        for name, counts in self._counts.items():
            rows_in, rows_out = rows_of(name)
            tasks.append(TaskSummary(name, rows_in, rows_out, counts, self._scopes[name]))
        generators = [name for name, step in self._steps.items() if step.is_generator]
        return RunSummary(
            pipeline=pipeline.name,
            rows_in=sum(rows_of(name)[1] for name in generators) or None,
            rows_out=sum(rows_of(name)[1] for name in pipeline.dag.leaf_steps) if self._is_complete else None,
            tasks=tasks,
            dataset=str(pipeline._cache_location["data"]) if self._is_complete else "",
            ledger_dir=self._ledger_dir(),
        )

    def _cached_tasks(self) -> list[TaskSummary]:
        """Return the Tasks whose rows came from distilabel's cache, after an interrupted run."""
        pipeline, directory = self._pipeline, ledger_directory(self._ledger_dir())
        cached: dict[str, int] = getattr(pipeline, "_openai_batch_cached_rows", {})
        return [
            summarize_cached_task(pipeline.name, name, cached[name], directory)
            for name in self._tasks
            if name in cached
        ]

    def _ledger_dir(self) -> str | None:
        clients = [client for name in self._tasks for client in batch_clients(self._steps[name])]
        return next((client.ledger_dir for client in clients if client.ledger_dir), None)


_running_report: RunReport | None = None


def report_of(pipeline: Any) -> RunReport | None:
    """Return the report of a pipeline's run; `None` outside a run."""
    report: RunReport | None = getattr(pipeline, "_openai_batch_report", None)
    return report


@contextmanager
def shown(pipeline: Any) -> Iterator[None]:
    """Show a run of a pipeline with a client, and restore the log's handlers and level when the run has ended.

    distilabel leaves a handler for a closed queue behind: each further log line of the process would print an error.
    """
    global _running_report
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    pipeline._openai_batch_report = _running_report = report = RunReport(pipeline)
    try:
        yield
    finally:
        pipeline._openai_batch_report = _running_report = None
        root.handlers[:] = [handler for handler in handlers if not _is_closed(handler)]
        root.setLevel(level)
        report.close()


RUN_PARAMETERS = (
    "self",
    "parameters",
    "load_groups",
    "use_cache",
    "storage_parameters",
    "use_fs_to_pass_data",
    "dataset",
    "dataset_batch_size",
    "logging_handlers",
)
"""Parameters of `Pipeline.run` and of `RayPipeline.run`."""


@patch(Pipeline, "run", parameters=RUN_PARAMETERS)
def _run(original: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    """Show a run with a client, see `shown`; `ray` shows the run of a `RayPipeline`."""
    if not pipeline_uses_batch_client(self):
        return original(self, *args, **kwargs)
    with shown(self):
        return original(self, *args, **kwargs)


def _is_closed(handler: logging.Handler) -> bool:
    """Return whether a log handler's queue is closed, as an earlier run of a pipeline without a client leaves it."""
    return isinstance(handler, QueueHandler) and getattr(handler.queue, "_closed", False)


@patch(base, "setup_logging", parameters=["log_queue", "filename", "logging_handlers"])
def _setup_logging(original: Any, *args: Any, **kwargs: Any) -> None:
    """Choose the place of the display when the log's handlers are known, and before the first log line."""
    original(*args, **kwargs)
    if _running_report:
        _running_report.attach(distilabel_logging.queue_listener)
