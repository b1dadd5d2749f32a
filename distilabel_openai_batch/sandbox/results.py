"""Result files of a batch: one line per request, in the output file or in the error file."""

from __future__ import annotations

import os
import random
from array import array
from collections.abc import Callable, Iterator
from operator import add
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from .dialect import Dialect
from .errors import ApiError
from .fault_schedule import FaultSchedule
from .faults import ResultFault
from .model.answers import Model, ModelAnswer
from .model.hashing import body_digest, canonical_json
from .model.prompt_cache import PromptCache
from .model.scripts import SCRIPTS
from .settings import RequestFailure, Settings
from .validation import Validation

_BUFFER_BYTES = 1 << 20
_LINES_PER_PAUSE = 256

# Code and message, in OpenAI's words, of a request that had no answer when the batch ended.
_UNANSWERED = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed because the batch was cancelled."),
    "failed": ("batch_failed", "This request was not executed because the batch failed."),
}


TOKEN_KINDS = ("prompt", "completion", "cached", "written", "reasoning")
"""Kinds of billed tokens: of prompts, of answers, and the parts of them that come from the cache, that go to the cache,
and that reasoning takes."""

# Totals over requests: bytes of the output file, bytes of the error file, requests answered with 200, billed tokens.
_TOTALS = ("output", "error", "completed", *TOKEN_KINDS)


class ResultLine(NamedTuple):
    """Contribution of one request to the result files.

    Attributes:
        output: bytes for the output file.
        error: bytes for the error file.
        billed_digest: SHA-256 of the canonical body if the request was answered with 200, else `None`.
        usage: billed tokens: see `TOKEN_KINDS`.
    """

    output: bytes
    error: bytes
    billed_digest: str | None
    usage: tuple[int, ...]


class StoredResults:
    """Result files of one batch, written in the order in which the requests are answered.

    All lines are written at once, whatever the duration of the batch. The files are in the order of the work, so the
    results of a batch that ended early are a prefix of the files.

    Args:
        batch_id: id of the batch.
        endpoint: endpoint of the requests.
        validation: offsets and custom ids of the requests.
        directory: directory of the result files.
        dialect: dialect of the result lines.

    Attributes:
        output_path: path of the output file.
        error_path: path of the error file.
        answered_count: number of requests whose lines are written.
    """

    def __init__(self, batch_id: str, endpoint: str, validation: Validation, directory: Path, dialect: Dialect) -> None:
        self._dialect = dialect
        self._id_prefix = batch_id.removeprefix("batch_")
        self._endpoint = endpoint
        self._validation = validation
        self.output_path = directory / f"{batch_id}_output.jsonl"
        self.error_path = directory / f"{batch_id}_error.jsonl"
        self.answered_count = 0
        self._prompt_cache: PromptCache | None = None
        self._order: list[int] = []
        self._billed_digests: list[str | None] = []
        # Running totals: row n holds `_TOTALS` over the first n requests in `_order`.
        self._last_totals = (0,) * len(_TOTALS)
        self._totals = array("q", self._last_totals)

    def write(
        self,
        input_path: Path,
        settings: Settings,
        schedule: FaultSchedule,
        pause: Callable[[], bool],
        prompt_cache: PromptCache | None = None,
    ) -> None:
        """Answer every request and write the lines.

        Args:
            input_path: path of the input file.
            settings: order of the lines, and models.
            schedule: failures and faults.
            pause: function called every 256 lines; writing stops early if the function returns `True`.
            prompt_cache: prompts that were answered before; `None` for answers without a cache.
        """
        self._prompt_cache = prompt_cache
        model = Model(self._endpoint, settings)
        self._order = list(range(len(self._validation.starts)))
        if settings.shuffle:
            # The order must be repeatable, not secret.
            random.Random(settings.seed).shuffle(self._order)  # noqa: S311
        with (
            self.output_path.open("wb", buffering=_BUFFER_BYTES) as output,
            self.error_path.open("wb", buffering=_BUFFER_BYTES) as error,
        ):
            for index, request in self._read_requests(input_path):
                line = self._answer(index, request, model, settings, schedule)
                # Lines that pile up make the allocator return pages and get them again, so write each line at once.
                output.write(line.output)
                error.write(line.error)
                self._count(line)
                if self.answered_count % _LINES_PER_PAUSE == 0 and pause():
                    return

    def _read_requests(self, input_path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        starts, lengths = self._validation.starts, self._validation.lengths
        with input_path.open("rb", buffering=0) as file:
            for index in self._order:
                file.seek(starts[index])
                yield index, orjson.loads(file.read(lengths[index]))

    def _count(self, line: ResultLine) -> None:
        """Add a line to the running totals."""
        self._billed_digests.append(line.billed_digest)
        numbers = (len(line.output), len(line.error), line.billed_digest is not None, *line.usage)
        self._last_totals = tuple(map(add, self._last_totals, numbers))
        self._totals.extend(self._last_totals)
        # Other threads read the totals up to `answered_count`, so increment the count last.
        self.answered_count += 1

    def _total(self, name: str, answered_count: int) -> int:
        """Return one of `_TOTALS` over the first `answered_count` requests."""
        return self._totals[answered_count * len(_TOTALS) + _TOTALS.index(name)]

    def _answer(
        self, index: int, request: dict[str, Any], model: Model, settings: Settings, schedule: FaultSchedule
    ) -> ResultLine:
        """Answer one request, and return the request's line."""
        body = request["body"]
        serialised = canonical_json(body)
        digest = body_digest(serialised)
        failure = schedule.take_failure(serialised, "batch")
        if failure is None:
            answer = model.answer(body, digest)
            if self._prompt_cache and answer.status == 200:
                answer = self._prompt_cache.bill(body, settings.resolve_model(body["model"]), answer)
        else:
            answer = failure_answer(failure)
        suffix = f"{self._id_prefix}{index:08x}"
        entry = {
            "id": f"batch_req_{suffix}",
            "custom_id": request["custom_id"],
            "response": {"status_code": answer.status, "request_id": f"req_{suffix}", "body": answer.body},
            "error": None,
        }
        is_billed = answer.status == 200
        fault = schedule.take_result_fault(serialised)
        if fault is not None:
            output, error, is_billed = corrupt_line(entry, is_billed, fault)
        else:
            line = self._serialise(entry)
            output, error = (line, b"") if is_billed else (b"", line)
        usage = answer.body.get("usage", {}) if is_billed else {}
        return ResultLine(output, error, digest if is_billed else None, _billed_tokens(usage))

    def _serialise(self, entry: dict[str, Any]) -> bytes:
        return orjson.dumps(self._dialect.result_line(entry), option=orjson.OPT_APPEND_NEWLINE)

    def count_completed(self, answered_count: int) -> int:
        """Return the number of requests answered with 200 among the first `answered_count`."""
        return self._total("completed", answered_count)

    def count_tokens(self, answered_count: int) -> dict[str, int]:
        """Return the tokens of each of `TOKEN_KINDS` of the first `answered_count` requests."""
        return {name: self._total(name, answered_count) for name in TOKEN_KINDS}

    def billed_requests(self, answered_count: int) -> Iterator[tuple[str, str]]:
        """Yield `custom_id` and SHA-256 of the body of each request answered with 200.

        Args:
            answered_count: number of requests, from the first, that are considered.
        """
        for position in range(answered_count):
            digest = self._billed_digests[position]
            if digest is not None:
                yield self._validation.custom_ids[self._order[position]], digest

    def extend_partial_output(self, answered_count: int) -> Path:
        """Extend the file of partial output to the first `answered_count` requests, and return the file's path."""
        path = self.output_path.with_suffix(".growing")
        with self.output_path.open("rb") as output, path.open("ab") as partial:
            output.seek(partial.tell())
            partial.write(output.read(max(0, self._total("output", answered_count) - partial.tell())))
        return path

    def finish(self, status: str, answered_count: int) -> None:
        """Cut the files to the answered requests, and write an error line for each of the others.

        Args:
            status: status with which the batch ended.
            answered_count: number of requests answered by the end.
        """
        if answered_count == self.answered_count:
            return
        os.truncate(self.output_path, self._total("output", answered_count))
        os.truncate(self.error_path, self._total("error", answered_count))
        code, message = _UNANSWERED[status]
        with self.error_path.open("ab", buffering=_BUFFER_BYTES) as error:
            for index in self._order[answered_count:]:
                entry = {
                    "id": f"batch_req_{self._id_prefix}{index:08x}",
                    "custom_id": self._validation.custom_ids[index],
                    "response": None,
                    "error": {"code": code, "message": message},
                }
                error.write(self._serialise(entry))


_NO_TOKENS = (0,) * len(TOKEN_KINDS)


def _billed_tokens(usage: dict[str, Any]) -> tuple[int, ...]:
    """Return the tokens of `TOKEN_KINDS` in the `usage` of an answer; 0 for a kind that the object lacks."""
    if not usage:
        return _NO_TOKENS
    # `/v1/responses` has other names.
    if "input_tokens" in usage:
        read, written = usage["input_tokens"], usage.get("output_tokens", 0)
        details_in, details_out = usage.get("input_tokens_details", {}), usage.get("output_tokens_details", {})
    else:
        read, written = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
        details_in, details_out = usage.get("prompt_tokens_details", {}), usage.get("completion_tokens_details", {})
    return (
        read,
        written,
        details_in.get("cached_tokens", 0),
        details_in.get("cache_write_tokens", 0),
        details_out.get("reasoning_tokens", 0),
    )


def failure_answer(failure: RequestFailure) -> ModelAnswer:
    """Return the answer to a request that the settings let fail."""
    headers = None if failure.retry_after is None else {"Retry-After": f"{failure.retry_after:g}"}
    error = ApiError(failure.status, failure.message, type=failure.type, code=failure.code)
    return ModelAnswer(failure.status, error.body(), headers)


def corrupt_line(entry: dict[str, Any], is_billed: bool, fault: ResultFault) -> tuple[bytes, bytes, bool]:
    """Write a result line with a fault.

    Args:
        entry: line without the fault.
        is_billed: `True` if the request was answered with 200.
        fault: fault of the line.

    Returns:
        Bytes for the output file, bytes for the error file, and `is_billed` after the fault.
    """
    kind = fault.kind
    if kind in ("server_error", "bare_error"):
        is_billed = False
    to_output = kind == "to_output_file" if kind in ("to_error_file", "to_output_file") else is_billed
    content = _corrupt_entry(entry, kind)
    line = orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)
    if kind == "lose":
        line = b""
    elif kind == "double":
        line *= 2
    elif kind == "malform":
        line = line[: len(line) // 2] + b"\n"
    elif kind == "blank":
        line = b"\n" + line
    elif kind == "unknown":
        unknown = content | {"custom_id": f"nobody-asked-{content['id']}"}
        line = orjson.dumps(unknown, option=orjson.OPT_APPEND_NEWLINE) + line
    return (line, b"", is_billed) if to_output else (b"", line, is_billed)


def _corrupt_entry(entry: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return the content of a result line with a fault of the given kind."""
    response = entry["response"]
    if kind == "string_body":
        return entry | {"response": response | {"body": orjson.dumps(response["body"]).decode()}}
    if kind == "null_body":
        return entry | {"response": response | {"body": None}}
    if kind == "status_zero":
        return entry | {"response": response | {"status_code": 0}}
    if kind == "null_response":
        return entry | {"response": None}
    if kind == "server_error":
        error = {"code": "inference_failed", "message": "The engine did not answer."}
        return entry | {"response": None, "error": error}
    if kind == "bare_error":
        error = {"type": "server_error", "message": "The engine did not answer."}
        return {"id": entry["id"], "custom_id": entry["custom_id"], "error": error}
    if kind in SCRIPTS:
        return entry | {"response": response | {"body": SCRIPTS[kind](response["body"])}}
    return entry
