"""`OpenAILLM`'s own code, run up to its call and from an answer on."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from distilabel_openai_batch import InvalidParametersError, OpenAIBatchLLM
from distilabel_openai_batch.api.outcomes import Answer, Failure, build_result_line, parse_result_line
from distilabel_openai_batch.engine.calls import each_call
from distilabel_openai_batch.plugin.call_capture import (
    _INPUT,
    _INPUTS_PER_GROUP,
    _common_shape,
    _plain_roles,
    _validate,
    capture_calls,
    check_parameters,
    read_completion,
    read_plain_outputs,
)
from distilabel_openai_batch.plugin.sdk_stub import CHAT_ENDPOINT, COMPLETIONS_ENDPOINT, view
from tests.support.mutations import mutations, replaced
from tests.unit.plugin.stubs import MESSAGES, batch_llm, completion

IMAGE = [{"role": "user", "content": [{"type": "text", "text": "Look"}]}]
OTHER_MESSAGES = [{"role": "user", "content": "Why is the grass green?"}]


class SubStr(str):
    """A string of another type."""


_LLM = OpenAIBatchLLM(model="gpt-4o-mini", api_key="sk-test")


@pytest.fixture
def llm():
    llm, _ = batch_llm(Answer.of(completion("fine")))
    return llm


def captured(llm, inputs, **kwargs):
    return list(each_call(capture_calls(llm, inputs, 1, kwargs, lambda call: call)))


def test_each_input_becomes_a_call_of_its_endpoint(llm):
    chat, prompt = captured(llm, [MESSAGES, "Once upon"], max_new_tokens=7)

    assert (chat.endpoint, prompt.endpoint) == (CHAT_ENDPOINT, COMPLETIONS_ENDPOINT)
    assert chat.body["messages"] == MESSAGES
    assert prompt.body["prompt"] == "Once upon"
    assert {call.body["max_tokens"] for call in (chat, prompt)} == {7}


def test_chats_of_one_shape_share_a_template(llm):
    """The first chat gives the template; chats with images and strings have none."""
    chats = [MESSAGES, OTHER_MESSAGES, MESSAGES]

    first, second, third, *others = captured(llm, [*chats, IMAGE, IMAGE, "Once upon", "Once upon"])

    assert second.template is third.template is not None
    assert [call.body["messages"] for call in (first, second, third)] == chats
    assert [call.template for call in others] == [None] * 4


def test_body_that_json_cannot_hold_has_no_template(llm):
    """The session then reports the error for each call."""
    calls = captured(llm, [MESSAGES, MESSAGES], extra_body={"odd": object()})

    assert [call.template for call in calls] == [None, None]


def test_calls_are_adapted_to_the_model(llm):
    def adapt(call):
        call.body = {**call.body, "adapted": True}
        return call

    calls = capture_calls(llm, [MESSAGES, OTHER_MESSAGES, "Once upon"], 1, {}, adapt)

    assert [call.body["adapted"] for call in each_call(calls)] == [True] * 3


def test_invalid_input_becomes_a_failure(llm):
    call, failure = captured(llm, [MESSAGES, [{"role": "user"}]])

    assert call.body["messages"] == MESSAGES
    assert isinstance(failure, Failure)
    assert failure.message.startswith("The input cannot be made into a request: ")


def test_captures_may_overlap(llm):
    """Several threads may build calls of one LLM at the same time, and the LLM stays as it was."""
    attributes = dict(vars(llm)), dict(llm.__pydantic_private__)

    first = capture_calls(llm, [MESSAGES, IMAGE], 1, {}, lambda call: call)
    second = capture_calls(llm, ["Once upon", IMAGE], 1, {}, lambda call: call)
    begun = [next(first), next(second)]
    check_parameters(llm, 1, {})
    output = read_completion(llm, "Once upon", 1, {}, view({"choices": [{"text": " a time"}]}))
    calls = [*begun, *first, *second]

    assert [call.body.get("messages", call.body.get("prompt")) for call in calls] == [
        MESSAGES,
        "Once upon",
        IMAGE,
        IMAGE,
    ]
    assert output["generations"] == [" a time"]
    assert (dict(vars(llm)), dict(llm.__pydantic_private__)) == attributes


_CONTENTS = st.one_of(
    st.text(max_size=3),
    st.sampled_from(["\ud800", "é", None, 1, [{"type": "text", "text": "a"}], [{"type": "text"}], ["a"], SubStr("a")]),
)
_MESSAGES = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "system", "assistant", "tool", 1, ["user"], SubStr("user")]),
        "content": _CONTENTS,
    },
    optional={"name": st.just("b")},
)
_INPUTS = st.one_of(
    st.lists(_MESSAGES, max_size=3),
    st.sampled_from(["a", "\ud800", None, ("a", None), ([{"role": "user", "content": "a"}], None), ({},), [[]], [{}]]),
)


@settings(max_examples=300)
@given(_INPUTS)
def test_an_input_is_validated_like_openai_llm_validates_it(input):
    """Plain chats are not validated by pydantic."""
    try:
        expected = _INPUT.validate_python(input)
    except ValidationError:
        expected = None
    messages, roles = _validate(input)
    assert messages == expected
    if roles is not None:
        assert messages == [
            {"role": role, "content": message["content"]} for role, message in zip(roles, input, strict=True)
        ]


@settings(max_examples=300)
@given(st.lists(st.one_of(_INPUTS, st.just(MESSAGES), st.just(OTHER_MESSAGES)), min_size=1, max_size=3))
def test_chats_have_a_common_shape_if_each_has_it(inputs):
    shapes = {_plain_roles(input) for input in inputs}
    assert _common_shape(inputs) == ((shapes.pop() or None) if len(shapes) == 1 else None)


@pytest.mark.parametrize("place", [0, 1, _INPUTS_PER_GROUP - 1, _INPUTS_PER_GROUP, 2 * _INPUTS_PER_GROUP])
@pytest.mark.parametrize("unusual", [IMAGE, "Once upon", [{"role": "system", "content": "Be brief."}, *MESSAGES]])
def test_groups_have_the_calls_of_each_input_in_order(llm, unusual, place):
    """An unusual input among many plain chats changes no other call."""
    inputs = [[{"role": "user", "content": str(number)}] for number in range(2 * _INPUTS_PER_GROUP + 3)]
    inputs.insert(place, unusual)
    alone = [call.body for input in inputs for call in captured(llm, [input])]
    assert [call.body for call in captured(llm, inputs)] == alone


@pytest.mark.parametrize("kwargs", [{"temprature": 1.0}, {"max_new_tokens": -1}], ids=str)
def test_wrong_parameters_are_refused(llm, kwargs):
    with pytest.raises(InvalidParametersError, match=next(iter(kwargs))):
        check_parameters(llm, 1, kwargs)


def test_completion_is_read_for_chats_and_strings(llm):
    usage = {"prompt_tokens": 3, "completion_tokens": 4}

    chat = read_completion(llm, MESSAGES, 2, {}, view(completion("a", "b", usage=usage)))
    prompt = read_completion(llm, "Once upon", 1, {}, view({"choices": [{"text": " a time"}], "usage": usage}))

    assert chat["generations"] == ["a", "b"]
    assert prompt["generations"] == [" a time"]
    assert chat["statistics"]["input_tokens"] == prompt["statistics"]["input_tokens"] == [3]


@pytest.mark.parametrize(
    "body",
    [
        completion("a", usage={"prompt_tokens": 3, "completion_tokens": 4}),
        completion("a", "b", usage={"completion_tokens": None}),
    ],
    ids=["one text", "two texts"],
)
def test_plain_chat_is_read_like_distilabel_reads_it(llm, body):
    [output] = read_plain_outputs(llm, [Answer.of(body)], 1)

    assert output is not None
    assert output == read_completion(llm, MESSAGES, 1, {}, view(body))


_RESULT = json.loads(build_result_line("a", completion("Hello", usage={"prompt_tokens": 7, "completion_tokens": 5})))


@settings(max_examples=300)
@given(mutations(_RESULT))
@example((("response", "body", "output"), [{"type": "message", "content": []}]))
@example((("response", "body", "usage", "prompt_tokens"), 7.0))
@example((("response", "body", "usage", "prompt_tokens"), 10**30))
def test_a_plain_chat_is_read_from_any_line_like_distilabel_reads_it(mutation):
    line = json.dumps(replaced(_RESULT, *mutation)).encode(errors="surrogatepass") + b"\n"
    _, outcome = parse_result_line(line) or ("", None)
    [output] = read_plain_outputs(_LLM, [outcome], 1) if outcome else [None]
    if output:
        assert isinstance(outcome, Answer)
        expected = read_completion(_LLM, MESSAGES, 1, {}, view(outcome.body))
        assert json.dumps(output) == json.dumps(expected)


@pytest.mark.parametrize(
    "body",
    [
        completion("a"),
        completion("", usage={"prompt_tokens": 0}),
        completion("a", "", usage={"prompt_tokens": 0}),
        {"choices": [], "usage": {"completion_tokens": 1}},
        completion(None, usage={"prompt_tokens": 1}),
        completion([{"type": "text"}], usage={"prompt_tokens": 1}),
        {"choices": [{"message": {"content": "a"}, "finish_reason": "length", "logprobs": None}], "usage": {}},
        {
            "choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}, "finish_reason": "length"}],
            "usage": {},
        },
        {"choices": [{"text": "a"}], "usage": {}},
        {"choices": [{"message": {"content": "a"}, "logprobs": {"content": []}}], "usage": {}},
        {"choices": None, "usage": {}},
        {},
    ],
    ids=[
        "no usage",
        "empty text",
        "an empty text among others",
        "no choice",
        "no text",
        "parts",
        "cut text",
        "a cut text among others",
        "completion of a string",
        "log probabilities",
        "no choices",
        "empty",
    ],
)
def test_other_completions_are_left_to_distilabel(body):
    assert read_plain_outputs(_LLM, [Answer.of(body)], 1) == [None]


def test_subclass_reads_plain_chats_in_its_own_way():
    class OwnReader(OpenAIBatchLLM):
        def _generations_from_openai_completion(self, completion):
            return {"generations": ["own"], "statistics": {}}

    answer = Answer.of(completion("a", usage={"prompt_tokens": 1}))
    own = OwnReader(model="gpt-4o-mini", api_key="sk-test")
    assert read_plain_outputs(own, [answer], 1) == [None]
    assert read_plain_outputs(_LLM, [answer, Failure("Bad."), answer], 1)[1] is None
    assert None not in read_plain_outputs(_LLM, [answer, answer], 1)


def test_malformed_completion_is_an_error(llm):
    with pytest.raises(TypeError):
        read_completion(llm, MESSAGES, 1, {}, view({"choices": None}))


def test_unknown_parameter_is_reported_with_its_place(llm):
    """Parameters of the API that `OpenAILLM` lacks belong into `extra_body`."""
    with pytest.raises(InvalidParametersError, match=r'`generation_kwargs={"extra_body": {"seed": …}}`'):
        check_parameters(llm, 1, {"seed": 1})
