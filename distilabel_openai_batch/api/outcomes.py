"""Outcomes of requests: answers and failures, parsed from the lines of output and error files.

Parsing is lenient: servers differ in the fields that they leave out, and one malformed line must not cost the other
answers. A line belongs to the request that its `custom_id` names; its position does not count.

Format of the lines: https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import orjson

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.encoding import decode_json
from distilabel_openai_batch.api.failure_codes import (
    BATCH_FAILED,
    LENGTH_LIMIT,
    MALFORMED_RESULT,
    MISSING_CHOICE,
    MISSING_RESULT_CODE,
    OTHER_BATCH_CODE,
    OVERDUE_CODE,
    UNNAMED_RESULT_CODE,
    UNUSABLE_CODES,
)
from distilabel_openai_batch.api.plain_lines import read_plain_chats, read_plain_line
from distilabel_openai_batch.api.responses import is_response, translate_response
from distilabel_openai_batch.api.service_tiers import read_tier
from distilabel_openai_batch.api.usage import NO_DETAILS, TokenDetails, Usage, read_tokens
from distilabel_openai_batch.text import escape_surrogates

# Bytes of a line whose answer the token limit may have cut: `"finish_reason": "length"` of a completion, and `"status":
# "incomplete"` of a response; the latter also within a body that is a JSON string. Looking for them takes a fraction of
# the time of parsing the line.
_LENGTH, _INCOMPLETE = b'"length', b"incomplete"


class Answer(msgspec.Struct, gc=False):
    """The model's answer to one request; two answers are equal if their bodies are equal.

    The line is kept unparsed: bytes take a third of the memory of the parsed objects.

    Attributes:
        line: the answer's line of an output file.
        tokens: billed tokens, in and out; 0 if the server does not count them.
        token_details: the tokens of the prompt in the server's cache and of the answer's reasoning, which are parts of
            `tokens`.
        choice_failures: the failures of unusable and cut choices, by their index; `None` if nothing checked the
            choices.
        is_whole: `True` if the answer is known to have one choice, which the token limit did not cut.
        tier: the service tier that answered synchronously, and decides the price; `None` in a batch.
    """

    line: bytes
    tokens: tuple[int, int]
    token_details: TokenDetails = NO_DETAILS
    choice_failures: Mapping[int, Failure] | None = None
    is_whole: bool = False
    tier: str | None = None

    @classmethod
    def of(cls, body: dict[str, Any], choice_failures: Mapping[int, Failure] | None = None) -> Answer:
        """Create an answer from a body that comes from no output file."""
        return cls(build_result_line("", body), *read_tokens(body.get("usage")), choice_failures)

    @classmethod
    def from_line(cls, line: bytes) -> Answer:
        """Create an answer from its line of an output file, with the tokens that the line counts."""
        return cls(line, *read_tokens(cls(line, (0, 0)).body.get("usage")))

    @property
    def may_be_cut(self) -> bool:
        """Return whether the token limit may have cut a choice; `False` is certain."""
        if self.is_whole:
            return False
        [chat] = read_plain_chats([self.line])
        if chat:
            return chat.is_limited
        return _LENGTH in self.line or _INCOMPLETE in self.line

    @property
    def custom_id(self) -> str | None:
        """Return the request's `custom_id`, `None` if the line has none."""
        return decode_json(self.line)["custom_id"] or None

    @property
    def received_body(self) -> dict[str, Any]:
        """Parse and return the body as the server sent it, which equals the body of a synchronous answer."""
        body: Any = decode_json(self.line)["response"]["body"]
        return decode_json(body) if isinstance(body, str) else body  # type: ignore[no-any-return]

    @property
    def body(self) -> dict[str, Any]:
        """Parse and return the body; the body of a response becomes a chat completion."""
        body: Any = decode_json(self.line)["response"]["body"]
        body = decode_json(body) if isinstance(body, str) else body
        return translate_response(body) if "output" in body and is_response(body) else body

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Answer) and self.body == other.body

    def __repr__(self) -> str:
        return f"Answer({self.body!r})"


@dataclass(frozen=True, slots=True)
class Failure:
    """The reason why one request has no answer.

    Attributes:
        message: the API's message, or ours if the API gave none.
        status_code: the HTTP status code of the request, `None` if the request was never answered.
        code: the API's error code or a constant of `failure_codes`, `None` if there is none.
        tokens: tokens billed for unusable answers, in and out.
        custom_id: the request's `custom_id`, set when the failure is delivered; ignored by comparisons.
        is_kept: whether the text of the generation is kept in spite of the failure, as of a cut text.
        token_details: the parts of `tokens` that an `Answer` has too.
        tier: the service tier that billed the tokens, as for an `Answer`; ignored by comparisons.
    """

    message: str
    status_code: int | None = None
    code: str | None = None
    tokens: tuple[int, int] = (0, 0)
    custom_id: str | None = field(default=None, compare=False)
    is_kept: bool = False
    token_details: TokenDetails = NO_DETAILS
    tier: str | None = field(default=None, compare=False)

    @property
    def is_billed(self) -> bool:
        """`True` if the server answered the request, and counts it as completed, without any usable generation."""
        return self.code in UNUSABLE_CODES and self.status_code is not None and self.status_code < 300

    @property
    def is_transient(self) -> bool:
        """Return whether the same request may succeed later."""
        return errors.is_transient(self.status_code, self.code, self.message)

    def __str__(self) -> str:
        labels = [str(label) for label in (self.status_code, self.code) if label]
        return f"{self.message} ({', '.join(labels)})" if labels else self.message


Outcome = Answer | Failure


def is_billed(outcome: Outcome) -> bool:
    """Return whether the server answered a request, usable or not, and so counts the request as completed."""
    return isinstance(outcome, Answer) or outcome.is_billed


def usage_of(outcome: Outcome) -> Usage:
    """Return the tokens that the server billed for one request."""
    return Usage.of_request(*outcome.tokens, *outcome.token_details)


Deliver = Callable[[Mapping[str, Outcome]], None]
"""Function that receives outcomes by their `custom_id`."""

MISSING_RESULT = Failure("The job's files do not mention this request.", code=MISSING_RESULT_CODE)
"""Failure of a request that has no line in its job's files."""

UNNAMED_RESULT = Failure(
    "None of the job's results has the `custom_id` of a request: the server, or a gateway in front of the server, does"
    " not return `custom_id`, so no answer can be assigned to a row. The answers may be billed.",
    code=UNNAMED_RESULT_CODE,
)
"""Failure of a request of a job whose result lines have other `custom_id`s than the requests, or none."""

OTHER_BATCH = Failure("The request is in a batch that was not selected.", code=OTHER_BATCH_CODE)
"""Failure of a request whose batch is not among the batches that the caller selected."""

OVERDUE = Failure("No job answered the request before the deadline.", code=OVERDUE_CODE)
"""Failure of a request whose job was abandoned at the deadline."""

SPENT_LIMIT = "The token limit was spent before the text began, as by reasoning: raise `max_new_tokens`."
"""Message of a generation that the token limit left without text."""

# The SDK's error texts begin like this. llama-stack passes them on, and gives the status code in the text only.
_SDK_STATUS_CODE = re.compile(r"Error code: (\d{3})\b")


def batch_failure(batch_id: str | None, reasons: str) -> Failure:
    """Return the failure of a request whose batch the server rejected.

    Args:
        batch_id: the server's id of the batch.
        reasons: the server's errors as a text.
    """
    return Failure(f"Batch {batch_id} failed: {reasons}", code=BATCH_FAILED)


def parse_result_line(line: bytes) -> tuple[str, Outcome] | None:
    """Parse a line of an output or error file.

    Returns:
        The `custom_id` and the request's outcome; `None` if the line names no request.
    """
    if plain := read_plain_line(line):
        return plain.custom_id, Answer(line, plain.tokens, plain.details, is_whole=plain.is_whole)
    try:
        result = decode_json(line)
    except ValueError:
        return None
    if not isinstance(result, dict):
        return None
    custom_id = result.get("custom_id")
    return (custom_id, _outcome(result, line)) if isinstance(custom_id, str) else None


def is_result_object(line: bytes) -> bool:
    """Return whether a line of a result file is a JSON object, as opposed to a line that was cut."""
    try:
        return isinstance(decode_json(line), dict)
    except ValueError:
        return False


def build_result_line(custom_id: str, body: Mapping[str, Any]) -> bytes:
    """Return the line that a batch's output file would have for an answer's body, line feed included."""
    response = {"status_code": 200, "request_id": None, "body": body}
    line = {"id": None, "custom_id": custom_id, "response": response, "error": None}
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        return json.dumps(line).encode() + b"\n"


def read_answer(body: dict[str, Any]) -> Outcome:
    """Return the outcome that the body of a synchronous answer with status 200 is.

    Returns:
        An answer; a failure if the body holds an error, or no generation.
    """
    outcome = _outcome({"response": {"status_code": 200, "body": body}}, build_result_line("", body))
    tier = read_tier(body)
    if isinstance(outcome, Failure):
        return replace(outcome, tier=tier)
    outcome.tier = tier
    return outcome


def find_failure(body: Mapping[str, Any], status_code: int) -> Failure | None:
    """Return the failure of an answer of which no generation has text; `None` for a usable answer.

    Such answers are billed. A model that may call tools or refuse has no text either, so an answer counts as a failure
    only if it has no choices, or if the token limit ended every choice before its text began.
    """
    choices = body.get("choices", True)
    if not choices:
        message, code = "The answer has no choices.", MISSING_CHOICE
    elif isinstance(choices, list) and all(map(is_spent, choices)):
        message, code = SPENT_LIMIT, LENGTH_LIMIT
    else:
        return None
    tokens, details = read_tokens(body.get("usage"))
    return Failure(message, status_code, code, tokens, token_details=details)


def is_spent(choice: object) -> bool:
    """Return whether the token limit ended a choice before its text, its refusal or its tool call began."""
    if not isinstance(choice, dict) or choice.get("finish_reason") != "length":
        return False
    message = choice.get("message") or {}
    parts = ("content", "refusal", "tool_calls", "function_call")
    return not (choice.get("text") or (isinstance(message, dict) and any(map(message.get, parts))))


def _outcome(result: dict[str, Any], line: bytes) -> Outcome:
    response = result.get("response")
    if not isinstance(response, dict):
        if error := result.get("error"):
            return _failure(error, None, "The server gave no reason.")
        return Failure("The server gave neither an answer nor a reason.", code=MISSING_RESULT_CODE)
    status_code = response.get("status_code", 200)
    if type(status_code) is not int or not 0 <= status_code < 1_000:
        status_code = None
    is_refusal = status_code is not None and not 200 <= status_code < 300
    body = response.get("body")
    if isinstance(body, str):
        try:
            body = decode_json(body)
        except ValueError:
            if is_refusal and status_code:
                return _failure(result.get("error") or body, status_code, body)
            return Failure("The answer is not JSON.", status_code, MALFORMED_RESULT)
    error = (body.get("error") if isinstance(body, dict) else None) or result.get("error")
    if error or is_refusal or status_code is None:
        return _failure(error, status_code, "The server gave no reason.")
    if not isinstance(body, dict) or not body:
        return Failure("The answer has no body.", status_code, MALFORMED_RESULT)
    if "output" in body and is_response(body):
        body = translate_response(body)
    # Nearly every answer has a first choice that ended by itself → look no further.
    choices = body.get("choices", True)
    first = choices[0] if choices and type(choices) is list else None
    is_complete = type(first) is dict and first.get("finish_reason") != "length"
    if not is_complete and (failure := find_failure(body, status_code)):
        return failure
    return Answer(line, *read_tokens(body.get("usage")), is_whole=is_complete and len(choices) == 1)


def _failure(error: object, status_code: int | None, default_message: str) -> Failure:
    if isinstance(error, dict):
        code, message = error.get("code") or error.get("type"), str(error.get("message") or default_message)
        if status_code is None and (match := _SDK_STATUS_CODE.match(message)):
            status_code = int(match[1])
        return Failure(escape_surrogates(message), status_code, escape_surrogates(str(code)) if code else None)
    return Failure(escape_surrogates(str(error or default_message)), status_code)
