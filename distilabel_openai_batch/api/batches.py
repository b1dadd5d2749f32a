"""Batch objects, and the metadata by which a batch is found again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from distilabel_openai_batch.api.encoding import read_count


@dataclass(frozen=True, slots=True)
class BatchError:
    """One thing that the server's validation of an input file found."""

    message: str
    code: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        text = f"{self.code}: {self.message}" if self.code else self.message
        return f"{text} (line {self.line} of the input file)" if self.line is not None else text


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as the server sees it.

    Attributes:
        id: the server's id.
        status: in lower case, whatever the server's habit is.
        endpoint: the path that its requests go to, `None` where the server does not say.
        input_file_id, output_file_id, error_file_id: ids of files, `None` where there is no such file.
        completed, failed, total: requests, 0 where the server does not count.
        errors: what its validation found.
        metadata: what it was created with, empty where the server drops it.
        created_at: seconds since the epoch, `None` where the server does not say.
        expires_at: seconds since the epoch, `None` where the server does not say.
        in_progress_at, finalizing_at, cancelling_at: likewise, when it came to be so.
        finished_at: likewise, when it came to the status that does not change any more.
    """

    id: str
    status: str
    endpoint: str | None = None
    input_file_id: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    completed: int = 0
    failed: int = 0
    total: int = 0
    errors: tuple[BatchError, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    created_at: float | None = None
    expires_at: float | None = None
    in_progress_at: float | None = None
    finalizing_at: float | None = None
    cancelling_at: float | None = None
    finished_at: float | None = None

    @property
    def has_ended(self) -> bool:
        """Whether its status will not change any more."""
        return self.status in FINAL_STATUSES

    @property
    def is_cancelled(self) -> bool:
        """Return whether the batch was cancelled, or is being cancelled."""
        return self.status in ("cancelling", "cancelled", "canceled")

    @property
    def reasons(self) -> str:
        """Why it failed, in the server's words; of many reasons the first three."""
        first = "; ".join(str(error) for error in self.errors[:3]) or "the server gave no reason"
        return f"{first} (and {len(self.errors) - 3} more)" if len(self.errors) > 3 else first


FINAL_STATUSES = frozenset({"completed", "failed", "expired", "cancelled", "canceled"})
"""What a batch's status is when it will not change any more."""


def read_batch(batch: Mapping[str, Any]) -> Batch:
    """Reads a batch object, whatever it leaves out.

    Raises:
        ValueError: it has no id or no status, and so is no batch.
    """
    batch_id, status = batch.get("id"), batch.get("status")
    if not isinstance(batch_id, str) or not batch_id or not isinstance(status, str):
        raise ValueError("the server's answer is not a batch")
    counts = batch.get("request_counts") or {}
    metadata = batch.get("metadata")
    return Batch(
        id=batch_id,
        status=status.lower(),
        endpoint=batch.get("endpoint") or None,
        input_file_id=batch.get("input_file_id") or None,
        output_file_id=batch.get("output_file_id") or None,
        error_file_id=batch.get("error_file_id") or None,
        completed=read_count(counts.get("completed")),
        failed=read_count(counts.get("failed")),
        total=read_count(counts.get("total")),
        errors=tuple(_batch_errors(batch.get("errors"))),
        metadata=metadata if isinstance(metadata, dict) else {},
        created_at=_seconds(batch.get("created_at")),
        expires_at=_seconds(batch.get("expires_at")),
        in_progress_at=_seconds(batch.get("in_progress_at")),
        finalizing_at=_seconds(batch.get("finalizing_at")),
        cancelling_at=_seconds(batch.get("cancelling_at")),
        finished_at=next((at for name in _FINISHED if (at := _seconds(batch.get(name)))), None),
    )


_FINISHED = ("completed_at", "failed_at", "expired_at", "cancelled_at")


def _batch_errors(errors: object) -> Iterator[BatchError]:
    data = errors.get("data") if isinstance(errors, dict) else errors
    for error in data if isinstance(data, list) else []:
        if isinstance(error, dict):
            yield BatchError(str(error.get("message") or "no message"), error.get("code"), error.get("line"))


def _seconds(value: object) -> float | None:
    return value if isinstance(value, (int, float)) else None


RUN_METADATA = "distilabel_openai_batch_run"
"""The metadata key under which a batch names the run that submitted it."""


ROWS_METADATA = "distilabel_openai_batch_rows"
"""The metadata key under which a batch names the file that has its run's rows."""


# https://platform.openai.com/docs/api-reference/batch/create#batch-create-metadata
METADATA_VALUE_CHARACTERS = 512


SCOPE_METADATA = "distilabel_openai_batch_scope"
"""The metadata key that a scope's batches are found by on a machine that has no ledger."""


KEY_METADATA = "distilabel_openai_batch_key"
"""The metadata key that a batch is found by when the reply to its creation was lost."""
