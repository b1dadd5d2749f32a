"""Error codes of failures that this package reports itself: missing, malformed, unusable and unsubmitted results."""

from __future__ import annotations

MALFORMED = "malformed_result"
MISSING = "missing_result"
NOT_SUBMITTED = "not_submitted"
INVALID = "invalid_structured_output"
REFUSAL = "refusal"
TRUNCATED = "truncated"
CONTENT_FILTER = "content_filter"
LOST = "row_group_lost"
"""Code of a row without an answer, because its task failed for the whole row group."""
EMPTY = "empty_answer"
"""Code of a generation that the model ended without any text."""
LENGTH = "length"
"""Code of a generation without text whose token limit was spent first, as by reasoning; the API's `finish_reason`."""
MISSING_CHOICE = "missing_choice"
"""Code of a generation that the answer does not contain: fewer choices than requested, or none."""
UNUSABLE = frozenset({LENGTH, MISSING_CHOICE})
"""Codes of a request that the server answered and billed, without any generation that has text."""
