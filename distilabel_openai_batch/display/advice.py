"""What to do about requests that failed, in a sentence for each kind. Pure.

A request that failed is asked again by the next run of the same script that makes its rows anew
(`pipeline.run(use_cache=False)`): the answers that there are come from the ledger, and only what has none is bought.
So what passes needs no more than another run, and what does not has to be changed first. A changed row is one new
question; a changed parameter makes every request of the Task a new one, answered rows included.
"""

from __future__ import annotations

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.failure_codes import CONTENT_FILTER, INVALID, NOT_SUBMITTED, REFUSAL, TRUNCATED
from distilabel_openai_batch.api.outcomes import Failure

# https://platform.openai.com/docs/guides/error-codes and Azure's
# https://learn.microsoft.com/azure/ai-services/openai/concepts/content-filter
_POLICY_CODES = frozenset(
    {
        CONTENT_FILTER,
        "content_policy_violation",
        "cyber_policy",
        "invalid_prompt",
        "moderation_blocked",
        "ResponsibleAIPolicyViolation",
        "sanitizer_server_error",
    }
)
_LENGTH_CODES = frozenset({"context_length_exceeded", "string_above_max_length", "max_tokens_exceeded"})
_PARAMETER_CODES = frozenset(
    {"unknown_parameter", "unsupported_parameter", "unsupported_value", "invalid_value", "invalid_type"}
)
_TOKEN_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens")

# A complete pipeline would take its rows from distilabel's cache.
AGAIN = "Run again (`use_cache=False`): only what has no answer is asked."
_ROWS = "run again (`use_cache=False`): only changed rows, and those without an answer, are asked."
_ALL_ANEW = "which makes all requests of this Task new ones."


def next_step(failure: Failure, custom_id: str | None) -> str:
    """What to do about a failure.

    Args:
        failure: why a request has no answer.
        custom_id: of such a request; `None` where none could be made.

    Returns:
        One or two sentences.
    """
    code, message = failure.code, failure.message
    if code == "batch_expired":
        return f"The window closed before their turn. {AGAIN}"
    if errors.is_transient(failure.status_code, code):
        return f"That passes. {AGAIN}"
    if code in (REFUSAL, *_POLICY_CODES):
        return "Asking again changes little: reword these rows, or leave them out."
    if code == TRUNCATED:
        return f"Raise `max_new_tokens` in `generation_kwargs`, {_ALL_ANEW}"
    if code == INVALID:
        return "Raise `max_retries` of `structured_output`: only what does not fit is asked again."
    if code == NOT_SUBMITTED:
        return "Load with the Task, the model and the parameters that were submitted."
    if custom_id is None:
        return f"Nothing was sent for them. Mend these rows and {_ROWS}"
    if code in _LENGTH_CODES or "context length" in message:
        return f"Shorten these rows and {_ROWS}"
    if any(name in message for name in _TOKEN_LIMITS):
        return f"Lower `max_new_tokens` in `generation_kwargs`, {_ALL_ANEW}"
    if failure.status_code == 404 or code == "model_not_found":
        return "Check `model` and `base_url`, and run again."
    if code in _PARAMETER_CODES:
        return "Check `generation_kwargs`. A changed one makes all requests of this Task new ones."
    return f"Mend these rows and {_ROWS}"
