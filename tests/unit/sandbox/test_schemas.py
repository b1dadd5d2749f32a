"""Values that fit a JSON schema, and the check of `strict` schemas."""

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilabel_openai_batch.sandbox.errors import ApiError
from distilabel_openai_batch.sandbox.model.schemas import SchemaSampler, check_strict

TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "string"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["value", "children", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a", "b"]},
    {"type": "array", "items": {"type": "number", "minimum": 0.5, "exclusiveMaximum": 2}, "minItems": 2, "maxItems": 4},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "boolean"}], "minItems": 2, "maxItems": 2},
    {"enum": ["red", "green", None]},
    {"const": {"x": 1}},
    {"type": ["string", "null"], "maxLength": 5, "minLength": 5},
    {"type": "integer", "minimum": -7, "maximum": -7},
    {"type": "integer", "exclusiveMinimum": 10, "multipleOf": 4},
    {"type": "integer", "maximum": -3},
    {"type": "number", "minimum": 0.1, "maximum": 0.2},
    {"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"required": ["b"]}], "type": "object"},
    {"oneOf": [{"type": "integer"}, {"type": "object", "properties": {"q": {"type": "null"}}, "required": ["q"]}]},
    {"type": "string", "format": "date-time"},
    {},
    TREE,
    {"type": "object", "properties": {"again": {"$ref": "#"}, "end": {"type": "boolean"}}, "required": ["end"]},
]


@pytest.mark.parametrize("schema", SCHEMAS)
@given(number=st.integers(0, 2**64 - 1), text=st.text())
@settings(max_examples=30, deadline=None)
def test_value_fits_the_schema(schema, number, text):
    """Fit for every seed and text, recursive schemas included; equal arguments give equal values."""
    value = SchemaSampler(schema, text, number).sample()
    jsonschema.Draft202012Validator(schema).validate(value)
    assert value == SchemaSampler(schema, text, number).sample()


def test_values_differ_by_seed():
    """The `n` choices of an answer must not be equal."""
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    assert len({SchemaSampler(schema, "x", number).sample()["text"] for number in range(20)}) > 10


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"self": {"$ref": "#"}}, "required": ["self"]},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "#"},
    ],
)
def test_schema_without_a_finite_value_is_refused(schema):
    """Raise instead of looping for ever."""
    with pytest.raises(ApiError, match="Invalid schema"):
        SchemaSampler(schema, "x", 1).sample()


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"type": "object", "properties": {}}, "In context=(), 'additionalProperties' is required"),
        (
            {"type": "object", "properties": {"a": {}}, "required": [], "additionalProperties": False},
            "Missing 'a'.",
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "array", "items": {"type": "object", "properties": {}}}},
                "required": ["a"],
                "additionalProperties": False,
            },
            "In context=('properties', 'a', 'items'), 'additionalProperties'",
        ),
        ({"$defs": {"x": {"type": "object"}}, "anyOf": [{"$ref": "#/$defs/x"}]}, "('$defs', 'x')"),
    ],
)
def test_strict_schema_must_be_closed(schema, complaint):
    """Check at every depth, and name the place, as OpenAI does."""
    with pytest.raises(ApiError) as caught:
        check_strict(schema, "name")
    assert complaint in caught.value.message


def test_closed_schema_passes_the_strict_check():
    """Accept recursive schemas too."""
    check_strict(TREE, "tree")
