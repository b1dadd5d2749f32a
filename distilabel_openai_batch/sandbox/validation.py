"""The validation of an input file: what the API checks, and says, before it begins to answer."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from .answers import count_prompt_tokens, snapshot
from .settings import Settings

# So many problems of single lines are reported; a file that is wrong throughout need not be told 50,000 times.
_MOST_PROBLEMS = 100


@dataclass(frozen=True)
class Problem:
    """One entry of a failed batch's `errors.data`.

    Attributes:
        code: what is wrong, for programs.
        message: what is wrong, for people.
        param: the parameter at fault.
        line: the line at fault, the first being 1.
    """

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass
class Examination:
    """What was found in an input file.

    Attributes:
        problems: why the batch fails; empty if it does not.
        starts: where each request's line starts, in bytes.
        lengths: how long it is, in bytes.
        custom_ids: each request's `custom_id`.
        model: the model of the requests, as they name it.
        prompt_tokens: tokens of all prompts.
    """

    problems: list[Problem] = field(default_factory=list)
    starts: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("q"))
    custom_ids: list[str] = field(default_factory=list)
    model: str | None = None
    prompt_tokens: int = 0


def file_not_found(file_id: str) -> Problem:
    """Returns what the API says of an input file that it cannot see (yet)."""
    message = f"Cannot find file {file_id}, or organization org-sandbox does not have access to it."
    return Problem("invalid_request", message, param="file_id")


def token_limit_exceeded(model: str, limit: int) -> Problem:
    """Returns what the API says when too many tokens wait to be worked on."""
    message = (
        f"Enqueued token limit reached for {snapshot(model)} in organization org-sandbox. "
        f"Limit: {limit:,} enqueued tokens. Please try again once some in_progress batches have been completed."
    )
    return Problem("token_limit_exceeded", message)


def examine(path: Path, endpoint: str, settings: Settings, stopped: Callable[[], bool] = lambda: False) -> Examination:
    """Reads an input file, line by line.

    Args:
        path: the file.
        endpoint: the endpoint of the batch.
        settings: limits and models.
        stopped: asked now and then whether to give up.
    """
    found = Examination()
    size = path.stat().st_size
    seen: set[str] = set()
    whole: dict[str, Problem] = {}
    start = 0
    with path.open("rb", buffering=1 << 20) as file:
        for number, line in enumerate(file, 1):
            length = len(line)
            if line.strip():
                problem = _examine_line(line, number, endpoint, settings, found, seen, whole)
                if problem is not None and len(found.problems) < _MOST_PROBLEMS:
                    found.problems.append(problem)
                found.starts.append(start)
                found.lengths.append(length)
            start += length
            if number % 1_000 == 0 and stopped():
                break
    found.problems += whole.values()
    if not found.starts:
        found.problems.append(Problem("empty_file", "The batch input file is empty."))
    if len(found.starts) > settings.max_requests:
        message = (
            f"The batch input file contains more requests than the maximum of {settings.max_requests}. "
            "Please try again with a smaller batch."
        )
        found.problems.insert(0, Problem("maximum_requests_exceeded", message))
    if size > settings.max_bytes:
        model = snapshot(found.model) if found.model is not None else "requested"
        message = (
            f"The batch input file is larger than the {settings.max_bytes} maximum for the {model} model. "
            "Please try again with a smaller batch."
        )
        found.problems.insert(0, Problem("maximum_input_file_size_exceeded", message))
    return found


def _examine_line(
    line: bytes,
    number: int,
    endpoint: str,
    settings: Settings,
    found: Examination,
    seen: set[str],
    whole: dict[str, Problem],
) -> Problem | None:
    """Returns what is wrong with a line; what is wrong with the file as a whole goes into `whole`, once."""
    try:
        request = orjson.loads(line)
    except orjson.JSONDecodeError:
        request = None
    if not isinstance(request, dict):
        return Problem("invalid_json_line", "This line is not parseable as valid JSON.", line=number)
    for name in ("custom_id", "method", "url", "body"):
        if request.get(name) is None:
            return Problem("missing_required_parameter", f"Missing required parameter: '{name}'.", name, number)
    custom_id, body = request["custom_id"], request["body"]
    if not isinstance(custom_id, str):
        return Problem("invalid_request", "The custom_id must be a string.", "custom_id", number)
    if request["method"] != "POST":
        return Problem("invalid_request", "The method provided for this request must be POST.", "method", number)
    if settings.dialect.endpoint(request["url"]) != endpoint:
        message = "The URL provided for this request does not match the batch endpoint."
        return Problem("invalid_url", message, "url", number)
    problem = _examine_body(body, number, endpoint, settings)
    if problem is not None:
        return problem
    if custom_id in seen:
        message = (
            "The custom_id for this request is a duplicate of another request. "
            "The custom_id parameter must be unique for each request in a batch."
        )
        whole.setdefault("duplicate_custom_id", Problem("duplicate_custom_id", message))
    seen.add(custom_id)
    model = body["model"]
    if found.model is None:
        found.model = model
    elif model != found.model:
        message = (
            f"The model '{model}' for this request does not match the rest of the batch. "
            "Each batch must contain requests for a single model."
        )
        whole.setdefault("mismatched_model", Problem("mismatched_model", message))
    found.custom_ids.append(custom_id)
    found.prompt_tokens += count_prompt_tokens(endpoint, body)
    return None


def _examine_body(body: Any, number: int, endpoint: str, settings: Settings) -> Problem | None:
    if not isinstance(body, dict):
        return Problem("invalid_request", "The body must be an object.", "body", number)
    model = body.get("model")
    if not isinstance(model, str) or not model:
        return Problem("invalid_request", "Model parameter is required.", "body.model", number)
    if not settings.knows(model):
        message = f"The provided model '{model}' is not supported by the Batch API."
        return Problem("model_not_found", message, "body.model", number)
    if body.get("stream"):
        message = "Chat Completions: Streaming is not supported in the Batch API."
        return Problem("streaming_unsupported", message, "body.stream", number)
    if endpoint == "/v1/chat/completions" and "messages" not in body:
        return Problem("invalid_request", "Messages parameter is required.", "body.messages", number)
    return None
