"""Tests of `structured_output.options`."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset
from pydantic import BaseModel

from distilabel_openai_batch.structured_output.options import dump_structured_output, parse_structured_output
from tests.support.schemas import ANSWER, COUNT, WORD, Mode, Person, schema_of


@pytest.mark.parametrize(
    ("title", "name"),
    [("Thing", "Thing"), ("Response[int]", "Response_int_"), ("Größe " * 20, None), ("", "answer"), (3, "answer")],
)
def test_title_of_a_schema_becomes_a_name_that_the_api_accepts(title, name):
    api_name = parse_structured_output(
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
    assert parse_structured_output({"schema": COUNT, "mode": mode}).mode == meant


@pytest.mark.parametrize(
    ("structured_output", "reason"),
    [
        ({}, "no `schema`"),
        ("json", "not a dictionary"),
        ({"schema": None}, "no `schema`"),
        ({"schema": "[a-z]+", "format": "regex"}, "'regex'; OpenAI supports only 'json'"),
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
        parse_structured_output(structured_output)


def test_schema_from_a_dataset_equals_the_original():
    """A column of a dataset gives each row's schema the keys of all rows' schemas, with empty values."""
    schemas = [COUNT, ANSWER | {"description": "An answer."}, schema_of({"one_of": {"enum": ["a", "b"]}})]
    column = Dataset.from_list([{"structured_output": {"format": "json", "schema": schema}} for schema in schemas])

    assert [parse_structured_output(option).schema for option in column["structured_output"]] == schemas


def test_equal_schemas_share_one_validator():
    """50,000 rows with one schema make one validator, for a dictionary and for text."""
    first = parse_structured_output({"schema": COUNT, "format": "json"})

    assert parse_structured_output({"schema": json.loads(json.dumps(COUNT))}) is first
    assert parse_structured_output({"schema": Person}) is parse_structured_output({"schema": Person})
    assert parse_structured_output({"schema": COUNT, "mode": "tools"}) is not first


def test_a_dump_has_the_json_schema_of_a_class():
    assert dump_structured_output({"schema": Person, "mode": "tools"}) == {
        "schema": Person.model_json_schema(),
        "mode": "tools",
    }
    assert dump_structured_output({"schema": COUNT}) == {"schema": COUNT}
    assert dump_structured_output(None) is None
