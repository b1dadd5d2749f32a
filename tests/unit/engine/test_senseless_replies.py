"""Property tests: a field without sense costs at most its own request, or ends the run with one `RunError`."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
import respx
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from distilabel_openai_batch import InternalError, RunError
from distilabel_openai_batch.api import client, creation, files, transport
from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine import dispatcher, enqueue_limit, job_runner, job_watcher, result_collector
from distilabel_openai_batch.engine.calls import APICall, scope_memories
from distilabel_openai_batch.engine.lanes import LaneSettings
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.session_pool import Host, SessionPool
from distilabel_openai_batch.engine.settings import JobSettings, PollSchedule, SessionSettings
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.structured_output.options import parse_structured_output
from tests.support.mutations import Path as JSONPath
from tests.support.mutations import mutations, replaced
from tests.support.schemas import COUNT

URL = "https://api.example.com/v1"
CHAT = "/v1/chat/completions"
KEY = "distilabel_openai_batch_key"
REQUESTS = 3
SETTINGS = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


def content(number: int) -> str:
    return f'{{"count":{number}}}'


def completion(number: int) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m-2024",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": content(number), "refusal": None, "tool_calls": []},
                "logprobs": {"content": [{"token": "a", "logprob": -1.0, "top_logprobs": []}]},
            }
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 1},
        },
    }


def answer_line(custom_id: str, number: int) -> dict[str, Any]:
    response = {"status_code": 200, "request_id": "r", "body": completion(number)}
    return {"id": "batch_req_1", "custom_id": custom_id, "response": response, "error": None}


def error_line(custom_id: str) -> dict[str, Any]:
    error = {"message": "Bad.", "type": "invalid_request_error", "param": "messages", "code": "bad"}
    response = {"status_code": 400, "request_id": "r", "body": {"error": error}}
    return {
        "id": "batch_req_1",
        "custom_id": custom_id,
        "response": response,
        "error": {"code": "bad", "message": "No."},
    }


FILE = {"id": "file-in", "object": "file", "status": "processed", "status_details": None, "filename": "a", "bytes": 9}


def batch(status: str, key: str = "") -> dict[str, Any]:
    has_ended = status != "validating"
    return {
        "id": "batch_1",
        "object": "batch",
        "status": status,
        "endpoint": CHAT,
        "model": "m-2024",
        "completion_window": "24h",
        "input_file_id": "file-in",
        "output_file_id": "file-out" if has_ended else None,
        "error_file_id": "file-err" if has_ended else None,
        "errors": {"object": "list", "data": [{"code": "bad", "message": "Bad.", "line": 1, "param": "body"}]}
        if status == "failed"
        else None,
        "request_counts": {"total": REQUESTS, "completed": 2 * has_ended, "failed": 1 * has_ended},
        "usage": {"input_tokens": 14},
        "metadata": {KEY: key, "description": "distilabel"},
        "created_at": 1_700_000_000,
        "expires_at": 1_700_086_400,
        "in_progress_at": 1_700_000_001,
        "completed_at": 1_700_000_009 if status == "completed" else None,
        "failed_at": 1_700_000_009 if status == "failed" else None,
        "cancelled_at": None,
    }


ID = "0" * 32 + "-0"
OBJECTS: dict[str, Any] = {
    "file": FILE,
    "created batch": batch("validating", "k"),
    "completed batch": batch("completed", "k"),
    "failed batch": batch("failed", "k"),
    "list": {"object": "list", "data": [batch("completed", "k")], "has_more": False},
    "answer": answer_line(ID, 0),
    "error": error_line(ID),
    "completion": completion(0),
}
"""Each kind of object of the server; the mutation of a kind applies to its real objects."""


class Server:
    """Server that answers the requests with their own numbers, and changes one part of the objects of one kind.

    Args:
        kind: the kind of the changed objects, of `OBJECTS`.
        path: the path of the changed part.
        part: the part in its place.
    """

    def __init__(self, kind: str, path: JSONPath, part: Any) -> None:
        self._change = (kind, path, part)
        self._custom_ids: list[str] = []
        self._key = ""
        self._status = "failed" if kind == "failed batch" else "completed"

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Return the reply to a request."""
        call = f"{request.method} {request.url.path.removeprefix('/v1')}"
        if call == "POST /files":
            lines = [line for line in request.content.split(b"\n") if line.startswith(b'{"custom_id"')]
            self._custom_ids = [json.loads(line)["custom_id"] for line in lines]
            return self._reply("file", FILE)
        if call == "POST /batches":
            self._key = json.loads(request.content)["metadata"][KEY]
            return self._reply("created batch", batch("validating", self._key))
        if call == "GET /batches":
            batches = [batch(self._status, self._key)] if self._key else []
            return self._reply("list", {"object": "list", "data": batches, "has_more": False})
        if call.startswith(("GET /batches/", "POST /batches/")):
            return self._reply(f"{self._status} batch", batch(self._status, self._key))
        if call == "GET /files/file-out/content":
            return self._lines("answer", [answer_line(name, n) for n, name in enumerate(self._custom_ids[:-1])])
        if call == "GET /files/file-err/content":
            return self._lines("error", [error_line(name) for name in self._custom_ids[-1:]])
        if call == "POST /chat/completions":
            number = int(json.loads(request.content)["messages"][0]["content"])
            return self._reply("completion", completion(number), is_changed=number == 0)
        return httpx.Response(404, json={"error": {"message": "No.", "code": None}})

    def _reply(self, kind: str, value: Any, is_changed: bool = True) -> httpx.Response:
        changed = self._changed(kind, value) if is_changed else value
        return httpx.Response(200, content=json.dumps(changed).encode(), headers={"content-type": "application/json"})

    def _lines(self, kind: str, lines: list[Any]) -> httpx.Response:
        """Return a file whose first line is changed."""
        lines = [self._changed(kind, line) if n == 0 else line for n, line in enumerate(lines)]
        return httpx.Response(200, content="\n".join(map(json.dumps, lines)).encode())

    def _changed(self, kind: str, value: Any) -> Any:
        changed_kind, path, part = self._change
        try:
            return replaced(value, path, part) if kind == changed_kind else value
        except (KeyError, IndexError):
            # The list is empty before the batch exists.
            return value


def anyio_with(sleep: Callable[[float], Awaitable[None]]) -> ModuleType:
    """Return a module that is `anyio` with another `sleep`."""
    module = ModuleType("anyio")
    module.__getattr__ = lambda name: getattr(anyio, name)  # type: ignore[method-assign]
    module.sleep = sleep  # type: ignore[attr-defined]
    return module


@pytest.fixture(autouse=True)
def fast_clock(monkeypatch) -> None:
    """Let pauses pass at once: the clocks of the engine advance by the pauses."""
    offset = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal offset
        offset += max(0.0, seconds) if seconds < 1e9 else 0.0
        await anyio.sleep(0)

    clock = SimpleNamespace(
        **{**vars(time), "time": lambda: time.time() + offset, "monotonic": lambda: time.monotonic() + offset}
    )
    modules = (client, creation, dispatcher, enqueue_limit, files, job_runner, job_watcher, result_collector, transport)
    for module in modules:
        monkeypatch.setattr(module, "anyio", anyio_with(sleep), raising=False)
        monkeypatch.setattr(module, "time", clock, raising=False)


def run(server: Server, directory: Path, *, sync_below: int = 0, has_schema: bool = False) -> list[Outcome]:
    """Submit the requests in a session of a new process, and return their outcomes."""
    scope_memories.clear()
    host = Host(
        logger=logging.getLogger("senseless"),
        scope_name=lambda base_url: ScopeName("senseless", "", base_url),
        observer=lambda scope: Observer(),
        interruption=lambda batch_ids: None,
        not_finished=lambda batch_ids: InterruptedError(*batch_ids),
    )
    pool = SessionPool(
        SessionSettings(
            base_url=URL,
            api_key="sk-test",
            headers=None,
            timeout=5.0,
            patience=Patience(retries=1, total=60.0),
            max_requests=1_000,
            max_bytes=1_000_000,
            max_attempts=1,
            max_jobs=3,
            jobs=JobSettings("24h", PollSchedule(3_600.0, 3_600.0), {}),
            ledger_dir=directory,
            reuse_answers=True,
            lanes=LaneSettings(sync_below=sync_below),
        ),
        host,
    )
    schema = parse_structured_output({"schema": COUNT, "max_retries": 0}) if has_schema else None
    calls = [
        APICall(CHAT, {"model": "m", "messages": [{"role": "user", "content": str(number)}]}, schema)
        for number in range(REQUESTS)
    ]

    async def submit() -> list[Outcome]:
        async with pool.use() as session:
            return await session.submit(calls)

    with respx.mock(assert_all_called=False) as router:
        router.route().mock(side_effect=server)
        return anyio.run(submit)


def run_or_error(server: Server, directory: Path, **options: Any) -> list[Outcome] | RunError:
    """Return the outcomes, or the error of the run, which names a fault of the server and not of the engine."""
    try:
        return run(server, directory, **options)
    except InternalError:
        raise
    except RunError as error:
        return error


def is_own(outcome: Outcome, number: int) -> bool:
    return isinstance(outcome, Answer) and outcome.body["choices"][0]["message"]["content"] == content(number)


OBJECT_MUTATIONS = st.sampled_from(["file", "created batch", "completed batch", "failed batch", "list"]).flatmap(
    lambda kind: st.tuples(st.just(kind), mutations(OBJECTS[kind]))
)
LINE_MUTATIONS = st.sampled_from(["answer", "error"]).flatmap(
    lambda kind: st.tuples(st.just(kind), mutations(OBJECTS[kind]))
)


@given(OBJECT_MUTATIONS, st.booleans())
@example(("completed batch", (("request_counts",), [1])), False)
@example(("completed batch", (("request_counts", "completed"), 2**64 - 1)), False)
@example(("completed batch", (("expires_at",), 1)), False)
@example(("failed batch", (("errors", "data", 0, "code"), [1])), False)
@SETTINGS
def test_an_object_without_sense_gives_own_answers_failures_or_one_run_error(change, has_schema):
    """No request has the answer of another request, and an error is no outcome of a request."""
    kind, (path, part) = change
    with tempfile.TemporaryDirectory() as directory:
        outcomes = run_or_error(Server(kind, path, part), Path(directory), has_schema=has_schema)
    if isinstance(outcomes, RunError):
        return
    assert len(outcomes) == REQUESTS
    for number, outcome in enumerate(outcomes):
        assert is_own(outcome, number) or (isinstance(outcome, Failure) and outcome.message)


@given(LINE_MUTATIONS, st.booleans())
@example(("answer", (("response", "body", "usage", "prompt_tokens"), 2**64 - 1)), False)
@example(("answer", (("response", "body", "usage"), ["text"])), True)
@example(("answer", (("response", "status_code"), 2**64 - 1)), False)
@example(("error", (("response", "body", "error", "message"), "\ud800")), False)
@SETTINGS
def test_a_result_line_without_sense_costs_its_own_request_only(change, has_schema):
    kind, (path, part) = change
    with tempfile.TemporaryDirectory() as directory:
        outcomes = run(Server(kind, path, part), Path(directory), has_schema=has_schema)
    assert len(outcomes) == REQUESTS
    changed = 0 if kind == "answer" else REQUESTS - 1
    for number, outcome in enumerate(outcomes):
        if number == changed:
            assert isinstance(outcome, Answer) or outcome.message
        elif number == REQUESTS - 1:
            assert isinstance(outcome, Failure)
        else:
            assert is_own(outcome, number)


@given(mutations(OBJECTS["completion"]), st.booleans())
@example((("usage", "completion_tokens"), 10**30), False)
@SETTINGS
def test_a_synchronous_answer_without_sense_gives_a_failure_or_one_run_error(change, has_schema):
    path, part = change
    with tempfile.TemporaryDirectory() as directory:
        server = Server("completion", path, part)
        outcomes = run_or_error(server, Path(directory), sync_below=9, has_schema=has_schema)
    if isinstance(outcomes, RunError):
        return
    assert all(is_own(outcome, number) for number, outcome in enumerate(outcomes) if number)
    assert isinstance(outcomes[0], Answer) or outcomes[0].message
