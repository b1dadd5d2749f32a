"""Values that fit a schema."""

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilabel_openai_batch.sandbox.errors import ApiError
from distilabel_openai_batch.sandbox.schemas import Instance, check_strict

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
def test_the_value_fits_its_schema(schema, number, text):
    """Whatever is asked, and recursive schemas end."""
    value = Instance(schema, text, number).value()
    jsonschema.Draft202012Validator(schema).validate(value)
    assert value == Instance(schema, text, number).value()


def test_values_differ():
    """So that `n` choices are not all alike."""
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    assert len({Instance(schema, "x", number).value()["text"] for number in range(20)}) > 10


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"self": {"$ref": "#"}}, "required": ["self"]},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "#"},
    ],
)
def test_a_schema_without_a_value_is_refused(schema):
    """Rather than looping for ever."""
    with pytest.raises(ApiError, match="Invalid schema"):
        Instance(schema, "x", 1).value()


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
def test_a_strict_schema_must_be_closed(schema, complaint):
    """As OpenAI demands, at any depth, and the place is named."""
    with pytest.raises(ApiError) as caught:
        check_strict(schema, "name")
    assert complaint in caught.value.message


def test_a_closed_schema_may_be_strict():
    """Recursive ones too."""
    check_strict(TREE, "tree")
