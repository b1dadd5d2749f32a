"""One batch: what was asked, how far it is, and the object that the API shows of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .answers import snapshot
from .dialect import Dialect, bare
from .errors import ApiError
from .faults import BatchFault
from .files import StoredFile
from .parameters import ENDPOINTS
from .results import Results
from .settings import Settings
from .timeline import Halt, Stage, Timeline, stage
from .validation import Examination, Problem

_MOMENTS = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
_HALTS = {"expire": "expired", "cancel": "cancelled", "never_finish": "in_progress"}


@dataclass
class Batch:
    """A batch. The thread that works on it and the event loop write its fields under the organization's lock.

    Attributes:
        id: its id.
        input_file: its input file, or `None` if that could not be seen at creation.
        input_file_id: the id that was asked for.
        endpoint: the endpoint of its requests.
        metadata: as given.
        created_at: when it was created, in seconds since the epoch.
        expires_at: when its window closes, in seconds since the epoch.
        output_seconds: how long its files are kept.
        owner: whose it is.
        faults: what goes wrong with it.
        dialect: how it is shown.
        completion_window: as given.
        examination: what validation found, once it has.
        examined_at: when it had, in seconds since the epoch.
        results: its answers, once there are any.
        answered_at: when there were all of them, in seconds since the epoch.
        cancel_at: when it was asked to cancel.
        seen_at: when it was last seen unfinished.
        looks: how often it was shown.
        final: where it ended, once it has.
        output_file: its output file, if it ended with one.
        error_file: its error file, if it ended with one.
        valid: whether validation let it through.
        problems: what its `errors` say once it has failed.
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
    examination: Examination | None = None
    examined_at: float | None = None
    results: Results | None = None
    answered_at: float | None = None
    cancel_at: float | None = None
    seen_at: float = 0.0
    looks: int = 0
    final: Stage | None = None
    output_file: StoredFile | None = None
    error_file: StoredFile | None = None
    valid: bool = True
    problems: list[Problem] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """How many requests it has, as far as they have been counted."""
        return 0 if self.examination is None else len(self.examination.starts)

    def stage(self, settings: Settings, now: float) -> Stage:
        """Returns where it stands."""
        if self.final is not None:
            return self.final
        line = Timeline(
            created_at=self.created_at,
            expires_at=self.expires_at if self.dialect.expires else float("inf"),
            validating=settings.validating_seconds,
            in_progress=settings.in_progress_seconds + settings.seconds_per_request * self.requests,
            finalizing=settings.finalizing_seconds,
            cancelling=settings.cancelling_seconds,
            requests=self.requests,
            valid=self.valid,
            examined_at=self.examined_at,
            answered_at=self.answered_at,
            cancel_at=self.cancel_at,
            halt=self._halt(),
            seen_at=self.seen_at,
        )
        return stage(line, now)

    def _halt(self) -> Halt | None:
        for kind, status in _HALTS.items():
            if kind in self.faults:
                value = self.faults[kind].value
                return Halt(status, value if isinstance(value, int) else self.requests // 2)
        failure = self.failure()
        return Halt("failed", failure["done"]) if failure is not None and "done" in failure else None

    def failure(self) -> dict[str, Any] | None:
        """Returns the error that it is to fail with by script."""
        if "fail" not in self.faults:
            return None
        value = self.faults["fail"].value
        return value if isinstance(value, dict) else {}

    def as_json(self, now: Stage) -> dict[str, Any]:
        """Returns the batch object of the API, as it should be.

        Args:
            now: where the batch stands.
        """
        done = 0 if self.results is None else min(now.done, self.results.done)
        completed = 0 if self.results is None else self.results.completed(done)
        prompt, completion = (0, 0) if self.results is None else self.results.tokens(done)
        begun = "in_progress_at" in now.moments
        model = None if self.examination is None else self.examination.model
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": None if model is None else snapshot(model),
            "errors": {"object": "list", "data": [vars(problem) for problem in self.problems]}
            if now.status == "failed"
            else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": now.status,
            "output_file_id": None if self.output_file is None else self.output_file.id,
            "error_file_id": None if self.error_file is None else self.error_file.id,
            "created_at": int(self.created_at),
            "expires_at": int(self.expires_at),
            **{
                f"{name}_at": int(now.moments[f"{name}_at"]) if f"{name}_at" in now.moments else None
                for name in _MOMENTS
            },
            "request_counts": {
                "total": self.requests if begun else 0,
                "completed": completed,
                "failed": done - completed,
            },
            "usage": {
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": completion,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": prompt + completion,
            },
            "metadata": self.metadata,
        }

    def shown(self, now: Stage) -> dict[str, Any]:
        """Returns the batch object with whatever is wrong with it, and counts the look.

        Args:
            now: where the batch stands.
        """
        self.looks += 1
        return distort(self.dialect.batch(self.as_json(now)), self.faults, self.looks)


def distort(batch: dict[str, Any], faults: dict[str, BatchFault], looks: int) -> dict[str, Any]:
    """Returns a batch object as a faulty server shows it.

    Args:
        batch: the object as it should be.
        faults: what is wrong, by kind.
        looks: how often the batch was shown, this time included.
    """
    batch = dict(batch)
    files = ("output_file_id", "error_file_id")
    if "status" in faults and (faults["status"].looks == -1 or looks <= faults["status"].looks):
        batch["status"] = faults["status"].value
    if "upper_case" in faults:
        batch["status"] = str(batch["status"]).upper()
    if "no_files" in faults:
        batch |= dict.fromkeys(files)
    if "lost_files" in faults:
        batch |= {name: "file-lost" for name in files if batch[name] is not None}
    if "empty_file_ids" in faults:
        batch |= {name: "" for name in files if batch[name] is None}
    if "null_counts" in faults:
        batch["request_counts"] = None
    if "bare" in faults:
        batch = bare(batch)
    return batch


def check_metadata(metadata: Any) -> list[str]:
    """Returns what is wrong with metadata: it is at most 16 pairs of strings, keys up to 64, values up to 512 long."""
    if metadata is None:
        return []
    if not isinstance(metadata, dict):
        return ["Invalid type for 'metadata': expected an object."]
    wrong = []
    if len(metadata) > 16:
        wrong.append(
            "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, "
            f"but got an object with {len(metadata)} properties instead."
        )
    for key, value in metadata.items():
        if not isinstance(value, str):
            wrong.append(f"Invalid type for 'metadata.{key}': expected a string.")
        elif len(value) > 512:
            wrong.append(
                f"Invalid 'metadata.{key}': string too long. Expected a string with maximum length 512, "
                f"but got a string with length {len(value)} instead."
            )
        if len(key) > 64:
            wrong.append(
                "Invalid 'metadata': property name too long. Expected a property name with maximum length 64, "
                f"but got one with length {len(key)} instead."
            )
    return wrong


def check_creation(body: dict[str, Any], completion_windows: list[str]) -> None:
    """Checks the body of a call that creates a batch.

    Args:
        body: the body.
        completion_windows: those that are taken.

    Raises:
        ApiError: as the API refuses it at once; what is wrong inside the file it finds later.
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
    wrong = check_metadata(body.get("metadata"))
    if wrong:
        raise ApiError(400, wrong[0], param="metadata", code="invalid_type" if "type" in wrong[0] else "invalid_value")
