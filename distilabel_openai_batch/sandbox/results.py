"""The results of a batch: every request answered once, its line written to the output or the error file."""

from __future__ import annotations

import hashlib
import os
import random
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from .answers import Answer, answer, canonical
from .dialect import Dialect
from .errors import ApiError
from .fault_schedule import Script
from .faults import ResultFault
from .settings import RequestFailure, Settings
from .validation import Examination

_SAYINGS = {
    "refuse": {"refusal": "I'm sorry, I can't assist with that."},
    "ramble": {"content": "I would rather say it in words."},
}
# Why a request that was never worked on has no response, in the words of the API.
_UNREACHED = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed because the batch was cancelled."),
    "failed": ("batch_failed", "This request was not executed because the batch failed."),
}


@dataclass(frozen=True)
class Line:
    """What a request adds to the results.

    Attributes:
        output: bytes for the output file.
        error: bytes for the error file.
        billed: the SHA-256 of the canonical body if it was answered with 200, else `None`.
        prompt_tokens: tokens of its prompt, if it was answered.
        completion_tokens: tokens of its answer, if it was answered.
    """

    output: bytes
    error: bytes
    billed: str | None
    prompt_tokens: int
    completion_tokens: int


class Results:
    """The results of one batch, written in the order in which the requests are worked on.

    All lines are written at once, however long the batch is to take. Since the files grow in the order of the work, the
    results of a batch that ended early are the first so many bytes of them.

    Attributes:
        output_path: the output file.
        error_path: the error file.
        done: how many requests are answered so far.
    """

    def __init__(
        self, batch_id: str, endpoint: str, examination: Examination, directory: Path, dialect: Dialect
    ) -> None:
        self._dialect = dialect
        self._batch_id = batch_id
        self._endpoint = endpoint
        self._examination = examination
        self.output_path = directory / f"{batch_id}_output.jsonl"
        self.error_path = directory / f"{batch_id}_error.jsonl"
        self.done = 0
        self._order: list[int] = []
        self._billed: list[str | None] = []
        # Totals after so many requests: place 0 is before the first.
        self._totals = {name: array("q", [0]) for name in ("output", "error", "completed", "prompt", "completion")}

    def write(self, input_path: Path, settings: Settings, script: Script, stopped: Callable[[], bool]) -> None:
        """Answers every request.

        Args:
            input_path: the input file.
            settings: order and models.
            script: failures and faults.
            stopped: asked now and then whether to give up.
        """
        self._order = list(range(len(self._examination.starts)))
        if settings.shuffle:
            # Repeatable, not secret.
            random.Random(settings.seed).shuffle(self._order)  # noqa: S311
        with (
            self.output_path.open("wb", buffering=1 << 20) as output,
            self.error_path.open("wb", buffering=1 << 20) as error,
        ):
            for index, request in self._requests(input_path):
                line = self._line(index, request, settings, script)
                self._append(line, output, error)
                if self.done % 256 == 0 and stopped():
                    return

    def _requests(self, input_path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        starts, lengths = self._examination.starts, self._examination.lengths
        with input_path.open("rb", buffering=0) as file:
            for index in self._order:
                file.seek(starts[index])
                yield index, orjson.loads(file.read(lengths[index]))

    def _append(self, line: Line, output: BinaryIO, error: BinaryIO) -> None:
        output.write(line.output)
        error.write(line.error)
        self._billed.append(line.billed)
        totals = self._totals
        totals["output"].append(totals["output"][-1] + len(line.output))
        totals["error"].append(totals["error"][-1] + len(line.error))
        totals["completed"].append(totals["completed"][-1] + (line.billed is not None))
        totals["prompt"].append(totals["prompt"][-1] + line.prompt_tokens)
        totals["completion"].append(totals["completion"][-1] + line.completion_tokens)
        # Last, as other threads read the totals up to here.
        self.done += 1

    def _line(self, index: int, request: dict[str, Any], settings: Settings, script: Script) -> Line:
        body = request["body"]
        serialised = canonical(body)
        failure = script.for_request(serialised, "batch")
        reply = answer(self._endpoint, body, settings.knows, serialised) if failure is None else fail(failure)
        identity = f"{self._batch_id[6:]}{index:08x}"
        entry = {
            "id": f"batch_req_{identity}",
            "custom_id": request["custom_id"],
            "response": {"status_code": reply.status, "request_id": f"req_{identity}", "body": reply.body},
            "error": None,
        }
        paid = reply.status == 200
        fault = script.for_result(serialised)
        if fault is not None:
            output, error, paid = distort(entry, paid, fault)
        else:
            written = orjson.dumps(self._dialect.line(entry), option=orjson.OPT_APPEND_NEWLINE)
            output, error = (written, b"") if paid else (b"", written)
        usage = reply.body.get("usage", {}) if paid else {}
        return Line(
            output,
            error,
            hashlib.sha256(serialised).hexdigest() if paid else None,
            usage.get("prompt_tokens", 0),
            usage.get("completion_tokens", 0),
        )

    def completed(self, done: int) -> int:
        """Returns how many of the first `done` requests were answered with 200."""
        return self._totals["completed"][done]

    def tokens(self, done: int) -> tuple[int, int]:
        """Returns the tokens of the prompts and of the answers of the first `done` requests."""
        return self._totals["prompt"][done], self._totals["completion"][done]

    def billed(self, done: int) -> Iterator[tuple[str, str]]:
        """Yields `custom_id` and hash of the body of each of the first `done` requests that was answered with 200."""
        for place in range(done):
            digest = self._billed[place]
            if digest is not None:
                yield self._examination.custom_ids[self._order[place]], digest

    def grow(self, done: int) -> Path:
        """Returns a file with the output lines of the first `done` requests, which was there before with fewer."""
        path = self.output_path.with_suffix(".growing")
        with self.output_path.open("rb") as whole, path.open("ab") as growing:
            whole.seek(growing.tell())
            growing.write(whole.read(max(0, self._totals["output"][done] - growing.tell())))
        return path

    def close(self, status: str, done: int) -> None:
        """Cuts the files to what was done when the batch ended, and says of the rest why it was not.

        Args:
            status: how the batch ended.
            done: how many requests were answered by then.
        """
        if done == self.done:
            return
        os.truncate(self.output_path, self._totals["output"][done])
        os.truncate(self.error_path, self._totals["error"][done])
        code, message = _UNREACHED[status]
        with self.error_path.open("ab", buffering=1 << 20) as error:
            for index in self._order[done:]:
                entry = {
                    "id": f"batch_req_{self._batch_id[6:]}{index:08x}",
                    "custom_id": self._examination.custom_ids[index],
                    "response": None,
                    "error": {"code": code, "message": message},
                }
                error.write(orjson.dumps(self._dialect.line(entry), option=orjson.OPT_APPEND_NEWLINE))


def fail(failure: RequestFailure) -> Answer:
    """Returns the answer to a request that is to fail."""
    headers = None if failure.retry_after is None else {"Retry-After": f"{failure.retry_after:g}"}
    error = ApiError(failure.status, failure.message, type=failure.type, code=failure.code)
    return Answer(failure.status, error.body(), headers)


def _say(body: dict[str, Any], **message: str) -> dict[str, Any]:
    """Returns a completion whose choices say something else."""
    said = {"role": "assistant", "content": None, "refusal": None} | message
    return body | {"choices": [choice | {"message": said} for choice in body.get("choices", [])]}


def distort(entry: dict[str, Any], paid: bool, fault: ResultFault) -> tuple[bytes, bytes, bool]:
    """Writes a result line wrongly.

    Args:
        entry: the line as it should be.
        paid: whether the request was answered with 200.
        fault: what is wrong.

    Returns:
        The bytes for the output file, those for the error file, and whether the request was answered with 200
        nevertheless.
    """
    kind = fault.kind
    to_output = paid
    entry = dict(entry)
    response = dict(entry["response"])
    if kind == "string_body":
        entry["response"] = response | {"body": orjson.dumps(response["body"]).decode()}
    elif kind == "null_body":
        entry["response"] = response | {"body": None}
    elif kind == "status_zero":
        entry["response"] = response | {"status_code": 0}
    elif kind == "null_response":
        entry["response"] = None
    elif kind == "server_error":
        entry |= {"response": None, "error": {"code": "inference_failed", "message": "The engine did not answer."}}
        paid = to_output = False
    elif kind == "bare_error":
        del entry["response"]
        entry["error"] = {"type": "server_error", "message": "The engine did not answer."}
        paid = to_output = False
    elif kind in ("refuse", "ramble"):
        entry["response"] = response | {"body": _say(response["body"], **_SAYINGS[kind])}
    elif kind in ("to_error_file", "to_output_file"):
        to_output = kind == "to_output_file"

    written = orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)
    if kind == "lose":
        written = b""
    elif kind == "double":
        written *= 2
    elif kind == "malform":
        written = written[: len(written) // 2] + b"\n"
    elif kind == "blank":
        written = b"\n" + written
    elif kind == "unknown":
        stranger = entry | {"custom_id": f"nobody-asked-{entry['id']}"}
        written = orjson.dumps(stranger, option=orjson.OPT_APPEND_NEWLINE) + written
    return (written, b"", paid) if to_output else (b"", written, paid)
