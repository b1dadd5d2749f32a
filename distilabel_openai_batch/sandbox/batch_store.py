"""Store of batches: lookup, progress with the clock, publication of result files, enqueued tokens."""

from __future__ import annotations

from collections.abc import Iterable

from .batches import StoredBatch
from .errors import ApiError
from .file_store import FileStore
from .state import SandboxState
from .timeline import TERMINAL_STATUSES, Stage
from .validation import Problem, token_limit_exceeded


class BatchStore:
    """Batches of all owners, in the order of their creation. Callers hold the lock of the state."""

    def __init__(self, state: SandboxState, files: FileStore) -> None:
        self._state = state
        self._files = files
        self._batches: dict[str, StoredBatch] = {}

    def add(self, batch: StoredBatch) -> None:
        """Add a new batch."""
        self._batches[batch.id] = batch

    def get(self, batch_id: str, owner: str) -> StoredBatch:
        """Return a batch.

        Raises:
            ApiError: 404, if the owner has no such batch.
        """
        batch = self._batches.get(batch_id)
        if batch is None or batch.owner != owner:
            raise ApiError(404, f"No batch found with id '{batch_id}'.")
        return batch

    def list_newest_first(self, owner: str) -> list[StoredBatch]:
        """Return the batches of an owner, newest first."""
        return [batch for batch in reversed(self._batches.values()) if batch.owner == owner]

    def all_batches(self) -> Iterable[StoredBatch]:
        """Return the batches of every owner, oldest first."""
        return self._batches.values()

    def count_created_after(self, time: float) -> int:
        """Return the number of batches created after a time, in seconds since the epoch."""
        count = 0
        for batch in reversed(self._batches.values()):
            if batch.created_at <= time:
                break
            count += 1
        return count

    def check_token_limit(self, batch: StoredBatch) -> list[Problem]:
        """Return a problem if the batch and the unfinished batches of its model exceed the enqueued-token limit.

        Args:
            batch: batch after validation; a batch without a valid line has no problem.
        """
        limit = self._state.settings.enqueued_token_limit
        validation = batch.validation
        if limit is None or validation is None or validation.model is None:
            return []
        enqueued = (
            other.validation.prompt_tokens
            for other in self._batches.values()
            if other is not batch
            and other.validation is not None
            and other.results is not None
            and other.validation.model == validation.model
            and self.advance(other).status not in TERMINAL_STATUSES
        )
        if validation.prompt_tokens + sum(enqueued) <= limit:
            return []
        return [token_limit_exceeded(validation.model, limit)]

    def advance_all(self) -> None:
        """Advance every batch to the present time."""
        for batch in self._batches.values():
            self.advance(batch)

    def advance(self, batch: StoredBatch) -> Stage:
        """Advance a batch to the present time: return its stage, and publish the files of a batch that has ended."""
        if batch.final_stage is not None:
            return batch.final_stage
        now = self._state.clock()
        stage = batch.stage_at(self._state.settings, now)
        if stage.status not in TERMINAL_STATUSES:
            batch.seen_at = now
            if self._state.settings.growing_output and batch.answered_at is not None:
                self._publish_partial_output(batch, stage)
            return stage
        batch.final_stage = stage
        self._publish_results(batch, stage)
        return stage

    def _publish_results(self, batch: StoredBatch, stage: Stage) -> None:
        """Register the result files of an ended batch, without empty files unless dialect or fault keeps them."""
        results = batch.results
        if results is None or "in_progress_at" not in stage.timestamps:
            return
        results.finish(stage.status, stage.answered_count)
        keeps_empty_files = batch.dialect.both_files or "empty_files" in batch.faults
        for kind, path in (("output", results.output_path), ("error", results.error_path)):
            if path.stat().st_size or keeps_empty_files:
                name = f"{batch.id}_{kind}.jsonl"
                partial = batch.output_file if kind == "output" else None
                file_id = partial.id if partial else batch.dialect.new_id("file-")
                file = self._files.register(file_id, path, name, "batch_output", batch.output_seconds, batch.owner)
                setattr(batch, f"{kind}_file", file)

    def _publish_partial_output(self, batch: StoredBatch, stage: Stage) -> None:
        """Register the output lines of a batch that is in progress."""
        results = batch.results
        if results is None or not stage.answered_count:
            return
        path = results.extend_partial_output(min(stage.answered_count, results.answered_count))
        file_id = batch.output_file.id if batch.output_file else batch.dialect.new_id("file-")
        name = f"{batch.id}_output.jsonl"
        batch.output_file = self._files.register(file_id, path, name, "batch_output", batch.output_seconds, batch.owner)
