"""`OpenAIBatchLLM` by itself: what it sends, what it makes of an answer, and how it may be called."""

from __future__ import annotations

import asyncio
import math
from contextlib import asynccontextmanager

import httpx
import orjson
import pytest
from distilabel.models.llms import OpenAILLM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI
from pydantic import ValidationError

from distilabel_openai_batch import (
    AuthenticationError,
    InvalidParametersError,
    MissingSettingError,
    OpenAIBatchLLM,
    RunError,
)
from distilabel_openai_batch.api.outcomes import Answer, Failure

MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
CONNECTION = {"model": "gpt-4o-mini", "base_url": "http://127.0.0.1:9/v1", "api_key": "sk-secret"}

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=5,
)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
MESSAGE_LISTS = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant"]),
            "content": TEXT | st.just([{"type": "text", "text": "Look"}, IMAGE]),
        }
    ),
    max_size=4,
).map(lambda messages: [*messages, {"role": "user", "content": "And?"}])
EXTRA_BODIES = st.none() | st.dictionaries(
    st.sampled_from(["seed", "reasoning_effort", "temperature", "metadata", "top_k"]), JSON, max_size=3
)
SHARED_KWARGS = {
    "num_generations": st.integers(1, 4),
    "max_new_tokens": st.integers(0, 4096),
    "frequency_penalty": st.floats(-2, 2),
    "presence_penalty": st.integers(-2, 2),
    "temperature": st.floats(0, 2) | st.sampled_from(["0.5", 1]),
    "top_p": st.floats(0, 1),
    "top_logprobs": st.none() | st.integers(1, 20),
    "extra_body": EXTRA_BODIES,
}
CHAT_KWARGS = SHARED_KWARGS | {
    "logprobs": st.booleans(),
    "stop": st.none() | TEXT | st.lists(TEXT, max_size=4),
    "response_format": st.none() | st.just({"type": "json_object"}),
}
COMPLETION_KWARGS = SHARED_KWARGS | {"echo": st.booleans()}
CALLS = st.tuples(MESSAGE_LISTS, st.fixed_dictionaries({}, optional=CHAT_KWARGS)) | st.tuples(
    TEXT, st.fixed_dictionaries({}, optional=COMPLETION_KWARGS)
)


# Loading an LLM makes two clients of the SDK, and so takes longer than all else here.
SYNCHRONOUS, BATCHED = OpenAILLM(**CONNECTION), OpenAIBatchLLM(**CONNECTION)
SYNCHRONOUS.load()
BATCHED.load()


def synchronous(answer: dict) -> tuple[OpenAILLM, list[tuple[str, dict]]]:
    """distilabel's own LLM before a server that always says the same, and what it sends there."""
    sent = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append((request.url.path, orjson.loads(request.content)))
        return httpx.Response(200, json=answer)

    llm = SYNCHRONOUS
    http_client = httpx.AsyncClient(transport=httpx.MockTransport(handle))
    llm._aclient = AsyncOpenAI(base_url="http://127.0.0.1:9/v1", api_key="sk-secret", http_client=http_client)
    return llm, sent


def batched(*outcomes: Answer | Failure) -> tuple[OpenAIBatchLLM, list[tuple[str, dict]]]:
    """Our LLM before an engine that always answers the same, and what it asks of it."""
    asked = []

    class Engine:
        async def submit(self, calls):
            calls = list(calls)
            asked.extend((call.endpoint, orjson.loads(call.encode())) for call in calls)
            return list(outcomes) if len(outcomes) > 1 else [outcomes[0]] * len(calls)

    class Engines:
        @asynccontextmanager
        async def use(self):
            yield Engine()

    llm = BATCHED
    llm._sessions = Engines()
    return llm, asked


def completion(*contents: str | None, logprobs: list | None = None, usage: dict | None = None) -> dict:
    choices = [
        {
            "index": index,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": content},
            "logprobs": {"content": logprobs} if logprobs else None,
        }
        for index, content in enumerate(contents)
    ]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": choices,
    } | ({"usage": usage} if usage else {})


@given(CALLS)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_body_is_what_openaillm_would_have_sent(call):
    """Whatever the input and the generation kwargs are, both LLMs ask the same question of the same endpoint."""
    input, kwargs = call
    answer = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    theirs, sent = synchronous(answer)
    ours, asked = batched(Answer.of(answer))

    theirs.generate([input], **kwargs)
    ours.generate([input], **kwargs)

    assert asked == sent


@given(st.lists(MESSAGE_LISTS | TEXT, min_size=2, max_size=8), st.fixed_dictionaries({}, optional=SHARED_KWARGS))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_bodies_of_many_are_those_of_each(inputs, kwargs):
    """What is made once for many inputs is what each of them would have had alone: chats, images and texts mixed."""
    answer = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    inputs = [*inputs, *inputs]
    alone = []
    for input in inputs:
        ours, asked = batched(Answer.of(answer))
        ours.generate([input], **kwargs)
        alone += asked
    ours, together = batched(Answer.of(answer))

    ours.generate(inputs, **kwargs)

    assert together == alone


TOP_LOGPROBS = st.lists(
    st.fixed_dictionaries({"token": TEXT, "logprob": st.floats(-100, 0), "bytes": st.none()}), max_size=3
)
CHAT_ANSWERS = st.builds(
    lambda contents, logprobs, usage: completion(*contents, logprobs=logprobs, usage=usage),
    st.lists(st.none() | TEXT, min_size=1, max_size=3),
    st.none()
    | st.lists(
        st.fixed_dictionaries(
            {"token": TEXT, "logprob": st.floats(-100, 0), "bytes": st.none(), "top_logprobs": TOP_LOGPROBS}
        ),
        min_size=1,
        max_size=3,
    ),
    st.none() | st.fixed_dictionaries({"prompt_tokens": st.integers(0, 9), "completion_tokens": st.integers(0, 9)}),
)
LEGACY_ANSWERS = st.builds(
    lambda texts, logprobs: {
        "id": "cmpl-1",
        "choices": [
            {"index": i, "text": text, "finish_reason": "stop", "logprobs": {"top_logprobs": logprobs}}
            for i, text in enumerate(texts)
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    },
    st.lists(TEXT, min_size=1, max_size=3),
    st.none() | st.lists(st.none() | st.dictionaries(TEXT, st.floats(-100, 0), max_size=2), min_size=1, max_size=3),
)


@given(st.tuples(st.just(MESSAGES), CHAT_ANSWERS) | st.tuples(st.just("Once upon"), LEGACY_ANSWERS))
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_an_answer_is_read_as_openaillm_reads_it(exchange):
    """Generations, log probabilities and statistics are the same for the same completion."""
    input, answer = exchange
    theirs, _ = synchronous(answer)
    ours, _ = batched(Answer.of(answer))

    assert ours.generate([input]) == theirs.generate([input])


def test_a_failed_request_leaves_its_neighbours_in_place():
    """`None` stands in the place of the failed row alone, with as many generations as were asked for."""
    llm, _ = batched(Answer.of(completion("a", "b")), Failure("no", 400), Answer.of(completion("c", "d")))

    outputs = llm.generate([MESSAGES] * 3, num_generations=2)

    assert [output["generations"] for output in outputs] == [["a", "b"], [None, None], ["c", "d"]]
    assert outputs[1]["statistics"] == {"input_tokens": [0], "output_tokens": [0]}


@pytest.mark.parametrize(
    "body",
    [{"choices": None}, {"choices": "none"}, {"object": "list"}, {"choices": [{"message": None}]}],
    ids=["null", "text", "absent", "no message"],
)
def test_an_answer_that_makes_no_sense_is_none(body):
    """A server's odd answer costs its own row and no other."""
    llm, _ = batched(Answer.of(body), Answer.of(completion("fine")))

    outputs = llm.generate([MESSAGES] * 2)

    assert [output["generations"] for output in outputs] == [[None], ["fine"]]


@pytest.mark.parametrize(
    "input", [[], [{"role": "system", "content": "no question"}], [{"role": "user"}], 3, None], ids=repr
)
def test_an_input_that_is_no_input_costs_its_own_row(input):
    """What cannot be made into a request is never asked, and the others are."""
    llm, asked = batched(Answer.of(completion("fine")))
    llm._sessions.use = reject_failures(llm._sessions.use)

    outputs = llm.generate([MESSAGES, input, MESSAGES])

    assert [output["generations"] for output in outputs] == [["fine"], [None], ["fine"]]
    assert len(asked) == 2


def reject_failures(use):
    """Lets an engine answer calls only, and leaves failures what they are, as a session does."""

    @asynccontextmanager
    async def used():
        async with use() as engine:
            submit = engine.submit

            async def submit_calls(calls):
                calls = list(calls)
                answers = iter(await submit([call for call in calls if not isinstance(call, Failure)]))
                return [call if isinstance(call, Failure) else next(answers) for call in calls]

            engine.submit = submit_calls
            yield engine

    return used


@pytest.mark.parametrize(
    "kwargs", [{"temprature": 1.0}, {"max_new_tokens": -1}, {"temperature": "hot"}, {"stop": 3}], ids=str
)
def test_wrong_generation_kwargs_are_an_error_before_anything_is_bought(kwargs):
    """The error names the parameter, and nothing was asked."""
    llm, asked = batched(Answer.of(completion("fine")))

    with pytest.raises(InvalidParametersError, match=next(iter(kwargs))):
        llm.generate([MESSAGES], **kwargs)

    assert asked == []


def test_agenerate_can_be_awaited_many_times_at_once():
    """Each caller gets the answer of its own call."""
    llm, asked = batched(Answer.of(completion("fine")))

    async def run():
        return await asyncio.gather(*(llm.agenerate(MESSAGES) for _ in range(5)))

    assert [output["generations"] for output in asyncio.run(run())] == [["fine"]] * 5
    assert len(asked) == 5


def test_a_failed_agenerate_raises():
    """Who awaits one call is told what became of it."""
    llm, _ = batched(Failure("The prompt is not allowed.", 400, "content_policy_violation"))

    with pytest.raises(RunError, match="not allowed") as raised:
        asyncio.run(llm.agenerate(MESSAGES))

    assert (raised.value.status_code, raised.value.code) == (400, "content_policy_violation")


def test_generate_works_under_a_running_event_loop():
    """As in a notebook, whose cells run in a loop of their own."""
    llm, _ = batched(Answer.of(completion("fine")))

    async def cell():
        return llm.generate([MESSAGES])

    assert asyncio.run(cell())[0]["generations"] == ["fine"]


def test_no_inputs_are_no_outputs():
    """And no job."""
    llm, asked = batched(Answer.of(completion("fine")))

    assert llm.generate([]) == []
    assert asked == []


@pytest.mark.parametrize(
    "field",
    ["max_requests_per_job", "max_bytes_per_job", "max_jobs", "max_attempts", "min_poll_interval", "max_poll_interval"],
)
@pytest.mark.parametrize("value", [0, -1, math.nan, "many", None])
def test_a_limit_must_be_positive(field, value):
    """A field that would make the run hang or do nothing is refused when it is set."""
    with pytest.raises(ValidationError, match=field):
        OpenAIBatchLLM(**CONNECTION, **{field: value})


def test_a_missing_key_is_an_error_that_says_so(monkeypatch):
    """Before anything is sent."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    with pytest.raises(ValueError, match="export OPENAI_API_KEY"):
        OpenAIBatchLLM(model="gpt-4o-mini").load()
    with pytest.raises(MissingSettingError, match="export OPENAI_API_KEY"):
        OpenAIBatchLLM(model="gpt-4o-mini", api_key="").load()


def test_a_misspelt_runtime_parameter_is_told(caplog):
    """With the name that was meant, where one is near; what is spelt right beside it is set, and named nowhere."""
    llm = OpenAIBatchLLM(**CONNECTION)
    llm.set_runtime_parameters(
        {"bugdet": 5.0, "colour": "red", "max_jobs": 3, "generation_kwargs": {"temperature": 0.5}}
    )

    assert llm.max_jobs == 3
    assert "no runtime parameter `bugdet`: the value is ignored. Did you mean `budget`?" in caplog.text
    assert "no runtime parameter `colour`: the value is ignored.\n" in caplog.text
    assert len(caplog.messages) == 2


def test_every_field_of_ours_is_a_described_runtime_parameter():
    """So that `pipeline.run(parameters=…)` and the command line can set it."""
    own = set(OpenAIBatchLLM.model_fields) - set(OpenAILLM.model_fields)
    described = {
        info["name"]: info.get("description") for info in OpenAIBatchLLM(**CONNECTION).get_runtime_parameters_info()
    }

    assert own <= set(described)
    assert all(described[name] for name in own)


def test_a_dump_names_the_public_module_and_holds_no_key():
    """What goes into YAML can be loaded for good, and be shown to anybody."""
    llm = OpenAIBatchLLM(**CONNECTION, max_jobs=3)

    dump = llm.dump()

    assert dump["type_info"] == {"module": "distilabel_openai_batch", "name": "OpenAIBatchLLM"}
    assert "sk-secret" not in str(dump)
    assert OpenAIBatchLLM.from_dict(dump | {"api_key": "sk-secret"}) == llm


def test_everything_openaillm_takes_is_taken():
    """A drop-in: the constructor's arguments and the generation kwargs are a superset."""
    assert set(OpenAILLM.model_fields) <= set(OpenAIBatchLLM.model_fields)
    ours, theirs = OpenAIBatchLLM(**CONNECTION), OpenAILLM(**CONNECTION)
    assert [str(p) for p in ours.generate_parameters] == [str(p) for p in theirs.generate_parameters]


def test_default_headers_reach_the_server(respx_mock, tmp_path):
    """With every call."""
    route = respx_mock.route().respond(401, json={"error": {"message": "Who are you?"}})
    llm = OpenAIBatchLLM(
        **CONNECTION | {"base_url": "https://api.example.com/v1"},
        default_headers={"X-Team": "data"},
        ledger_dir=str(tmp_path),
    )
    llm.load()
    with pytest.raises(AuthenticationError, match="Who are you"):
        llm.generate([MESSAGES])
    assert {call.request.headers["x-team"] for call in route.calls} == {"data"}
