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
