"""Which schemas the API can hold a model to, and how they are written then. Pure functions.

With `strict` the model cannot say anything else, but not every schema can be had so.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import openai
from pydantic import BaseModel

# What the API takes with `strict`: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
_STRICT_KEYWORDS = frozenset(
    """
    type title description enum const anyOf $ref $defs definitions properties required additionalProperties items
    pattern format multipleOf minimum maximum exclusiveMinimum exclusiveMaximum minItems maxItems $schema
    """.split()  # noqa: SIM905
)
_STRICT_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_STRICT_PROPERTIES = 5_000
_STRICT_LEVELS = 10
_STRICT_ENUM_VALUES = 1_000
# They say nothing of what is accepted, and the API has refused them.
_ANNOTATIONS = frozenset({"default", "examples", "deprecated", "readOnly", "writeOnly", "$comment"})
_LOOKS_AROUND = re.compile(r"\(\?<?[=!]")


def strict(schema: dict[str, Any]) -> dict[str, Any] | None:
    """A schema as the API takes it with `strict`: every object closed, every property required.

    Returns:
        `None` where that is no schema for the same answers: one that is open on purpose, has an optional property that
        cannot be null and has no default, or says what `strict` does not know.
    """
    if not all(_may_be_strict(part) for part, _ in _parts(schema)):
        return None
    try:
        # The SDK knows how, and has one public function that says it.
        function = openai.pydantic_function_tool(_shell(schema), name="answer")["function"]
    except Exception:
        # A reference that leads nowhere, or, with a description beside it, to itself.
        return None
    made: dict[str, Any] = copy.deepcopy(function["parameters"])
    for part, _ in _parts(made):
        for annotation in _ANNOTATIONS & part.keys():
            del part[annotation]
    parts = list(_parts(made))
    fits = (
        made.get("type") == "object"
        and all(_is_strict(part) for part, _ in parts)
        and sum(len(part.get("properties", ())) for part, _ in parts) <= _STRICT_PROPERTIES
        and sum(len(part.get("enum", ())) for part, _ in parts) <= _STRICT_ENUM_VALUES
        and max(level for _, level in parts) <= _STRICT_LEVELS
    )
    return made if fits else None


def _shell(schema: dict[str, Any]) -> type[BaseModel]:
    """A class whose JSON schema is the one given."""

    class Shell(BaseModel):
        @classmethod
        def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return copy.deepcopy(schema)

    return Shell


def _parts(schema: object, level: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """A schema and the schemas in it, each with how deep in objects and arrays it lies. What is none is left out."""
    if not isinstance(schema, dict):
        return
    yield schema, level
    for key in ("$defs", "definitions", "properties"):
        parts = schema.get(key)
        for part in parts.values() if isinstance(parts, dict) else ():
            yield from _parts(part, level + (key == "properties"))
    yield from _parts(schema.get("items"), level + 1)
    for key in ("anyOf", "allOf"):
        alternatives = schema.get(key)
        for part in alternatives if isinstance(alternatives, list) else ():
            yield from _parts(part, level)


def _may_be_strict(part: dict[str, Any]) -> bool:
    """Whether a part of a schema can be closed without changing what it is for."""
    # pydantic has written a reference with a description as the only member of an `allOf`; the SDK unwraps it.
    alone = {"allOf"} if len(part.get("allOf", ())) == 1 else set()
    if not part.keys() - _ANNOTATIONS - alone <= _STRICT_KEYWORDS:
        return False
    if not part.keys() & {"type", "enum", "const", "anyOf", "$ref", *alone}:
        return False
    if part.get("format", "date") not in _STRICT_FORMATS or _LOOKS_AROUND.search(part.get("pattern", "")):
        return False
    if not _is_object(part):
        return not _is_type(part, "array") or isinstance(part.get("items"), dict)
    properties = part.get("properties")
    if part.get("additionalProperties", False) is not False or not isinstance(properties, dict):
        return False
    required = part.get("required", [])
    return set(required) <= properties.keys() and all(
        key in required or _is_nullable(value) or (isinstance(value, dict) and "default" in value)
        for key, value in properties.items()
    )


def _is_strict(part: dict[str, Any]) -> bool:
    """Whether a part of a schema is as the API wants it."""
    if not part.keys() <= _STRICT_KEYWORDS or ("$ref" in part and len(part) > 1):
        return False
    if not _is_object(part):
        return True
    return part.get("additionalProperties") is False and part.get("required") == list(part.get("properties", ()))


def _is_object(part: dict[str, Any]) -> bool:
    return _is_type(part, "object") or "properties" in part


def _is_type(part: dict[str, Any], name: str) -> bool:
    kind = part.get("type")
    return kind == name or (isinstance(kind, list) and name in kind)


def _is_nullable(part: object) -> bool:
    if not isinstance(part, dict):
        return False
    return _is_type(part, "null") or None in part.get("enum", ()) or any(map(_is_nullable, part.get("anyOf", ())))
