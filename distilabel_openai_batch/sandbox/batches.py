"""A batch: its stored state, the batch object that the API shows, and the checks at its creation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .dialect import Dialect, drop_optional_fields
from .errors import ApiError
from .faults import BatchFault
from .files import StoredFile
from .model.parameters import ENDPOINTS
from .model.snapshots import snapshot_name
from .results import TOKEN_KINDS, StoredResults
from .settings import Settings
from .timeline import ScriptedEnd, Stage, Timeline, stage_at
from .validation import Problem, Validation

_TIMESTAMPS = tuple(
    f"{name}_at" for name in ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
)
# Kinds of faults, and the status at which they halt a batch.
_SCRIPTED_STATUSES = {"expire": "expired", "cancel": "cancelled", "never_finish": "in_progress"}
# Limits from https://platform.openai.com/docs/api-reference/batch/create.
_MAX_METADATA_PAIRS = 16
_MAX_METADATA_KEY = 64
_MAX_METADATA_VALUE = 512


@dataclass
class StoredBatch:
    """Batch of an organization. The event loop and the worker thread change the fields under the shared lock.

    Attributes:
        id: id of the batch.
        input_file: input file; `None` if the file was not visible at the creation.
        input_file_id: id of the input file that the request named.
        endpoint: endpoint of the requests.
        metadata: metadata of the request.
        created_at: creation time, in seconds since the epoch.
        expires_at: time at which the completion window closes, in seconds since the epoch.
        output_seconds: lifetime of the result files, in seconds.
        owner: owner that `Organization.authenticate` returned.
        faults: faults of the batch, by kind.
        dialect: dialect at the creation.
        completion_window: completion window of the request.
        extra_fields: fields of the request that OpenAI's API does not have.
        validation: result of the validation; `None` until the worker has read the input file.
        read_at: time at which the worker had read the input file, in seconds since the epoch.
        results: result files; `None` until validation has passed.
        answered_at: time at which the worker had written all answers, in seconds since the epoch.
        cancel_at: time of the request to cancel, in seconds since the epoch.
        seen_at: last time at which the batch was seen unfinished, in seconds since the epoch.
        reply_count: number of replies that showed the batch.
        final_stage: stage with which the batch ended; `None` while the batch is unfinished.
        output_file: output file, once the batch shows one.
        error_file: error file, once the batch shows one.
        is_valid: `False` if validation failed.
        problems: entries of `errors`, shown once the batch has failed.
    """

    id: str
    input_file: StoredFile | None
    input_file_id: str
    endpoint: str
    metadata: dict[str, str] | None
    created_at: float
    expires_at: float
    output_seconds: int
    owner: str
    faults: dict[str, BatchFault]
    dialect: Dialect
    completion_window: str
    extra_fields: dict[str, Any] = field(default_factory=dict)
    validation: Validation | None = None
    read_at: float | None = None
    results: StoredResults | None = None
    answered_at: float | None = None
    cancel_at: float | None = None
    seen_at: float = 0.0
    reply_count: int = 0
    final_reply_count: int = 0
    final_stage: Stage | None = None
    output_file: StoredFile | None = None
    error_file: StoredFile | None = None
    is_valid: bool = True
    problems: list[Problem] = field(default_factory=list)

    @property
    def request_count(self) -> int:
        """Number of requests; 0 until the worker has read the input file."""
        return 0 if self.validation is None else len(self.validation.starts)

    def stage_at(self, settings: Settings, now: float) -> Stage:
        """Return the stage of the batch at the time `now`, in seconds since the epoch."""
        if self.final_stage is not None:
            return self.final_stage
        timeline = Timeline(
            created_at=self.created_at,
            expires_at=self.expires_at if self.dialect.expires else float("inf"),
            validating=settings.validating_seconds,
            in_progress=settings.in_progress_seconds + settings.seconds_per_request * self.request_count,
            finalizing=settings.finalizing_seconds,
            cancelling=settings.cancelling_seconds,
            request_count=self.request_count,
            is_valid=self.is_valid,
            read_at=self.read_at,
            answered_at=self.answered_at,
            cancel_at=self.cancel_at,
            scripted_end=self._scripted_end(),
            seen_at=self.seen_at,
        )
        return stage_at(timeline, now)

    def _scripted_end(self) -> ScriptedEnd | None:
        for kind, status in _SCRIPTED_STATUSES.items():
            if kind in self.faults:
                value = self.faults[kind].value
                return ScriptedEnd(status, value if isinstance(value, int) else self.request_count // 2)
        failure = self.scripted_failure()
        return ScriptedEnd("failed", failure["done"]) if failure is not None and "done" in failure else None

    def scripted_failure(self) -> dict[str, Any] | None:
        """Return the error of the fault `fail`, or `None` without such a fault."""
        if "fail" not in self.faults:
            return None
        value = self.faults["fail"].value
        return value if isinstance(value, dict) else {}

    def as_json(self, stage: Stage) -> dict[str, Any]:
        """Return the batch object of OpenAI's API, without faults.

        Args:
            stage: stage of the batch.
        """
        answered = completed = 0
        tokens = dict.fromkeys(TOKEN_KINDS, 0)
        if self.results is not None:
            answered = min(stage.answered_count, self.results.answered_count)
            completed = self.results.count_completed(answered)
            tokens = self.results.count_tokens(answered)
        has_begun = "in_progress_at" in stage.timestamps
        model = None if self.validation is None else self.validation.model
        errors = {"object": "list", "data": [vars(problem) for problem in self.problems]}
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": None if model is None else snapshot_name(model),
            "errors": errors if stage.status == "failed" else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": stage.status,
            "output_file_id": None if self.output_file is None else self.output_file.id,
            "error_file_id": None if self.error_file is None else self.error_file.id,
            "created_at": int(self.created_at),
            "expires_at": int(self.expires_at),
            **{name: int(stage.timestamps[name]) if name in stage.timestamps else None for name in _TIMESTAMPS},
            "request_counts": {
                "total": self.request_count if has_begun else 0,
                "completed": completed,
                "failed": answered - completed,
            },
            "usage": {
                "input_tokens": tokens["prompt"],
                "input_tokens_details": {
                    "cached_tokens": tokens["cached"],
                    "cache_write_tokens": tokens["written"],
                },
                "output_tokens": tokens["completion"],
                "output_tokens_details": {"reasoning_tokens": tokens["reasoning"]},
                "total_tokens": tokens["prompt"] + tokens["completion"],
            },
            "metadata": self.metadata,
        }

    def show(self, stage: Stage) -> dict[str, Any]:
        """Return the batch object for a reply, in the server's dialect and with faults, and count the reply.

        Args:
            stage: stage of the batch.
        """
        self.reply_count += 1
        self.final_reply_count += self.final_stage is not None
        batch = self.dialect.batch_object(self.as_json(stage))
        return corrupt_batch(batch, self.faults, self.reply_count, self.final_reply_count)


def corrupt_batch(
    batch: dict[str, Any], faults: dict[str, BatchFault], reply_count: int, final_reply_count: int = 0
) -> dict[str, Any]:
    """Return a batch object with faults.

    Args:
        batch: batch object without faults.
        faults: faults of the batch, by kind.
        reply_count: number of replies that have shown the batch, this reply included.
        final_reply_count: number of these that came after the end of the batch.
    """
    batch = dict(batch)
    file_ids = ("output_file_id", "error_file_id")
    if "status" in faults and (faults["status"].looks == -1 or reply_count <= faults["status"].looks):
        batch["status"] = faults["status"].value
    if "upper_case" in faults:
        batch["status"] = str(batch["status"]).upper()
    if "no_errors" in faults:
        batch["errors"] = None
    if "no_files" in faults:
        batch |= dict.fromkeys(file_ids)
    if "late_files" in faults and (faults["late_files"].looks == -1 or final_reply_count <= faults["late_files"].looks):
        batch |= dict.fromkeys(file_ids)
    if "lost_files" in faults:
        batch |= {name: "file-lost" for name in file_ids if batch[name] is not None}
    if "empty_file_ids" in faults:
        batch |= {name: "" for name in file_ids if batch[name] is None}
    if "null_counts" in faults:
        batch["request_counts"] = None
    if "bare" in faults:
        batch = drop_optional_fields(batch)
    return batch


def check_metadata(metadata: Any) -> list[str]:
    """Return a message for each broken rule: at most 16 pairs of strings, keys up to 64, values up to 512 long."""
    if metadata is None:
        return []
    if not isinstance(metadata, dict):
        return ["Invalid type for 'metadata': expected an object."]
    errors = []
    if len(metadata) > _MAX_METADATA_PAIRS:
        errors.append(
            "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, "
            f"but got an object with {len(metadata)} properties instead."
        )
    for key, value in metadata.items():
        if not isinstance(value, str):
            errors.append(f"Invalid type for 'metadata.{key}': expected a string.")
        elif len(value) > _MAX_METADATA_VALUE:
            errors.append(
                f"Invalid 'metadata.{key}': string too long. Expected a string with maximum length 512, "
                f"but got a string with length {len(value)} instead."
            )
        if len(key) > _MAX_METADATA_KEY:
            errors.append(
                "Invalid 'metadata': property name too long. Expected a property name with maximum length 64, "
                f"but got one with length {len(key)} instead."
            )
    return errors


CREATION_FIELDS = frozenset({"input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"})
"""Fields of the creation in OpenAI's API. https://platform.openai.com/docs/api-reference/batch/create"""


def check_creation(body: dict[str, Any], completion_windows: list[str]) -> None:
    """Check the body of a call that creates a batch.

    Args:
        body: body of the call.
        completion_windows: accepted completion windows.

    Raises:
        ApiError: if a parameter is missing or invalid. Problems inside the input file are found by validation, later.
    """
    for name in ("input_file_id", "endpoint", "completion_window"):
        if body.get(name) is None:
            message = f"Missing required parameter: '{name}'."
            raise ApiError(400, message, param=name, code="missing_required_parameter")
        if not isinstance(body[name], str):
            raise ApiError(400, f"Invalid type for '{name}': expected a string.", param=name, code="invalid_type")
    for name, supported in (("endpoint", sorted(ENDPOINTS)), ("completion_window", completion_windows)):
        if body[name] not in supported:
            listed = ", ".join(f"'{value}'" for value in supported)
            message = f"Invalid value: '{body[name]}'. Supported values are: {listed}."
            raise ApiError(400, message, param=name, code="invalid_value")
    errors = check_metadata(body.get("metadata"))
    if errors:
        raise ApiError(
            400, errors[0], param="metadata", code="invalid_type" if "type" in errors[0] else "invalid_value"
        )
