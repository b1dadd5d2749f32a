"""Parameters that a model of OpenAI takes in chat completions, and bodies that have these parameters. Pure functions.

Names of models say most of that. A deployment on Azure or an alias of a gateway hides the model, so the engine learns
from refusals too (`engine/learned_traits.py`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from distilabel_openai_batch.api.responses import names_responses

TokenLimitParameter = Literal["max_tokens", "max_completion_tokens"]

RefusedParameter = Literal["max_tokens", "max_completion_tokens", "tools", "temperature", "top_p", "messages"]
"""Parameter whose refusal shows a trait of a model."""

CHAT_PARAMETER: RefusedParameter = "messages"
"""Parameter whose refusal shows that only the Responses API serves a model."""

ROOM_FOR_REASONING = 25_000
"""Limit of an answer's tokens, reasoning included, for a model that reasons, if the user set no limit.

OpenAI recommends to reserve at least 25,000 tokens for reasoning and text. Every model that reasons can answer with
more, and only the tokens of the answer are billed.
https://platform.openai.com/docs/guides/reasoning#allocating-space-for-reasoning
"""

SMALL_LIMIT = 2_000
"""Limit of an answer's tokens below which reasoning probably leaves no space for the text.

Reasoning takes from a few hundred to tens of thousands of tokens.
https://platform.openai.com/docs/guides/reasoning#how-reasoning-works
"""

NO_REASONING = "none"
"""Value of `reasoning_effort` with which a model does not reason."""

# Names of reasoning models, with a gateway's prefix: the o-series, and GPT from 5 on except its chat
# models. https://platform.openai.com/docs/guides/reasoning
# Azure writes GPT-3.5 as `gpt-35`: https://learn.microsoft.com/azure/ai-services/openai/concepts/models
_REASONING = re.compile(r"(.*[:/])?(o[1-9]|gpt-(?!35\b)(?P<major>[5-9]|[1-9]\d)(\.(?P<minor>\d+))?(?!.*chat))")

# Name of a fine-tuned model, `ft:BASE:ORGANIZATION:SUFFIX:ID`, with a gateway's prefix. Only the base model counts: a
# suffix may read like another model. https://platform.openai.com/docs/guides/model-optimization
_FINE_TUNED = re.compile(r"(?:.*/)?ft:([^:]+)")

# Names of models that only the Responses API serves: `pro` models, models for Codex and for research, and models that
# use a computer. The SDK lists some of them for chats too, and the API refuses them there. Gateways write a prefix in
# front of a name, and may serve such models by chat completions.
# https://platform.openai.com/docs/models, https://github.com/openai/codex/issues/1306
_RESPONSES_ONLY = re.compile(
    r"((o[1-9]|gpt-(?![34])\d.*)-pro\b|(gpt-(?![34])\d.*-)?codex\b|o[1-9].*-deep-research\b"
    r"|computer-use-preview\b)"
)

# Versions of GPT from which on chat completions refuse function tools: always, unless `reasoning_effort` is `none`; and
# with any other `reasoning_effort` in the request. https://github.com/BerriAI/litellm/pull/34569,
# https://github.com/charmbracelet/crush/issues/2913, https://github.com/livekit/agents/pull/5088
_REFUSES_TOOLS = (5, 5)
_REFUSES_TOOLS_WITH_EFFORT = (5, 2)

# A model takes the token limit by one of two names, which an alias or a deployment's name does not show.
# https://platform.openai.com/docs/api-reference/chat/create#chat-create-max_completion_tokens
_REFUSED_LIMIT = re.compile(
    r"(?:unsupported|unknown|unrecognized) (?:parameter|request argument)[^.]*?\b(max_tokens|max_completion_tokens)\b",
    re.IGNORECASE,
)
# Models that reason refuse `top_p` at the Responses API even if its value is the default.
_REFUSED_SAMPLING = re.compile(r"unsupported parameter: '(temperature|top_p)'", re.IGNORECASE)
_REFUSED_TOOLS = re.compile(r"function tools\b.*\bnot supported", re.IGNORECASE)

# Values that equal the default. Some reasoning models refuse the parameter with any value → leave such a value out.
_NEUTRAL = {"temperature": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0, "logprobs": False}

_TOOL_PARAMETERS = ("tools", "tool_choice")


@dataclass(frozen=True, slots=True)
class ModelTraits:
    """Traits of a model that decide the parameters of its requests.

    Attributes:
        limit_parameter: parameter for the limit of an answer's tokens; `None` for the parameter that a body has.
        reasons: whether the model reasons, so that reasoning counts against the limit.
        refuses_tools: whether chat completions refuse function tools, whatever `reasoning_effort` is.
    """

    limit_parameter: TokenLimitParameter | None = None
    reasons: bool = False
    refuses_tools: bool = False


@functools.cache
def is_responses_only(model: str) -> bool:
    """Return whether only the Responses API serves a model of OpenAI, by the SDK's list of models or by the name."""
    return model in _listed_for_responses() or _RESPONSES_ONLY.match(base_model(model)) is not None


@functools.cache
def _listed_for_responses() -> frozenset[str]:
    """Return the models that the SDK lists for the Responses API and not for chats; empty in a release without it."""
    try:
        from openai.types.shared import ChatModel, ResponsesModel
    except ImportError:
        return frozenset()
    names = {name for kind in get_args(ResponsesModel) for name in get_args(kind) if isinstance(name, str)}
    return frozenset(names.difference(get_args(ChatModel)))


def is_reasoning_name(model: str) -> bool:
    """Return whether a name is the name of a reasoning model of OpenAI."""
    return _match_name(model) is not None


def refuses_tools(model: str, reasoning_effort: object) -> bool:
    """Return whether chat completions of a model refuse function tools, by the model's name.

    Args:
        model: name of the model.
        reasoning_effort: the parameter of the request; `None` for a request without it.
    """
    match = _match_name(model)
    if match is None or match["major"] is None or reasoning_effort == NO_REASONING:
        return False
    version = (int(match["major"]), int(match["minor"] or 0))
    return version >= (_REFUSES_TOOLS if reasoning_effort is None else _REFUSES_TOOLS_WITH_EFFORT)


def base_model(model: str) -> str:
    """Return the base model of a fine-tuned model's name, and any other name unchanged."""
    fine_tuned = _FINE_TUNED.match(model)
    return fine_tuned[1] if fine_tuned else model


def _match_name(model: str) -> re.Match[str] | None:
    return _REASONING.match(base_model(model))


def find_refused_parameter(message: str, endpoint: str = "") -> RefusedParameter | None:
    """Return the parameter that a server's message refuses, if the refusal shows a trait of the model; else `None`.

    Args:
        message: the message.
        endpoint: the path of the endpoint.
    """
    if endpoint.endswith("/responses"):
        match = _REFUSED_SAMPLING.search(message)
        return ("top_p" if match[1].lower() == "top_p" else "temperature") if match else None
    if names_responses(message):
        return CHAT_PARAMETER
    if match := _REFUSED_LIMIT.search(message):
        return "max_tokens" if match[1].lower() == "max_tokens" else "max_completion_tokens"
    return "tools" if _REFUSED_TOOLS.search(message) else None


def traits_of_refusals(refused: Collection[str]) -> ModelTraits:
    """Return the traits of a model for which a server refused parameters.

    Only models that reason refuse `max_tokens`. If a server refused both names of the limit, a body keeps its own.
    """
    refuses_tools = "tools" in refused
    is_old_refused, is_new_refused = "max_tokens" in refused, "max_completion_tokens" in refused
    if is_old_refused == is_new_refused:
        return ModelTraits(refuses_tools=refuses_tools)
    limit: TokenLimitParameter = "max_completion_tokens" if is_old_refused else "max_tokens"
    return ModelTraits(limit, reasons=is_old_refused, refuses_tools=refuses_tools)


def read_limit(body: Mapping[str, Any]) -> int | None:
    """Return the limit of an answer's tokens that a body of any endpoint sets; `None` without a limit."""
    limit = body.get("max_output_tokens") or body.get("max_completion_tokens") or body.get("max_tokens")
    return limit if isinstance(limit, int) else None


def with_limit(body: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Return a copy of a body with another limit of an answer's tokens, under the parameter that the body has."""
    name = next((name for name in ("max_output_tokens", "max_completion_tokens") if body.get(name)), "max_tokens")
    return {**body, name: limit}


def name_limit(body: Mapping[str, Any], parameter: TokenLimitParameter) -> Mapping[str, Any]:
    """Return a body whose limit of an answer's tokens has the given parameter.

    Parameters with neutral values are left out beside `max_completion_tokens`: reasoning models refuse some of them.

    Args:
        body: the body of a chat completion, with `max_tokens`, `max_completion_tokens` or both; the latter counts.
        parameter: the parameter.
    """
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if parameter == "max_tokens":
        if "max_completion_tokens" not in body:
            return body
        return {name: value for name, value in body.items() if name != "max_completion_tokens"} | {"max_tokens": limit}
    kept = {
        name: value
        for name, value in body.items()
        if name != "max_tokens" and not (name in _NEUTRAL and value == _NEUTRAL[name])
    }
    return kept if limit is None else {**kept, "max_completion_tokens": limit}


def fit_body(body: Mapping[str, Any], traits: ModelTraits, *, has_default_limit: bool) -> Mapping[str, Any]:
    """Return the body of a chat completion with the parameters that its model accepts, and with room for reasoning.

    Args:
        body: the body.
        traits: traits of the model.
        has_default_limit: whether the body's limit is distilabel's default, and not the user's choice.
    """
    if traits.limit_parameter:
        body = name_limit(body, traits.limit_parameter)
    body = leave_room(body, traits, has_default_limit=has_default_limit)
    effort = body.get("reasoning_effort")
    if "tools" in body and (traits.refuses_tools or refuses_tools(str(body.get("model")), effort)):
        body = name_schema_without_tools(body)
    return body


def fit_response(body: Mapping[str, Any], *, has_default_limit: bool) -> Mapping[str, Any]:
    """Return the body of a response's request for a model that reasons, see `fit_body`."""
    neutral = [name for name in ("temperature", "top_p") if name in body and body[name] == _NEUTRAL[name]]
    kept = {name: value for name, value in body.items() if name not in neutral}
    effort = (body.get("reasoning") or {}).get("effort")
    has_room = effort == NO_REASONING or not has_default_limit or not read_limit(body)
    return kept if has_room else with_limit(kept, ROOM_FOR_REASONING)


def leave_room(body: Mapping[str, Any], traits: ModelTraits, *, has_default_limit: bool) -> Mapping[str, Any]:
    """Return the body of a chat completion whose limit leaves room for reasoning, if the user set no limit."""
    reasons = traits.reasons and body.get("reasoning_effort") != NO_REASONING
    return with_limit(body, ROOM_FOR_REASONING) if reasons and has_default_limit and read_limit(body) else body


def name_schema_without_tools(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a body that names its schema as `response_format`, where one function tool named the schema.

    A body with other tools stays unchanged.
    """
    tools = body["tools"]
    function = tools[0].get("function") if isinstance(tools, list) and len(tools) == 1 else None
    if not isinstance(function, dict) or not isinstance(body.get("tool_choice"), dict):
        return body
    kept = {name: value for name, value in body.items() if name not in _TOOL_PARAMETERS}
    schema = {
        "name": function.get("name"),
        "schema": function.get("parameters"),
        "strict": bool(function.get("strict")),
    }
    return {**kept, "response_format": {"type": "json_schema", "json_schema": schema}}
