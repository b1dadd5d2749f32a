"""Validation of an input file: the checks that the API makes before the first request is answered."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from .model.snapshots import snapshot_name
from .model.tokens import count_prompt_tokens
from .settings import Settings

# A file of 50,000 bad lines need not give 50,000 entries: report at most this number of bad lines.
_MAX_PROBLEMS = 100
_READ_BYTES = 1 << 20
_LINES_PER_PAUSE = 1_000


@dataclass(frozen=True)
class Problem:
    """Entry of a failed batch's `errors.data`.

    Attributes:
        code: code of the problem.
        message: message for people.
        param: name of the parameter at fault; `None` if no parameter is.
        line: number of the line at fault, counted from 1; `None` for a problem of the whole file.
    """

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass
class Validation:
    """Result of the validation of an input file.

    Attributes:
        problems: reasons for the batch to fail; empty for a valid file.
        starts: offset of each request's line, in bytes.
        lengths: length of each request's line, in bytes.
        custom_ids: `custom_id` of each request.
        model: model of the requests, as they name the model; `None` if no line was valid.
        prompt_tokens: number of tokens of all prompts.
    """

    problems: list[Problem] = field(default_factory=list)
    starts: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("q"))
    custom_ids: list[str] = field(default_factory=list)
    model: str | None = None
    prompt_tokens: int = 0


def file_not_found(file_id: str) -> Problem:
    """Return the problem of an input file that does not exist, or is not visible yet."""
    message = f"Cannot find file {file_id}, or organization org-sandbox does not have access to it."
    return Problem("invalid_request", message, param="file_id")


def token_limit_exceeded(model: str, limit: int) -> Problem:
    """Return the problem of a batch above the enqueued-token limit.

    Args:
        model: model of the batch.
        limit: maximum number of enqueued tokens.
    """
    message = (
        f"Enqueued token limit reached for {snapshot_name(model)} in organization org-sandbox. "
        f"Limit: {limit:,} enqueued tokens. Please try again once some in_progress batches have been completed."
    )
    return Problem("token_limit_exceeded", message)


def validate_file(
    path: Path, endpoint: str, settings: Settings, pause: Callable[[], bool] = lambda: False
) -> Validation:
    """Read and check an input file, line by line.

    Args:
        path: path of the file.
        endpoint: endpoint of the batch.
        settings: limits, models and dialect.
        pause: function called every 1,000 lines; validation stops early if the function returns `True`.

    Raises:
        FileNotFoundError: if the file was deleted.
    """
    checker = _LineChecker(endpoint, settings)
    validation = checker.validation
    size = path.stat().st_size
    start = 0
    with path.open("rb", buffering=_READ_BYTES) as file:
        for number, line in enumerate(file, 1):
            length = len(line)
            if not line.isspace():
                problem = checker.check(line, number)
                if problem is not None and len(validation.problems) < _MAX_PROBLEMS:
                    validation.problems.append(problem)
                validation.starts.append(start)
                validation.lengths.append(length)
            start += length
            if number % _LINES_PER_PAUSE == 0 and pause():
                break
    validation.problems += checker.file_problems.values()
    if not validation.starts:
        validation.problems.append(Problem("empty_file", "The batch input file is empty."))
    _check_limits(validation, size, settings)
    return validation


def _check_limits(validation: Validation, size: int, settings: Settings) -> None:
    """Insert a problem for each exceeded limit of the file: number of requests, bytes."""
    if len(validation.starts) > settings.max_requests:
        message = (
            f"The batch input file contains more requests than the maximum of {settings.max_requests}. "
            "Please try again with a smaller batch."
        )
        validation.problems.insert(0, Problem("maximum_requests_exceeded", message))
    if size > settings.max_bytes:
        model = snapshot_name(validation.model) if validation.model is not None else "requested"
        message = (
            f"The batch input file is larger than the {settings.max_bytes} maximum for the {model} model. "
            "Please try again with a smaller batch."
        )
        validation.problems.insert(0, Problem("maximum_input_file_size_exceeded", message))


class _LineChecker:
    """Check of one line after another.

    Attributes:
        validation: result so far: custom ids, model and tokens of the valid lines.
        file_problems: problems of the file as a whole, by code; each is reported once.
    """

    def __init__(self, endpoint: str, settings: Settings) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._together = settings.dialect.together
        # URL of the last line whose URL was right; most files have one URL alone.
        self._right_url: str | None = None
        self._seen: set[str] = set()
        self.validation = Validation()
        self.file_problems: dict[str, Problem] = {}

    def check(self, line: bytes, number: int) -> Problem | None:
        """Check a line, and return the line's problem, or `None` for a valid line."""
        try:
            request = orjson.loads(line)
        except orjson.JSONDecodeError:
            request = None
        if not isinstance(request, dict):
            return Problem("invalid_json_line", "This line is not parseable as valid JSON.", line=number)
        problem = self._check_request(request, number)
        if problem is None:
            self._add_request(request["custom_id"], request["body"])
        return problem

    def _check_request(self, request: dict[str, Any], number: int) -> Problem | None:
        if self._together:
            request = {**request, "method": "POST", "url": self._endpoint}
        for name in ("custom_id", "method", "url", "body"):
            if request.get(name) is None:
                return Problem("missing_required_parameter", f"Missing required parameter: '{name}'.", name, number)
        if not isinstance(request["custom_id"], str):
            return Problem("invalid_request", "The custom_id must be a string.", "custom_id", number)
        if request["method"] != "POST":
            return Problem("invalid_request", "The method provided for this request must be POST.", "method", number)
        if request["url"] != self._right_url:
            if self._settings.dialect.openai_endpoint(request["url"]) != self._endpoint:
                message = "The URL provided for this request does not match the batch endpoint."
                return Problem("invalid_url", message, "url", number)
            self._right_url = request["url"]
        return self._check_body(request["body"], number)

    def _check_body(self, body: Any, number: int) -> Problem | None:
        if not isinstance(body, dict):
            return Problem("invalid_request", "The body must be an object.", "body", number)
        model = body.get("model")
        if not isinstance(model, str) or not model:
            return Problem("invalid_request", "Model parameter is required.", "body.model", number)
        if model != self.validation.model and not self._settings.has_model(model):
            message = f"The provided model '{model}' is not supported by the Batch API."
            return Problem("model_not_found", message, "body.model", number)
        if body.get("stream"):
            message = "Chat Completions: Streaming is not supported in the Batch API."
            return Problem("streaming_unsupported", message, "body.stream", number)
        if self._endpoint == "/v1/chat/completions" and "messages" not in body:
            return Problem("invalid_request", "Messages parameter is required.", "body.messages", number)
        return None

    def _add_request(self, custom_id: str, body: dict[str, Any]) -> None:
        """Add a valid request to the result, and note whether the file as a whole stays valid."""
        validation = self.validation
        if custom_id in self._seen:
            message = (
                "The custom_id for this request is a duplicate of another request. "
                "The custom_id parameter must be unique for each request in a batch."
            )
            self.file_problems.setdefault("duplicate_custom_id", Problem("duplicate_custom_id", message))
        self._seen.add(custom_id)
        model = body["model"]
        if validation.model is None:
            validation.model = model
        elif model != validation.model:
            message = (
                f"The model '{model}' for this request does not match the rest of the batch. "
                "Each batch must contain requests for a single model."
            )
            self.file_problems.setdefault("mismatched_model", Problem("mismatched_model", message))
        validation.custom_ids.append(custom_id)
        validation.prompt_tokens += count_prompt_tokens(self._endpoint, body)
