"""What a request is answered with."""

import base64
import json
import math
import struct

import pytest

from distilabel_openai_batch.sandbox.answers import answer

from .conftest import CHAT, body

COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def ask(asked, endpoint=CHAT):
    return answer(endpoint, asked, lambda model: not model.startswith("no-such"))


def content(**more):
    return ask(body(**more)).body["choices"][0]["message"]["content"]


def test_the_same_question_has_the_same_answer():
    """Whatever the order of the keys; id and time included."""
    asked = body(temperature=0.5, seed=1)
    assert ask(asked) == ask(dict(reversed(asked.items())))


def test_another_question_has_another_answer():
    """In the text, and in the id."""
    one, other = ask(body("one")).body, ask(body("other")).body
    assert one["id"] != other["id"]
    assert one["choices"] != other["choices"]


def test_the_answer_restates_the_instruction():
    """A few dozen words that name it, whatever braces it holds."""
    text = content(text="Explain {a} photosynthesis to a child.")
    assert "Explain {a} photosynthesis to a child" in text
    assert "photosynthesis" in text.replace("Explain {a} photosynthesis", "")
    assert 25 < len(text.split()) < 100


@pytest.mark.parametrize("text", ["", " ", "\x00\x07", "🎉" * 50_000, "\u2028{topic}", "短い質問"])
def test_any_text_is_answered(text):
    """Empty, enormous or odd."""
    assert ask(body(text)).status == 200


def test_every_choice_is_different():
    """Up to the most that can be asked for."""
    choices = ask(body(n=128)).body["choices"]
    assert len({choice["message"]["content"] for choice in choices}) == 128
    assert [choice["index"] for choice in choices] == list(range(128))


def test_the_shape_is_that_of_a_chat_completion():
    """Nothing is missing that a client may read."""
    reply = ask(body()).body
    assert reply["object"] == "chat.completion"
    assert reply["id"].startswith("chatcmpl-")
    assert reply["model"] == "gpt-4o-mini-2024-07-18"
    (choice,) = reply["choices"]
    assert (choice["message"]["role"], choice["message"]["refusal"], choice["logprobs"]) == ("assistant", None, None)
    assert choice["finish_reason"] == "stop"


def test_usage_counts_four_characters_as_a_token():
    """Prompt, completion, and their sum; each choice is paid for."""
    reply = ask(body("x" * 400, n=3)).body
    usage = reply["usage"]
    written = [choice["message"]["content"] for choice in reply["choices"]]
    assert usage["prompt_tokens"] == 3 + 4 + 100
    assert usage["completion_tokens"] == sum(math.ceil(len(text) / 4) for text in written)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_the_answer_is_cut_at_the_token_limit(limit):
    """`finish_reason` says so; a limit that is not reached changes nothing."""
    whole = content()
    (choice,) = ask(body(**{limit: 5})).body["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (whole[:20], "length")
    assert content(**{limit: 5_000}) == whole


@pytest.mark.parametrize("stop", ["depends", ["zzz", "depends"], ["."]])
def test_the_answer_ends_before_a_stop_sequence(stop):
    """The sequence itself is left out."""
    whole = next(text for seed in range(99) if "depends" in (text := content(seed=seed)))
    seed = next(seed for seed in range(99) if content(seed=seed) == whole)
    assert content(seed=seed, stop=stop) == whole.partition(stop if isinstance(stop, str) else stop[-1])[0]


def test_logprobs_cover_the_answer():
    """Their tokens put together are the text; the most probable alternative is the token itself."""
    (choice,) = ask(body(logprobs=True, top_logprobs=20)).body["choices"]
    entries = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in entries) == choice["message"]["content"]
    for entry in entries:
        tops = entry["top_logprobs"]
        assert len({top["token"] for top in tops}) == 20
        assert tops[0]["token"] == entry["token"]
        assert [top["logprob"] for top in tops] == sorted((top["logprob"] for top in tops), reverse=True)
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert entry["logprob"] <= 0
    assert ask(body(logprobs=True)).body["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


@pytest.mark.parametrize(
    ("choice", "names", "finish"),
    [
        (None, {"weather", "clock"}, "tool_calls"),
        ("required", {"weather", "clock"}, "tool_calls"),
        ({"type": "function", "function": {"name": "weather"}}, {"weather"}, "stop"),
    ],
)
def test_a_tool_is_called(choice, names, finish):
    """The one that was chosen, with arguments that fit its schema."""
    (reply,) = ask(body(tools=[WEATHER, CLOCK], tool_choice=choice)).body["choices"]
    (call,) = reply["message"]["tool_calls"]
    arguments = json.loads(call["function"]["arguments"])
    assert call["function"]["name"] in names
    assert set(arguments) == ({"city"} if call["function"]["name"] == "weather" else set())
    assert (reply["message"]["content"], reply["finish_reason"]) == (None, finish)


def test_no_tool_is_called_if_none_is_wanted():
    """`tool_choice: none` gives words."""
    assert content(tools=[WEATHER], tool_choice="none") == content()


def test_json_is_given_where_json_is_asked_for():
    """An object, for `json_object`; one that fits, for `json_schema`."""
    assert isinstance(json.loads(content(text="Answer in JSON.", response_format={"type": "json_object"})), dict)
    schema = {
        "type": "object",
        "properties": {"score": {"type": "integer", "minimum": 1, "maximum": 5}},
        "required": ["score"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "rating", "strict": True, "schema": schema}}
    assert json.loads(content(response_format=wanted))["score"] in range(1, 6)


def test_images_are_taken():
    """They cost tokens; the text beside them is answered."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    asked = body()
    asked["messages"] = [{"role": "user", "content": [{"type": "text", "text": "What is in this picture?"}, picture]}]
    reply = ask(asked).body
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
def test_bad_parameters_are_refused_as_openai_refuses_them(change, status, code, message):
    """Status, code and words."""
    reply = ask(body() | change)
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
def test_null_counts_as_not_given(change):
    """As distilabel and the SDK may send it; bounds are inclusive."""
    assert ask(body() | change).status == 200


def test_a_missing_parameter_is_named():
    """Of each endpoint."""
    assert ask({"model": "gpt-4o"}).body["error"]["param"] == "messages"
    assert ask({"model": "text-embedding-3-small"}, EMBEDDINGS).body["error"]["param"] == "input"


def test_completions_have_their_legacy_shape():
    """`echo` puts the prompt first; `logprobs` are lists side by side; several prompts have `n` choices each."""
    asked = {"model": "gpt-3.5-turbo-instruct", "prompt": ["One day", "Two days"], "n": 2, "echo": True, "logprobs": 2}
    reply = ask(asked, COMPLETIONS).body
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
def test_completions_take_any_prompt(prompt):
    """None, empty, or as token numbers."""
    assert ask({"model": "gpt-3.5-turbo-instruct", "prompt": prompt}, COMPLETIONS).status == 200


def test_embeddings_stand_for_their_texts():
    """Vectors of length 1: the same for the same text, another for another."""
    reply = ask({"model": "text-embedding-3-small", "input": ["a", "b", "a"]}, EMBEDDINGS).body
    a, b, again = [entry["embedding"] for entry in reply["data"]]
    assert [entry["index"] for entry in reply["data"]] == [0, 1, 2]
    assert a == again != b
    assert len(a) == 1_536
    assert math.isclose(sum(number * number for number in a), 1)


def test_embeddings_can_be_shorter_and_in_base64():
    """The SDK asks for base64 by itself."""
    asked = {"model": "text-embedding-3-large", "input": "a", "dimensions": 4}
    (plain,) = ask(asked, EMBEDDINGS).body["data"]
    (coded,) = ask(asked | {"encoding_format": "base64"}, EMBEDDINGS).body["data"]
    decoded = struct.unpack("<4f", base64.b64decode(coded["embedding"]))
    assert decoded == pytest.approx(plain["embedding"], abs=1e-6)
