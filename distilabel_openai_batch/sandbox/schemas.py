"""JSON schemas: a value that fits one, and what OpenAI demands of a strict one."""

from __future__ import annotations

from typing import Any

from .errors import ApiError
from .prose import prose

# Deeper than this, optional parts are left out and the flattest alternatives are taken, so that recursive schemas end.
_DEEP = 4
_TOO_DEEP = 60

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


class Instance:
    """Makes a value that fits a schema: the same one each time for the same schema, text and number."""

    def __init__(self, schema: dict[str, Any], text: str, number: int) -> None:
        self._root = schema
        self._text = text
        self._number = number

    def value(self) -> Any:
        """Returns the value.

        Raises:
            ApiError: if there is no finite value.
        """
        return self._make(self._root, "value", 0)

    def _next(self, below: int) -> int:
        # A linear congruential generator (Knuth's MMIX constants): much quicker to seed than `random.Random`.
        self._number = (self._number * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self._number >> 33) % below

    def _make(self, schema: Any, name: str, depth: int) -> Any:
        if depth > _TOO_DEEP:
            raise ApiError(400, "Invalid schema: it has no finite instance.", param="response_format")
        if not isinstance(schema, dict):
            return prose(self._text, self._next(1_000))
        schema = self._resolve(schema)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return schema["enum"][self._next(len(schema["enum"]))]
        for key in ("anyOf", "oneOf"):
            if key in schema:
                rest = {other: value for other, value in schema.items() if other not in ("anyOf", "oneOf")}
                return self._make({**rest, **self._resolve(self._choose(schema[key], depth))}, name, depth + 1)
        return self._typed(schema, self._kind(schema, depth), name, depth)

    def _typed(self, schema: dict[str, Any], kind: str, name: str, depth: int) -> Any:
        if kind == "object":
            required = schema.get("required", [])
            properties = schema.get("properties", {})
            return {
                key: self._make(properties.get(key, {}), key, depth + 1)
                for key in dict.fromkeys([*properties, *required])
                if depth < _DEEP or key in required
            }
        if kind == "array":
            return self._array(schema, name, depth)
        if kind == "string":
            return self._string(schema, name)
        if kind in ("integer", "number"):
            return self._number_between(schema, kind)
        return self._next(2) == 1 if kind == "boolean" else None

    def _resolve(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Returns the schema with `$ref` followed and `allOf` merged."""
        for _ in range(_TOO_DEEP):
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

    def _choose(self, alternatives: list[Any], depth: int) -> dict[str, Any]:
        usable = [part for part in alternatives if isinstance(part, dict)]
        if depth < _DEEP:
            return dict(usable[self._next(len(usable))])
        return dict(sorted(usable, key=self._nesting)[0])

    def _nesting(self, schema: dict[str, Any]) -> int:
        """Returns how far a schema is from being a plain value: the least is the quickest way out of a recursion."""
        schema = self._resolve(schema)
        if "enum" in schema or "const" in schema:
            return 0
        if "anyOf" in schema or "oneOf" in schema:
            return 2
        kind = self._kind(schema, _DEEP)
        if kind == "array":
            return 1 if not schema.get("minItems") else 3
        if kind == "object":
            return 4 if "$ref" in str(schema.get("properties")) else 3
        return 0

    def _kind(self, schema: dict[str, Any], depth: int) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            if depth >= _DEEP and "null" in kind:
                return "null"
            return str(kind[self._next(len(kind))])
        if isinstance(kind, str):
            return kind
        if "properties" in schema:
            return "object"
        return "array" if "items" in schema or "prefixItems" in schema else "string"

    def _array(self, schema: dict[str, Any], name: str, depth: int) -> list[Any]:
        least = int(schema.get("minItems", 0))
        most = int(schema.get("maxItems", max(least, 3)))
        length = least if depth >= _DEEP else max(least, min(most, 1 + self._next(3)))
        first = schema.get("prefixItems", [])[:most]
        items = [self._make(part, name, depth + 1) for part in first]
        while len(items) < length:
            items.append(self._make(schema.get("items", {}), name, depth + 1))
        return items

    def _string(self, schema: dict[str, Any], name: str) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = prose(self._text, self._next(1_000))
        # Short names are labels rather than texts: a "name" of four sentences would look odd.
        if name in ("name", "title", "label", "city", "country", "id", "category", "topic"):
            text = " ".join(text.split()[:4])
        text = text[: int(schema.get("maxLength", len(text)))]
        least = int(schema.get("minLength", 0))
        return text if len(text) >= least else (text + " ").ljust(least, ".")

    def _number_between(self, schema: dict[str, Any], kind: str) -> int | float:
        step = schema.get("multipleOf", 1 if kind == "integer" else 0.5)
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
        if last < first:  # no multiple of our own choosing fits: only a fraction does
            return int(low) if kind == "integer" else (low + high) / 2
        value = (first + self._next(int(last - first) + 1)) * step
        return int(value) if kind == "integer" else float(value)


def check_strict(schema: Any, name: str, where: tuple[str, ...] = ()) -> None:
    """Checks what OpenAI demands of a schema used with `strict`.

    See https://platform.openai.com/docs/guides/structured-outputs#supported-schemas.

    Args:
        schema: the schema.
        name: its name, for the message.
        where: the path to it, for the message.

    Raises:
        ApiError: if an object allows further properties, or has one that is not required.
    """
    if isinstance(schema, list):
        for index, part in enumerate(schema):
            check_strict(part, name, (*where, str(index)))
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
            message = f"Invalid schema for response_format '{name}': In context={where!r}, {complaint}"
            raise ApiError(400, message, param="response_format")
        for key, part in properties.items():
            check_strict(part, name, (*where, "properties", key))
    for key in ("items", "anyOf", "prefixItems"):
        check_strict(schema.get(key), name, (*where, key))
    for key in ("$defs", "definitions"):
        for label, part in schema.get(key, {}).items():
            check_strict(part, name, (*where, key, label))
