"""Structured output: how a schema is asked for, and whether an answer fits it. Pure functions that know no network.

distilabel leaves both to `instructor`, which calls the API itself and so cannot write a batch's requests; and none can
be installed beside today's openai. Here the schema goes into the request in the API's own terms. What comes out of an
answer is the text that `OpenAILLM` would have made of it.

The API: https://platform.openai.com/docs/guides/structured-outputs
"""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import orjson
from jsonschema.exceptions import SchemaError
from jsonschema.validators import Draft202012Validator, validator_for
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json
from referencing import Registry

from distilabel_openai_batch.api.failure_codes import CONTENT_FILTER, INVALID, REFUSAL, TRUNCATED
from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.structured_output.strict import strict

Mode = Literal["json_schema", "tools", "json_object"]

# What a user may write as `mode`: our own names, and the values of `instructor.Mode` that are OpenAI's, most of them
# names for the same thing.
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

# `OpenAILLM` has this default.
_MAX_RETRIES = 1

# A reading holds two pydantic classes and a validator, some 100 kB; a schema for each row must not hold them all.
_READINGS_KEPT = 256

_ERRORS_TOLD = 5
_CHARACTERS_TOLD = 300


class _Invalid(Exception):
    """What is wrong with an answer, in words for the model and the log."""

    def __init__(self, reason: str, helps: bool = True) -> None:
        super().__init__(reason)
        self.helps = helps


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a choice of an answer cannot be used.

    Attributes:
        failure: what became of it.
        helps: whether asking again may help.
    """

    failure: Failure
    helps: bool


@dataclass(frozen=True, slots=True, eq=False)
class StructuredOutput:
    """What an answer has to look like, and how it is asked for.

    Attributes:
        name: the schema's name, of letters, digits, `_` and `-`, at most 64.
        schema: the JSON schema that answers are held against.
        strict_schema: as the API takes it with `strict`; `None` where that would be another schema.
        mode: which of the API's ways is used.
        max_retries: how often an answer that does not fit is asked for again.
        model: the user's own class, if the schema was given as one.
        converted: the class that distilabel makes of the schema, where it can.
    """

    name: str
    schema: dict[str, Any]
    strict_schema: dict[str, Any] | None
    mode: Mode
    max_retries: int
    model: type[BaseModel] | None
    converted: type[BaseModel] | None
    _validator: Any = field(repr=False)

    def asked_for(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a request that asks for it.

        Args:
            body: of the request that does not. A `response_format` of its own gives way.
        """
        asked = {key: value for key, value in body.items() if key != "response_format"}
        strict = self.strict_schema is not None
        schema = self.strict_schema or self.schema
        if self.mode == "json_schema":
            spec = {"name": self.name, "schema": schema, "strict": strict}
            return asked | {"response_format": {"type": "json_schema", "json_schema": spec}}
        if self.mode == "tools":
            function: dict[str, Any] = {"name": self.name, "parameters": schema}
            if isinstance(description := self.schema.get("description"), str):
                function["description"] = description
            if strict:
                # A server that has no `json_schema` may not know this word either, and is not to see it in vain.
                function["strict"] = True
            choice = {"type": "function", "function": {"name": self.name}}
            return asked | {"tools": [{"type": "function", "function": function}], "tool_choice": choice}
        return asked | {
            "messages": _with_instruction(asked["messages"], self.schema),
            "response_format": {"type": "json_object"},
        }

    def read(self, choice: object) -> str | Rejection:
        """Reads one choice of an answer.

        Args:
            choice: as the server gave it.

        Returns:
            The JSON text that stands for it, or why there is none.
        """
        choice = choice if isinstance(choice, dict) else {}
        message = _message(choice)
        if refusal := message.get("refusal"):
            return Rejection(Failure(f"The model refused: {refusal}", code=REFUSAL), helps=False)
        try:
            return self._fitting(_text(message))
        except _Invalid as invalid:
            match choice.get("finish_reason"):
                case "length":
                    told = "The answer was cut at the token limit; `max_new_tokens` may be higher"
                    return Rejection(Failure(told, code=TRUNCATED), helps=False)
                case "content_filter":
                    told = "The answer was withheld by the content filter"
                    return Rejection(Failure(told, code=CONTENT_FILTER), helps=False)
            told = f"The answer does not fit the schema: {invalid}"
            return Rejection(Failure(told, code=INVALID), invalid.helps)

    def asked_again(self, body: Mapping[str, Any], choice: object, reason: str) -> dict[str, Any]:
        """The body of a request that asks again for one choice, and tells the model what was wrong with it.

        Args:
            body: of the request before.
            choice: that did not fit.
            reason: why not.
        """
        message = _message(choice)
        told = f"{reason}. Answer again, with nothing but JSON that fits the schema."
        messages = list(body["messages"])
        if calls := _tool_calls(message):
            # Each call of a tool has to be answered.
            messages.append({"role": "assistant", "content": message.get("content"), "tool_calls": calls})
            messages += [{"role": "tool", "tool_call_id": call.get("id"), "content": told} for call in calls]
        else:
            if content := message.get("content"):
                messages.append({"role": "assistant", "content": content})
            messages.append({"role": "user", "content": told})
        return {**body, "messages": messages, "n": 1}

    def _fitting(self, text: str) -> str:
        """The text in the form that `OpenAILLM` gives it.

        Raises:
            _Invalid: it does not fit.
        """
        try:
            return self._as_model(text) if self.model else self._as_schema(text)
        except _Invalid:
            raise
        except ValidationError as error:
            raise _Invalid(_told_by_pydantic(error)) from None
        except Exception as error:
            # A validator of the user's own; or the schema's fault, such as a reference that leads nowhere.
            raise _Invalid(_shortened(f"{type(error).__name__}: {error}"), helps=self.model is not None) from None

    def _as_model(self, text: str) -> str:
        assert self.model is not None
        # Strictly, as instructor does: "3" is no number.
        instance = self.model.model_validate_json(text, strict=True)
        return self._as_converted(text) or instance.model_dump_json()

    def _as_schema(self, text: str) -> str:
        """What distilabel makes of a schema knows its types alone, and so the schema itself is asked."""
        try:
            value = from_json(text, allow_inf_nan=False)
        except ValueError as error:
            raise _Invalid(f"it is not JSON ({error})") from None
        errors = sorted(self._validator.iter_errors(value), key=lambda error: [str(part) for part in error.path])
        if errors:
            raise _Invalid(
                "; ".join(_shortened(f"{error.json_path}: {error.message}") for error in errors[:_ERRORS_TOLD])
            )
        return self._as_converted(text) or to_json(value).decode()

    def _as_converted(self, text: str) -> str | None:
        """What `OpenAILLM` gives, which keeps the JSON schema of a class too, and reads with what is made of that."""
        try:
            return self.converted.model_validate_json(text).model_dump_json() if self.converted else None
        except ValidationError:
            return None


def read(structured_output: Mapping[str, Any]) -> StructuredOutput:
    """Reads what a user asks for; quickly, where the same was read before.

    Args:
        structured_output: with `schema`, a pydantic model, a JSON schema, or the text of one, and maybe `mode` and
            `max_retries`, as `OpenAILLM` has it.

    Raises:
        ValueError: it cannot be asked for, with the reason.
    """
    if not isinstance(structured_output, Mapping):
        raise ValueError(f"`structured_output` is not a dictionary: {structured_output!r}")
    if structured_output.get("format") not in (None, "json"):
        raise ValueError(
            f"`structured_output` has the format {structured_output['format']!r}, and OpenAI serves 'json' alone"
        )
    mode = _read_mode(structured_output.get("mode"))
    max_retries = structured_output.get("max_retries")
    max_retries = _MAX_RETRIES if max_retries is None else max_retries
    if not isinstance(max_retries, int) or max_retries < 0:
        raise ValueError(f"`structured_output` has `max_retries` {max_retries!r}, and it must be a number from 0 on")
    schema = structured_output.get("schema")
    if not schema:
        raise ValueError("`structured_output` has no `schema`")
    if inspect.isclass(schema) and issubclass(schema, BaseModel):
        return _read_model(schema, mode, max_retries)
    if isinstance(schema, str):
        return _read_text(schema.encode(), mode, max_retries)
    try:
        text = orjson.dumps(_without_gaps(schema))
    except TypeError as error:
        raise ValueError(f"the schema of `structured_output` cannot be written as JSON: {error}") from None
    return _read_text(text, mode, max_retries)


def _without_gaps(schema: object) -> object:
    """A schema without keys that are `None`.

    Rows go through Arrow, which gives all dictionaries of a column the same keys. A schema has no `None` that matters
    but as a `const`, and there it stands beside its type.
    """
    if isinstance(schema, dict):
        return {key: _without_gaps(value) for key, value in schema.items() if value is not None}
    return [_without_gaps(value) for value in schema] if isinstance(schema, list) else schema


def portable(structured_output: object) -> object:
    """What stands in a dump for a user's `structured_output`: the JSON schema of a class, and values that JSON has."""
    if not isinstance(structured_output, Mapping):
        return structured_output
    written = dict(structured_output)
    schema = written.get("schema")
    if inspect.isclass(schema) and issubclass(schema, BaseModel):
        written["schema"] = schema.model_json_schema()
    return written


def _read_mode(mode: object) -> Mode:
    name = mode.value if isinstance(mode, enum.Enum) else mode
    if not isinstance(name, (str, type(None))) or name not in _MODES:
        known = ", ".join(sorted(repr(name) for name in _MODES if name))
        raise ValueError(f"`structured_output` has the mode {name!r}, which is none of {known}")
    return _MODES[name]


@lru_cache(_READINGS_KEPT)
def _read_model(model: type[BaseModel], mode: Mode, max_retries: int) -> StructuredOutput:
    try:
        schema = model.model_json_schema()
    except Exception as error:
        raise ValueError(f"`{model.__name__}` of `structured_output` has no JSON schema: {error}") from None
    return _made(schema, mode, max_retries, model)


@lru_cache(_READINGS_KEPT)
def _read_text(text: bytes, mode: Mode, max_retries: int) -> StructuredOutput:
    try:
        schema = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the schema of `structured_output` is not JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ValueError("the schema of `structured_output` is not a JSON object")
    return _made(schema, mode, max_retries, None)


def _made(schema: dict[str, Any], mode: Mode, max_retries: int, model: type[BaseModel] | None) -> StructuredOutput:
    validator = validator_for(schema, default=Draft202012Validator)
    try:
        validator.check_schema(schema)
    except SchemaError as error:
        where = "".join(f"/{part}" for part in error.path)
        told = _shortened(error.message)
        raise ValueError(f"the schema of `structured_output` is not a JSON schema: {told} (at #{where})") from None
    title = schema.get("title")
    return StructuredOutput(
        name=re.sub(r"[^a-zA-Z0-9_-]", "_", title)[:64] if isinstance(title, str) and title else "answer",
        schema=schema,
        strict_schema=strict(schema),
        mode=mode,
        max_retries=max_retries,
        model=model,
        converted=_converted(schema),
        # Otherwise it would fetch the references that lead to the network.
        _validator=validator(schema, registry=Registry()),
    )


def _converted(schema: dict[str, Any]) -> type[BaseModel] | None:
    """What distilabel makes of a schema: `None` where it fails, or would keep nothing of an answer."""
    from distilabel.steps.tasks.structured_outputs.utils import json_schema_to_model

    if not schema.get("properties"):
        return None
    try:
        converted: type[BaseModel] = json_schema_to_model(schema)
    except Exception:
        # Whatever it does not know, and a `RecursionError` for a schema that refers to itself.
        return None
    return converted


def _message(choice: object) -> dict[str, Any]:
    message = choice.get("message") if isinstance(choice, dict) else None
    return message if isinstance(message, dict) else {}


def _tool_calls(message: dict[str, Any]) -> list[dict[str, Any]]:
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _text(message: dict[str, Any]) -> str:
    """What the model said, in whichever way.

    Raises:
        _Invalid: it said nothing.
    """
    for call in _tool_calls(message):
        function = call.get("function")
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            return str(function["arguments"])
    content = message.get("content")
    if not isinstance(content, str) or not content.strip():
        raise _Invalid("it is empty")
    # Models that are not held to JSON like to put it into a block of code.
    fenced = re.fullmatch(r"\s*```\w*\n(.*?)\n?```\s*", content, re.DOTALL)
    return fenced[1] if fenced else content


def _with_instruction(messages: list[dict[str, Any]], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Messages that name the schema, at the end of the system prompt if there is one."""
    told = f"Answer with one JSON object that fits this JSON schema:\n{orjson.dumps(schema).decode()}"
    first, *others = messages
    if first.get("role") == "system" and isinstance(first.get("content"), str):
        return [{**first, "content": f"{first['content']}\n\n{told}"}, *others]
    return [{"role": "system", "content": told}, *messages]


def _told_by_pydantic(error: ValidationError) -> str:
    """Pydantic's words, without what changes with its version."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        _shortened(f"{'.'.join(['$', *map(str, each['loc'])])}: {each['msg']}") for each in errors[:_ERRORS_TOLD]
    )


def _shortened(text: str) -> str:
    return text if len(text) <= _CHARACTERS_TOLD else f"{text[:_CHARACTERS_TOLD]}…"
