"""Models that reason: their names, and the tokens that reasoning takes of an answer's limit."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

# https://platform.openai.com/docs/guides/reasoning
_REASONING = re.compile(r"o\d|gpt-(?!35\b)(?P<major>[5-9]|[1-9]\d)(\.(?P<minor>\d+))?(?!.*chat)")

# Models that only `/v1/responses` serves: https://platform.openai.com/docs/models
_RESPONSES_ONLY = re.compile(r"(o\d|gpt-[5-9].*)-pro\b|.*\bcodex\b|.*-deep-research\b")

# Versions that do not reason unless the request says so: https://platform.openai.com/docs/guides/latest-model
_QUIET_FROM, _QUIET_BEFORE = (5, 1), (5, 5)
# First version that refuses function tools while it reasons: https://github.com/livekit/agents/pull/5088
_WITHOUT_TOOLS_FROM = (5, 2)

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Values of `reasoning_effort`."""

# Tokens of reasoning, as a multiple of the tokens at medium effort.
_FACTORS = {"none": 0.0, "minimal": 0.125, "low": 0.25, "medium": 1.0, "high": 4.0, "xhigh": 16.0, "max": 32.0}


@lru_cache
def is_reasoning_model(model: str) -> bool:
    """Return `True` for the name of a model that can reason."""
    return _REASONING.match(model) is not None


@lru_cache
def is_responses_only(model: str) -> bool:
    """Return `True` for the name of a model that chat completions do not serve."""
    return _RESPONSES_ONLY.match(model) is not None


def reasons(model: str, effort: str | None) -> bool:
    """Return `True` if a model reasons before it answers a request with this `reasoning_effort`."""
    if not is_reasoning_model(model):
        return False
    if effort is not None:
        return effort != "none"
    return not _QUIET_FROM <= model_version(model) < _QUIET_BEFORE


def has_fixed_temperature(model: str, effort: str | None) -> bool:
    """Return `True` if a model takes the default temperature only."""
    return reasons(model, effort) or (is_reasoning_model(model) and model_version(model) < _QUIET_FROM)


def refuses_tools(model: str, effort: str | None) -> bool:
    """Return `True` if chat completions of a model refuse function tools."""
    return model_version(model) >= _WITHOUT_TOOLS_FROM and reasons(model, effort)


def count_reasoning_tokens(model: str, body: dict[str, Any], medium: int) -> int:
    """Return the number of tokens that reasoning takes before an answer's text begins.

    Args:
        model: name of the model.
        body: body of the request.
        medium: number of tokens at medium effort.
    """
    effort = body.get("reasoning_effort")
    return int(medium * _FACTORS[effort or "medium"]) if reasons(model, effort) else 0


@lru_cache
def model_version(model: str) -> tuple[int, int]:
    """Return the version of a GPT model; (0, 0) for other models."""
    match = _REASONING.match(model)
    return (int(match["major"]), int(match["minor"] or 0)) if match and match["major"] else (0, 0)
