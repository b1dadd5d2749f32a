"""Events of a run, for everything that reports one: log lines, bars, metrics, traces."""

from __future__ import annotations

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Failure, Outcome
from distilabel_openai_batch.api.requests import Shard
from distilabel_openai_batch.api.result_files import JobResults


class Observer:
    """Base class of observers: each method is called on its event, and does nothing.

    Methods are called on the event loop of the run, so they must return at once and must not raise.
    """

    def on_submitted(self, requests: int) -> None:
        """Add to the number of requests that callers wait for."""

    def on_answered(self, requests: int) -> None:
        """Add to the number of requests that were answered, from the ledger or by the server."""

    def on_reused(self, requests: int) -> None:
        """Add to the number of requests that an earlier run submitted and the ledger answered."""

    def on_retried(self, requests: int) -> None:
        """Add to the number of failed requests that go into another job."""

    def on_failed(self, failure: Failure, custom_id: str | None = None) -> None:
        """Record a request that failed for good.

        Args:
            failure: its reason.
            custom_id: its `custom_id`; `None` for a request that could not be encoded.
        """

    def on_rejected(self, failure: Failure, custom_id: str) -> None:
        """Record an answer that lacks a generation: not in the answer, without text, or unfit for its schema."""

    def on_job_created(self, batch: Batch, shard: Shard) -> None:
        """Record a batch that was created for a shard."""

    def on_job_resumed(self, batch: Batch, requests: int) -> None:
        """Record a batch that an earlier run, another process or another machine created."""

    def on_job_of_another_process(self, batch_id: str | None) -> None:
        """Record that another process runs a job with requests of this run.

        Args:
            batch_id: the id of its batch; `None` before the batch was created.
        """

    def on_polled(self, batch: Batch) -> None:
        """Record the state of a batch after a poll."""

    def on_early_answers(self, batch: Batch, answers: int) -> None:
        """Record answers that were read from the growing output file of a batch in progress."""

    def on_collected(self, batch: Batch, results: JobResults) -> None:
        """Record the results of a batch that ended."""

    def on_batch_refused(self, batch: Batch) -> None:
        """Record a batch that the server did not accept."""

    def on_batch_retried(self, batch: Batch, pause: float) -> None:
        """Record a failed batch whose input file makes another batch.

        Args:
            batch: the failed batch.
            pause: seconds until the creation.
        """

    def on_batch_adopted(self, batch: Batch, requests: int) -> None:
        """Record a batch that was found on the server and added to the ledger."""

    def on_batch_not_adoptable(self, batch: Batch) -> None:
        """Record a batch in progress on the server whose input file is gone."""

    def on_result_file_missing(self, file_id: str) -> None:
        """Record a result file that the server no longer has."""

    def on_results_missing(self, batch: Batch, requests: int) -> None:
        """Record that the files of an ended batch lack answers that the batch counts.

        Args:
            batch: the batch.
            requests: number of missing answers, which may be billed again.
        """

    def on_sync_answered(self, model: str, outcome: Outcome) -> None:
        """Record the outcome of a synchronous request, which is billed at the full price.

        Args:
            model: the requested model.
            outcome: the answer or the failure.
        """

    def on_sync_unavailable(self, reason: str) -> None:
        """Record that requests go into a batch because the server has no synchronous endpoint."""

    def on_preflight_skipped(self, reason: str) -> None:
        """Record that no request could be tried before the others are submitted."""

    def on_deadline_passed(self, requests: int, batch: Batch | None = None) -> None:
        """Record that the deadline has passed for requests.

        Args:
            requests: their number, at most.
            batch: their batch, which is cancelled; `None` if it was never created.
        """

    def on_finished(self) -> None:
        """Report the end of the run."""
