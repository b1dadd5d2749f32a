"""The Batch API's JSON: request lines out, result lines and batch objects in. Pure functions that know no network.

Reading is lenient: servers that speak the Batch API differ in what they leave out, and one line that makes no sense
must not cost the others. What a line says is attributed by its `custom_id` alone, never by its position.

The shapes: https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from distilabel_openai_batch.api.encoding import decode_json, read_count
from distilabel_openai_batch.api.failure_codes import MALFORMED, MISSING


class Answer:
    """What the model said to one request; two are equal if they say the same.

    It is kept as it came: bytes take a third of the memory of what they are parsed into.

    Attributes:
        line: the line of an output file that says it.
        tokens: tokens billed, in and out; 0 where the server does not say.
        cached_tokens: those of the tokens in that the server had in its cache, which may be cheaper.
        choice_failures: the failures of unusable choices, by their index; `None` if nothing checked the choices.
    """

    __slots__ = ("cached_tokens", "choice_failures", "line", "tokens")

    def __init__(
        self,
        line: bytes,
        tokens: tuple[int, int],
        cached_tokens: int = 0,
        choice_failures: Mapping[int, Failure] | None = None,
    ) -> None:
        self.line = line
        self.tokens = tokens
        self.cached_tokens = cached_tokens
        self.choice_failures = choice_failures

    @classmethod
    def of(cls, body: dict[str, Any], choice_failures: Mapping[int, Failure] | None = None) -> Answer:
        """Makes an answer that no output file has."""
        return cls(build_result_line("", body), _tokens(body), _cached(body), choice_failures)

    @property
    def custom_id(self) -> str | None:
        """Whose result it is, where its line says so."""
        return decode_json(self.line)["custom_id"] or None

    @property
    def body(self) -> dict[str, Any]:
        """The body that the synchronous endpoint would have answered with."""
        body: Any = decode_json(self.line)["response"]["body"]
        return decode_json(body) if isinstance(body, str) else body  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Answer) and self.body == other.body

    def __repr__(self) -> str:
        return f"Answer({self.body!r})"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one request has no answer.

    Attributes:
        message: the API's own words, or ours where it said nothing.
        status_code: HTTP status code of that request, `None` where it was never answered.
        code: the API's error code, `MALFORMED` or `MISSING`, if there is one.
        tokens: those billed, in and out, for answers that could not be used.
        custom_id: of the request, once it is handed to who asked; it is no part of why.
    """

    message: str
    status_code: int | None = None
    code: str | None = None
    tokens: tuple[int, int] = (0, 0)
    custom_id: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        labels = [str(label) for label in (self.status_code, self.code) if label]
        return f"{self.message} ({', '.join(labels)})" if labels else self.message


Outcome = Answer | Failure
Deliver = Callable[[Mapping[str, Outcome]], None]


def parse_result_line(line: bytes) -> tuple[str, Outcome] | None:
    """Reads a line of an output or error file.

    Returns:
        The `custom_id` and what became of its request; `None` where the line cannot be attributed to any.
    """
    try:
        result = decode_json(line)
    except ValueError:
        return None
    if not isinstance(result, dict):
        return None
    custom_id = result.get("custom_id")
    return (custom_id, _outcome(result, line)) if isinstance(custom_id, str) else None


def build_result_line(custom_id: str, body: Mapping[str, Any]) -> bytes:
    """What a batch's output file would have said of a request that was answered otherwise, line feed included."""
    response = {"status_code": 200, "request_id": None, "body": body}
    line = {"id": None, "custom_id": custom_id, "response": response, "error": None}
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        return json.dumps(line).encode() + b"\n"


def _outcome(result: dict[str, Any], line: bytes) -> Outcome:
    response = result.get("response")
    if not isinstance(response, dict):
        if error := result.get("error"):
            return _failure(error, None, "The server gave no reason.")
        return Failure("The server gave neither an answer nor a reason.", code=MISSING)
    status_code = response.get("status_code", 200)
    if not isinstance(status_code, int):
        status_code = None
    refused = status_code is not None and not 200 <= status_code < 300
    body = response.get("body")
    if isinstance(body, str):
        try:
            body = decode_json(body)
        except ValueError:
            if refused and status_code:
                return _failure(result.get("error") or body, status_code, body)
            return Failure("The answer is not JSON.", status_code, MALFORMED)
    error = (body.get("error") if isinstance(body, dict) else None) or result.get("error")
    if error or refused or status_code is None:
        return _failure(error, status_code, "The server gave no reason.")
    if not isinstance(body, dict) or not body:
        return Failure("The answer has no body.", status_code, MALFORMED)
    return Answer(line, _tokens(body), _cached(body))


# How the SDK words an error. So writes a server that itself asked through it, and has no other place for the status.
_WORDED_STATUS = re.compile(r"Error code: (\d{3})\b")


def _tokens(body: Mapping[str, Any]) -> tuple[int, int]:
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return 0, 0
    return read_count(usage.get("prompt_tokens")), read_count(usage.get("completion_tokens"))


def _cached(body: Mapping[str, Any]) -> int:
    usage = body.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    return read_count(details.get("cached_tokens")) if isinstance(details, dict) else 0


def _failure(error: object, status_code: int | None, otherwise: str) -> Failure:
    if isinstance(error, dict):
        code, message = error.get("code") or error.get("type"), str(error.get("message") or otherwise)
        if status_code is None and (worded := _WORDED_STATUS.match(message)):
            status_code = int(worded[1])
        return Failure(message, status_code, str(code) if code else None)
    return Failure(str(error or otherwise), status_code)


OTHER_BATCH = Failure("It is in another batch than those asked for.", code="other_batch")
"""What a request comes to that is in a batch which is not asked for."""


def batch_failure(batch_id: str | None, reasons: str) -> Failure:
    """What a request comes to whose batch the server did not accept."""
    return Failure(f"Batch {batch_id} came to nothing: {reasons}", code="batch_failed")


OVERDUE = Failure("No job answered it before the deadline.", code="overdue")
"""What a request comes to in a job that was not waited for any longer."""

MISSING_RESULT = Failure("The job's files do not mention this request.", code=MISSING)
