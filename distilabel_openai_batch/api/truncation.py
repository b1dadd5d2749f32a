"""Answers that the token limit cut: their text ends in mid-sentence, or reasoning left little space for the text."""

from __future__ import annotations

from typing import Any

from distilabel_openai_batch.api.encoding import read_count
from distilabel_openai_batch.api.outcomes import Answer, is_spent


def find_cut_choices(answer: Answer) -> list[int]:
    """Return the indexes of the choices whose text the token limit cut; a choice without any text is not cut."""
    if not answer.may_be_cut:
        return []
    return [index for index, choice in enumerate(_choices(answer)) if is_cut(choice)]


def is_cut(choice: object) -> bool:
    """Return whether the token limit ended a choice after its text began."""
    return isinstance(choice, dict) and choice.get("finish_reason") == "length" and not is_spent(choice)


def has_spent_choice(answer: Answer) -> bool:
    """Return whether the token limit ended a choice before its text began."""
    return answer.may_be_cut and any(map(is_spent, _choices(answer)))


def count_reasoning_tokens(answer: Answer) -> int:
    """Return the number of tokens that an answer took for reasoning; 0 if the server does not count them."""
    usage = answer.body.get("usage")
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    return read_count(details.get("reasoning_tokens")) if isinstance(details, dict) else 0


def _choices(answer: Answer) -> list[Any]:
    choices = answer.body.get("choices")
    return choices if isinstance(choices, list) else []
