"""Size of a schema with its references followed, and the keywords whose check may be slow."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.structured_output.options import parse_structured_output
from distilabel_openai_batch.structured_output.schema_cost import LARGEST_SIZE, SchemaCost
from tests.support.schemas import ANSWER, Address, Node


def doubling(levels: int, place: str = "$defs") -> dict:
    """Return a schema whose size doubles with each level."""
    definitions: dict = {"level0": {"type": "object", "properties": {"x": {"type": "string"}}}}
    for level in range(1, levels + 1):
        reference = {"$ref": f"#/{place}/level{level - 1}"}
        definitions[f"level{level}"] = {"type": "object", "properties": {"a": reference, "b": reference}}
    return {"type": "object", "properties": {"a": {"$ref": f"#/{place}/level{levels}"}}, place: definitions}


def test_references_are_counted_with_their_targets():
    assert SchemaCost({"type": "string"}).size == 1
    assert (
        SchemaCost({"$defs": {"a": {"enum": [1]}}, "anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}).size == 7
    )


@pytest.mark.parametrize("place", ["$defs", "definitions", "properties"])
def test_a_schema_that_explodes_is_refused_at_once(place):
    """Two to the power of fifty parts would take years."""
    assert SchemaCost(doubling(8, place)).size < LARGEST_SIZE
    assert SchemaCost(doubling(50, place)).size > 2**50
    with pytest.raises(ValueError, match="parts with its references followed"):
        parse_structured_output({"schema": doubling(50, place)})


QUICK = [
    ANSWER,
    Address.model_json_schema(),
    doubling(8),
    {"type": "object", "properties": {"name": {"$ref": "#/properties/other"}, "other": {"type": "string"}}},
    {"items": [{"type": "string"}, {"$ref": "#/items/0"}]},
]
SLOW = {
    "pattern": {"type": "string", "pattern": "a"},
    "pattern in an array": {"items": {"anyOf": [{"pattern": "a"}]}},
    "pattern of names": {"propertyNames": {"pattern": "a"}},
    "pattern properties": {"patternProperties": {"a": {}}},
    "a circle": Node.model_json_schema(),
    "a circle through the root": {"properties": {"child": {"$ref": "#"}}},
    "a circle of two": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    "an anchor": {"$defs": {"a": {"$anchor": "here"}}, "$ref": "#here"},
    "a dynamic reference": {"$dynamicAnchor": "node", "properties": {"child": {"$dynamicRef": "#node"}}},
    "a reference to nowhere": {"$ref": "#/$defs/missing"},
    "a reference into a list's end": {"items": [{"$ref": "#/items/7"}]},
    "another host": {"$ref": "https://example.com/schema.json"},
}


@pytest.mark.parametrize("schema", QUICK)
def test_an_ordinary_schema_is_quick(schema):
    assert not SchemaCost(schema).may_be_slow


@pytest.mark.parametrize("schema", SLOW.values(), ids=SLOW.keys())
def test_patterns_and_circles_may_be_slow(schema):
    assert SchemaCost(schema).may_be_slow


def test_a_deeply_nested_schema_is_measured():
    schema: dict = {}
    for _ in range(5_000):
        schema = {"items": schema}
    assert SchemaCost(schema).size == 5_001
