"""Answers of the sandbox's model."""

import base64
import json
import math
import struct
from random import Random

import pytest

from distilabel_openai_batch.sandbox.model.answers import Model, answer_request
from distilabel_openai_batch.sandbox.settings import Settings

from .conftest import CHAT, chat_body

COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
# Messages and other parameters, good and bad, whose combinations are the bodies of a batch.
MESSAGES = [
    *([{"role": "user", "content": text}] for text in ("Name a river.", "Reply in JSON.", "", 5)),
    [{"role": "assistant", "content": None}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    [{"role": "boss", "content": "Hi"}],
    [],
    "Hi",
    None,
]
PARAMETERS = [
    *({"model": model} for model in ("gpt-4o-mini", "gpt-5", "o1-pro", "no-such-model", "", 5)),
    *({"model": "gpt-4o-mini", "n": number} for number in (1, 1.0, True, 2, 0)),
    *({"model": "gpt-5", "max_tokens": number} for number in (5, None)),
    *({"model": "gpt-4o-mini", "response_format": {"type": name}} for name in ("json_object", "text", "prose")),
    *({"model": "gpt-4o-mini", "tools": tools} for tools in ([WEATHER], [])),
    {"model": "gpt-4o-mini", "answer_in": "English"},
    {"stop": "e"},
]


def answer(body, endpoint=CHAT):
    return answer_request(endpoint, body, Settings())


def answer_text(**more):
    return answer(chat_body(**more)).body["choices"][0]["message"]["content"]


def test_equal_requests_get_equal_answers():
    """Ignore the order of the keys; id and time are equal too."""
    request = chat_body(temperature=0.5, seed=1)
    assert answer(request) == answer(dict(reversed(request.items())))


def test_different_requests_get_different_answers():
    """Differ in the text and in the id."""
    one, other = answer(chat_body("one")).body, answer(chat_body("other")).body
    assert one["id"] != other["id"]
    assert one["choices"] != other["choices"]


def test_answer_restates_the_instruction():
    """Write a few dozen words that name the instruction, braces included."""
    text = answer_text(text="Explain {a} photosynthesis to a child.")
    assert "Explain {a} photosynthesis to a child" in text
    assert "photosynthesis" in text.replace("Explain {a} photosynthesis", "")
    assert 25 < len(text.split()) < 100


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES])
def test_text_has_at_most_the_set_number_of_characters(endpoint):
    """Both endpoints for chats finish by themselves with the beginning of the whole text."""
    body = {"model": "gpt-4o-mini", "messages" if endpoint == CHAT else "input": chat_body()["messages"]}
    whole, short = (answer_request(endpoint, body, Settings(answer_characters=number)).body for number in (None, 20))

    texts = [
        reply["choices"][0]["message"]["content"] if endpoint == CHAT else reply["output"][0]["content"][0]["text"]
        for reply in (whole, short)
    ]
    assert texts[1] == texts[0][:20]
    assert short.get("status", short.get("choices", [{}])[0].get("finish_reason")) in ("completed", "stop")


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES])
@pytest.mark.parametrize(("limit", "is_cut"), [(None, False), (2_000, False), (400, True)])
def test_text_has_at_least_the_set_number_of_tokens(endpoint, limit, is_cut):
    """A lower limit of the request cuts the text of both endpoints for chats."""
    body = {"model": "gpt-4o-mini", "messages" if endpoint == CHAT else "input": chat_body()["messages"]}
    if limit:
        body["max_tokens" if endpoint == CHAT else "max_output_tokens"] = limit
    reply = answer_request(endpoint, body, Settings(answer_tokens=900)).body
    tokens = reply["usage"]["completion_tokens" if endpoint == CHAT else "output_tokens"]
    assert tokens == 400 if is_cut else tokens >= 900
    assert (reply.get("status") or reply["choices"][0]["finish_reason"]) in (
        ("length", "incomplete") if is_cut else ("stop", "completed")
    )


@pytest.mark.parametrize("seed", range(3))
def test_earlier_requests_of_a_batch_change_no_answer(seed):
    """Answer and refuse each request as if the request were the only one."""
    bodies = [
        parameters | ({} if messages is None else {"messages": messages})
        for parameters in PARAMETERS
        for messages in MESSAGES
    ]
    Random(seed).shuffle(bodies)
    model = Model(CHAT, Settings())
    assert [model.answer(body) for body in bodies] == [answer(body) for body in bodies]


@pytest.mark.parametrize("text", ["", " ", "\x00\x07", "🎉" * 50_000, "\u2028{topic}", "短い質問"])
def test_every_text_is_answered(text):
    """Accept empty, huge and unusual texts."""
    assert answer(chat_body(text)).status == 200


def test_choices_differ():
    """Write 128 different choices, the maximum of `n`."""
    choices = answer(chat_body(n=128)).body["choices"]
    assert len({choice["message"]["content"] for choice in choices}) == 128
    assert [choice["index"] for choice in choices] == list(range(128))


def test_chat_completion_has_every_field():
    """Return every field that a client may read."""
    reply = answer(chat_body()).body
    assert reply["object"] == "chat.completion"
    assert reply["id"].startswith("chatcmpl-")
    assert reply["model"] == "gpt-4o-mini-2024-07-18"
    (choice,) = reply["choices"]
    assert (choice["message"]["role"], choice["message"]["refusal"], choice["logprobs"]) == ("assistant", None, None)
    assert choice["finish_reason"] == "stop"


def test_usage_counts_four_characters_as_a_token():
    """Count the prompt, every choice, and the sum."""
    reply = answer(chat_body("x" * 400, n=3)).body
    usage = reply["usage"]
    written = [choice["message"]["content"] for choice in reply["choices"]]
    assert usage["prompt_tokens"] == 3 + 4 + 100
    assert usage["completion_tokens"] == sum(math.ceil(len(text) / 4) for text in written)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_answer_is_cut_at_the_token_limit(limit):
    """Report `length`; a limit above the length changes nothing."""
    whole = answer_text()
    (choice,) = answer(chat_body(**{limit: 5})).body["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (whole[:20], "length")
    assert answer_text(**{limit: 5_000}) == whole


@pytest.mark.parametrize("stop", ["depends", ["zzz", "depends"], ["."]])
def test_answer_ends_before_a_stop_sequence(stop):
    """Leave the stop sequence out."""
    whole = next(text for seed in range(99) if "depends" in (text := answer_text(seed=seed)))
    seed = next(seed for seed in range(99) if answer_text(seed=seed) == whole)
    assert answer_text(seed=seed, stop=stop) == whole.partition(stop if isinstance(stop, str) else stop[-1])[0]


def test_logprobs_cover_the_answer():
    """Tokens joined give the text; the most probable alternative is the token itself."""
    (choice,) = answer(chat_body(logprobs=True, top_logprobs=20)).body["choices"]
    entries = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    for entry in entries:
        tops = entry["top_logprobs"]
        assert len({top["token"] for top in tops}) == 20
        assert tops[0]["token"] == entry["token"]
        assert [top["logprob"] for top in tops] == sorted((top["logprob"] for top in tops), reverse=True)
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert entry["logprob"] <= 0
    assert answer(chat_body(logprobs=True)).body["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


@pytest.mark.parametrize(
    ("choice", "names", "finish"),
    [
        (None, {"weather", "clock"}, "tool_calls"),
        ("required", {"weather", "clock"}, "tool_calls"),
        ({"type": "function", "function": {"name": "weather"}}, {"weather"}, "stop"),
    ],
)
def test_tool_is_called(choice, names, finish):
    """Call the chosen tool, with arguments that fit its schema."""
    (reply,) = answer(chat_body(tools=[WEATHER, CLOCK], tool_choice=choice)).body["choices"]
    (call,) = reply["message"]["tool_calls"]
    arguments = json.loads(call["function"]["arguments"])
    assert call["function"]["name"] in names
    assert set(arguments) == ({"city"} if call["function"]["name"] == "weather" else set())
    assert (reply["message"]["content"], reply["finish_reason"]) == (None, finish)


def test_tool_choice_none_gives_text():
    """Ignore the tools."""
    assert answer_text(tools=[WEATHER], tool_choice="none") == answer_text()


def test_json_response_formats_give_json():
    """Return an object for `json_object`, a fitting object for `json_schema`."""
    assert isinstance(json.loads(answer_text(text="Answer in JSON.", response_format={"type": "json_object"})), dict)
    schema = {
        "type": "object",
        "properties": {"score": {"type": "integer", "minimum": 1, "maximum": 5}},
        "required": ["score"],
        "additionalProperties": False,
    }
    response_format = {"type": "json_schema", "json_schema": {"name": "rating", "strict": True, "schema": schema}}
    assert json.loads(answer_text(response_format=response_format))["score"] in range(1, 6)


def test_images_are_accepted():
    """Count the tokens of an image, and answer the text beside the image."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    request = chat_body()
    request["messages"] = [{"role": "user", "content": [{"type": "text", "text": "What is in this picture?"}, picture]}]
    reply = answer(request).body
    assert "What is in this picture" in reply["choices"][0]["message"]["content"]
    assert reply["usage"]["prompt_tokens"] == 3 + 4 + 6 + 85


@pytest.mark.parametrize(
    ("change", "status", "code", "message"),
    [
        ({"model": None}, 400, None, "you must provide a model parameter"),
        ({"model": "no-such-model"}, 404, "model_not_found", "The model `no-such-model` does not exist"),
        ({"messages": None}, 400, "invalid_type", "Invalid type for 'messages'"),
        ({"messages": []}, 400, "empty_array", "Invalid 'messages': empty array."),
        ({"messages": [{"role": "poet", "content": "x"}]}, 400, "invalid_value", "Invalid value: 'poet'."),
        (
            {"messages": [{"role": "user", "content": None}]},
            400,
            None,
            "Invalid value for 'content': expected a string",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "song"}]}]},
            400,
            "invalid_value",
            "Invalid value: 'song'.",
        ),
        ({"n": 0}, 400, "integer_below_min_value", "Expected a value >= 1, but got 0 instead."),
        ({"n": 129}, 400, "integer_above_max_value", "Expected a value <= 128, but got 129 instead."),
        ({"n": "two"}, 400, "invalid_type", "expected an integer, but got a string instead."),
        ({"temperature": 2.5}, 400, "decimal_above_max_value", "Expected a value <= 2, but got 2.5 instead."),
        ({"temperature": "hot"}, 400, "invalid_type", "expected a decimal, but got a string instead."),
        ({"top_p": -0.1}, 400, "decimal_below_min_value", "Expected a value >= 0, but got -0.1 instead."),
        ({"frequency_penalty": 3}, 400, "decimal_above_max_value", "Invalid 'frequency_penalty'"),
        ({"max_tokens": 0}, 400, "integer_below_min_value", "Invalid 'max_tokens'"),
        ({"logprobs": 3}, 400, "invalid_type", "expected a boolean, but got an integer instead."),
        ({"top_logprobs": 3}, 400, None, "only allowed when 'logprobs' is enabled"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "integer_above_max_value", "Invalid 'top_logprobs'"),
        ({"stop": ["a", "b", "c", "d", "e"]}, 400, "array_above_max_length", "Invalid 'stop': array too long."),
        ({"max_new_tokens": 5}, 400, None, "Unrecognized request argument supplied: max_new_tokens"),
        ({"top_k": 5, "min_p": 0}, 400, None, "Unrecognized request arguments supplied: top_k, min_p"),
        ({"model": "o3-mini", "max_tokens": 5}, 400, "unsupported_parameter", "Use 'max_completion_tokens' instead."),
        ({"model": "gpt-5-mini", "max_tokens": 5}, 400, "unsupported_parameter", "Unsupported parameter: 'max_tokens'"),
        ({"model": "gpt-5", "temperature": 0.5}, 400, "unsupported_value", "'temperature' does not support 0.5"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, 400, "invalid_parameter_combination", "at the same time"),
        ({"tool_choice": "auto"}, 400, None, "only allowed when 'tools' are specified"),
        ({"tools": []}, 400, "empty_array", "Invalid 'tools': empty array."),
        ({"tools": [{"type": "function"}]}, 400, "missing_required_parameter", "'tools[0].function'"),
        ({"response_format": {"type": "yaml"}}, 400, "invalid_value", "Invalid value: 'yaml'."),
        ({"response_format": {"type": "json_object"}}, 400, None, "must contain the word 'json'"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            400,
            "missing_required_parameter",
            "'response_format.json_schema.name'",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "strict": True, "schema": {"type": "object", "properties": {}}},
                }
            },
            400,
            None,
            "'additionalProperties' is required to be supplied and to be false.",
        ),
    ],
)
# long: a table of cases
def test_bad_parameters_are_refused_as_by_openai(change, status, code, message):
    """Return OpenAI's status, code and message."""
    reply = answer(chat_body() | change)
    error = reply.body["error"]
    assert (reply.status, error["code"], error["type"]) == (status, code, "invalid_request_error")
    assert message in error["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"n": None},
        {"stop": None},
        {"temperature": 2},
        {"response_format": None},
        {"model": "gpt-5.1", "temperature": 0.5},
    ],
)
def test_null_parameters_count_as_missing(change):
    """Accept nulls, which distilabel and the SDK may send; bounds are inclusive."""
    assert answer(chat_body() | change).status == 200


def test_missing_parameter_is_named():
    """Name the parameter of each endpoint."""
    assert answer({"model": "gpt-4o"}).body["error"]["param"] == "messages"
    assert answer({"model": "text-embedding-3-small"}, EMBEDDINGS).body["error"]["param"] == "input"


def test_legacy_completions_have_the_legacy_shape():
    """`echo` prepends the prompt; `logprobs` are parallel lists; each of several prompts has `n` choices."""
    request = {
        "model": "gpt-3.5-turbo-instruct",
        "prompt": ["One day", "Two days"],
        "n": 2,
        "echo": True,
        "logprobs": 2,
    }
    reply = answer(request, COMPLETIONS).body
    texts = [choice["text"] for choice in reply["choices"]]
    assert reply["object"] == "text_completion"
    assert [text.startswith("One day ") for text in texts] == [True, True, False, False]
    assert len(set(texts)) == 4
    for choice in reply["choices"]:
        logprobs = choice["logprobs"]
        assert "".join(logprobs["tokens"]) == choice["text"]
        assert (logprobs["token_logprobs"][0], logprobs["top_logprobs"][0]) == (None, None)
        assert all(len(top) == 2 for top in logprobs["top_logprobs"][1:])
        places = zip(logprobs["text_offset"], logprobs["tokens"], strict=True)
        assert all(choice["text"][place:].startswith(token) for place, token in places)
        assert choice["finish_reason"] == "length"


@pytest.mark.parametrize("prompt", [None, "", [1, 2, 3], [[1, 2], [3]]])
def test_legacy_completions_accept_every_kind_of_prompt(prompt):
    """Accept a missing prompt, an empty prompt, and token numbers."""
    assert answer({"model": "gpt-3.5-turbo-instruct", "prompt": prompt}, COMPLETIONS).status == 200


def test_embeddings_are_unit_vectors_derived_from_the_text():
    """Return equal vectors for equal texts, different vectors for different texts."""
    reply = answer({"model": "text-embedding-3-small", "input": ["a", "b", "a"]}, EMBEDDINGS).body
    a, b, again = [entry["embedding"] for entry in reply["data"]]
    assert [entry["index"] for entry in reply["data"]] == [0, 1, 2]
    assert a == again != b
    assert len(a) == 1_536
    assert math.isclose(sum(number * number for number in a), 1)


def test_embeddings_support_dimensions_and_base64():
    """Support base64, which the SDK requests by default."""
    request = {"model": "text-embedding-3-large", "input": "a", "dimensions": 4}
    (plain,) = answer(request, EMBEDDINGS).body["data"]
    (coded,) = answer(request | {"encoding_format": "base64"}, EMBEDDINGS).body["data"]
    decoded = struct.unpack("<4f", base64.b64decode(coded["embedding"]))
    assert decoded == pytest.approx(plain["embedding"], abs=1e-6)
