"""Tasks whose rows come from distilabel's cache."""

from __future__ import annotations

from contextlib import closing
from types import SimpleNamespace

from distilabel_openai_batch.display.summary import TaskSummary
from distilabel_openai_batch.display.task_counts import TaskCounts
from distilabel_openai_batch.hooks.cached_tasks import count_rows, summarize_cached_task
from tests.support.entries import SCOPE
from tests.support.ledgers import LedgerWriter


def test_a_cached_task_has_the_failures_of_the_run_that_made_its_rows(tmp_path):
    """A ledger that is not there has no failures."""
    with closing(LedgerWriter(tmp_path)) as writer:
        failures = [(200, "length", "Spent.")]
        writer.job(writer.scope("two", "write", SCOPE.base_url), 0.0, requests=9, answered=6, failures=failures)
        writer.job(writer.scope("two", "judge", SCOPE.base_url), 0.0, requests=1, failures=[(400, "odd", "Odd.")])
    counts = TaskCounts(3, failed=3, reasons={"length": 3})
    assert summarize_cached_task("two", "write", 9, tmp_path) == TaskSummary(
        "write", 9, 9, counts, ("two/write",), is_cached=True
    )
    assert summarize_cached_task("two", "write", 9, tmp_path / "none").counts == TaskCounts()


def test_the_rows_of_all_batches_are_counted():
    assert count_rows([SimpleNamespace(data=[[{}] * rows]) for rows in (50, 50, 7)]) == 107
