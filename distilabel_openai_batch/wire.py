"""The Batch API's JSON: request lines out, result lines and batch objects in. Pure functions that know no network.

Reading is lenient: servers that speak the Batch API differ in what they leave out, and one line that makes no sense
must not cost the others. What a line says is attributed by its `custom_id` alone, never by its position.

The shapes: https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import pairwise
from typing import Any, Protocol
from uuid import uuid4

import orjson
from pydantic import BaseModel

MALFORMED = "malformed_result"
MISSING = "missing_result"
NOT_SUBMITTED = "not_submitted"


_LINE = b'{"custom_id":"%b","method":"POST","url":"%b","body":%b}\n'
_LINE_BYTES = len(_LINE % (b"", b"", b""))


class Text(Protocol):
    """What `bytes` makes bytes of, and is as long as these."""

    def __len__(self) -> int: ...

    def __bytes__(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Request:
    """One request of an input file.

    Attributes:
        custom_id: what ties its result to it, at most 64 ASCII characters.
        endpoint: the path that it goes to (`"/v1/chat/completions"`).
        model: the model that is asked; one file has one.
        body: its body as JSON, or where that is kept.
    """

    custom_id: str
    endpoint: str
    model: str
    body: Text

    @property
    def size(self) -> int:
        """Bytes of its line."""
        return _LINE_BYTES + len(self.custom_id) + len(self.endpoint) + len(self.body)

    def line(self) -> bytes:
        """The request as a line of an input file, line feed included."""
        return _LINE % (self.custom_id.encode(), self.endpoint.encode(), bytes(self.body))


class Answer:
    """What the model said to one request; two are equal if they say the same.

    It is kept as it came: bytes take a third of the memory of what they are parsed into.

    Attributes:
        line: the line of an output file that says it.
        tokens: tokens billed, in and out; 0 where the server does not say.
        cached: those of the tokens in that the server had in its cache, which may be cheaper.
        rejected: why some of its choices say nothing, by their places; `None` where that is not known or asked for.
    """

    __slots__ = ("cached", "line", "rejected", "tokens")

    def __init__(
        self,
        line: bytes,
        tokens: tuple[int, int],
        cached: int = 0,
        rejected: Mapping[int, Failure] | None = None,
    ) -> None:
        self.line = line
        self.tokens = tokens
        self.cached = cached
        self.rejected = rejected

    @classmethod
    def of(cls, body: dict[str, Any], rejected: Mapping[int, Failure] | None = None) -> Answer:
        """Makes an answer that no output file has."""
        return cls(result_line("", body), _tokens(body), _cached(body), rejected)

    @property
    def custom_id(self) -> str | None:
        """Whose result it is, where its line says so."""
        return _decode(self.line)["custom_id"] or None

    @property
    def body(self) -> dict[str, Any]:
        """The body that the synchronous endpoint would have answered with."""
        body: Any = _decode(self.line)["response"]["body"]
        return _decode(body) if isinstance(body, str) else body  # type: ignore[no-any-return]

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
Take = Callable[[Mapping[str, Outcome]], None]


@dataclass(frozen=True, slots=True)
class BatchError:
    """One thing that the server's validation of an input file found."""

    message: str
    code: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        text = f"{self.code}: {self.message}" if self.code else self.message
        return f"{text} (line {self.line} of the input file)" if self.line is not None else text


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as the server sees it.

    Attributes:
        id: the server's id.
        status: in lower case, whatever the server's habit is.
        endpoint: the path that its requests go to, `None` where the server does not say.
        input_file_id, output_file_id, error_file_id: ids of files, `None` where there is no such file.
        completed, failed, total: requests, 0 where the server does not count.
        errors: what its validation found.
        metadata: what it was created with, empty where the server drops it.
        created_at: seconds since the epoch, `None` where the server does not say.
        expires_at: seconds since the epoch, `None` where the server does not say.
        in_progress_at, finalizing_at, cancelling_at: likewise, when it came to be so.
        finished_at: likewise, when it came to the status that does not change any more.
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
    def ended(self) -> bool:
        """Whether its status will not change any more."""
        return self.status in FINAL_STATUSES

    @property
    def reasons(self) -> str:
        """Why it failed, in the server's words; of many reasons the first three."""
        first = "; ".join(str(error) for error in self.errors[:3]) or "the server gave no reason"
        return f"{first} (and {len(self.errors) - 3} more)" if len(self.errors) > 3 else first


FINAL_STATUSES = frozenset({"completed", "failed", "expired", "cancelled", "canceled"})
"""What a batch's status is when it will not change any more."""


def encode_body(body: Mapping[str, Any]) -> bytes:
    """A request's body as JSON.

    Raises:
        ValueError: it holds something that JSON cannot, with the reason.
    """
    # Copied: orjson leaves kilobytes behind what it returns, which a request would keep.
    return b"%b" % _encode(body)


def _encode(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        return _encode_at_length(value)


def _encode_at_length(value: object) -> bytes:
    """What the SDK can write and orjson does not: keys that are no texts, numbers of more than 64 bits, models."""
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"the request cannot be written as JSON: {error}") from error


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True, by_alias=True)
    return orjson.loads(orjson.dumps(value))


def _encode_sorted(value: object) -> bytes:
    """The same for the same value, however its keys are ordered."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        plain = json.loads(_encode_at_length(value))
        return json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


_LARGE_NUMBER = re.compile(rb"[0-9]{19}")


def digest(base_url: str, endpoint: str, body: bytes) -> str:
    """The same for the same question to the same server, however its keys are ordered.

    Returns:
        32 hexadecimal digits. With an occurrence number behind them they make a `custom_id` within every server's limit
        (64 characters, Together's).
    """
    # Of a number that is too large for it, orjson makes a float that others share.
    value = json.loads(body) if _LARGE_NUMBER.search(body) else orjson.loads(body)
    return _digest(base_url, endpoint, _encode_sorted(value))


def _digest(base_url: str, endpoint: str, canonical: bytes) -> str:
    return blake2b(b"\0".join((base_url.encode(), endpoint.encode(), canonical)), digest_size=16).hexdigest()


class Frame:
    """What bodies have in common that differ in one field alone: their JSON around its value, made once for all.

    Args:
        body: one of them.
        name: the field.
    """

    __slots__ = ("_canonical", "_encoded", "_name")

    def __init__(self, body: Mapping[str, Any], name: str) -> None:
        mark = uuid4().hex
        marked = {**body, name: mark}
        self._name = name
        self._encoded = _around(mark, encode_body(marked))
        self._canonical = _around(mark, _encode_sorted(marked))

    def encode(self, body: Mapping[str, Any]) -> bytes:
        """As `encode_body`."""
        before, after = self._encoded
        return b"%b%b%b" % (before, _encode(body[self._name]), after)

    def digest(self, base_url: str, endpoint: str, body: Mapping[str, Any]) -> str:
        """As `digest` of the encoded body."""
        before, after = self._canonical
        return _digest(base_url, endpoint, b"%b%b%b" % (before, _encode_sorted(body[self._name]), after))


def _around(mark: str, text: bytes) -> tuple[bytes, bytes]:
    before, after = text.split(b'"%b"' % mark.encode())
    return before, after


_CUSTOM_ID = re.compile(r"[0-9a-f]{32}-[0-9]+")


def custom_id(digest: str, number: int) -> str:
    """What a request is known by: its digest, and which of several times it is asked."""
    return f"{digest}-{number}"


def is_custom_id(text: str) -> bool:
    """Whether it is of our making."""
    return _CUSTOM_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Shard:
    """Requests of one endpoint and one model that go into one input file.

    Attributes:
        requests: at least one.
        size: bytes of the input file.
    """

    requests: list[Request]
    size: int

    @classmethod
    def of(cls, requests: list[Request]) -> Shard:
        """Makes a shard of requests."""
        return cls(requests, sum(request.size for request in requests))

    @property
    def endpoint(self) -> str:
        """The path that all its requests go to."""
        return self.requests[0].endpoint

    def parted(self, custom_ids: Set[str]) -> tuple[Shard | None, Shard | None]:
        """Itself in two shards: the requests that are named, and the others; `None` where there are none."""
        parts: tuple[list[Request], list[Request]] = [], []
        for request in self.requests:
            parts[request.custom_id not in custom_ids].append(request)
        if not parts[1]:
            return self, None
        named, others = (Shard.of(part) if part else None for part in parts)
        return named, others

    def parts(self, size: int) -> list[Shard]:
        """Itself in shards of about as many requests each.

        Args:
            size: requests in each, about.
        """
        count = max(1, round(len(self.requests) / size))
        edges = [len(self.requests) * part // count for part in range(count + 1)]
        return [Shard.of(self.requests[start:end]) for start, end in pairwise(edges)]


def cut(requests: Iterable[Request], max_requests: int, max_bytes: int) -> Iterator[Shard]:
    """Cuts requests into shards that each fit an input file.

    Args:
        requests: in any mix of endpoints and models; the order within one endpoint and model is kept.
        max_requests: requests in a shard, at most.
        max_bytes: bytes of a shard's input file, at most. A request that is larger by itself makes a shard of its own.

    Yields:
        As few shards as that allows, without reordering.
    """
    filling: dict[tuple[str, str], tuple[list[Request], int]] = {}
    for request in requests:
        key = (request.endpoint, request.model)
        shard, size = filling.get(key, ([], 0))
        length = request.size
        if shard and (len(shard) == max_requests or size + length > max_bytes):
            yield Shard(shard, size)
            shard, size = [], 0
        shard.append(request)
        filling[key] = shard, size + length
    for shard, size in filling.values():
        yield Shard(shard, size)


def _decode(text: bytes | str) -> Any:
    """What JSON says, also where it is the JSON of `json`: halves of surrogate pairs, and numbers that are none.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def decode(line: bytes) -> tuple[str, Outcome] | None:
    """Reads a line of an output or error file.

    Returns:
        The `custom_id` and what became of its request; `None` where the line cannot be attributed to any.
    """
    try:
        result = _decode(line)
    except ValueError:
        return None
    if not isinstance(result, dict):
        return None
    custom_id = result.get("custom_id")
    return (custom_id, _outcome(result, line)) if isinstance(custom_id, str) else None


def result_line(custom_id: str, body: Mapping[str, Any]) -> bytes:
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
            body = _decode(body)
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
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))


def _cached(body: Mapping[str, Any]) -> int:
    usage = body.get("usage")
    details = usage.get("prompt_tokens_details") if isinstance(usage, dict) else None
    return _count(details.get("cached_tokens")) if isinstance(details, dict) else 0


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


def read_batch(batch: Mapping[str, Any]) -> Batch:
    """Reads a batch object, whatever it leaves out.

    Raises:
        ValueError: it has no id or no status, and so is no batch.
    """
    batch_id, status = batch.get("id"), batch.get("status")
    if not isinstance(batch_id, str) or not batch_id or not isinstance(status, str):
        raise ValueError("the server's answer is not a batch")
    counts = batch.get("request_counts") or {}
    metadata = batch.get("metadata")
    return Batch(
        id=batch_id,
        status=status.lower(),
        endpoint=batch.get("endpoint") or None,
        input_file_id=batch.get("input_file_id") or None,
        output_file_id=batch.get("output_file_id") or None,
        error_file_id=batch.get("error_file_id") or None,
        completed=_count(counts.get("completed")),
        failed=_count(counts.get("failed")),
        total=_count(counts.get("total")),
        errors=tuple(_batch_errors(batch.get("errors"))),
        metadata=metadata if isinstance(metadata, dict) else {},
        created_at=_seconds(batch.get("created_at")),
        expires_at=_seconds(batch.get("expires_at")),
        in_progress_at=_seconds(batch.get("in_progress_at")),
        finalizing_at=_seconds(batch.get("finalizing_at")),
        cancelling_at=_seconds(batch.get("cancelling_at")),
        finished_at=next((at for name in _FINISHED if (at := _seconds(batch.get(name)))), None),
    )


_FINISHED = ("completed_at", "failed_at", "expired_at", "cancelled_at")


def _batch_errors(errors: object) -> Iterator[BatchError]:
    data = errors.get("data") if isinstance(errors, dict) else errors
    for error in data if isinstance(data, list) else []:
        if isinstance(error, dict):
            yield BatchError(str(error.get("message") or "no message"), error.get("code"), error.get("line"))


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _seconds(value: object) -> float | None:
    return value if isinstance(value, (int, float)) else None
