"""Batch objects, and the metadata by which a batch is found again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.encoding import read_count
from distilabel_openai_batch.api.replies import UnexpectedReplyError, is_id
from distilabel_openai_batch.api.usage import Usage, read_usage

KEY_METADATA = "distilabel_openai_batch_key"
"""Metadata field with the key by which a batch is found if the reply to its creation was lost."""

SCOPE_METADATA = "distilabel_openai_batch_scope"
"""Metadata field by which a machine without the ledger finds a scope's batches."""

RUN_METADATA = "distilabel_openai_batch_run"
"""Metadata field with the name of the run that submitted the batch."""

ROWS_METADATA = "distilabel_openai_batch_rows"
"""Metadata field with the id of the file that holds the run's rows."""

# Form of a key, which `JobTable.plan` makes. A member of the project may put any other text into the metadata.
_KEY = re.compile(r"[0-9a-f]{32}")

METADATA_VALUE_CHARACTERS = 512
"""Maximum length of a metadata value.

https://platform.openai.com/docs/api-reference/batch/create#batch-create-metadata
"""

FINAL_STATUSES = frozenset({"completed", "failed", "expired", "cancelled", "canceled"})
"""Statuses after which a batch does not change any more."""

# Statuses of OpenAI in which a batch is in progress.
_ACTIVE_STATUSES = frozenset({"validating", "in_progress", "finalizing", "cancelling"})

# Other servers' words for final statuses, such as Maritaca's `succeeded`.
_SYNONYMS = {
    "aborted": "cancelled",
    "canceled": "cancelled",
    "complete": "completed",
    "done": "completed",
    "error": "failed",
    "failure": "failed",
    "finished": "completed",
    "succeeded": "completed",
    "success": "completed",
    "timed_out": "expired",
    "timeout": "expired",
}

# Times of the final statuses, and the statuses; a batch has one of them.
_FINAL_TIMES = {
    "completed_at": "completed",
    "failed_at": "failed",
    "expired_at": "expired",
    "cancelled_at": "cancelled",
    "canceled_at": "cancelled",
    "finished_at": "completed",
    "ended_at": "completed",
}

# Servers written in Go may show their zero time in place of a time that has not come.
_ZERO_TIME = "0001-01-01"

# Different messages of a validation that an error quotes.
_MESSAGES_SHOWN = 3

# A batch with a status that nobody knows has ended if it shows its end in this many successive polls.
_POLLS_OF_END = 5


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
        return self.text if self.line is None else f"{self.text} (line {self.line} of the input file)"

    @property
    def text(self) -> str:
        """Code and message."""
        return f"{self.code}: {self.message}" if self.code else self.message


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch object of the server.

    Attributes:
        id: the server's id.
        status: the status in lower case, and in OpenAI's word if other servers' word for a final status is known.
        endpoint: the path of all its requests, `None` if the server does not give it.
        input_file_id, output_file_id, error_file_id: ids of files, `None` if there is no such file.
        completed, failed, total: numbers of requests, 0 if the server does not count.
        errors: errors that the server's validation found.
        metadata: the metadata of its creation, empty if the server drops them.
        created_at, expires_at: seconds since the epoch, `None` if the server does not give them.
        in_progress_at, finalizing_at, cancelling_at: seconds since the epoch at which the batch reached the status.
        finished_at: seconds since the epoch at which the batch reached its final status.
        ended_as: the final status of which the batch shows a time, in any format; `None` without such a time.
        usage: the billed tokens, `None` if the server does not count tokens.
        model: the model that answered, often with a date; empty if the server does not name the model.
        is_listed: whether the object comes from the server's list, which may show other ids of files than the batch.
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
    ended_as: str | None = None
    usage: Usage | None = None
    model: str = ""
    is_listed: bool = field(default=False, compare=False)

    @property
    def key(self) -> str | None:
        """Return the key of its creation; `None` if the metadata have none, or a text that is no key."""
        key = self.metadata.get(KEY_METADATA, "")
        return key if _KEY.fullmatch(key) else None

    @property
    def has_ended(self) -> bool:
        """Return whether the status is final."""
        return self.status in FINAL_STATUSES

    @property
    def is_status_known(self) -> bool:
        """Return whether the status is one of OpenAI's."""
        return self.has_ended or self.status in _ACTIVE_STATUSES

    @property
    def apparent_end(self) -> str | None:
        """Return the final status that a batch with an unknown status shows otherwise; `None` if it shows none.

        A final time shows the end, and so does a result file if the counts have an outcome for each request.
        """
        if self.is_status_known:
            return None
        has_file = self.output_file_id or self.error_file_id
        is_counted = 0 < self.total <= self.completed + self.failed
        return self.ended_as or ("completed" if has_file and is_counted else None)

    @property
    def is_cancelled(self) -> bool:
        """Return whether the batch was cancelled, or is being cancelled."""
        return self.status in ("cancelling", "cancelled", "canceled")

    @property
    def lacks_output_file(self) -> bool:
        """Return whether the batch has ended and counts answers, but shows no output file."""
        has_ended = self.has_ended or self.apparent_end is not None
        return has_ended and self.completed > 0 and self.output_file_id is None

    @property
    def has_transient_errors(self) -> bool:
        """Return whether a failed batch names no cause of its own: no error at all, or errors of the server alone."""
        return all(errors.is_server_failure(error.code, error.message) for error in self.errors)

    @property
    def reasons(self) -> str:
        """Return the first errors as a text, equal messages once with their number, and the number of the others."""
        alike: dict[str, list[BatchError]] = {}
        for error in self.errors:
            alike.setdefault(error.text, []).append(error)
        shown = list(alike.values())[:_MESSAGES_SHOWN]
        more = len(self.errors) - sum(map(len, shown))
        first = "; ".join(map(_describe_alike, shown)) or "the server gave no reason"
        return f"{first} (and {more:,} more)" if more else first


def _describe_alike(alike: Sequence[BatchError]) -> str:
    """Return errors with one message as a text."""
    first = alike[0]
    if len(alike) == 1:
        return str(first)
    start = "" if first.line is None else f", the first in line {first.line} of the input file"
    return f"{first.text} ({len(alike):,} times{start})"


class EndDetector:
    """Detector of the end of a batch whose status nobody knows, by successive polls."""

    def __init__(self) -> None:
        self._last: Batch | None = None
        self._polls = 0

    def judge(self, batch: Batch) -> Batch:
        """Return a polled batch, with a final status if it has shown its end unchanged for five polls.

        Args:
            batch: the batch at the next poll.
        """
        self._polls = self._polls + 1 if batch == self._last else 1
        self._last = batch
        status = batch.apparent_end
        return replace(batch, status=status) if status and self._polls >= _POLLS_OF_END else batch


def read_batch(batch: Mapping[str, Any]) -> Batch:
    """Parse a batch object; any field but the id and the status may be missing, or have a value without sense.

    Raises:
        UnexpectedReplyError: the object has no id or no status.
    """
    batch_id, status = batch.get("id"), batch.get("status")
    if not is_id(batch_id) or not isinstance(status, str):
        raise UnexpectedReplyError("a batch", batch)
    status = re.sub(r"[-\s]+", "_", status.strip().lower())
    counts, metadata, endpoint = batch.get("request_counts"), batch.get("metadata"), batch.get("endpoint")
    counts = counts if isinstance(counts, dict) else {}
    return Batch(
        id=batch_id,
        status=_SYNONYMS.get(status, status),
        endpoint=endpoint if endpoint and isinstance(endpoint, str) else None,
        input_file_id=_file_id(batch.get("input_file_id")),
        output_file_id=_file_id(batch.get("output_file_id")),
        error_file_id=_file_id(batch.get("error_file_id")),
        completed=read_count(counts.get("completed")),
        failed=read_count(counts.get("failed")),
        total=read_count(counts.get("total")),
        errors=tuple(_batch_errors(batch.get("errors") or batch.get("error"))),
        metadata={name: value for name, value in metadata.items() if isinstance(value, str)}
        if isinstance(metadata, dict)
        else {},
        created_at=_seconds(batch.get("created_at")),
        expires_at=_seconds(batch.get("expires_at")),
        in_progress_at=_seconds(batch.get("in_progress_at")),
        finalizing_at=_seconds(batch.get("finalizing_at")),
        cancelling_at=_seconds(batch.get("cancelling_at")),
        finished_at=next((seconds for name in _FINAL_TIMES if (seconds := _seconds(batch.get(name)))), None),
        usage=read_usage(batch.get("usage")),
        model=_text(batch.get("model") or batch.get("model_id")) or "",
        ended_as=next((status for name, status in _FINAL_TIMES.items() if _is_time(batch.get(name))), None),
    )


def _batch_errors(reported: object) -> Iterator[BatchError]:
    data = reported.get("data") if isinstance(reported, dict) else reported
    # Together reports one text: https://docs.together.ai/reference/batch-get
    data = [{"message": data}] if isinstance(data, str) and data else data
    for error in data if isinstance(data, list) else []:
        if isinstance(error, dict):
            message, line = str(error.get("message") or "no message"), error.get("line")
            yield BatchError(
                message, _text(error.get("code")), line if type(line) is int else None, _text(error.get("param"))
            )


def _text(value: object) -> str | None:
    return str(value) if isinstance(value, str | int) else None


def _file_id(value: object) -> str | None:
    return value if is_id(value) else None


def _is_time(value: object) -> bool:
    """Return whether a field has a time, as a number or as a text."""
    return bool(value) and not str(value).startswith(_ZERO_TIME)


# The year 5138: a later time is in another unit, or makes no sense.
_LATEST_SECONDS = 1e11


def _seconds(value: object) -> float | None:
    """Return a moment in seconds since the epoch, given as a number, its text, or in ISO 8601; else `None`."""
    if isinstance(value, str):
        # Nine digits or more are seconds: a date of ISO 8601 without hyphens has eight.
        value = int(value) if re.fullmatch(r"\d{9,12}", value.strip()) else _read_iso_time(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < _LATEST_SECONDS else None


def _read_iso_time(text: str) -> float | None:
    # Python 3.10 reads neither `Z` nor more than six digits of a fraction.
    text = re.sub(r"(\.\d{6})\d+", r"\1", text.strip().replace("Z", "+00:00"))
    try:
        moment = datetime.fromisoformat(text)
        return moment.timestamp() if moment.tzinfo else moment.replace(tzinfo=timezone.utc).timestamp()
    except (ValueError, OverflowError):
        return None
