"""Parser of the field `structured_output`: schema, mode and number of retries as users write them."""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson
from jsonschema.exceptions import SchemaError
from jsonschema.validators import Draft202012Validator, validator_for
from pydantic import BaseModel

from distilabel_openai_batch.structured_output.schema import Mode, StructuredOutput, shorten
from distilabel_openai_batch.structured_output.schema_cost import LARGEST_SIZE, SchemaCost
from distilabel_openai_batch.structured_output.strict import make_strict
from distilabel_openai_batch.structured_output.validator import SchemaValidator

# Accepted values of `mode`: our own names, and the values of `instructor.Mode` for OpenAI, most of which are synonyms.
_MODES: dict[str | None, Mode] = {
    None: "json_schema",
    "json_schema": "json_schema",
    "json_schema_mode": "json_schema",
    "tools": "tools",
    "tool_call": "tools",
    "tools_strict": "tools",
    "functions": "tools",
    "function_call": "tools",
    "json_object": "json_object",
    "json": "json_object",
    "json_mode": "json_object",
    "json_o1": "json_object",
    "md_json": "json_object",
    "markdown_json_mode": "json_object",
}

# Default of `OpenAILLM`.
_MAX_RETRIES = 1

# Each retry is billed, and a row may bring its own number.
_MOST_RETRIES = 100

# A parsed schema holds two pydantic classes and a validator, some 100 kB. If each row has its own schema, the cache
# must not keep them all.
_SCHEMAS_CACHED = 256


def parse_structured_output(structured_output: Mapping[str, Any]) -> StructuredOutput:
    """Parse a user's `structured_output`; equal schemas are parsed once.

    Args:
        structured_output: `schema` (a pydantic model, a JSON schema, or the text of a JSON schema), and optionally
            `mode` and `max_retries`, as for `OpenAILLM`.

    Raises:
        ValueError: the schema, the mode or the number of retries is invalid.
    """
    if not isinstance(structured_output, Mapping):
        raise ValueError(f"`structured_output` is not a dictionary: {structured_output!r}")
    if structured_output.get("format") not in (None, "json"):
        raise ValueError(
            f"`structured_output` has the format {structured_output['format']!r}; OpenAI supports only 'json'"
        )
    mode = _parse_mode(structured_output.get("mode"))
    max_retries = structured_output.get("max_retries")
    max_retries = _MAX_RETRIES if max_retries is None else max_retries
    if not isinstance(max_retries, int) or not 0 <= max_retries <= _MOST_RETRIES:
        raise ValueError(
            f"`structured_output` has `max_retries` {max_retries!r}, which must be an integer from 0 to {_MOST_RETRIES}"
        )
    schema = structured_output.get("schema")
    if not schema:
        raise ValueError("`structured_output` has no `schema`")
    if inspect.isclass(schema) and issubclass(schema, BaseModel):
        return _parse_model(schema, mode, max_retries)
    if isinstance(schema, str):
        return _parse_json(schema.encode(), mode, max_retries)
    try:
        text = orjson.dumps(_drop_none(schema))
    except TypeError as error:
        raise ValueError(f"the schema of `structured_output` cannot be written as JSON: {error}") from None
    return _parse_json(text, mode, max_retries)


def dump_structured_output(structured_output: object) -> object:
    """Return a user's `structured_output` for a dump: the JSON schema replaces a class."""
    if not isinstance(structured_output, Mapping):
        return structured_output
    dump = dict(structured_output)
    schema = dump.get("schema")
    if inspect.isclass(schema) and issubclass(schema, BaseModel):
        dump["schema"] = schema.model_json_schema()
    return dump


def _drop_none(schema: object) -> object:
    """Return a schema without keys whose value is `None`.

    Rows pass through Arrow, which gives all dictionaries of a column the same keys. In a schema `None` has a meaning
    only as the value of `const`, where `type` says the same.
    """
    if isinstance(schema, dict):
        return {key: _drop_none(value) for key, value in schema.items() if value is not None}
    return [_drop_none(value) for value in schema] if isinstance(schema, list) else schema


def _parse_mode(mode: object) -> Mode:
    name = mode.value if isinstance(mode, enum.Enum) else mode
    if not isinstance(name, (str, type(None))) or name not in _MODES:
        names = ", ".join(sorted(repr(name) for name in _MODES if name))
        raise ValueError(f"`structured_output` has the mode {name!r}, which is none of {names}")
    return _MODES[name]


@lru_cache(_SCHEMAS_CACHED)
def _parse_model(model: type[BaseModel], mode: Mode, max_retries: int) -> StructuredOutput:
    try:
        schema = model.model_json_schema()
    except Exception as error:
        raise ValueError(f"`{model.__name__}` of `structured_output` has no JSON schema: {error}") from None
    return _create(schema, mode, max_retries, model)


@lru_cache(_SCHEMAS_CACHED)
def _parse_json(text: bytes, mode: Mode, max_retries: int) -> StructuredOutput:
    try:
        schema = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the schema of `structured_output` is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ValueError("the schema of `structured_output` is not a JSON object")
    return _create(schema, mode, max_retries, None)


def _create(schema: dict[str, Any], mode: Mode, max_retries: int, model: type[BaseModel] | None) -> StructuredOutput:
    validator = validator_for(schema, default=Draft202012Validator)
    cost = SchemaCost(schema)
    if cost.size > LARGEST_SIZE:
        raise ValueError(
            f"the schema of `structured_output` has {cost.size:,} parts with its references followed, and may have"
            f" {LARGEST_SIZE:,}"
        )
    try:
        validator.check_schema(schema)
    except SchemaError as error:
        path = "".join(f"/{part}" for part in error.path)
        reason = shorten(error.message)
        raise ValueError(f"the schema of `structured_output` is not a JSON schema: {reason} (at #{path})") from None
    title = schema.get("title")
    return StructuredOutput(
        name=re.sub(r"[^a-zA-Z0-9_-]", "_", title)[:64] if isinstance(title, str) and title else "answer",
        schema=schema,
        strict_schema=make_strict(schema),
        mode=mode,
        max_retries=max_retries,
        model=model,
        distilabel_model=_convert_by_distilabel(schema),
        _validator=SchemaValidator(schema, cost),
    )


def _convert_by_distilabel(schema: dict[str, Any]) -> type[BaseModel] | None:
    """Return the class that distilabel makes of a schema; `None` if that fails, or would drop all of an answer."""
    from distilabel.steps.tasks.structured_outputs.utils import json_schema_to_model

    if not schema.get("properties"):
        return None
    try:
        model: type[BaseModel] = json_schema_to_model(schema)
    except Exception:
        # distilabel raises many errors for unknown keywords, and `RecursionError` for a schema that contains itself.
        return None
    return model
