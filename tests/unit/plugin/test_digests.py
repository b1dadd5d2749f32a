"""Digests of requests, by which ledgers find answers that were paid for."""

from __future__ import annotations

import pytest

from distilabel_openai_batch import OpenAIBatchLLM
from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.engine.calls import each_call
from tests.unit.plugin.stubs import CONNECTION, MESSAGES, StubSession, StubSessions, completion

SCHEMA = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}

# Digests that commit b0dfffb computed, which sent 128 tokens to every model and no other names of the limit.
DIGESTS = [
    ("gpt-4o", {}, {}, "723698da9d9571b121ed7ebb7fadf33f"),
    ("gpt-6-luna", {}, {}, "5b283a2f3ecc4251d8c0d61c253e6190"),
    ("gpt-6-luna", {}, {"max_new_tokens": 128}, "5b283a2f3ecc4251d8c0d61c253e6190"),
    ("gpt-6-luna", {}, {"max_new_tokens": 500, "temperature": 0.5}, "4d1e05cafa7bb6d0e5bd7ba27d7d0cc7"),
    ("my-deployment", {}, {}, "d54b7052339f8f51598a6df0c4314478"),
    ("my-deployment", {"is_reasoning_model": True}, {}, "d54b7052339f8f51598a6df0c4314478"),
    (
        "my-deployment",
        {"token_limit_parameter": "max_completion_tokens"},
        {},
        "5983181417b14a3484f9419882cbc998",
    ),
    ("o3", {}, {"extra_body": {"reasoning_effort": "low"}}, "f3f4f2a9c5614e623d5bed9564fd04b9"),
    ("o3", {"reasoning_effort": "low"}, {}, "f3f4f2a9c5614e623d5bed9564fd04b9"),
    ("gpt-6-luna", {"structured_output": {"schema": SCHEMA}}, {}, "e7830c104f021f3b76d4f56110164105"),
    ("gpt-6-luna", {"structured_output": {"schema": SCHEMA, "mode": "tools"}}, {}, "3caf39e6c3960b4c82221518030137ae"),
    (
        "gpt-4o",
        {"structured_output": {"schema": SCHEMA, "mode": "json_object"}},
        {},
        "2cb7fa1835104b5681410fdac490e21f",
    ),
]


class DigestingSession(StubSession):
    """Session that keeps the digest of each call."""

    async def submit(self, calls, reader=None):
        calls = list(each_call(calls))
        self.digests = [call.build("u", "e")[1] for call in calls]
        return await super().submit(calls, reader)


@pytest.mark.parametrize("copies", [1, 2], ids=["one chat", "chats of one shape"])
@pytest.mark.parametrize(("model", "fields", "kwargs", "digest"), DIGESTS)
def test_digests_of_an_earlier_release_stay(model, fields, kwargs, digest, copies):
    """A digest that changes makes a new request of an answered one, which is billed again."""
    llm = OpenAIBatchLLM(**(CONNECTION | {"model": model} | fields))
    llm.load()
    session = DigestingSession(Answer.of(completion('{"count":1}')))
    llm.use_sessions(StubSessions(session))

    llm.generate([MESSAGES] * copies, **kwargs)

    assert session.digests == [digest] * copies
