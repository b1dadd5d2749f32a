"""Endpoints and parameters that today's models accept, where `OpenAILLM` sends parameters that they refuse."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Literal

from distilabel_openai_batch.api.model_traits import (
    ModelTraits,
    TokenLimitParameter,
    fit_body,
    is_reasoning_name,
    is_responses_only,
    leave_room,
    name_limit,
)
from distilabel_openai_batch.api.no_ops import without_no_ops
from distilabel_openai_batch.api.responses import RESPONSES_ENDPOINT, identify, translate_request
from distilabel_openai_batch.engine.calls import APICall
from distilabel_openai_batch.plugin.sdk_stub import CHAT_ENDPOINT
from distilabel_openai_batch.pricing import prices

Endpoint = Literal["chat", "responses"]
"""Endpoint for chats: `/v1/chat/completions` or `/v1/responses`."""


@functools.cache
def token_limit_parameter(model: str) -> TokenLimitParameter:
    """Return the parameter by which a model of OpenAI takes the token limit of its answer.

    Args:
        model: name of the model. Azure deployments and models of other servers get `"max_tokens"`, unless their name
            looks like the name of a reasoning model of OpenAI.
    """
    return "max_completion_tokens" if is_reasoning_name(model) else "max_tokens"


def adapt_call(
    call: APICall,
    endpoint: Endpoint,
    traits: ModelTraits,
    limit: TokenLimitParameter | None = None,
    *,
    wants_summary: bool = False,
) -> APICall:
    """Change a call to the parameters that have an effect and that the model takes; keep the request's identity.

    Args:
        call: a call as `OpenAILLM` makes it. Its body and identity are replaced, and the endpoint of a chat.
        endpoint: the endpoint for chats.
        traits: traits of the model.
        limit: the user's name of the parameter for the token limit; `None`: decided by the model.
        wants_summary: whether the Responses API is asked for a summary of the reasoning, which is no part of the
            request's identity: earlier answers are paid for.

    Raises:
        UntranslatableError: the endpoint for chats does not have a part of the chat.
    """
    body = identity = call.body
    if call.endpoint == CHAT_ENDPOINT and endpoint == "responses":
        call.endpoint = RESPONSES_ENDPOINT
        # The identity does not depend on the traits, which the price list decides too if the price list is installed.
        identity = identify(translate_request(body))
        body = name_limit(body, "max_completion_tokens") if traits.reasons else body
        body = translate_request(leave_room(body, traits, has_default_limit=call.has_default_limit))
        if wants_summary and traits.reasons:
            body = {**body, "reasoning": {"summary": "auto", **(body.get("reasoning") or {})}}
    elif call.endpoint == CHAT_ENDPOINT:
        identity = adapt_body(body, limit)
        body = without_no_ops(fit_body(identity, traits, has_default_limit=call.has_default_limit))
    else:
        body = without_no_ops(body)
    call.body = body
    call.identity = None if body == identity else identity
    return call


def choose_endpoint(model: str, endpoint: Endpoint | None) -> Endpoint:
    """Return the endpoint for chats with a model: the user's choice, else the endpoint that serves the model."""
    return endpoint or ("responses" if is_responses_only(model) else "chat")


def adapt_body(body: Mapping[str, Any], limit: TokenLimitParameter | None = None) -> Mapping[str, Any]:
    """Return the body by which the ledger knows a chat completion.

    Ledgers find paid answers by the digest of this body → no parameter may be added, dropped or changed here. Changes
    that a server needs belong into `fit_body`.

    Args:
        body: a body that `OpenAILLM` built.
        limit: parameter for the token limit; `None`: decided by the model's name.
    """
    limit = limit or token_limit_parameter(body["model"])
    if limit == "max_completion_tokens":
        return name_limit(body, limit)
    # `OpenAILLM` always sends `max_tokens`, and a server refuses both → the limit of `extra_body` replaces it.
    if "max_completion_tokens" in body and "max_tokens" in body:
        return {name: value for name, value in body.items() if name != "max_tokens"}
    return body


@functools.cache
def find_traits(
    model: str, base_url: str, limit: TokenLimitParameter | None = None, is_reasoning: bool | None = None
) -> ModelTraits:
    """Return the traits of a model, as far as its name, the price list and the user's fields show them.

    Args:
        model: name of the model.
        base_url: address of the server, which decides the price list.
        limit: the user's name of the parameter for the token limit; `None`: decided by the model.
        is_reasoning: the user's statement that the model reasons, or does not; `None`: decided by the model.
    """
    is_named = is_reasoning_name(model) if is_reasoning is None else is_reasoning
    reasons = is_named or (
        is_reasoning is None and (is_responses_only(model) or prices.is_listed_as_reasoning(model, base_url))
    )
    if limit is None and is_named:
        limit = "max_completion_tokens"
    elif limit is None and is_reasoning is False:
        limit = "max_tokens"
    return ModelTraits(limit, reasons)
