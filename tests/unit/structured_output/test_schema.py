"""Tests of `structured_output.schema`: request bodies, and checks of answers."""

from __future__ import annotations

import json

import pytest

from distilabel_openai_batch.structured_output.options import parse_structured_output
from distilabel_openai_batch.structured_output.schema import Rejection, message_of, shorten
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
    Node,
    choice,
    schema_of,
    tool_choice,
)


def test_each_mode_adds_the_schema_to_the_body():
    """The schema becomes a response format, a tool that has to be called, or part of the prompt, and replaces
    the body's own format."""
    body = BODY | {"response_format": {"type": "text"}, "temperature": 0.5}
    closed = ANSWER | {"additionalProperties": False}

    def apply(mode, body=body):
        return parse_structured_output({"schema": ANSWER, "mode": mode}).apply_to(body)

    spec = {"name": "Thing", "schema": closed, "strict": True}
    assert apply(None) == body | {"response_format": {"type": "json_schema", "json_schema": spec}}
    function = {"name": "Thing", "parameters": closed, "strict": True}
    assert apply("tools") == BODY | {
        "temperature": 0.5,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "Thing"}},
    }
    in_words = apply("json")
    assert in_words["response_format"] == {"type": "json_object"}
    assert [message["role"] for message in in_words["messages"]] == ["system", "user"]
    assert json.dumps(ANSWER, separators=(",", ":")) in in_words["messages"][0]["content"]
    with_system = apply("json", BODY | {"messages": [{"role": "system", "content": "Be brief."}, *MESSAGES]})
    assert [message["role"] for message in with_system["messages"]] == ["system", "user"]
    assert with_system["messages"][0]["content"].startswith("Be brief.\n\nAnswer with one JSON object")


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
    structured_output = parse_structured_output({"schema": schema})

    assert structured_output.check(choice(text)) == expected
    assert structured_output.check(tool_choice(text)) == expected
    assert structured_output.check(choice(f"```json\n{text}\n```")) == expected


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
    structured_output = parse_structured_output({"schema": schema})

    rejection = structured_output.check(choice(text))

    assert isinstance(rejection, Rejection)
    assert rejection.is_repairable
    assert rejection.failure.code == "invalid_structured_output"
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(rejection.failure.message)


@pytest.mark.parametrize(
    ("model_choice", "code", "reason"),
    [
        (choice(refusal="I'm sorry."), "refusal", "The model refused: I'm sorry."),
        (choice('{"count": ', finish_reason="length"), "truncated", "max_new_tokens"),
        (choice(None, finish_reason="content_filter"), "content_filter", "withheld"),
    ],
)
def test_rejection_says_that_a_retry_does_not_help(model_choice, code, reason):
    """A refusal is final, and a truncated answer would be truncated again."""
    rejection = parse_structured_output({"schema": COUNT}).check(model_choice)

    assert not rejection.is_repairable
    assert rejection.failure.code == code
    assert reason in rejection.failure.message


def test_complete_answer_at_the_token_limit_is_accepted():
    """The answer is paid for, and fits."""
    assert (
        parse_structured_output({"schema": COUNT}).check(choice('{"count": 3}', finish_reason="length"))
        == '{"count":3}'
    )


def test_schema_with_a_remote_reference_rejects_the_answer():
    """No reference is fetched, and a retry would not help."""
    schema = schema_of({"x": {"$ref": "http://127.0.0.1:9/x"}})

    rejection = parse_structured_output({"schema": schema}).check(choice('{"x": "a"}'))

    assert isinstance(rejection, Rejection)
    assert not rejection.is_repairable


@pytest.mark.parametrize(
    "model_choice", [None, "x", {}, {"message": None}, {"message": {"tool_calls": [None, {"function": 3}]}}]
)
def test_malformed_choice_is_retried(model_choice):
    """A malformed answer does not end the run."""
    structured_output = parse_structured_output({"schema": COUNT})

    assert structured_output.check(model_choice).is_repairable
    assert structured_output.retry_body(BODY, model_choice, "It is odd")["messages"][-1]["content"].startswith(
        "It is odd. "
    )


def test_retry_shows_the_model_its_answer_and_the_error():
    """The retry uses the same way of answering, and requests one choice."""
    structured_output = parse_structured_output({"schema": COUNT})

    in_words = structured_output.retry_body(BODY | {"n": 3, "seed": 1}, choice("three"), "It is not JSON")
    as_a_tool = structured_output.retry_body(BODY, tool_choice("three"), "It is not JSON")

    assert (in_words["n"], in_words["seed"]) == (1, 1)
    assert [message["role"] for message in in_words["messages"]] == ["user", "assistant", "user"]
    assert in_words["messages"][1]["content"] == "three"
    assert in_words["messages"][2]["content"].startswith("It is not JSON. ")
    assert [message["role"] for message in as_a_tool["messages"]] == ["user", "assistant", "tool"]
    assert as_a_tool["messages"][2]["tool_call_id"] == "call_1"


def test_texts_in_requests_never_change():
    """Ledgers find paid answers by the digests of bodies that contain these texts."""
    schema = parse_structured_output({"schema": COUNT, "mode": "json"})
    body = schema.apply_to(BODY)
    assert body["messages"][0]["content"] == (
        "Answer with one JSON object that fits this JSON schema:\n" + json.dumps(COUNT, separators=(",", ":"))
    )
    rejections = [schema.check(choice(text)).failure.message for text in ("three", "", '{"count": "3"}')]
    assert rejections == [
        "The answer does not fit the schema: it is not JSON (expected ident at line 1 column 2)",
        "The answer does not fit the schema: it is empty",
        "The answer does not fit the schema: $.count: '3' is not of type 'integer'",
    ]
    retry = schema.retry_body(body, choice(""), rejections[1])
    assert retry["messages"][2:] == [
        {
            "role": "user",
            "content": "The answer does not fit the schema: it is empty. Answer again, with nothing but JSON that fits"
            " the schema.",
        }
    ]


def test_long_texts_are_shortened():
    assert shorten("x" * 300) == "x" * 300
    assert shorten("x" * 301) == "x" * 300 + "…"


@pytest.mark.parametrize("malformed", [None, "text", {}, {"message": "text"}])
def test_a_malformed_choice_has_an_empty_message(malformed):
    assert message_of(malformed) == {}
    assert message_of(choice("text")) == {"content": "text"}
