"""What today's models take, where `OpenAILLM` sends what they refuse. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Literal

TokenLimitParameter = Literal["max_tokens", "max_completion_tokens"]

# Those that reason, fine-tuned ones and gateways' names for them included: the o-series, and GPT from 5 on but for its
# chat models. https://platform.openai.com/docs/guides/reasoning
# GPT-3.5 is `gpt-35` on Azure: https://learn.microsoft.com/azure/ai-services/openai/concepts/models
_REASONING = re.compile(r"(.*[:/])?(o[1-9]|gpt-(?!35\b)([5-9]|[1-9]\d)(?!.*chat))")

# What means the same when it is left out. Some of these models refuse the parameter, whatever its value is.
_NEUTRAL = {"temperature": 1, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0, "logprobs": False}


@functools.cache
def token_limit_parameter(model: str) -> TokenLimitParameter:
    """The name under which a model of OpenAI takes the limit of its answer's tokens.

    Args:
        model: its name. That of an Azure deployment, or of another server's model, says nothing.
    """
    return "max_completion_tokens" if _REASONING.match(model) else "max_tokens"


def fitted(body: Mapping[str, Any], limit: TokenLimitParameter | None = None) -> Mapping[str, Any]:
    """A chat completion's body as its model takes it.

    Args:
        body: as `OpenAILLM` makes it.
        limit: the name of the token limit, where the model's name does not tell.
    """
    limit = limit or token_limit_parameter(body["model"])
    if limit == "max_tokens":
        return body
    kept = {
        name: value
        for name, value in body.items()
        if name != "max_tokens" and not (name in _NEUTRAL and value == _NEUTRAL[name])
    }
    return kept if "max_tokens" not in body else {"max_completion_tokens": body["max_tokens"], **kept}
