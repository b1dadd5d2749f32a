"""Advice on failed requests, one sentence for each kind of failure. Pure functions.

A failed request is submitted again by the next run of the same script that generates its rows again
(`pipeline.run(use_cache=False)`): the ledger has the answers of all other requests. A transient failure needs only that
run; any other failure needs a change first. A changed row is one new request, but a changed parameter makes new
requests of all rows of the Task, including the answered ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distilabel_openai_batch.api.deployments import DEPLOYMENT_ADVICE, lacks_deployment
from distilabel_openai_batch.api.failure_codes import (
    CONTENT_FILTER,
    INVALID_STRUCTURED_OUTPUT,
    LENGTH_LIMIT,
    MISSING_CHOICE,
    MODEL_REFUSAL,
    NOT_SUBMITTED,
    TRUNCATED_ANSWER,
    UNNAMED_RESULT_CODE,
)
from distilabel_openai_batch.api.model_traits import ROOM_FOR_REASONING, find_refused_parameter
from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.api.responses import names_responses
from distilabel_openai_batch.engine.cut_answers import MAX_DOUBLINGS

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


@dataclass(frozen=True, slots=True)
class RetryWay:
    """Way to submit failed requests again, in the words of the advice.

    Attributes:
        clause: the way, without the end of its sentence.
        unanswered: sentence on submitting requests without an answer again.
        changed_rows: end of a sentence on submitting rows that were changed.
        changed_task: end of a sentence on a changed parameter.
        learned: the way to submit a request whose parameter the server refused; empty if the run itself has submitted
            the request with the other parameter.
        retries_cut: whether cut and empty answers are submitted again with higher limits; `None` if unknown.
    """

    clause: str
    unanswered: str
    changed_rows: str
    changed_task: str
    learned: str = ""
    retries_cut: bool | None = False


# Without `use_cache=False` a complete pipeline takes its rows from distilabel's cache and submits nothing.
RUN_AGAIN = RetryWay(
    clause="Run the same script again, a pipeline with `use_cache=False`,",
    unanswered="Run again (`use_cache=False`): only requests without an answer are submitted.",
    changed_rows="run again (`use_cache=False`): only changed and unanswered rows are submitted.",
    changed_task="which makes new requests of all rows of this Task.",
)
"""Way of a script, and of a pipeline whose steps wait for their jobs."""

SUBMIT_AGAIN = RetryWay(
    clause="Submit again",
    unanswered="Submit again (`use_cache=False`): only requests without an answer are submitted.",
    changed_rows="submit again (`use_cache=False`): only changed and unanswered rows are submitted.",
    changed_task="which makes new requests of all rows of this Task.",
)
"""Way of `SubmitBatch`."""

LOAD_AGAIN = RetryWay(
    clause="Load again with `resubmit=True`",
    unanswered="Load again with `resubmit=True`: only requests without an answer are submitted.",
    changed_rows="submit all rows again by `SubmitBatch`: only changed and unanswered rows are billed.",
    changed_task="and load with `resubmit=True`, which makes new requests of all rows.",
)
"""Way of `LoadBatchResults` with `resubmit=True`."""

LOAD_WITH_RESUBMIT = RetryWay(
    clause="Load with `resubmit=True`",
    unanswered="Load with `resubmit=True`: only requests without an answer are submitted.",
    changed_rows=LOAD_AGAIN.changed_rows,
    changed_task=LOAD_AGAIN.changed_task,
    learned="Load with `resubmit=True`",
)
"""Way of `LoadBatchResults` without `resubmit`, which submits nothing."""

ANY_WAY = RetryWay(
    clause="Run again, or load a submission with `resubmit=True`,",
    unanswered=(
        "Run again (`use_cache=False`), or load a submission with `resubmit=True`: only requests without an answer are"
        " submitted."
    ),
    changed_rows=RUN_AGAIN.changed_rows,
    changed_task=RUN_AGAIN.changed_task,
    learned="Run again (`use_cache=False`), or load a submission with `resubmit=True`",
    retries_cut=None,
)
"""Ways of failures in the ledger, where a script, a pipeline or a submission may have left them."""


REPLACEMENTS: Mapping[str, str] = {
    "max_tokens": "with `max_completion_tokens`, and with room for reasoning if `max_new_tokens` is not set",
    "max_completion_tokens": "with `max_tokens`",
    "tools": "with their schema as `response_format`",
    "messages": "to `/v1/responses`, which alone serves the model",
    "temperature": "without the default of `temperature`, and with room for reasoning if `max_new_tokens` is not set",
    "top_p": "without the default of `top_p`, and with room for reasoning if `max_new_tokens` is not set",
}
"""Parameters that a model refuses, and the way in which its requests are submitted afterwards."""


def describe_small_limit(model: str, limit: int) -> str:
    """Return the sentences that warn of a limit of an answer's tokens which reasoning probably spends.

    Args:
        model: name of the model.
        limit: the limit.
    """
    return (
        f"`max_new_tokens={limit}` is probably too small for {model}: reasoning counts against the limit, and an answer"
        " that is spent on reasoning is empty and billed. Remove `max_new_tokens` for a limit of"
        f" {ROOM_FOR_REASONING:,} tokens, or lower `reasoning_effort`."
    )


def is_limit_spent(failure: Failure) -> bool:
    """Return whether the limit of tokens is the reason, so that the same request fails and is billed again."""
    return failure.code in (TRUNCATED_ANSWER, LENGTH_LIMIT)


def next_step(failure: Failure, custom_id: str | None, way: RetryWay = RUN_AGAIN) -> str:
    """Return the advice on a failed request.

    Args:
        failure: the reason why the request has no answer.
        custom_id: the `custom_id` of the request; `None` for a row that could not be encoded as a request.
        way: the way to submit the request again.

    Returns:
        One or two sentences.
    """
    code, message = failure.code, failure.message
    if code == "batch_expired":
        return f"The completion window closed first. {way.unanswered}"
    if failure.is_transient:
        return f"The failure is transient. {way.unanswered}"
    if code in (MODEL_REFUSAL, *_POLICY_CODES):
        return "Submitting again rarely helps: reword these rows, or remove these rows."
    if is_limit_spent(failure):
        return _limit_advice(way)
    if code == MISSING_CHOICE:
        if failure.is_billed:
            return f"The server answered without a generation. {way.unanswered}"
        return "The server may not support `n`: repeat the rows in place of `num_generations`."
    if code == INVALID_STRUCTURED_OUTPUT:
        return (
            "Raise `max_retries` of `structured_output`: only answers that do not fit the schema are requested again."
        )
    if code == NOT_SUBMITTED:
        return "Load with the Task, the model and the parameters of the submission."
    if code == UNNAMED_RESULT_CODE:
        return "Use this provider without batches (`OpenAILLM`), or another server: this one drops `custom_id`."
    if custom_id is None:
        return f"No request was sent for these rows. Fix the rows and {way.changed_rows}"
    if code in _LENGTH_CODES or "context length" in message:
        return f"Shorten these rows and {way.changed_rows}"
    refused = find_refused_parameter(message)
    if refused and way.learned:
        return f"The refusal is recorded. {way.learned}: these requests are submitted {REPLACEMENTS[refused]}."
    if refused in ("max_tokens", "max_completion_tokens"):
        accepted = "max_tokens" if refused == "max_completion_tokens" else "max_completion_tokens"
        return f'Set `token_limit_parameter="{accepted}"`, {way.changed_task}'
    if any(name in message for name in _TOKEN_LIMITS):
        return f"Lower `max_new_tokens` in `generation_kwargs`, {way.changed_task}"
    if names_responses(message):
        return f'Set `endpoint="responses"`, {way.changed_task}'
    if lacks_deployment(code, message):
        return DEPLOYMENT_ADVICE
    if failure.status_code == 404 or code == "model_not_found":
        return f"Check `model` and `base_url`. {way.unanswered}"
    if code in _PARAMETER_CODES:
        return f"Change `generation_kwargs`, {way.changed_task}"
    return f"Fix these rows and {way.changed_rows}"


def _limit_advice(way: RetryWay) -> str:
    """Return the advice on answers that the limit of tokens cut or left empty."""
    if way.retries_cut:
        return f"Even {2**MAX_DOUBLINGS} times the limit may be too small: raise `max_new_tokens`, for all rows."
    if way.retries_cut is None:
        return (
            'Set `on_truncated="retry"`. If it is set, and rows of the dataset lack a generation: raise'
            " `max_new_tokens`, for all rows."
        )
    return (
        f'Set `on_truncated="retry"`: these rows get up to {2**MAX_DOUBLINGS} times the limit. Or raise'
        " `max_new_tokens`, for all rows."
    )
