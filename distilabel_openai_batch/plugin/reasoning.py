"""Generation parameters of models that reason: `reasoning_effort`, which `OpenAILLM` lacks, and room for reasoning."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, get_args

from distilabel_openai_batch.api.model_traits import NO_REASONING, SMALL_LIMIT, ModelTraits
from distilabel_openai_batch.errors import InvalidParametersError
from distilabel_openai_batch.plugin.sdk_stub import DEFAULT_LIMIT_MARK
from distilabel_openai_batch.text import did_you_mean

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
"""Values of `reasoning_effort`. https://platform.openai.com/docs/api-reference/chat/create#chat-create-reasoning_effort

A model supports some of them only, and refuses the others.
"""

_F = TypeVar("_F", bound=Callable[..., Any])

# Position of `max_new_tokens` and `extra_body` among the arguments of `OpenAILLM.agenerate` after the input.
_LIMIT_PLACE = 1
_EXTRA_BODY_PLACE = 11

_LIMIT_PARAMETERS = ("max_tokens", "max_completion_tokens", "max_output_tokens")

# Python 3.13 removes the indentation of docstrings → take the indentation of another entry.
_LAST_ENTRY = re.compile(r"^( *)extra_body:", re.MULTILINE)
_ENTRY = r"\1reasoning_effort: the effort of reasoning. Defaults to the field `reasoning_effort`.\n\g<0>"


def accepts_reasoning_effort(agenerate: _F) -> _F:
    """Add `reasoning_effort` to the signature and the docstring of `agenerate`, which distilabel shows to users."""
    signature = inspect.signature(agenerate)
    effort = inspect.Parameter(
        "reasoning_effort", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=ReasoningEffort | None
    )
    wrapped: Any = agenerate
    wrapped.__signature__ = signature.replace(parameters=[*signature.parameters.values(), effort])
    wrapped.__doc__ = _LAST_ENTRY.sub(_ENTRY, agenerate.__doc__ or "")
    return agenerate


def with_reasoning(
    args: Sequence[Any], kwargs: Mapping[str, Any], default_effort: str | None, *, is_chat: bool
) -> dict[str, Any]:
    """Return the keyword arguments of `OpenAILLM.agenerate` for a model that may reason.

    `extra_body` gets `reasoning_effort`, and a mark if the user sets no limit of the answer's tokens. The completions
    endpoint takes neither.

    Args:
        args: arguments of `agenerate` after the input.
        kwargs: keyword arguments, perhaps with `reasoning_effort`.
        default_effort: the value of the field `reasoning_effort`.
        is_chat: whether the input is a chat.

    Raises:
        InvalidParametersError: `reasoning_effort` has an unknown value.
    """
    kwargs = dict(kwargs)
    own_effort = kwargs.pop("reasoning_effort", None)
    if own_effort is not None and own_effort not in get_args(ReasoningEffort):
        names = get_args(ReasoningEffort)
        raise InvalidParametersError(
            f"`reasoning_effort` is {own_effort!r}, which is none of {', '.join(names)}"
            f"{did_you_mean(str(own_effort), names)}"
        )
    extra_body = kwargs.get("extra_body") or {}
    # `OpenAILLM` itself refuses an `extra_body` that is no dictionary.
    if not is_chat or len(args) > _EXTRA_BODY_PLACE or not isinstance(extra_body, Mapping):
        return kwargs
    effort = own_effort or default_effort
    added: dict[str, Any] = {"reasoning_effort": effort} if effort else {}
    if not (len(args) > _LIMIT_PLACE or "max_new_tokens" in kwargs or any(map(extra_body.get, _LIMIT_PARAMETERS))):
        added[DEFAULT_LIMIT_MARK] = True
    return {**kwargs, "extra_body": {**added, **extra_body}} if added else kwargs


def find_small_limit(traits: ModelTraits, kwargs: Mapping[str, Any], default_effort: str | None) -> int | None:
    """Return the user's limit of an answer's tokens if reasoning probably leaves too little of it; else `None`.

    Args:
        traits: traits of the model.
        kwargs: keyword arguments of `generate`.
        default_effort: the value of the field `reasoning_effort`.
    """
    extra_body = kwargs.get("extra_body") or {}
    limits = [*map(extra_body.get, reversed(_LIMIT_PARAMETERS)), kwargs.get("max_new_tokens")]
    limit = next((limit for limit in limits if limit), None)
    effort = extra_body.get("reasoning_effort") or kwargs.get("reasoning_effort") or default_effort
    is_small = isinstance(limit, int) and limit < SMALL_LIMIT
    return limit if traits.reasons and effort != NO_REASONING and is_small else None
