"""Calls of endpoints, the log of their outcomes, and the `custom_id`s of equal calls."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import anyio
import pytest

from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.api.requests import BodyTemplate
from distilabel_openai_batch.engine.calls import APICall, CallGroup, CallLog, ScopeMemory, each_call, scope_memories
from distilabel_openai_batch.ledger.states import ScopeName

URL = "https://api.example.com/v1/"
CHAT = "/v1/chat/completions"
DIGEST, OTHER = "0" * 32, "1" * 32
ANSWER = Answer.of({"text": "Yes."})
FAILURE = Failure("Bad.", 400)


def test_a_template_changes_neither_the_body_nor_the_digest():
    """Calls that differ in one field are encoded from a template, which is faster."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "temperature": 0.5}
    plain, templated = APICall(CHAT, body), APICall(CHAT, body, template=BodyTemplate(body, "messages"))
    (own, own_digest), (filled, digest) = plain.build(URL, CHAT), templated.build(URL, CHAT)
    assert (bytes(filled), digest) == (own, own_digest)


def test_a_group_has_a_call_for_each_value():
    like = APICall(CHAT, {"model": "m", "input": ""}, has_default_limit=True)
    like.template = BodyTemplate(like.body, "input")
    group = CallGroup(like, ["a", "b"])
    calls = [*each_call([like, group, FAILURE, group[1:]])]
    assert [call if call is FAILURE else call.body["input"] for call in calls] == ["", "a", "b", FAILURE, "b"]
    assert {call.has_default_limit for call in group} == {True}
    assert group[1].build(URL, CHAT)[1] == APICall(CHAT, {"model": "m", "input": "b"}).build(URL, CHAT)[1]


def test_calls_without_a_template_form_no_group():
    with pytest.raises(ValueError, match="template"):
        CallGroup(APICall(CHAT, {"model": "m"}), [])


@pytest.mark.parametrize("template", [None, BodyTemplate({"model": "m", "user": ""}, "user")])
def test_a_body_that_json_cannot_express_is_an_error(template):
    with pytest.raises(ValueError, match="JSON"):
        APICall(CHAT, {"model": "m", "user": object()}, template=template).build(URL, CHAT)


def joined(*digests: str) -> bytes:
    return bytes.fromhex("".join(digests))


def test_equal_requests_get_consecutive_occurrence_numbers():
    memory = ScopeMemory()
    acquired = [*memory.acquire_custom_ids(joined(DIGEST, DIGEST)), *memory.acquire_custom_ids(joined(DIGEST, OTHER))]
    assert acquired == [f"{DIGEST}-0", f"{DIGEST}-1", f"{DIGEST}-2", f"{OTHER}-0"]


def test_numbers_go_on_behind_the_first_number():
    """Without reuse, the first number follows the answers that earlier runs delivered."""
    memory = ScopeMemory()
    first_numbers = {DIGEST: 7, OTHER: 0}
    acquired = memory.acquire_custom_ids(joined(DIGEST, OTHER, DIGEST, OTHER), first_numbers.__getitem__)
    assert acquired == [f"{DIGEST}-7", f"{OTHER}-0", f"{DIGEST}-8", f"{OTHER}-1"]


def test_a_released_custom_id_goes_to_the_next_equal_request():
    memory = ScopeMemory()
    first, _ = memory.acquire_custom_ids(joined(DIGEST, DIGEST))
    memory.release_custom_id(first)
    assert memory.acquire_custom_ids(joined(DIGEST, DIGEST)) == [first, f"{DIGEST}-2"]


def test_threads_get_different_custom_ids_for_equal_requests():
    """Two threads may use one LLM, and each request needs an answer of its own."""
    memory = ScopeMemory()
    with ThreadPoolExecutor(8) as pool:
        acquired = list(pool.map(lambda _: memory.acquire_custom_ids(joined(DIGEST)), range(500)))
    assert sorted(chain(*acquired)) == sorted(f"{DIGEST}-{number}" for number in range(500))


def test_each_scope_and_directory_has_a_memory(tmp_path):
    one, other = ScopeName("one", "", URL), ScopeName("other", "", URL)
    assert scope_memories[tmp_path, one] is scope_memories[tmp_path, one]
    assert scope_memories[tmp_path, one] is not scope_memories[tmp_path, other]
    assert scope_memories[tmp_path, one] is not scope_memories[tmp_path / "ledger", one]


def test_outcomes_go_to_the_innermost_active_log():
    assert CallLog.active() is None
    with CallLog().activate() as outer:
        outer.add([ANSWER])
        with CallLog().activate() as inner:
            assert CallLog.active() is inner
            inner.add([FAILURE, ANSWER])
        assert CallLog.active() is outer
    assert CallLog.active() is None
    assert (outer.calls, inner.outcomes) == ([[ANSWER]], [FAILURE, ANSWER])


async def test_tasks_that_begin_in_the_context_share_its_log():
    """A Task calls its LLM from many tasks at once."""

    async def call(outcome) -> None:
        log = CallLog.active()
        assert log
        log.add([outcome])

    with CallLog().activate() as log:
        async with anyio.create_task_group() as task_group:
            for outcome in (ANSWER, FAILURE):
                task_group.start_soon(call, outcome)
    assert log.outcomes == [ANSWER, FAILURE]
