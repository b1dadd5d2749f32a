"""Batch objects, and the metadata by which a batch is found again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.encoding import read_count
from distilabel_openai_batch.api.replies import UnexpectedReplyError

KEY_METADATA = "distilabel_openai_batch_key"
"""Metadata field with the key by which a batch is found if the reply to its creation was lost."""

SCOPE_METADATA = "distilabel_openai_batch_scope"
"""Metadata field by which a machine without the ledger finds a scope's batches."""

RUN_METADATA = "distilabel_openai_batch_run"
"""Metadata field with the name of the run that submitted the batch."""

ROWS_METADATA = "distilabel_openai_batch_rows"
"""Metadata field with the id of the file that holds the run's rows."""

METADATA_VALUE_CHARACTERS = 512
"""Maximum length of a metadata value.

https://platform.openai.com/docs/api-reference/batch/create#batch-create-metadata
"""

FINAL_STATUSES = frozenset({"completed", "failed", "expired", "cancelled", "canceled"})
"""Statuses after which a batch does not change any more."""

# Times of the final statuses; a batch has one of them.
_FINAL_TIMES = ("completed_at", "failed_at", "expired_at", "cancelled_at")


@dataclass(frozen=True, slots=True)
class BatchError:
    """An error that the server's validation found in an input file.

    Attributes:
        message: the server's message.
        code: the server's error code, `None` if it gave none.
        line: the line of the input file as the server counts it, `None` if it named none.
        param: the parameter at fault, `None` if the server named none.
    """

    message: str
    code: str | None = None
    line: int | None = None
    param: str | None = None

    def __str__(self) -> str:
        text = f"{self.code}: {self.message}" if self.code else self.message
        return f"{text} (line {self.line} of the input file)" if self.line is not None else text


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch object of the server.

    Attributes:
        id: the server's id.
        status: the status in lower case; some servers write it in upper case.
        endpoint: the path of all its requests, `None` if the server does not give it.
        input_file_id, output_file_id, error_file_id: ids of files, `None` if there is no such file.
        completed, failed, total: numbers of requests, 0 if the server does not count.
        errors: errors that the server's validation found.
        metadata: the metadata of its creation, empty if the server drops them.
        created_at, expires_at: seconds since the epoch, `None` if the server does not give them.
        in_progress_at, finalizing_at, cancelling_at: seconds since the epoch at which the batch reached the status.
        finished_at: seconds since the epoch at which the batch reached its final status.
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
        """Return whether the status is final."""
        return self.status in FINAL_STATUSES

    @property
    def is_cancelled(self) -> bool:
        """Return whether the batch was cancelled, or is being cancelled."""
        return self.status in ("cancelling", "cancelled", "canceled")

    @property
    def lacks_output_file(self) -> bool:
        """Return whether the batch has ended and counts answers, but shows no output file."""
        return self.has_ended and self.completed > 0 and self.output_file_id is None

    @property
    def has_transient_errors(self) -> bool:
        """Return whether a failed batch names no cause of its own: no error at all, or errors of the server alone."""
        return all(errors.is_server_failure(error.code, error.message) for error in self.errors)

    @property
    def reasons(self) -> str:
        """Return the first three errors as a text, and the number of the others."""
        first = "; ".join(str(error) for error in self.errors[:3]) or "the server gave no reason"
        return f"{first} (and {len(self.errors) - 3} more)" if len(self.errors) > 3 else first


def read_batch(batch: Mapping[str, Any]) -> Batch:
    """Parse a batch object; any field but the id and the status may be missing.

    Raises:
        UnexpectedReplyError: the object has no id or no status.
    """
    batch_id, status = batch.get("id"), batch.get("status")
    if not isinstance(batch_id, str) or not batch_id or not isinstance(status, str):
        raise UnexpectedReplyError("a batch", batch)
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
        finished_at=next((seconds for name in _FINAL_TIMES if (seconds := _seconds(batch.get(name)))), None),
    )


def _batch_errors(reported: object) -> Iterator[BatchError]:
    data = reported.get("data") if isinstance(reported, dict) else reported
    for error in data if isinstance(data, list) else []:
        if isinstance(error, dict):
            message = str(error.get("message") or "no message")
            param = error.get("param")
            yield BatchError(message, error.get("code"), error.get("line"), param if isinstance(param, str) else None)


def _seconds(value: object) -> float | None:
    return value if isinstance(value, (int, float)) else None
