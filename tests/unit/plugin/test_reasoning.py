"""`reasoning_effort`, room for reasoning, and warnings of small limits."""

from __future__ import annotations

import inspect
import logging
import re

import orjson
import pytest

from distilabel_openai_batch import InvalidParametersError, OpenAIBatchLLM
from distilabel_openai_batch.api.model_traits import ROOM_FOR_REASONING
from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.api.requests import digest_body
from distilabel_openai_batch.engine.calls import each_call
from distilabel_openai_batch.plugin import model_parameters
from tests.unit.plugin.stubs import CONNECTION, MESSAGES, StubSession, StubSessions, completion

REASONING = "gpt-6-luna"
LONG_AGO = {"model": REASONING, "messages": MESSAGES, "max_completion_tokens": 128, "n": 1, "stop": None} | {
    "top_logprobs": None
}


class RecordingSession(StubSession):
    """Session that keeps the calls themselves."""

    async def submit(self, calls, reader=None):
        self.calls = list(each_call(calls))
        return await super().submit(self.calls, reader)


def make_llm(**fields) -> tuple[OpenAIBatchLLM, RecordingSession]:
    llm = OpenAIBatchLLM(**(CONNECTION | {"model": REASONING} | fields))
    llm.load()
    session = RecordingSession(Answer.of(completion("fine")))
    llm.use_sessions(StubSessions(session))
    return llm, session


def sent_body(kwargs: dict | None = None, messages: object = MESSAGES, **fields) -> dict:
    """Return the body that an LLM with these fields sends for a chat."""
    llm, session = make_llm(**fields)
    llm.generate([messages], **kwargs or {})
    return session.sent[0][1]


@pytest.mark.parametrize(
    ("fields", "kwargs", "effort"),
    [
        ({"reasoning_effort": "low"}, {}, "low"),
        ({}, {"reasoning_effort": "high"}, "high"),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "high"}, "high"),
        ({"reasoning_effort": "low"}, {"extra_body": {"reasoning_effort": "xhigh"}}, "xhigh"),
        ({}, {}, None),
    ],
)
def test_reasoning_effort_is_sent(fields, kwargs, effort):
    assert sent_body(kwargs, **fields).get("reasoning_effort") == effort


def test_reasoning_effort_is_not_sent_to_the_completions_endpoint():
    """The endpoint refuses the parameter."""
    assert "reasoning_effort" not in sent_body(messages="Once upon", reasoning_effort="low")


def test_reasoning_effort_is_sent_with_structured_output():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

    body = sent_body(structured_output={"schema": schema}, reasoning_effort="low")

    assert (body["reasoning_effort"], body["max_completion_tokens"]) == ("low", ROOM_FOR_REASONING)


def test_unknown_reasoning_effort_is_refused_before_anything_is_sent():
    llm, session = make_llm()

    with pytest.raises(InvalidParametersError, match="Did you mean `high`"):
        llm.generate([MESSAGES], reasoning_effort="hihg")
    assert session.sent == []
    with pytest.raises(ValueError, match="reasoning_effort"):
        OpenAIBatchLLM(model=REASONING, reasoning_effort="hihg")


def test_reasoning_effort_is_a_generation_kwarg_with_a_description():
    """distilabel shows users the signature and the docstring of `agenerate`."""
    llm, _ = make_llm()

    info = next(info for info in llm.get_runtime_parameters_info() if info["name"] == "generation_kwargs")

    assert "reasoning_effort" in inspect.signature(llm.agenerate).parameters
    [effort] = [key for key in info["keys"] if key["name"] == "reasoning_effort"]
    assert effort["optional"]
    assert re.search(r"^ +reasoning_effort: ", llm.agenerate.__doc__, re.MULTILINE)


@pytest.mark.parametrize(
    ("fields", "kwargs", "limit"),
    [
        ({}, {}, ("max_completion_tokens", ROOM_FOR_REASONING)),
        ({}, {"max_new_tokens": 128}, ("max_completion_tokens", 128)),
        ({}, {"extra_body": {"max_completion_tokens": 7}}, ("max_completion_tokens", 7)),
        ({"reasoning_effort": "none"}, {}, ("max_completion_tokens", 128)),
        ({"is_reasoning_model": False}, {}, ("max_tokens", 128)),
        ({"model": "my-deployment"}, {}, ("max_tokens", 128)),
        ({"model": "gpt-4o"}, {}, ("max_tokens", 128)),
        (
            {"model": "my-deployment", "is_reasoning_model": True},
            {},
            ("max_completion_tokens", ROOM_FOR_REASONING),
        ),
        ({"token_limit_parameter": "max_tokens"}, {}, ("max_tokens", ROOM_FOR_REASONING)),
    ],
)
def test_limit_leaves_room_for_reasoning_if_the_user_sets_none(fields, kwargs, limit):
    body = sent_body(kwargs, **fields)

    assert [(name, body[name]) for name in ("max_tokens", "max_completion_tokens") if name in body] == [limit]


def test_model_that_the_price_list_calls_a_reasoning_model_gets_room(monkeypatch):
    monkeypatch.setattr(model_parameters.prices, "is_listed_as_reasoning", lambda model, base_url: model == "thinker")
    model_parameters.find_traits.cache_clear()

    assert sent_body(model="thinker")["max_tokens"] == ROOM_FOR_REASONING
    assert sent_body(model="talker")["max_tokens"] == 128


@pytest.mark.parametrize("inputs", [[MESSAGES], [MESSAGES, MESSAGES]], ids=["one chat", "chats of one shape"])
def test_request_keeps_the_digest_that_it_had_without_room(inputs):
    """Answers that were paid for under the limit of 128 tokens are found."""
    llm, session = make_llm()

    llm.generate(inputs)

    for call in session.calls:
        assert call.build("u", "e")[1] == digest_body("u", "e", orjson.dumps(LONG_AGO))


@pytest.mark.parametrize(
    ("fields", "kwargs", "is_default"),
    [
        ({}, {}, True),
        ({"is_reasoning_model": False}, {}, False),
        ({}, {"max_new_tokens": 128}, False),
        ({}, {"extra_body": {"max_tokens": 128}}, False),
    ],
)
@pytest.mark.parametrize("inputs", [[MESSAGES], [MESSAGES, MESSAGES]], ids=["one chat", "chats of one shape"])
def test_call_behind_an_alias_says_that_its_limit_may_change(inputs, fields, kwargs, is_default):
    llm, session = make_llm(model="my-deployment", **fields)

    llm.generate(inputs, **kwargs)

    assert {call.has_default_limit for call in session.calls} == {is_default}


def test_request_without_no_ops_keeps_the_digest_of_the_whole_body():
    """An earlier release sent `logprobs: false` and nulls, and its ledger has the answers under that digest."""
    llm, session = make_llm(model="gpt-4o")

    llm.generate([MESSAGES], max_new_tokens=7)

    [call] = session.calls
    whole = {**call.body, "logprobs": False, "top_logprobs": None, "stop": None}
    assert call.identity == whole
    assert call.build("u", "e")[1] == digest_body("u", "e", orjson.dumps(whole))


@pytest.mark.parametrize(
    ("fields", "kwargs", "is_warned"),
    [
        ({}, {"max_new_tokens": 128}, True),
        ({}, {"extra_body": {"max_completion_tokens": 500}}, True),
        ({}, {"max_new_tokens": 2_000}, False),
        ({}, {}, False),
        ({"reasoning_effort": "none"}, {"max_new_tokens": 128}, False),
        ({}, {"max_new_tokens": 128, "reasoning_effort": "none"}, False),
        ({"model": "gpt-4o"}, {"max_new_tokens": 128}, False),
    ],
)
def test_limit_that_reasoning_probably_spends_is_logged_once(caplog, fields, kwargs, is_warned):
    llm, _ = make_llm(**fields)

    with caplog.at_level(logging.WARNING):
        llm.generate([MESSAGES], **kwargs)
        llm.generate([MESSAGES], **kwargs)

    assert caplog.text.count("is probably too small") == is_warned
