"""Answers that the token limit cut: the requests that submit them again with a higher limit, and their failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from distilabel_openai_batch.api.failure_codes import LENGTH_LIMIT, TRUNCATED_ANSWER
from distilabel_openai_batch.api.model_traits import read_limit, with_limit
from distilabel_openai_batch.api.outcomes import Answer, Failure, Outcome
from distilabel_openai_batch.api.truncation import find_cut_choices, has_spent_choice

OnTruncated = Literal["keep", "fail", "retry"]
"""Treatment of answers that the token limit cut."""

MAX_DOUBLINGS = 3
"""Number of times that the limit of a request is doubled, at most: eight times the limit of the user."""


def is_spent(outcome: Outcome) -> bool:
    """Return whether the token limit ended all generations of a request before their text began."""
    return isinstance(outcome, Failure) and outcome.code == LENGTH_LIMIT


def is_limited(outcome: Outcome) -> bool:
    """Return whether the token limit ended a generation of a request, before or after its text began."""
    if isinstance(outcome, Failure):
        return is_spent(outcome)
    return bool(find_cut_choices(outcome)) or has_spent_choice(outcome)


def double_limit(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a body with twice the limit of an answer's tokens; `None` for a body without a limit."""
    limit = read_limit(body)
    return with_limit(body, 2 * limit) if limit else None


def is_improvement(outcome: Outcome, first: Outcome) -> bool:
    """Return whether the outcome of a request with a higher limit replaces an earlier outcome.

    A failure for another reason, as of a limit that exceeds the model's own, does not replace a cut text.
    """
    return isinstance(outcome, Answer) or (is_spent(outcome) and isinstance(first, Failure))


def mark_cut(answer: Answer, cut: Sequence[int], limit: int | None, *, custom_id: str, is_kept: bool) -> None:
    """Add to an answer the failures of its cut choices.

    Args:
        answer: the answer.
        cut: indexes of the cut choices.
        limit: the limit of the answer's tokens; `None` if the request sets none.
        custom_id: the `custom_id` of the request.
        is_kept: whether the cut texts are kept.
    """
    reason = f"max_new_tokens={limit}" if limit else "the model's limit"
    failure = Failure(f"The answer was cut at {reason}.", code=TRUNCATED_ANSWER, custom_id=custom_id, is_kept=is_kept)
    answer.choice_failures = dict.fromkeys(cut, failure) | dict(answer.choice_failures or {})
