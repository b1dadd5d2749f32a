"""Schemas, bodies and choices for the tests of structured output."""

from __future__ import annotations

import enum
from typing import Any, Literal, Optional, Union

from pydantic import BaseModel, Field, field_validator


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Address(BaseModel):
    street: str
    number: Optional[int] = None  # noqa: UP045  # as users of Python 3.9 write it


class Person(BaseModel):
    """Person with fields of many kinds."""

    name: str = Field(description="In full.")
    born: int = Field(ge=1900, le=2025)
    colour: Colour = Colour.RED
    kind: Literal["friend", "foe"]
    home: Address
    work: Address | None = None
    contact: Union[int, str, Address]  # noqa: UP007
    scores: list[float]


class Node(BaseModel):
    label: str
    children: list[Node] = []


class Even(BaseModel):
    """Even number, which the JSON schema does not express."""

    value: int

    @field_validator("value")
    @classmethod
    def _is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("it is odd")
        return value


class Mode(enum.Enum):
    """Enum like `instructor.Mode`; instructor cannot be installed beside this openai."""

    TOOLS = "tool_call"


def schema_of(properties: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """Build the schema of an object whose properties are all required."""
    return {"title": "Thing", "type": "object", "properties": properties, "required": list(properties)} | rest


WORD = {"type": "string"}
COUNT = schema_of({"count": {"type": "integer"}})
ADDRESS = Address.model_json_schema()
ANSWER = schema_of({"answer": WORD})
MESSAGES = [{"role": "user", "content": "Describe somebody."}]
BODY = {"model": "gpt-4o-mini", "messages": MESSAGES, "n": 1}


def choice(content: str | None = None, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """Build a choice of a completion."""
    return {"index": 0, "finish_reason": finish_reason, "message": {"content": content, **message}}


def tool_choice(arguments: str) -> dict[str, Any]:
    """Build a choice that calls a tool."""
    call = {"id": "call_1", "type": "function", "function": {"name": "Thing", "arguments": arguments}}
    return choice(tool_calls=[call])


# Schema, answer, and generation of both LLMs.
FITS = [
    (COUNT, '{ "count" : 3 }', '{"count":3}'),
    (COUNT, '{"count": 3, "more": 4}', '{"count":3}'),
    (ADDRESS, '{"street": "Größe"}', '{"street":"Größe","number":null}'),
    (Address, '{"number": 3, "street": "A"}', '{"street":"A","number":3}'),
    (schema_of({"x": {"type": "number"}}), '{"x": 1}', '{"x":1.0}'),
    (schema_of({"x": {"type": "integer"}}), f'{{"x": {2**70}}}', f'{{"x":{2**70}}}'),
    (schema_of({"x": {"type": "integer", "default": 3}}, required=[]), "{}", '{"x":null}'),
    (schema_of({"x": {"anyOf": [{"type": "integer"}, WORD]}}), '{"x": "a"}', '{"x":"a"}'),
    (schema_of({"x": {"type": "object"}}), '{"x": {"a": [1, null]}}', '{"x":{"a":[1,null]}}'),
    (schema_of({"x": {"type": "string", "enum": ["a"]}}), '{"x": "a"}', '{"x":"a"}'),
]
