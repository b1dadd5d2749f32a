"""Server of the Batch API in virtual time, reached through httpx without a socket.

The server validates, queues, answers, fails and expires batches like the real server, and enforces two limits: enqueued
tokens, and batches created per hour. The contents are made up, and one simulated request stands for many.
"""

from __future__ import annotations

import heapq
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import parse_qs

import httpx
import orjson

HOUR = 3_600.0
_WINDOW = 24 * HOUR
_CUSTOM_ID = re.compile(rb'"custom_id":"([^"]+)"')
_FINAL_STATUSES = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True)
class Scenario:
    """Load and behaviour of a simulation.

    Attributes:
        requests: number of requests, all submitted at the start.
        stands_for: number of requests that one simulated request stands for.
        tokens: prompt tokens per request.
        per_job: largest number of requests in a job.
        max_jobs: largest number of jobs in progress, a limit of the client.
        token_limit: largest number of enqueued prompt tokens.
        creations_per_hour: largest number of batches created in any hour.
        validating: seconds until a batch is accepted or rejected.
        median_seconds: median duration of a batch, with a log-normal distribution.
        failing: share of requests that fail with a retryable error.
        expiring: share of batches that expire, with half of their requests answered.
        seed: seed of the random numbers.
    """

    requests: int
    stands_for: int
    tokens: int
    per_job: int
    max_jobs: int
    token_limit: int
    creations_per_hour: int = 2_000
    validating: float = 30.0
    median_seconds: float = HOUR
    failing: float = 0.01
    expiring: float = 0.02
    seed: int = 0


@dataclass
class _Batch:
    id: str
    key: dict[str, str]
    input_file_id: str
    custom_ids: list[str]
    created_at: float
    tokens: int
    status: str = "validating"
    output: list[str] = field(default_factory=list)
    errors: list[bytes] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        ended = self.status in _FINAL_STATUSES
        errors = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached."}]
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "status": self.status,
            "input_file_id": self.input_file_id,
            "output_file_id": f"out-{self.id}" if ended and self.output else None,
            "error_file_id": f"err-{self.id}" if ended and self.errors else None,
            "errors": {"object": "list", "data": errors} if self.status == "failed" else None,
            "created_at": int(self.created_at),
            "expires_at": int(self.created_at + _WINDOW),
            "metadata": self.key,
            "request_counts": {
                "total": len(self.custom_ids),
                "completed": len(self.output) if ended else 0,
                "failed": len(self.errors) if ended else 0,
            },
        }


class VirtualServer:
    """Simulated server with statistics.

    Args:
        scenario: load and behaviour.
        clock: function that returns the time in seconds since the epoch.

    Attributes:
        scenario: load and behaviour.
        enqueued: prompt tokens of the batches in progress.
        most_enqueued: maximum of `enqueued`.
        busy: seconds in which the requests of at least one whole job waited to be submitted.
        token_seconds: integral of `enqueued` over the seconds of `busy`.
        all_token_seconds: integral of `enqueued` over all seconds.
        most_created: largest number of batches created within an hour.
        rejected_creations: number of creations answered with 429.
        rejected_batches: number of batches that failed because of the token limit.
        calls: number of HTTP requests.
        polls: number of HTTP requests that retrieve or list batches.
        answered: custom_ids of the answered requests.
        answered_twice: number of answers given more than once.
    """

    def __init__(self, scenario: Scenario, clock: Callable[[], float]) -> None:
        self.scenario = scenario
        self.enqueued = self.most_enqueued = 0
        self.busy = self.token_seconds = self.all_token_seconds = 0.0
        self.most_created = self.rejected_creations = self.rejected_batches = self.calls = self.polls = 0
        self.answered: set[str] = set()
        self.answered_twice = 0
        self._clock = clock
        self._accounted_until = clock()
        self._random = Random(scenario.seed)
        self._files: dict[str, list[str]] = {}
        self._batches: dict[str, _Batch] = {}
        self._events: list[tuple[float, int, str]] = []
        self._creation_times: deque[float] = deque()
        self._units = scenario.requests // scenario.stands_for
        self._unit_tokens = scenario.tokens * scenario.stands_for

    def transport(self) -> httpx.MockTransport:
        """Return the transport through which an `httpx.AsyncClient` reaches this server."""
        return httpx.MockTransport(self._handle)

    def advance(self) -> None:
        """Process every event up to the present."""
        now = self._clock()
        while self._events and self._events[0][0] <= now:
            moment, _, batch_id = heapq.heappop(self._events)
            self._account(moment)
            self._change_status(self._batches[batch_id], moment)
        self._account(now)

    def _account(self, moment: float) -> None:
        waiting = (self._units - len(self.answered)) * self._unit_tokens - self.enqueued
        seconds, self._accounted_until = moment - self._accounted_until, moment
        self.all_token_seconds += seconds * self.enqueued
        if waiting >= self.scenario.per_job * self.scenario.tokens:
            self.busy += seconds
            self.token_seconds += seconds * self.enqueued

    def _schedule(self, moment: float, batch: _Batch) -> None:
        heapq.heappush(self._events, (moment, len(self._batches), batch.id))

    def _change_status(self, batch: _Batch, moment: float) -> None:
        if batch.status == "validating":
            if self.enqueued + batch.tokens > self.scenario.token_limit:
                batch.status = "failed"
                self.rejected_batches += 1
                return
            batch.status = "in_progress"
            self.enqueued += batch.tokens
            self.most_enqueued = max(self.most_enqueued, self.enqueued)
            if self._random.random() < self.scenario.expiring:
                self._schedule(batch.created_at + _WINDOW, batch)
                return
            seconds = self.scenario.median_seconds * self._random.lognormvariate(0.0, 0.5)
            self._schedule(moment + min(seconds, 20 * HOUR), batch)
        elif batch.status == "in_progress":
            self.enqueued -= batch.tokens
            expired = moment >= batch.created_at + _WINDOW
            batch.status = "expired" if expired else "completed"
            for index, custom_id in enumerate(batch.custom_ids):
                if expired and index % 2:
                    error = {"code": "batch_expired", "message": "This request could not be executed in time."}
                    batch.errors.append(_line(custom_id, None, error))
                elif self._random.random() < self.scenario.failing:
                    body = {"error": {"message": "The server had an error.", "type": "server_error"}}
                    batch.errors.append(_line(custom_id, {"status_code": 500, "request_id": "", "body": body}, None))
                else:
                    self.answered_twice += custom_id in self.answered
                    self.answered.add(custom_id)
                    batch.output.append(custom_id)

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        body = await request.aread()
        self.advance()
        path = request.url.path.removeprefix("/v1/")
        match request.method, path.split("/"):
            case "POST", ["files"]:
                file_id = f"file-{len(self._files)}"
                self._files[file_id] = [found.decode() for found in _CUSTOM_ID.findall(body)]
                return _json({"id": file_id, "object": "file", "status": "processed"})
            case "GET", ["files"]:
                return _json({"object": "list", "data": []})
            case "POST", ["batches"]:
                return self._create(orjson.loads(body))
            case "GET", ["batches"]:
                self.polls += 1
                return self._list(parse_qs(request.url.query.decode()))
            case "GET", ["batches", batch_id]:
                self.polls += 1
                return _json(self._batches[batch_id].as_json())
            case "GET", ["files", file_id, "content"]:
                kind, _, batch_id = file_id.partition("-")
                batch = self._batches[batch_id]
                lines = batch.errors if kind == "err" else [_answer(custom_id) for custom_id in batch.output]
                return httpx.Response(200, content=b"".join(lines))
            case _:
                return httpx.Response(404, json={"error": {"message": f"There is no {request.method} {path}."}})

    def _create(self, arguments: dict[str, Any]) -> httpx.Response:
        now = self._clock()
        while self._creation_times and self._creation_times[0] <= now - HOUR:
            self._creation_times.popleft()
        if len(self._creation_times) >= self.scenario.creations_per_hour:
            self.rejected_creations += 1
            error = {"message": "Too many batches were created in the last hour.", "code": "rate_limit_exceeded"}
            return httpx.Response(429, json={"error": error})
        self._creation_times.append(now)
        self.most_created = max(self.most_created, len(self._creation_times))
        custom_ids = self._files[arguments["input_file_id"]]
        batch_id = f"batch_{len(self._batches)}"
        batch = _Batch(
            id=batch_id,
            key=arguments.get("metadata") or {},
            input_file_id=arguments["input_file_id"],
            custom_ids=custom_ids,
            created_at=now,
            tokens=len(custom_ids) * self._unit_tokens,
        )
        self._batches[batch_id] = batch
        self._schedule(now + self.scenario.validating, batch)
        return _json(batch.as_json())

    def _list(self, query: dict[str, list[str]]) -> httpx.Response:
        batches = list(self._batches.values())[::-1]
        if after := query.get("after"):
            ids = [batch.id for batch in batches]
            batches = batches[ids.index(after[0]) + 1 :]
        limit = int(query.get("limit", ["20"])[0])
        page = [batch.as_json() for batch in batches[:limit]]
        return _json({"object": "list", "data": page, "has_more": len(batches) > limit})


def _json(value: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, content=orjson.dumps(value), headers={"Content-Type": "application/json"})


def _line(custom_id: str, response: dict[str, Any] | None, error: dict[str, Any] | None) -> bytes:
    return orjson.dumps({"id": "", "custom_id": custom_id, "response": response, "error": error}) + b"\n"


def _answer(custom_id: str) -> bytes:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"Answer {custom_id}"}}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    body = {"id": "", "object": "chat.completion", "choices": [choice], "usage": usage}
    return _line(custom_id, {"status_code": 200, "request_id": "", "body": body}, None)
