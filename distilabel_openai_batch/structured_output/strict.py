"""Conversion of JSON schemas to the subset that the API enforces with `strict`. Pure functions.

With `strict` a model cannot answer anything but the schema, but the API supports `strict` for some schemas only.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import openai
from pydantic import BaseModel

# Keywords, formats and limits of `strict`: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
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
# Keywords that restrict no answer, and that the API has refused.
_ANNOTATIONS = frozenset({"default", "examples", "deprecated", "readOnly", "writeOnly", "$comment"})
_LOOKAROUND = re.compile(r"\(\?<?[=!]")


def make_strict(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return a schema in the form that `strict` demands: every object closed, every property required.

    Returns:
        `None` if that form accepts other answers: the schema has open objects, an optional property that is neither
        nullable nor has a default, or keywords that `strict` does not support.
    """
    if not all(_may_be_strict(part) for part, _ in _parts(schema)):
        return None
    try:
        # The SDK converts schemas in this public function only.
        function = openai.pydantic_function_tool(_shell(schema), name="answer")["function"]
    except Exception:
        # The SDK fails on a reference to nowhere, and on a reference to itself with a description beside it.
        return None
    strict_schema: dict[str, Any] = copy.deepcopy(function["parameters"])
    for part, _ in _parts(strict_schema):
        for annotation in _ANNOTATIONS & part.keys():
            del part[annotation]
    parts = list(_parts(strict_schema))
    fits = (
        strict_schema.get("type") == "object"
        and all(_is_strict(part) for part, _ in parts)
        and sum(len(part.get("properties", ())) for part, _ in parts) <= _STRICT_PROPERTIES
        and sum(len(part.get("enum", ())) for part, _ in parts) <= _STRICT_ENUM_VALUES
        and max(level for _, level in parts) <= _STRICT_LEVELS
    )
    return strict_schema if fits else None


def _shell(schema: dict[str, Any]) -> type[BaseModel]:
    """Return a class with the given JSON schema."""

    class Shell(BaseModel):
        @classmethod
        def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return copy.deepcopy(schema)

    return Shell


def _parts(schema: object, level: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield a schema and all schemas inside, each with its depth in objects and arrays; skip values of other types."""
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
    """Return whether a part of a schema accepts the same answers in its strict form."""
    # Older releases of pydantic wrap a reference with a description into an `allOf` of one member → the SDK unwraps it.
    single_all_of = {"allOf"} if len(part.get("allOf", ())) == 1 else set()
    if not part.keys() - _ANNOTATIONS - single_all_of <= _STRICT_KEYWORDS:
        return False
    if not part.keys() & {"type", "enum", "const", "anyOf", "$ref", *single_all_of}:
        return False
    if part.get("format", "date") not in _STRICT_FORMATS or _LOOKAROUND.search(part.get("pattern", "")):
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
    """Return whether a part of a schema has the form that `strict` demands."""
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
