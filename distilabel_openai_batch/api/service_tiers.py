"""Service tiers of synchronous requests: the models and endpoints of OpenAI's flex tier. Pure functions.

Flex answers at the price of a batch, more slowly than the default tier, and refuses requests while it has no capacity.
https://platform.openai.com/docs/guides/flex-processing
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

FLEX = "flex"
"""Name of the flex tier, in requests and in answers."""

DEFAULT_TIER = "default"
"""Name of the tier with the list price."""

TIER_PARAMETER = "service_tier"
"""Parameter of a request, and field of an answer, that names the tier."""

FLEX_SECONDS = 900.0
"""Seconds that a server may be silent about a flex request, at least: OpenAI recommends 15 minutes."""

# Tiers with prices of their own. https://platform.openai.com/docs/api-reference/chat/object#chat/object-service_tier
_PRICED_TIERS = (FLEX, "priority", "fast")

_ENDPOINTS = ("/chat/completions", "/responses")

# Names of models with flex, with a gateway's prefix and a date: o3, o4-mini, and GPT from 5 on except the models for
# chat, code, images and sound. https://platform.openai.com/docs/pricing
_MODELS = re.compile(
    r"(.*[:/])?(o3|o4-mini|gpt-(?!35\b)([5-9]|[1-9]\d)(?!.*(chat|codex|image|audio|realtime|search|oss)).*?)"
    r"(-\d{4}-\d\d-\d\d)?"
)

# "Unsupported service_tier: flex" (https://github.com/openai/codex/issues/15099).
_REFUSAL = re.compile(r"service_tier|service tier|\bflex\b", re.IGNORECASE)

# Codes of a 429 that another tier would answer with too. https://platform.openai.com/docs/guides/rate-limits
_RATE_LIMIT = re.compile(r"rate.?limit", re.IGNORECASE)

# Groq's status code of a flex request without capacity. https://console.groq.com/docs/service-tiers
_GROQ_NO_CAPACITY = 498


def serves_flex(endpoint: str) -> bool:
    """Return whether an endpoint has the flex tier.

    Args:
        endpoint: the server's path of the endpoint.
    """
    return endpoint.endswith(_ENDPOINTS)


def is_flex_name(model: str) -> bool:
    """Return whether a name is the name of a model with the flex tier."""
    return _MODELS.fullmatch(model) is not None


def is_tier_refused(status_code: int | None, message: str) -> bool:
    """Return whether the refusal of a flex request says that its model, or the server, has no flex tier."""
    return status_code in (400, 404, 422) and bool(_REFUSAL.search(message))


def lacks_capacity(status_code: int, code: str | None, message: str) -> bool:
    """Return whether the refusal of a flex request says that the tier has no capacity now.

    Any other 429 is a rate limit, which holds for the default tier too.
    """
    if status_code == _GROQ_NO_CAPACITY:
        return True
    return status_code == 429 and not (_RATE_LIMIT.search(code or "") or _RATE_LIMIT.search(message))


def read_tier(body: Mapping[str, Any]) -> str:
    """Return the tier of a synchronous answer; the default tier if the answer names no tier with another price."""
    tier = body.get(TIER_PARAMETER)
    return tier if tier in _PRICED_TIERS else DEFAULT_TIER
