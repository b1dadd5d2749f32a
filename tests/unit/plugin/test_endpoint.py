"""The field `endpoint`: chats that go to `/v1/responses`, their digests, and the outputs of their answers."""

from __future__ import annotations

import orjson
import pytest

from distilabel_openai_batch import InvalidParametersError, OpenAIBatchLLM
from distilabel_openai_batch.api.model_traits import ROOM_FOR_REASONING
from distilabel_openai_batch.api.no_ops import restore_identity
from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.api.requests import digest_body
from distilabel_openai_batch.engine.calls import each_call
from tests.unit.api.test_responses import CALL, REASONING, response, text
from tests.unit.plugin.stubs import MESSAGES, StubSession, StubSessions, loaded_llm

RESPONSES = "/v1/responses"
SCHEMA = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
PRO = "gpt-5-pro"


class RecordingSession(StubSession):
    """Session that keeps the calls themselves."""

    async def submit(self, calls, reader=None):
        self.calls = list(each_call(calls))
        return await super().submit(self.calls, reader)


def make_llm(body: dict | None = None, **fields) -> tuple[OpenAIBatchLLM, RecordingSession]:
    llm = loaded_llm(**({"model": PRO} | fields))
    session = RecordingSession(Answer.of(body or response(text("fine"))))
    llm.use_sessions(StubSessions(session))
    return llm, session


def sent(kwargs: dict | None = None, messages: object = MESSAGES, **fields) -> tuple[str, dict]:
    """Return the endpoint and the body that an LLM with these fields sends for a chat."""
    llm, session = make_llm(**fields)
    llm.generate([messages], **kwargs or {})
    return session.sent[0]


@pytest.mark.parametrize(
    ("fields", "endpoint"),
    [
        ({"model": PRO}, RESPONSES),
        ({"model": "gpt-5.3-codex"}, RESPONSES),
        ({"model": "openai/gpt-5.3-codex"}, "/v1/chat/completions"),
        ({"model": "gpt-6-luna"}, "/v1/chat/completions"),
        ({"model": "gpt-6-luna", "endpoint": "responses"}, RESPONSES),
        ({"model": PRO, "endpoint": "chat"}, "/v1/chat/completions"),
    ],
)
def test_endpoint_is_the_users_choice_or_the_one_that_serves_the_model(fields, endpoint):
    assert sent(**fields)[0] == endpoint


def test_strings_go_to_the_completions_endpoint():
    assert sent(messages="Once upon", endpoint="responses", model="gpt-3.5-turbo-instruct")[0] == "/v1/completions"


def test_unknown_endpoint_is_refused():
    with pytest.raises(ValueError, match="endpoint"):
        OpenAIBatchLLM(model=PRO, endpoint="embeddings")


@pytest.mark.parametrize(
    ("fields", "kwargs", "changed"),
    [
        ({}, {}, {"max_output_tokens": ROOM_FOR_REASONING}),
        ({}, {"max_new_tokens": 300}, {"max_output_tokens": 300}),
        ({}, {"extra_body": {"max_output_tokens": 400}}, {"max_output_tokens": 400}),
        ({"reasoning_effort": "high"}, {}, {"max_output_tokens": ROOM_FOR_REASONING, "reasoning": {"effort": "high"}}),
        ({"reasoning_effort": "none"}, {}, {"max_output_tokens": 128, "reasoning": {"effort": "none"}}),
        ({"model": "gpt-4o"}, {}, {"max_output_tokens": 128, "temperature": 1.0, "top_p": 1.0}),
        ({}, {"temperature": 0.5}, {"max_output_tokens": ROOM_FOR_REASONING, "temperature": 0.5}),
        ({"token_limit_parameter": "max_tokens"}, {}, {"max_output_tokens": ROOM_FOR_REASONING}),
    ],
)
def test_parameters_are_those_of_the_endpoint(fields, kwargs, changed):
    _, body = sent(kwargs, **({"endpoint": "responses"} | fields))

    assert body == {"model": fields.get("model", PRO), "input": MESSAGES, "store": False} | changed


@pytest.mark.parametrize(("mode", "field"), [("json_schema", "text"), ("json_object", "text"), ("tools", "tools")])
def test_structured_output_is_sent_in_each_mode(mode, field):
    llm, session = make_llm(response(text('{"count":1}')), structured_output={"schema": SCHEMA, "mode": mode})
    llm.generate([MESSAGES])

    assert field in session.sent[0][1]
    assert not {"response_format", "messages"} & session.sent[0][1].keys()


@pytest.mark.parametrize(("name", "value"), [("stop", ["."]), ("frequency_penalty", 0.5), ("extra_body", {"seed": 1})])
def test_parameters_without_a_counterpart_end_the_run_before_anything_is_sent(name, value):
    llm, session = make_llm()
    refused = "seed" if name == "extra_body" else name

    with pytest.raises(InvalidParametersError, match=f"has no parameter `{refused}`: remove `{refused}`"):
        llm.generate([MESSAGES], **{name: value})
    assert session.sent == []


@pytest.mark.parametrize("copies", [1, 3], ids=["one chat", "chats of one shape"])
@pytest.mark.parametrize(("fields", "kwargs"), [({}, {}), ({"model": "gpt-4o"}, {"temperature": 0.7})])
def test_digest_is_that_of_the_body_in_an_input_file(fields, kwargs, copies):
    """Batches of other programs are adopted; room for reasoning is no part of the question."""
    llm, session = make_llm(endpoint="responses", **fields)
    llm.generate([MESSAGES] * copies, **kwargs, max_new_tokens=128)
    digests = {call.build("u", RESPONSES)[1] for call in session.calls}

    llm.generate([MESSAGES], **kwargs)
    [default_limit] = session.calls
    digests.add(default_limit.build("u", RESPONSES)[1])
    body = {"model": "gpt-5-pro", "input": MESSAGES, "max_output_tokens": 128} | fields | kwargs

    assert digests == {digest_body("u", RESPONSES, orjson.dumps(restore_identity(RESPONSES, body)))}


def test_each_generation_is_a_request():
    """The endpoint has no parameter `n`."""
    llm, session = make_llm()

    [output] = llm.generate([MESSAGES], num_generations=3)

    assert output["generations"] == ["fine"] * 3
    assert len(session.sent) == 3
    assert not any("n" in body for _, body in session.sent)


@pytest.mark.parametrize(
    ("body", "generation"),
    [(response(REASONING, text("Hel", "lo")), "Hello"), (response(CALL), None), (response(REASONING), None)],
)
def test_text_of_a_response_is_the_generation(body, generation):
    llm, _ = make_llm(body)

    [output] = llm.generate([MESSAGES])

    assert output["generations"] == [generation]
    assert output["statistics"] == {"input_tokens": [11], "output_tokens": [30]}


@pytest.mark.parametrize(
    ("fields", "reasoning"),
    [({}, {"summary": "auto"}), ({"reasoning_effort": "low"}, {"summary": "auto", "effort": "low"})],
)
def test_summary_of_the_reasoning_is_no_part_of_the_question(fields, reasoning):
    """Answers without a summary are paid for."""
    llm, session = make_llm(keep_reasoning=True, **fields)
    llm.generate([MESSAGES] * 2)
    plain, plain_session = make_llm(**fields)
    plain.generate([MESSAGES] * 2)

    assert [body["reasoning"] for _, body in session.sent] == [reasoning] * 2
    digests = {call.build("u", RESPONSES)[1] for call in [*session.calls, *plain_session.calls]}
    assert len(digests) == 1


def test_summary_is_not_requested_of_other_models():
    assert "reasoning" not in sent(model="gpt-4o", endpoint="responses", keep_reasoning=True)[1]


@pytest.mark.parametrize("endpoint", ["chat", "responses"])
@pytest.mark.parametrize("num_generations", [1, 2])
def test_outputs_carry_the_reasoning_of_each_generation(endpoint, num_generations):
    message = {"role": "assistant", "content": "fine", "reasoning_content": "First.\n\nThen."}
    chat = {"choices": [{"message": dict(message), "finish_reason": "stop"} for _ in range(num_generations)]}
    llm, _ = make_llm(
        chat if endpoint == "chat" else response(REASONING, text("fine")), endpoint=endpoint, keep_reasoning=True
    )

    [output] = llm.generate([MESSAGES], num_generations=num_generations)

    assert output.reasoning == [{"reasoning": "First.\n\nThen.", "tool_calls": None}] * num_generations


def test_output_of_a_tool_call_keeps_the_call():
    llm, _ = make_llm(response(CALL), keep_reasoning=True)

    [output] = llm.generate([MESSAGES])

    assert output["generations"] == [None]
    assert output.failures[0].code == "tool_calls"
    assert output.reasoning[0]["tool_calls"] == [{"id": "call_1", "name": "clock", "arguments": '{"zone":"UTC"}'}]


async def test_agenerate_alone_goes_to_the_endpoint():
    llm, session = make_llm()

    output = await llm.agenerate(MESSAGES)

    assert output["generations"] == ["fine"]
    assert session.sent[0][0] == RESPONSES
