"""Checks of answers against schemas: on the event loop, or in a thread if a check may block."""

from __future__ import annotations

import threading

import anyio
import pytest

from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.engine.activity import Activity
from distilabel_openai_batch.engine.calls import APICall
from distilabel_openai_batch.engine.repairs import Repairs, SchemaChecks
from distilabel_openai_batch.structured_output.options import parse_structured_output
from distilabel_openai_batch.structured_output.validator import SchemaValidator

PATTERN = {"type": "object", "properties": {"name": {"type": "string", "pattern": "^(a+)+$"}}}
USUAL = {"type": "object", "properties": {"name": {"type": "string"}}}


def make_call(schema: dict[str, object]) -> APICall:
    messages = [{"role": "user", "content": "Name a letter."}]
    return APICall(
        "/v1/chat/completions", {"model": "m", "messages": messages}, parse_structured_output({"schema": schema})
    )


def completion(text: str) -> Answer:
    return Answer.of({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]})


@pytest.mark.parametrize(("schema", "in_loop"), [(USUAL, True), (PATTERN, False)], ids=["usual", "pattern"])
async def test_checks_that_may_block_leave_the_event_loop(monkeypatch, schema, in_loop):
    """Meanwhile the session counts as busy, so that other calls are not flushed into a job of their own."""
    activity = Activity()
    seen: list[tuple[bool, bool]] = []

    def list_errors(validator: SchemaValidator, value: object) -> list[str]:
        seen.append((threading.current_thread() is threading.main_thread(), activity.is_busy))
        return ["unfit"] if value == {"name": "b"} else []

    monkeypatch.setattr(SchemaValidator, "list_errors", list_errors)
    repairs = Repairs(SchemaChecks(activity), {0: make_call(schema), 2: make_call(schema)})
    await repairs.start([completion('{"name": "b"}'), completion("?"), Failure("No.")])
    retries = repairs.retries()
    assert [(index, choice) for index, choice, _ in retries] == [(0, 0)]
    await repairs.add(retries, [completion('{"name": "a"}')], [Request("retry-0", "/v1/chat/completions", "m", b"{}")])
    assert repairs.retries() == []
    assert repairs.by_index[0].failure is None
    assert seen == [(in_loop, not in_loop)] * 2
    assert not activity.is_busy


async def test_a_blocked_check_lets_the_event_loop_go_on(monkeypatch):
    """The check ends only when the event loop has run another task."""
    may_end = threading.Event()

    def list_errors(validator: SchemaValidator, value: object) -> list[str]:
        assert may_end.wait(60)
        return []

    monkeypatch.setattr(SchemaValidator, "list_errors", list_errors)
    repairs = Repairs(SchemaChecks(Activity()), {0: make_call(PATTERN)})
    async with anyio.create_task_group() as task_group:
        task_group.start_soon(repairs.start, [completion('{"name": "a"}')])
        await anyio.lowlevel.checkpoint()
        may_end.set()
    assert repairs.by_index[0].failure is None
