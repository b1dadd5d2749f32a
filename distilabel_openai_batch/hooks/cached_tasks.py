"""Numbers of the Tasks whose rows a run takes from distilabel's cache: no process of the run reports them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from distilabel_openai_batch.display.failure_kinds import describe_reason
from distilabel_openai_batch.display.summary import TaskSummary
from distilabel_openai_batch.display.task_counts import TaskCounts
from distilabel_openai_batch.errors import LedgerError
from distilabel_openai_batch.ledger.reader import LedgerReader


def summarize_cached_task(pipeline: str, task: str, rows: int, directory: Path) -> TaskSummary:
    """Return the summary of a Task with the failures of its last run, which made the cached rows.

    Args:
        pipeline: the pipeline's name.
        task: the Task's name.
        rows: number of cached rows.
        directory: the directory of the ledger; a ledger that cannot be read has no failures.
    """
    reasons: Counter[str] = Counter()
    label = f"{pipeline}/{task}"
    try:
        reader = LedgerReader(directory)
        scopes = [scope for scope in reader.scopes() if (scope.name.pipeline, scope.name.task) == (pipeline, task)]
        for failure in reader.failures(scopes[-1:]):
            if failure.is_current:
                reasons[describe_reason(failure.status_code, failure.code)] += 1
    except LedgerError:
        reasons.clear()
    counts = TaskCounts(requests=reasons.total(), failed=reasons.total(), reasons=dict(reasons.most_common()))
    return TaskSummary(task, rows, rows, counts, (label,), is_cached=True)


def count_rows(batches: list[Any]) -> int:
    """Return the number of rows of a step's cached batches."""
    return sum(len(rows) for batch in batches for rows in batch.data)
