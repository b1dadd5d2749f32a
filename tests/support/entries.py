"""Ledger entries of two jobs, for tests of tables, timings, bars and reports."""

from __future__ import annotations

from dataclasses import replace

from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.ledger.states import JobState, ScopeName

SCOPE = ScopeName("preferences", "text_generation_0", "http://127.0.0.1:9/v1/")

OPEN_JOB = JobEntry(
    scope=SCOPE,
    batch_id="batch_6840f1d7c2ac8190b1d2f4a5c6e7f809",
    state=JobState.CREATED,
    status="in_progress",
    endpoint="/v1/chat/completions",
    model="gpt-4o-mini",
    requests=50_000,
    answered=12_000,
    failed=500,
    pending=37_500,
    tokens_in=0,
    tokens_out=0,
    tokens_cached=0,
    bytes=1_000,
    created_at=1_000.0,
    ended_at=None,
    input_file_id="file-1",
    error=None,
    answered_by="",
)
"""A quarter of the requests has an outcome."""

COLLECTED_JOB = replace(
    OPEN_JOB,
    batch_id="batch_1",
    state=JobState.COLLECTED,
    status="completed",
    answered=50_000,
    failed=0,
    pending=0,
    ended_at=1_600.0,
)
"""All requests are answered, after ten minutes."""
