"""A server of the Batch API in virtual time, spoken to through httpx without a socket.

It validates, queues, answers, fails and expires as the real one does, and keeps the two limits that matter at scale:
the tokens enqueued, and the batches created in an hour. The contents are fake: one request of it stands for many.
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
_ENDED = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True)
class Scenario:
    """What is simulated.

    Attributes:
        requests: how many are asked, all at once.
        stands_for: how many requests each request of the simulation stands for.
        tokens: prompt tokens of a request.
        per_job: requests in a job, at most.
        max_jobs: jobs in flight, at most: the client's own limit.
        token_limit: prompt tokens enqueued at once, at most.
        creations_an_hour: batches created in any hour, at most.
        validating: seconds until a batch is accepted or refused.
        median_seconds: the median of the time that batches take, which is distributed log-normally.
        failing: the share of requests that fail in a way that may pass.
        expiring: the share of batches that expire, with half of their requests answered.
        seed: decides what is random.
    """

    requests: int
    stands_for: int
    tokens: int
    per_job: int
    max_jobs: int
    token_limit: int
    creations_an_hour: int = 2_000
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

    def shown(self) -> dict[str, Any]:
        ended = self.status in _ENDED
        refusal = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached."}]
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "status": self.status,
            "input_file_id": self.input_file_id,
            "output_file_id": f"out-{self.id}" if ended and self.output else None,
            "error_file_id": f"err-{self.id}" if ended and self.errors else None,
            "errors": {"object": "list", "data": refusal} if self.status == "failed" else None,
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
    """The server.

    Args:
        scenario: how it behaves.
        clock: says what time it is, in seconds since the epoch.

    Attributes:
        enqueued: prompt tokens of the batches that it has accepted and not ended.
        most_enqueued: the most there ever were.
        busy: seconds during which a whole job's requests were waiting to be submitted.
        token_seconds: tokens enqueued, times seconds, during that time.
        all_token_seconds: the same, during all the time.
        most_created: batches created within an hour, the most there ever were.
        refused_creations: creations that it answered with 429.
        refused_batches: batches that failed because of the token limit.
        calls: HTTP requests.
        answered: the custom_ids that it has answered.
        answered_twice: how many answers it has given more than once.
    """

    def __init__(self, scenario: Scenario, clock: Callable[[], float]) -> None:
        self.scenario = scenario
        self.enqueued = self.most_enqueued = 0
        self.busy = self.token_seconds = self.all_token_seconds = 0.0
        self.most_created = self.refused_creations = self.refused_batches = self.calls = self.looks = 0
        self.answered: set[str] = set()
        self.answered_twice = 0
        self._clock = clock
        self._at = clock()
        self._random = Random(scenario.seed)
        self._files: dict[str, list[str]] = {}
        self._batches: dict[str, _Batch] = {}
        self._moments: list[tuple[float, int, str]] = []
        self._created: deque[float] = deque()
        self._units = scenario.requests // scenario.stands_for
        self._unit_tokens = scenario.tokens * scenario.stands_for

    def transport(self) -> httpx.MockTransport:
        """What an `httpx.AsyncClient` reaches it by."""
        return httpx.MockTransport(self._handle)

    def advance(self) -> None:
        """Lets everything happen that is due by now."""
        now = self._clock()
        while self._moments and self._moments[0][0] <= now:
            moment, _, batch_id = heapq.heappop(self._moments)
            self._pass(moment)
            self._step(self._batches[batch_id], moment)
        self._pass(now)

    def _pass(self, moment: float) -> None:
        waiting = (self._units - len(self.answered)) * self._unit_tokens - self.enqueued
        passed, self._at = moment - self._at, moment
        self.all_token_seconds += passed * self.enqueued
        if waiting >= self.scenario.per_job * self.scenario.tokens:
            self.busy += passed
            self.token_seconds += passed * self.enqueued

    def _at_moment(self, moment: float, batch: _Batch) -> None:
        heapq.heappush(self._moments, (moment, len(self._batches), batch.id))

    def _step(self, batch: _Batch, moment: float) -> None:
        chance = self._random
        if batch.status == "validating":
            if self.enqueued + batch.tokens > self.scenario.token_limit:
                batch.status = "failed"
                self.refused_batches += 1
                return
            batch.status = "in_progress"
            self.enqueued += batch.tokens
            self.most_enqueued = max(self.most_enqueued, self.enqueued)
            if chance.random() < self.scenario.expiring:
                self._at_moment(batch.created_at + _WINDOW, batch)
                return
            seconds = self.scenario.median_seconds * chance.lognormvariate(0.0, 0.5)
            self._at_moment(moment + min(seconds, 20 * HOUR), batch)
        elif batch.status == "in_progress":
            self.enqueued -= batch.tokens
            expired = moment >= batch.created_at + _WINDOW
            batch.status = "expired" if expired else "completed"
            for index, custom_id in enumerate(batch.custom_ids):
                if expired and index % 2:
                    error = {"code": "batch_expired", "message": "This request could not be executed in time."}
                    batch.errors.append(_line(custom_id, None, error))
                elif chance.random() < self.scenario.failing:
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
                self.looks += 1
                return self._list(parse_qs(request.url.query.decode()))
            case "GET", ["batches", batch_id]:
                self.looks += 1
                return _json(self._batches[batch_id].shown())
            case "GET", ["files", file_id, "content"]:
                kind, _, batch_id = file_id.partition("-")
                batch = self._batches[batch_id]
                lines = batch.errors if kind == "err" else [_answer(custom_id) for custom_id in batch.output]
                return httpx.Response(200, content=b"".join(lines))
            case _:
                return httpx.Response(404, json={"error": {"message": f"There is no {request.method} {path}."}})

    def _create(self, asked: dict[str, Any]) -> httpx.Response:
        now = self._clock()
        while self._created and self._created[0] <= now - HOUR:
            self._created.popleft()
        if len(self._created) >= self.scenario.creations_an_hour:
            self.refused_creations += 1
            error = {"message": "Too many batches were created in the last hour.", "code": "rate_limit_exceeded"}
            return httpx.Response(429, json={"error": error})
        self._created.append(now)
        self.most_created = max(self.most_created, len(self._created))
        custom_ids = self._files[asked["input_file_id"]]
        batch_id = f"batch_{len(self._batches)}"
        batch = _Batch(
            id=batch_id,
            key=asked.get("metadata") or {},
            input_file_id=asked["input_file_id"],
            custom_ids=custom_ids,
            created_at=now,
            tokens=len(custom_ids) * self._unit_tokens,
        )
        self._batches[batch_id] = batch
        self._at_moment(now + self.scenario.validating, batch)
        return _json(batch.shown())

    def _list(self, query: dict[str, list[str]]) -> httpx.Response:
        batches = list(self._batches.values())[::-1]
        if after := query.get("after"):
            ids = [batch.id for batch in batches]
            batches = batches[ids.index(after[0]) + 1 :]
        limit = int(query.get("limit", ["20"])[0])
        page = [batch.shown() for batch in batches[:limit]]
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
