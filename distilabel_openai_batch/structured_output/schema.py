"""Schema of structured output: request bodies that name the schema, and checks of answers. Pure functions.

distilabel leaves both to `instructor`, which calls the API itself, so no batch can be built from its requests; and no
release of `instructor` installs beside today's openai. Here the request names the schema in the API's own terms, and a
checked answer becomes the text that `OpenAILLM` would return.

The texts in request bodies (instructions, reasons of rejections) are part of the digests by which the ledger finds
answers: a changed text makes new requests of answered ones.

The API: https://platform.openai.com/docs/guides/structured-outputs
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json

from distilabel_openai_batch.api.failure_codes import (
    CONTENT_FILTER,
    INVALID_STRUCTURED_OUTPUT,
    MODEL_REFUSAL,
    TRUNCATED_ANSWER,
)
from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.api.responses import translate_messages
from distilabel_openai_batch.errors import RunError
from distilabel_openai_batch.structured_output.validator import (
    ERRORS_SHOWN,
    SchemaValidator,
    ValidationFailedError,
)

Mode = Literal["json_schema", "tools", "json_object"]

_CHARACTERS_SHOWN = 300


class _InvalidAnswerError(Exception):
    """Reason why an answer does not fit its schema, worded for the model and for the log.

    Args:
        reason: the reason.
        is_repairable: whether the model may fix the answer.
    """

    def __init__(self, reason: str, is_repairable: bool = True) -> None:
        super().__init__(reason)
        self.is_repairable = is_repairable


@dataclass(frozen=True, slots=True)
class Rejection:
    """Rejection of one choice of an answer.

    Attributes:
        failure: the reason.
        is_repairable: whether a retry may help.
    """

    failure: Failure
    is_repairable: bool


@dataclass(frozen=True, slots=True, eq=False)
class StructuredOutput:
    """Schema that an answer must fit, and the API feature that enforces the schema.

    Attributes:
        name: the schema's name: at most 64 letters, digits, `_` and `-`.
        schema: the JSON schema that answers are checked against.
        strict_schema: the schema as the API takes it with `strict`; `None` if that would be another schema.
        mode: the API feature.
        max_retries: number of retries of an answer that does not fit.
        model: the user's class; `None` for a schema given as JSON.
        distilabel_model: the class that distilabel makes of the schema; `None` if distilabel cannot.
    """

    name: str
    schema: dict[str, Any]
    strict_schema: dict[str, Any] | None
    mode: Mode
    max_retries: int
    model: type[BaseModel] | None
    distilabel_model: type[BaseModel] | None
    _validator: SchemaValidator = field(repr=False)

    @property
    def may_block(self) -> bool:
        """Return whether `check` may block its thread for seconds."""
        return self.model is None and self._validator.may_block

    def apply_to(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of a request's body that names the schema; the schema replaces a `response_format`."""
        fields = {key: value for key, value in body.items() if key != "response_format"}
        is_strict = self.strict_schema is not None
        schema = self.strict_schema or self.schema
        if self.mode == "json_schema":
            spec = {"name": self.name, "schema": schema, "strict": is_strict}
            return fields | {"response_format": {"type": "json_schema", "json_schema": spec}}
        if self.mode == "tools":
            function: dict[str, Any] = {"name": self.name, "parameters": schema}
            if isinstance(description := self.schema.get("description"), str):
                function["description"] = description
            if is_strict:
                # A server without `json_schema` may not know `strict` either → send `strict` only if true.
                function["strict"] = True
            tool_choice = {"type": "function", "function": {"name": self.name}}
            return fields | {"tools": [{"type": "function", "function": function}], "tool_choice": tool_choice}
        return fields | {
            "messages": _add_instruction(fields["messages"], self.schema),
            "response_format": {"type": "json_object"},
        }

    def check(self, choice: object) -> str | Rejection:
        """Check one choice of an answer.

        Args:
            choice: the choice as the server sent it.

        Returns:
            The JSON text of a choice that fits the schema, else the rejection.
        """
        choice = choice if isinstance(choice, dict) else {}
        message = message_of(choice)
        if refusal := message.get("refusal"):
            return Rejection(Failure(f"The model refused: {refusal}", code=MODEL_REFUSAL), is_repairable=False)
        try:
            return self._normalise(_json_text(message))
        except _InvalidAnswerError as error:
            match choice.get("finish_reason"):
                case "length":
                    reason = "The answer was cut at the token limit; `max_new_tokens` may be higher"
                    return Rejection(Failure(reason, code=TRUNCATED_ANSWER), is_repairable=False)
                case "content_filter":
                    reason = "The content filter withheld the answer"
                    return Rejection(Failure(reason, code=CONTENT_FILTER), is_repairable=False)
            # A retry's body contains this text → never reword the text.
            reason = f"The answer does not fit the schema: {error}"
            return Rejection(Failure(reason, code=INVALID_STRUCTURED_OUTPUT), error.is_repairable)

    def retry_body(self, body: Mapping[str, Any], choice: object, reason: str) -> dict[str, Any]:
        """Return the body of a request that shows the model its answer and the reason of the rejection.

        Args:
            body: the body of the request whose answer was rejected.
            choice: the rejected choice.
            reason: the reason of the rejection.
        """
        message = message_of(choice)
        # Ledgers find paid answers by the digest of this text → never reword the text.
        instruction = f"{reason}. Answer again, with nothing but JSON that fits the schema."
        messages: list[dict[str, Any]] = []
        if calls := _tool_calls(message):
            # The API requires a reply to each call of a tool.
            messages.append({"role": "assistant", "content": message.get("content"), "tool_calls": calls})
            messages += [{"role": "tool", "tool_call_id": call.get("id"), "content": instruction} for call in calls]
        else:
            if content := message.get("content"):
                messages.append({"role": "assistant", "content": content})
            messages.append({"role": "user", "content": instruction})
        if "input" in body:
            return {**body, "input": [*body["input"], *translate_messages(messages)]}
        return {**body, "messages": [*body["messages"], *messages], "n": 1}

    def _normalise(self, text: str) -> str:
        """Return a JSON text in the form that `OpenAILLM` returns.

        Raises:
            _InvalidAnswerError: the text does not fit the schema.
        """
        try:
            return self._normalise_by_model(text) if self.model else self._normalise_by_schema(text)
        except (_InvalidAnswerError, RunError):
            raise
        except ValidationError as error:
            raise _InvalidAnswerError(_describe_errors(error)) from None
        except Exception as error:
            # The user's validator failed → the model may fix the answer.
            reason = shorten(f"{type(error).__name__}: {error}")
            raise _InvalidAnswerError(reason, is_repairable=self.model is not None) from None

    def _normalise_by_model(self, text: str) -> str:
        assert self.model is not None
        # Strict like instructor: the string "3" is no number.
        instance = self.model.model_validate_json(text, strict=True)
        return self._normalise_by_distilabel(text) or instance.model_dump_json()

    def _normalise_by_schema(self, text: str) -> str:
        """Validate a text against the JSON schema: distilabel's class knows the types only."""
        try:
            value = from_json(text, allow_inf_nan=False)
        except ValueError as error:
            raise _InvalidAnswerError(f"it is not JSON ({error})") from None
        try:
            errors = self._validator.list_errors(value)
        except ValidationFailedError as error:
            raise _InvalidAnswerError(shorten(str(error)), is_repairable=False) from None
        if errors:
            raise _InvalidAnswerError("; ".join(map(shorten, errors)))
        return self._normalise_by_distilabel(text) or to_json(value).decode()

    def _normalise_by_distilabel(self, text: str) -> str | None:
        """Return the text that `OpenAILLM` returns, which reads every answer with distilabel's class; else `None`."""
        try:
            return self.distilabel_model.model_validate_json(text).model_dump_json() if self.distilabel_model else None
        except ValidationError:
            return None


def message_of(choice: object) -> dict[str, Any]:
    """Return the message of a choice; empty if the server sent none."""
    message = choice.get("message") if isinstance(choice, dict) else None
    return message if isinstance(message, dict) else {}


def shorten(text: str) -> str:
    """Return at most 300 characters of a text, with `…` in place of the rest."""
    return text if len(text) <= _CHARACTERS_SHOWN else f"{text[:_CHARACTERS_SHOWN]}…"


def _tool_calls(message: dict[str, Any]) -> list[dict[str, Any]]:
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _json_text(message: dict[str, Any]) -> str:
    """Return the JSON text of a message: the arguments of a tool call, or the content without a code fence.

    Raises:
        _InvalidAnswerError: the message has neither.
    """
    for call in _tool_calls(message):
        function = call.get("function")
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            return str(function["arguments"])
    content = message.get("content")
    if not isinstance(content, str) or not content.strip():
        raise _InvalidAnswerError("it is empty")
    # Models that the API does not hold to JSON often wrap JSON into a fenced block of code.
    fenced = re.fullmatch(r"\s*```\w*\n(.*?)\n?```\s*", content, re.DOTALL)
    return fenced[1] if fenced else content


def _add_instruction(messages: list[dict[str, Any]], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the messages with the schema at the end of the system prompt, or in a new system prompt."""
    # Ledgers find paid answers by the digest of this text → never reword the text.
    instruction = f"Answer with one JSON object that fits this JSON schema:\n{orjson.dumps(schema).decode()}"
    first, *others = messages
    if first.get("role") == "system" and isinstance(first.get("content"), str):
        return [{**first, "content": f"{first['content']}\n\n{instruction}"}, *others]
    return [{"role": "system", "content": instruction}, *messages]


def _describe_errors(error: ValidationError) -> str:
    """Return pydantic's errors without the parts that change with pydantic's version."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        shorten(f"{'.'.join(['$', *map(str, detail['loc'])])}: {detail['msg']}") for detail in errors[:ERRORS_SHOWN]
    )
