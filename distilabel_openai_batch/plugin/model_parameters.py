"""Parameters that today's models accept, where `OpenAILLM` sends parameters that they refuse. Pure functions."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Literal

TokenLimitParameter = Literal["max_tokens", "max_completion_tokens"]

# Names of reasoning models, with a gateway's prefix: the o-series, and GPT from 5 on except its chat
# models. https://platform.openai.com/docs/guides/reasoning
# Azure writes GPT-3.5 as `gpt-35`: https://learn.microsoft.com/azure/ai-services/openai/concepts/models
_REASONING = re.compile(r"(.*[:/])?(o[1-9]|gpt-(?!35\b)([5-9]|[1-9]\d)(?!.*chat))")

# Name of a fine-tuned model, `ft:BASE:ORGANIZATION:SUFFIX:ID`, with a gateway's prefix. Only the base model counts: a
# suffix may read like another model. https://platform.openai.com/docs/guides/model-optimization
_FINE_TUNED = re.compile(r"(?:.*/)?ft:([^:]+)")

# Values that equal the default. Some reasoning models refuse the parameter with any value → leave such a value out.
_NEUTRAL = {"temperature": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0, "logprobs": False}


@functools.cache
def token_limit_parameter(model: str) -> TokenLimitParameter:
    """Return the parameter by which a model of OpenAI takes the token limit of its answer.

    Args:
        model: name of the model. Azure deployments and models of other servers get `"max_tokens"`, unless their name
            looks like the name of a reasoning model of OpenAI.
    """
    fine_tuned = _FINE_TUNED.match(model)
    return "max_completion_tokens" if _REASONING.match(fine_tuned[1] if fine_tuned else model) else "max_tokens"


def adapt_body(body: Mapping[str, Any], limit: TokenLimitParameter | None = None) -> Mapping[str, Any]:
    """Return the body of a chat completion with the parameters that its model accepts.

    Args:
        body: a body that `OpenAILLM` built.
        limit: parameter for the token limit; `None`: decided by the model's name.
    """
    limit = limit or token_limit_parameter(body["model"])
    if limit == "max_tokens":
        # `OpenAILLM` always sends `max_tokens`, and a server refuses both → the limit of `extra_body` replaces it.
        if "max_completion_tokens" in body and "max_tokens" in body:
            return {name: value for name, value in body.items() if name != "max_tokens"}
        return body
    kept = {
        name: value
        for name, value in body.items()
        if name != "max_tokens" and not (name in _NEUTRAL and value == _NEUTRAL[name])
    }
    return kept if "max_tokens" not in body else {"max_completion_tokens": body["max_tokens"], **kept}
