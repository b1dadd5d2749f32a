"""JSON schemas: a generator of values that fit a schema, and the check of `strict` schemas."""

from __future__ import annotations

from typing import Any

from ..errors import ApiError
from .prose import write_prose

# Beyond this depth, omit optional parts and choose the shallowest alternatives, so that recursive schemas end.
_SHALLOW_DEPTH = 4
# Beyond this depth, or this number of references in a row, the schema has no finite value.
_MAX_DEPTH = 60

_FORMATS = {
    "date": "2025-03-14",
    "date-time": "2025-03-14T09:26:53Z",
    "time": "09:26:53Z",
    "duration": "PT15M",
    "email": "reader@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.7",
    "ipv6": "2001:db8::7",
    "uri": "https://example.com/page",
    "uuid": "9f2c1d34-5b6a-4c7d-8e9f-0a1b2c3d4e5f",
}
# Properties that hold a label.
_LABELS = ("name", "title", "label", "city", "country", "id", "category", "topic")


class SchemaSampler:
    """Generator of a value that fits a JSON schema; equal arguments give equal values.

    Args:
        schema: JSON schema.
        text: text of the prompt, which the strings of the value restate.
        seed: seed of the pseudo-random choices.
    """

    def __init__(self, schema: dict[str, Any], text: str, seed: int) -> None:
        self._root = schema
        self._text = text
        self._state = seed

    def sample(self) -> Any:
        """Return a value that fits the schema.

        Raises:
            ApiError: if the schema has no finite value, or a `$ref` leads nowhere.
        """
        return self._sample(self._root, "value", 0)

    def _next(self, bound: int) -> int:
        """Return a pseudo-random integer from 0 to `bound - 1`."""
        # Linear congruential generator with Knuth's MMIX constants: much faster to seed than `random.Random`.
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self._state >> 33) % bound

    def _sample(self, schema: Any, name: str, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ApiError(400, "Invalid schema: it has no finite instance.", param="response_format")
        if not isinstance(schema, dict):
            return write_prose(self._text, self._next(1_000))
        schema = self._resolve(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][self._next(len(schema["enum"]))]
        for key in ("anyOf", "oneOf"):
            if key in schema:
                rest = {other: value for other, value in schema.items() if other not in ("anyOf", "oneOf")}
                return self._sample(
                    {**rest, **self._resolve(self._choose_alternative(schema[key], depth))}, name, depth + 1
                )
        return self._sample_type(schema, self._choose_type(schema, depth), name, depth)

    def _sample_type(self, schema: dict[str, Any], type_name: str, name: str, depth: int) -> Any:
        if type_name == "object":
            required = schema.get("required", [])
            properties = schema.get("properties", {})
            return {
                key: self._sample(properties.get(key, {}), key, depth + 1)
                for key in dict.fromkeys([*properties, *required])
                if depth < _SHALLOW_DEPTH or key in required
            }
        if type_name == "array":
            return self._array(schema, name, depth)
        if type_name == "string":
            return self._string(schema, name)
        if type_name in ("integer", "number"):
            return self._number(schema, type_name)
        return self._next(2) == 1 if type_name == "boolean" else None

    def _resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Return the schema with `$ref` followed and `allOf` merged."""
        for _ in range(_MAX_DEPTH):
            reference = schema.get("$ref")
            if reference is None:
                break
            target: Any = self._root
            for step in str(reference).lstrip("#").strip("/").split("/"):
                if step:
                    step = step.replace("~1", "/").replace("~0", "~")
                    target = target.get(step) if isinstance(target, dict) else None
            if not isinstance(target, dict):
                raise ApiError(400, f"Invalid schema: '{reference}' does not exist.", param="response_format")
            schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
        else:
            raise ApiError(400, "Invalid schema: a reference leads to itself.", param="response_format")
        merged = dict(schema)
        for part in merged.pop("allOf", []):
            part = self._resolve(part)
            merged = {
                **merged,
                **part,
                "properties": {**merged.get("properties", {}), **part.get("properties", {})},
                "required": [*merged.get("required", []), *part.get("required", [])],
            }
        return merged

    def _choose_alternative(self, alternatives: list[Any], depth: int) -> dict[str, Any]:
        usable = [part for part in alternatives if isinstance(part, dict)]
        if depth < _SHALLOW_DEPTH:
            return dict(usable[self._next(len(usable))])
        return dict(sorted(usable, key=self._nesting)[0])

    def _nesting(self, schema: dict[str, Any]) -> int:
        """Return a rank of how deep the values of a schema nest; the lowest rank ends a recursion soonest."""
        schema = self._resolve(schema)
        if "enum" in schema or "const" in schema:
            return 0
        if "anyOf" in schema or "oneOf" in schema:
            return 2
        type_name = self._choose_type(schema, _SHALLOW_DEPTH)
        if type_name == "array":
            return 1 if not schema.get("minItems") else 3
        if type_name == "object":
            return 4 if "$ref" in str(schema.get("properties")) else 3
        return 0

    def _choose_type(self, schema: dict[str, Any], depth: int) -> str:
        types = schema.get("type")
        if isinstance(types, list):
            if depth >= _SHALLOW_DEPTH and "null" in types:
                return "null"
            return str(types[self._next(len(types))])
        if isinstance(types, str):
            return types
        if "properties" in schema:
            return "object"
        return "array" if "items" in schema or "prefixItems" in schema else "string"

    def _array(self, schema: dict[str, Any], name: str, depth: int) -> list[Any]:
        minimum = int(schema.get("minItems", 0))
        maximum = int(schema.get("maxItems", max(minimum, 3)))
        length = minimum if depth >= _SHALLOW_DEPTH else max(minimum, min(maximum, 1 + self._next(3)))
        prefix = schema.get("prefixItems", [])[:maximum]
        items = [self._sample(part, name, depth + 1) for part in prefix]
        while len(items) < length:
            items.append(self._sample(schema.get("items", {}), name, depth + 1))
        return items

    def _string(self, schema: dict[str, Any], name: str) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = write_prose(self._text, self._next(1_000))
        # A label of four sentences would look odd, so keep four words.
        if name in _LABELS:
            text = " ".join(text.split()[:4])
        text = text[: int(schema.get("maxLength", len(text)))]
        minimum = int(schema.get("minLength", 0))
        return text if len(text) >= minimum else (text + " ").ljust(minimum, ".")

    def _number(self, schema: dict[str, Any], type_name: str) -> int | float:
        step = schema.get("multipleOf", 1 if type_name == "integer" else 0.5)
        low = schema.get("minimum", schema.get("exclusiveMinimum"))
        high = schema.get("maximum", schema.get("exclusiveMaximum"))
        if low is None:
            low = 1 if high is None or high > 1 else high - 4 * step
        if high is None:
            high = low + 4 * step
        first = -(-low // step)
        if "exclusiveMinimum" in schema and first * step <= schema["exclusiveMinimum"]:
            first += 1
        last = high // step
        if "exclusiveMaximum" in schema and last * step >= schema["exclusiveMaximum"]:
            last -= 1
        if last < first:
            # If no multiple of `step` fits between the bounds, take the middle.
            return int(low) if type_name == "integer" else (low + high) / 2
        value = (first + self._next(int(last - first) + 1)) * step
        return int(value) if type_name == "integer" else float(value)


def check_strict(schema: Any, name: str, path: tuple[str, ...] = ()) -> None:
    """Check OpenAI's rules for a schema with `strict: true`.

    See https://platform.openai.com/docs/guides/structured-outputs#supported-schemas.

    Args:
        schema: JSON schema, or a part of a schema.
        name: name of the schema, for the message.
        path: keys from the root to this part, for the message.

    Raises:
        ApiError: if an object allows additional properties, or has a property that is not required.
    """
    if isinstance(schema, list):
        for index, part in enumerate(schema):
            check_strict(part, name, (*path, str(index)))
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        complaint = None
        if schema.get("additionalProperties") is not False:
            complaint = "'additionalProperties' is required to be supplied and to be false."
        elif missing := [key for key in properties if key not in schema.get("required", [])]:
            complaint = (
                "'required' is required to be supplied and to be an array including every key in properties. "
                f"Missing '{missing[0]}'."
            )
        if complaint is not None:
            message = f"Invalid schema for response_format '{name}': In context={path!r}, {complaint}"
            raise ApiError(400, message, param="response_format")
        for key, part in properties.items():
            check_strict(part, name, (*path, "properties", key))
    for key in ("items", "anyOf", "prefixItems"):
        check_strict(schema.get(key), name, (*path, key))
    for key in ("$defs", "definitions"):
        for label, part in schema.get(key, {}).items():
            check_strict(part, name, (*path, key, label))
