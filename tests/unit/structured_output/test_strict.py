"""Tests of `structured_output.strict`."""

from __future__ import annotations

import jsonschema
import pytest

from distilabel_openai_batch.structured_output.options import parse_structured_output
from distilabel_openai_batch.structured_output.strict import make_strict
from tests.support.schemas import ADDRESS, ANSWER, BODY, COUNT, WORD, schema_of


@pytest.mark.parametrize(
    "schema",
    [
        COUNT,
        ADDRESS,
        schema_of({"words": {"type": "array", "items": WORD, "minItems": 1}}),
        schema_of({"word": {"enum": ["a", "b"]}}, additionalProperties=False),
        schema_of({"word": WORD | {"default": "a", "examples": ["b"]}}, required=[]),
        schema_of({"word": {"type": ["string", "null"]}}, required=[]),
        schema_of({"word": WORD | {"pattern": "^(?:a|b)+$", "format": "date"}}),
        schema_of({"thing": {"anyOf": [{"$ref": "#/$defs/T"}, {"type": "null"}]}}, **{"$defs": {"T": COUNT}}),
    ],
    ids=str,
)
def test_schema_becomes_strict_where_possible(schema):
    """Every object is closed and every property required; other keywords are kept."""
    strict_schema = make_strict(schema)

    assert strict_schema is not None
    assert strict_schema["additionalProperties"] is False
    assert strict_schema["required"] == list(schema["properties"])
    assert "default" not in str(strict_schema)
    jsonschema.Draft202012Validator.check_schema(strict_schema)


@pytest.mark.parametrize(
    "schema",
    [
        schema_of({"word": WORD}, required=[]),
        schema_of({"word": WORD}, additionalProperties=True),
        schema_of({"word": WORD}, additionalProperties=WORD),
        schema_of({"word": WORD}, required=["word", "other"]),
        schema_of({"word": WORD}, patternProperties={"^x": WORD}),
        schema_of({"word": WORD | {"minLength": 3}}),
        schema_of({"word": WORD | {"format": "uri"}}),
        schema_of({"word": WORD | {"pattern": "a(?=b)"}}),
        schema_of({"word": {"oneOf": [WORD, {"type": "integer"}]}}),
        schema_of({"words": {"type": "array"}}),
        schema_of({"words": {"type": "array", "prefixItems": [WORD]}}),
        schema_of({"bag": {"type": "object"}}),
        schema_of({"anything": {}}),
        schema_of({"anything": True}),
        schema_of({"lost": {"$ref": "#/$defs/Nowhere"}}),
        schema_of({"deep": {"$ref": "#", "description": "It refers to itself."}}),
        schema_of({"many": {"enum": [f"{i}" for i in range(1_001)]}}),
        {"type": "array", "items": WORD},
        {"anyOf": [COUNT, ANSWER]},
    ],
    ids=str,
)
def test_schema_that_strict_would_change_is_sent_unchanged(schema):
    """With `strict` the schema would accept other answers, or the API would refuse the schema."""
    assert make_strict(schema) is None or "$ref" in str(schema)
    if make_strict(schema) is None:
        spec = parse_structured_output({"schema": schema}).apply_to(BODY)["response_format"]["json_schema"]
        assert (spec["strict"], spec["schema"]) == (False, schema)
