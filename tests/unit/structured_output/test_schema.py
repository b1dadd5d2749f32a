"""Structured output in bodies, and answers checked against the schema."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset
from pydantic import BaseModel

from distilabel_openai_batch.structured_output.schema import Rejection, read
from tests.support.schemas import (
    ADDRESS,
    ANSWER,
    BODY,
    COUNT,
    FITS,
    MESSAGES,
    WORD,
    Address,
    Even,
    Mode,
    Node,
    Person,
    choice,
    schema_of,
    tool_choice,
)


def test_each_mode_adds_the_schema_to_the_body():
    """The schema becomes a response format, a tool that has to be called, or part of the prompt, and replaces
    the body's own format."""
    body = BODY | {"response_format": {"type": "text"}, "temperature": 0.5}
    closed = ANSWER | {"additionalProperties": False}

    def asked(mode, body=body):
        return read({"schema": ANSWER, "mode": mode}).asked_for(body)

    spec = {"name": "Thing", "schema": closed, "strict": True}
    assert asked(None) == body | {"response_format": {"type": "json_schema", "json_schema": spec}}
    function = {"name": "Thing", "parameters": closed, "strict": True}
    assert asked("tools") == BODY | {
        "temperature": 0.5,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "Thing"}},
    }
    in_words = asked("json")
    assert in_words["response_format"] == {"type": "json_object"}
    assert [message["role"] for message in in_words["messages"]] == ["system", "user"]
    assert json.dumps(ANSWER, separators=(",", ":")) in in_words["messages"][0]["content"]
    with_system = asked("json", BODY | {"messages": [{"role": "system", "content": "Be brief."}, *MESSAGES]})
    assert [message["role"] for message in with_system["messages"]] == ["system", "user"]
    assert with_system["messages"][0]["content"].startswith("Be brief.\n\nAnswer with one JSON object")


@pytest.mark.parametrize(
    ("title", "name"),
    [("Thing", "Thing"), ("Response[int]", "Response_int_"), ("Größe " * 20, None), ("", "answer"), (3, "answer")],
)
def test_title_of_a_schema_becomes_a_name_that_the_api_accepts(title, name):
    api_name = read(
        {"schema": {"properties": {"word": WORD}} | ({"title": title} if isinstance(title, str) else {})}
    ).name

    assert api_name == name or (name is None and len(api_name) == 64)
    assert all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in api_name)


@pytest.mark.parametrize(
    ("mode", "meant"),
    [
        (None, "json_schema"),
        ("json_schema_mode", "json_schema"),
        ("tools", "tools"),
        (Mode.TOOLS, "tools"),
        ("function_call", "tools"),
        ("markdown_json_mode", "json_object"),
    ],
)
def test_names_of_instructors_modes_are_accepted(mode, meant):
    """Members of its enum are accepted too."""
    assert read({"schema": COUNT, "mode": mode}).mode == meant


@pytest.mark.parametrize(
    ("structured_output", "reason"),
    [
        ({}, "no `schema`"),
        ("json", "not a dictionary"),
        ({"schema": None}, "no `schema`"),
        ({"schema": "[a-z]+", "format": "regex"}, "'regex', and OpenAI serves 'json' alone"),
        ({"schema": COUNT, "mode": "telepathy"}, "'telepathy', which is none of .*'json_schema'"),
        ({"schema": COUNT, "mode": 3}, "which is none of"),
        ({"schema": COUNT, "max_retries": -1}, "`max_retries` -1"),
        ({"schema": COUNT, "max_retries": "two"}, "`max_retries` 'two'"),
        ({"schema": "{not json"}, "not JSON"),
        ({"schema": "[1]"}, "not a JSON object"),
        ({"schema": {"type": "text"}}, r"not a JSON schema: 'text' .* #/type"),
        ({"schema": {"pattern": "("}}, "not a JSON schema"),
        ({"schema": {"enum": [object()]}}, "cannot be written as JSON"),
        ({"schema": type("Opaque", (BaseModel,), {"__annotations__": {"x": type(iter)}, "model_config": {
            "arbitrary_types_allowed": True}})}, "`Opaque` .* no JSON schema"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_unsupported_structured_output_is_refused_with_a_reason(structured_output, reason):
    """The error comes before any submission."""
    with pytest.raises(ValueError, match=reason):
        read(structured_output)


def test_schema_from_a_dataset_equals_the_original():
    """A column of a dataset gives each row's schema the keys of all rows' schemas, with empty values."""
    schemas = [COUNT, ANSWER | {"description": "An answer."}, schema_of({"one_of": {"enum": ["a", "b"]}})]
    column = Dataset.from_list([{"structured_output": {"format": "json", "schema": each}} for each in schemas])

    assert [read(each).schema for each in column["structured_output"]] == schemas


def test_equal_schemas_share_one_validator():
    """50,000 rows with one schema make one validator, for a dictionary and for text."""
    first = read({"schema": COUNT, "format": "json"})

    assert read({"schema": json.loads(json.dumps(COUNT))}) is first
    assert read({"schema": Person}) is read({"schema": Person})
    assert read({"schema": COUNT, "mode": "tools"}) is not first


# Schemas of which distilabel cannot make a class, and which `OpenAILLM` refuses.
FITS_WITHOUT_DISTILABELS_CLASS = [
    (Node, '{"label": "a", "children": [{"label": "b"}]}', '{"label":"a","children":[{"label":"b","children":[]}]}'),
    (Node.model_json_schema(), '{"label": "a", "children": []}', '{"label":"a","children":[]}'),
    ({"type": "object", "properties": {"x": WORD}}, '{"x": "é", "y": 1}', '{"x":"é","y":1}'),
    ({"type": "object", "properties": {"x": {"enum": ["a", 1]}}}, '{"x": 1}', '{"x":1}'),
    ({"title": "Either", "anyOf": [COUNT, ANSWER]}, '{"answer": "a"}', '{"answer":"a"}'),
    ({"title": "List", "type": "array", "items": WORD}, '["a"]', '["a"]'),
    (Even, '{"value": 2}', '{"value":2}'),
]


@pytest.mark.parametrize(("schema", "text", "expected"), FITS + FITS_WITHOUT_DISTILABELS_CLASS, ids=str)
def test_answer_that_fits_is_written_in_distilabels_form(schema, text, expected):
    """The answer may be the content, a tool call, or a block of code."""
    structured_output = read({"schema": schema})

    assert structured_output.read(choice(text)) == expected
    assert structured_output.read(tool_choice(text)) == expected
    assert structured_output.read(choice(f"```json\n{text}\n```")) == expected


@pytest.mark.parametrize(
    ("schema", "text", "reason"),
    [
        (COUNT, "three", "it is not JSON"),
        (COUNT, '{"count": 3', "it is not JSON"),
        (COUNT, '{"count": NaN}', "it is not JSON"),
        (COUNT, "", "it is empty"),
        (COUNT, None, "it is empty"),
        (COUNT, "[]", r"\$: \[\] is not of type 'object'"),
        (COUNT, "{}", r"\$: 'count' is a required property"),
        (COUNT, '{"count": "3"}', r"\$.count: '3' is not of type 'integer'"),
        (Even, '{"value": "2"}', r"\$.value: Input should be a valid integer"),
        (schema_of({"x": WORD}, additionalProperties=False), '{"x": "a", "y": 1}', "Additional properties"),
        (ADDRESS, '{"street": "A", "number": "none"}', r"\$.number: 'none' is not valid under any"),
        (Address, '{"number": 3}', r"\$.street: Field required"),
        (schema_of({"x": {"type": "string", "enum": ["a"]}}), '{"x": "b"}', "'b' is not one of"),
        (schema_of({"x": {"type": "integer", "minimum": 3}}), '{"x": 2}', "less than the minimum"),
        (schema_of({"x": {"type": "array", "items": WORD, "minItems": 1}}), '{"x": []}', r"\$.x: \[\]"),
        (Node.model_json_schema(), '{"label": "a", "children": [{}]}', r"\$.children\[0\]: 'label' is a required"),
        (Even, '{"value": 3}', r"\$.value: Value error, it is odd"),
    ],
    ids=str,
)
def test_answer_that_does_not_fit_is_rejected_with_a_reason(schema, text, reason):
    """The reason is written for the model. Some of these answers would pass distilabel's own class."""
    structured_output = read({"schema": schema})

    rejection = structured_output.read(choice(text))

    assert isinstance(rejection, Rejection)
    assert rejection.helps
    assert rejection.failure.code == "invalid_structured_output"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(rejection.failure.message)


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        (choice(refusal="I'm sorry."), "refusal", "The model refused: I'm sorry."),
        (choice('{"count": ', finish_reason="length"), "truncated", "max_new_tokens"),
        (choice(None, finish_reason="content_filter"), "content_filter", "withheld"),
    ],
)
def test_rejection_says_that_a_retry_does_not_help(said, code, reason):
    """A refusal is final, and a truncated answer would be truncated again."""
    rejection = read({"schema": COUNT}).read(said)

    assert not rejection.helps
    assert rejection.failure.code == code
    assert reason in rejection.failure.message


def test_complete_answer_at_the_token_limit_is_accepted():
    """The answer is paid for, and fits."""
    assert read({"schema": COUNT}).read(choice('{"count": 3}', finish_reason="length")) == '{"count":3}'


def test_schema_with_a_remote_reference_rejects_the_answer():
    """No reference is fetched, and a retry would not help."""
    schema = schema_of({"x": {"$ref": "http://127.0.0.1:9/x"}})

    rejection = read({"schema": schema}).read(choice('{"x": "a"}'))

    assert isinstance(rejection, Rejection)
    assert not rejection.helps


@pytest.mark.parametrize(
    "said", [None, "x", {}, {"message": None}, {"message": {"tool_calls": [None, {"function": 3}]}}]
)
def test_malformed_choice_is_retried(said):
    """A malformed answer does not end the run."""
    structured_output = read({"schema": COUNT})

    assert structured_output.read(said).helps
    assert structured_output.asked_again(BODY, said, "It is odd")["messages"][-1]["content"].startswith("It is odd. ")


def test_retry_shows_the_model_its_answer_and_the_error():
    """The retry uses the same way of answering, and requests one choice."""
    structured_output = read({"schema": COUNT})

    in_words = structured_output.asked_again(BODY | {"n": 3, "seed": 1}, choice("three"), "It is not JSON")
    as_a_tool = structured_output.asked_again(BODY, tool_choice("three"), "It is not JSON")

    assert (in_words["n"], in_words["seed"]) == (1, 1)
    assert [message["role"] for message in in_words["messages"]] == ["user", "assistant", "user"]
    assert in_words["messages"][1]["content"] == "three"
    assert in_words["messages"][2]["content"].startswith("It is not JSON. ")
    assert [message["role"] for message in as_a_tool["messages"]] == ["user", "assistant", "tool"]
    assert as_a_tool["messages"][2]["tool_call_id"] == "call_1"
