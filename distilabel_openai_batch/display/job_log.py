"""Log lines about jobs: their past and other owners, their polls, and batches that fail or miss results."""

from __future__ import annotations

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.display.cost_lines import describe_usage_difference
from distilabel_openai_batch.display.event_log import EventLog, LogObserver
from distilabel_openai_batch.display.timings import describe_past_jobs
from distilabel_openai_batch.ledger.past_jobs import PastJobs
from distilabel_openai_batch.text import duration, plural

# Seconds without a poll that the log announces.
_LONG_PAUSE_SECONDS = 10.0


class JobLog(LogObserver):
    """Observer that logs the events of jobs which change no number of the run.

    Args:
        log: receives the log lines.
    """

    def __init__(self, log: EventLog) -> None:
        super().__init__(log)
        self._batches_of_others: set[str | None] = set()
        self._was_storage_full = False
        self._has_logged_pause = False

    def on_past_jobs(self, past: PastJobs) -> None:
        """Log the durations of a model's past jobs."""
        self._log.info("past_jobs", f"⏱️ {describe_past_jobs(past)}", jobs=past.jobs, seconds=past.median_seconds)

    def on_job_of_another_process(self, batch_id: str | None) -> None:
        """Log once per batch that another process runs the job."""
        if batch_id not in self._batches_of_others:
            self._batches_of_others.add(batch_id)
            self._log.info(
                "job_of_another_process",
                f"⏳ Another process runs batch {batch_id or '(not created yet)'}; waiting for its answers.",
                batch_id=batch_id,
            )

    def on_poll_scheduled(self, batch: Batch, seconds: float) -> None:
        """Log once when the next poll is due, if the log would be silent for long."""
        if seconds >= _LONG_PAUSE_SECONDS and not self._has_logged_pause:
            self._has_logged_pause = True
            self._log.info(
                "poll_scheduled",
                f"⏱️ The server is polled every {duration(seconds)}: the next poll is due then.",
                batch_id=batch.id,
                status=batch.status,
                seconds=seconds,
            )

    def on_batch_retried(self, batch: Batch, pause: float) -> None:
        """Log why a batch failed, and when another one is created."""
        reasons = batch.reasons.rstrip(".")
        self._log.warning(
            "batch_retried",
            f"⚠️ Batch {batch.id} failed: {reasons}. Another batch is created from its input file in {pause:.0f} s.",
            batch_id=batch.id,
            status=batch.status,
            seconds=pause,
        )

    def on_storage_full(self, reason: str) -> None:
        """Log the first refusal of an upload that waits for room on the server."""
        if not self._was_storage_full:
            self._was_storage_full = True
            self._log.warning(
                "storage_full", f"⏳ Uploads wait until jobs end and their files are deleted: {reason}", reason=reason
            )

    def on_batch_adopted(self, batch: Batch, requests: int) -> None:
        """Log a batch that was found on the server."""
        self._log.info(
            "batch_adopted",
            f"🔁 Found batch {batch.id} on the server: {plural(requests, 'request')}, which are not billed again.",
            batch_id=batch.id,
            status=batch.status,
            requests=requests,
        )

    def on_batch_not_adoptable(self, batch: Batch, reason: str) -> None:
        """Log a batch whose requests or results are unknown."""
        self._log.warning(
            "batch_not_adoptable",
            f"⚠️ Batch {batch.id} of this task is {batch.status}, but {reason}: its requests may be submitted and billed"
            " a second time.",
            batch_id=batch.id,
            status=batch.status,
            reason=reason,
        )

    def on_result_file_missing(self, file_id: str) -> None:
        """Log a missing result file."""
        self._log.warning(
            "result_file_missing",
            f"⚠️ The server no longer has result file {file_id}; its requests are submitted again.",
            file_id=file_id,
        )

    def on_results_missing(self, batch: Batch, requests: int) -> None:
        """Log answers that the server counts and does not return."""
        self._log.warning(
            "results_missing",
            f"⚠️ Batch {batch.id} counts {plural(requests, 'answer')} that its files do not contain. The requests are"
            " submitted again, and may be billed twice.",
            batch_id=batch.id,
            status=batch.status,
            requests=requests,
        )

    def on_usage_differs(self, batch: Batch, billed: Usage, collected: Usage) -> None:
        """Log tokens that were billed and not collected, or collected and not billed."""
        self._log.warning(
            "usage_differs",
            f"⚠️ Batch {batch.id} {describe_usage_difference(billed, collected)}",
            batch_id=batch.id,
            status=batch.status,
        )
