"""Codes of failures that no server names: results that are missing, malformed, unusable or never submitted."""

from __future__ import annotations

MALFORMED = "malformed_result"
MISSING = "missing_result"
NOT_SUBMITTED = "not_submitted"
INVALID = "invalid_structured_output"
REFUSAL = "refusal"
TRUNCATED = "truncated"
CONTENT_FILTER = "content_filter"
LOST = "row_group_lost"
"""The code of a row that has no answer because its Task could not go on with its row group."""
EMPTY = "empty_answer"
"""The code of a generation that the model ended without a word."""
