"""`OpenAIBatchLLM` without a server: bodies, outputs, and ways to call `generate`."""

from __future__ import annotations

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest
from distilabel.models.llms import OpenAILLM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distilabel_openai_batch import AuthenticationError, InvalidParametersError, OpenAIBatchLLM, RunError
from distilabel_openai_batch.api.outcomes import Answer, Failure, parse_result_line
from distilabel_openai_batch.engine.settings import PollSchedule
from distilabel_openai_batch.plugin import llm as llm_module
from tests.support.mutations import mutations, replaced
from tests.unit.plugin.stubs import (
    CONNECTION,
    MESSAGES,
    EchoSession,
    StubSessions,
    batch_llm,
    completion,
    synchronous_llm,
)

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
# Parameters of `OpenAILLM` that have no effect with these values.
NO_OPS = {"logprobs": (False, None), "top_logprobs": (None,), "stop": (None,), "echo": (False,)}
EMPTY_COMPLETION = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}


@given(CALLS)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_body_equals_the_body_of_openaillm(call):
    """For all inputs and generation parameters both LLMs send the same body to the same endpoint.

    Only parameters without effect are left out, which some servers refuse.
    """
    input, kwargs = call
    theirs, sent_by_theirs = synchronous_llm(EMPTY_COMPLETION)
    ours, sent_by_ours = batch_llm(Answer.of(EMPTY_COMPLETION))

    theirs.generate([input], **kwargs)
    ours.generate([input], **kwargs)

    assert sent_by_ours == [(path, effective(body)) for path, body in sent_by_theirs]


def effective(body: dict) -> dict:
    """Return a body without the parameters that have no effect."""
    return {name: value for name, value in body.items() if not any(value is no_op for no_op in NO_OPS.get(name, ()))}


@given(st.lists(MESSAGE_LISTS | TEXT, min_size=2, max_size=8), st.fixed_dictionaries({}, optional=SHARED_KWARGS))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_bodies_of_many_inputs_equal_the_bodies_of_each_input(inputs, kwargs):
    """Bodies from a shared template equal bodies built one by one, for chats, images and strings mixed."""
    inputs = [*inputs, *inputs]
    expected = []
    for input in inputs:
        ours, sent = batch_llm(Answer.of(EMPTY_COMPLETION))
        ours.generate([input], **kwargs)
        expected += sent
    ours, sent = batch_llm(Answer.of(EMPTY_COMPLETION))

    ours.generate(inputs, **kwargs)

    assert sent == expected


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
PARTS = st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXT})
    | st.fixed_dictionaries(
        {"type": st.just("thinking"), "thinking": st.lists(st.fixed_dictionaries({"text": TEXT}), max_size=2)}
    )
    | st.fixed_dictionaries({"type": st.just("refusal"), "refusal": TEXT}),
    min_size=1,
    max_size=3,
)
FUNCTION = st.fixed_dictionaries({"name": TEXT, "arguments": TEXT})
UNUSUAL_MESSAGES = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | PARTS | TEXT},
    optional={
        "refusal": st.none() | TEXT,
        "function_call": FUNCTION,
        "tool_calls": st.lists(
            st.fixed_dictionaries({"id": TEXT, "type": st.just("function"), "function": FUNCTION}), max_size=2
        ),
        "audio": st.fixed_dictionaries({"id": TEXT, "data": TEXT, "transcript": TEXT, "expires_at": st.just(1)}),
        "annotations": st.lists(
            st.fixed_dictionaries({"type": st.just("url_citation"), "url_citation": JSON}), max_size=1
        ),
        "reasoning_content": TEXT,
    },
)
UNUSUAL_ANSWERS = st.lists(
    st.tuples(UNUSUAL_MESSAGES, st.sampled_from(["stop", "tool_calls", "function_call", None])), min_size=1, max_size=3
).map(
    lambda choices: (
        completion()
        | {
            "choices": [
                {"index": index, "message": message, "finish_reason": finish_reason}
                for index, (message, finish_reason) in enumerate(choices)
            ]
        }
    )
)
UNUSUAL_COMPLETION = completion("fine", usage={"prompt_tokens": 3, "completion_tokens": 4}) | {
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "text": "fine",
            "message": {"role": "assistant", "content": [{"type": "text", "text": "fine"}], "refusal": None},
            "logprobs": {"content": [{"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "a", "logprob": 0}]}]},
        }
    ]
}
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


@given(st.tuples(st.just(MESSAGES), CHAT_ANSWERS | UNUSUAL_ANSWERS) | st.tuples(st.just("Once upon"), LEGACY_ANSWERS))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_output_equals_the_output_of_openaillm(exchange):
    """Generations, log probabilities and statistics are equal for the same completion.

    The content may be a list of parts, or absent beside a tool call, a refusal or audio.
    """
    input, answer = exchange
    theirs, _ = synchronous_llm(answer)
    ours, _ = batch_llm(Answer.of(answer))

    assert ours.generate([input]) == theirs.generate([input])


def test_failed_request_is_none_in_its_own_place():
    """The output of the failed row has as many `None`s as generations were requested."""
    llm, _ = batch_llm(Answer.of(completion("a", "b")), Failure("no", 400), Answer.of(completion("c", "d")))

    outputs = llm.generate([MESSAGES] * 3, num_generations=2)

    assert [output["generations"] for output in outputs] == [["a", "b"], [None, None], ["c", "d"]]
    assert outputs[1]["statistics"] == {"input_tokens": [0], "output_tokens": [0]}


@pytest.mark.parametrize(
    "body",
    [
        {"choices": None},
        {"choices": "none"},
        {"object": "list"},
        {"choices": [{"message": None}]},
        {"choices": [3]},
        {"choices": [{"message": {"content": "fine"}, "logprobs": {"content": 7}}]},
        {"choices": [{"message": {"content": "fine"}}], "metadata": orjson.loads(b"[" * 900 + b"]" * 900)},
    ],
    ids=["null", "text", "absent", "no message", "number", "log probabilities", "nested too deeply"],
)
def test_malformed_answer_costs_its_own_row_only(body):
    llm, _ = batch_llm(Answer.of(body), Answer.of(completion("fine")))

    outputs = llm.generate([MESSAGES] * 2)

    malformed, other = (output["generations"] for output in outputs)
    # Python 3.12 reads deeper nesting.
    assert malformed == [None] or (body.get("metadata") and sys.version_info >= (3, 12))
    assert other == ["fine"]


@given(mutations(UNUSUAL_COMPLETION), st.booleans())
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_body_without_sense_costs_its_own_row_only(mutation, is_chat):
    """The generations of the changed answer are its own, or `None`."""
    body = replaced(UNUSUAL_COMPLETION, *mutation)
    line = json.dumps({"custom_id": "a", "response": {"status_code": 200, "body": body}}).encode()
    result = parse_result_line(line)
    assert result
    llm, _ = batch_llm(
        result[1], Answer.of(completion("fine") | {"choices": [{"text": "fine", "message": {"content": "fine"}}]})
    )

    outputs = llm.generate([MESSAGES if is_chat else "Once upon"] * 2)

    assert len(outputs[0]["generations"]) >= 1
    assert outputs[1]["generations"] == ["fine"]


@pytest.mark.parametrize(
    "input", [[], [{"role": "system", "content": "no question"}], [{"role": "user"}], 3, None], ids=repr
)
def test_invalid_input_costs_its_own_row_only(input):
    """No request is sent for the invalid input."""
    llm, sent = batch_llm(Answer.of(completion("fine")))

    outputs = llm.generate([MESSAGES, input, MESSAGES])

    assert [output["generations"] for output in outputs] == [["fine"], [None], ["fine"]]
    assert len(sent) == 2


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"temprature": 1.0}, "has no parameter `temprature`. Did you mean `temperature`?"),
        ({"max_tokens": 9}, "has no parameter `max_tokens`. Did you mean `max_new_tokens`?"),
        ({"reasoning_efort": "low"}, "Did you mean `reasoning_effort`?"),
        ({"min_p": 0.1}, "has no parameter `min_p`. Other parameters of the API go into `generation_kwargs="),
        ({"max_new_tokens": -1}, "`max_new_tokens` in `generation_kwargs` has a wrong value: "),
        ({"temperature": "hot"}, "`temperature` in `generation_kwargs` has a wrong value: "),
        ({"stop": 3}, "`stop` in `generation_kwargs` has a wrong value: "),
    ],
    ids=str,
)
@pytest.mark.parametrize("has_own_agenerate", [False, True])
def test_wrong_generation_parameter_is_an_error_before_submission(monkeypatch, kwargs, message, has_own_agenerate):
    """The error is one line that names the parameter, and the probable name of a misspelt parameter."""
    llm, sent = batch_llm(Answer.of(completion("fine")))
    monkeypatch.setattr(OpenAIBatchLLM, "_has_standard_calls", not has_own_agenerate)

    with pytest.raises(InvalidParametersError) as raised:
        llm.generate([MESSAGES], **kwargs)

    assert message in str(raised.value)
    assert "\n" not in str(raised.value)

    assert sent == []


def test_many_inputs_are_answered_in_parts(monkeypatch):
    """The outputs of all parts stand in the order of the inputs."""
    monkeypatch.setattr(llm_module, "_INPUTS_PER_PART", 2)
    llm, sent = batch_llm(Answer.of(completion("fine")))

    outputs = llm.generate([MESSAGES] * 5)

    assert [output["generations"] for output in outputs] == [["fine"]] * 5
    assert len(sent) == 5


def test_agenerate_can_be_awaited_concurrently():
    """Each caller gets the answer of its own call."""
    llm, sent = batch_llm(Answer.of(completion("fine")))

    async def run():
        return await asyncio.gather(*(llm.agenerate(MESSAGES) for _ in range(5)))

    assert [output["generations"] for output in asyncio.run(run())] == [["fine"]] * 5
    assert len(sent) == 5


def test_threads_may_share_an_llm():
    """Each thread gets the answers of its own calls, and later calls of the LLM work."""
    session = EchoSession()
    llm, _ = batch_llm()
    llm.use_sessions(StubSessions(session))

    def use(number: int) -> list[str]:
        chats = [[{"role": "user", "content": f"{number}/{index}"}] for index in range(20)]
        outputs = [*llm.generate(chats), asyncio.run(llm.agenerate(chats[0]))]
        return [output["generations"][0] for output in outputs]

    with ThreadPoolExecutor(8) as pool:
        generations = list(pool.map(use, range(40)))

    assert generations == [[*(f"{number}/{index}" for index in range(20)), f"{number}/0"] for number in range(40)]


def test_agenerate_raises_the_failure_of_its_request():
    llm, _ = batch_llm(Failure("The prompt is not allowed.", 400, "content_policy_violation"))

    with pytest.raises(RunError, match="not allowed") as raised:
        asyncio.run(llm.agenerate(MESSAGES))

    assert (raised.value.status_code, raised.value.code) == (400, "content_policy_violation")


def test_no_inputs_give_no_outputs_and_no_request():
    llm, sent = batch_llm(Answer.of(completion("fine")))

    assert llm.generate([]) == []
    assert sent == []


def test_misspelt_runtime_parameter_is_logged(caplog):
    """The warning suggests a near name; correctly spelt parameters are set without a warning."""
    llm = OpenAIBatchLLM(**CONNECTION)
    llm.set_runtime_parameters(
        {"bugdet": 5.0, "colour": "red", "max_jobs": 3, "generation_kwargs": {"temperature": 0.5}}
    )

    assert llm.max_jobs == 3
    assert "no runtime parameter `bugdet`: the value is ignored. Did you mean `budget`?" in caplog.text
    assert "no runtime parameter `colour`: the value is ignored.\n" in caplog.text
    assert len(caplog.messages) == 2


def test_each_field_of_the_package_is_a_described_runtime_parameter():
    """`pipeline.run(parameters=…)` and the command line can set each field."""
    own = set(OpenAIBatchLLM.model_fields) - set(OpenAILLM.model_fields)
    described = {
        info["name"]: info.get("description") for info in OpenAIBatchLLM(**CONNECTION).get_runtime_parameters_info()
    }

    assert own <= set(described)
    assert all(described[name] for name in own)


def test_dump_names_the_package_and_holds_no_key():
    """A later version can load the YAML, and a user can publish the YAML."""
    llm = OpenAIBatchLLM(**CONNECTION, max_jobs=3)

    dump = llm.dump()

    assert dump["type_info"] == {"module": "distilabel_openai_batch", "name": "OpenAIBatchLLM"}
    assert "sk-secret" not in str(dump)
    assert OpenAIBatchLLM.from_dict(dump | {"api_key": "sk-secret"}) == llm


def test_fields_and_generation_parameters_include_those_of_openaillm():
    assert set(OpenAILLM.model_fields) <= set(OpenAIBatchLLM.model_fields)
    ours, theirs = OpenAIBatchLLM(**CONNECTION), OpenAILLM(**CONNECTION)
    parameters = [str(parameter) for parameter in ours.generate_parameters]
    assert parameters[:-1] == [str(parameter) for parameter in theirs.generate_parameters]
    assert parameters[-1].startswith("reasoning_effort:")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (True, PollSchedule(1.0, 65.0))),
        ({"wait": False, "min_poll_interval": 2.0}, (False, PollSchedule(2.0, 65.0))),
        ({"use_offline_batch_generation": True}, (False, PollSchedule(1.0, 65.0))),
        (
            {"use_offline_batch_generation": True, "offline_batch_generation_block_until_done": 5},
            (True, PollSchedule(5, 5)),
        ),
        ({"offline_batch_generation_block_until_done": 5}, (True, PollSchedule(1.0, 65.0))),
    ],
    ids=str,
)
def test_distilabels_offline_fields_override_wait_and_poll_interval(fields, expected):
    jobs = OpenAIBatchLLM(**CONNECTION, **fields).session_settings().jobs

    assert (jobs.wait, jobs.schedule) == expected


def test_default_headers_are_sent_with_every_call(respx_mock, tmp_path):
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
