"""Entries of the reader: properties of jobs, and groups of failures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from distilabel_openai_batch.ledger.entries import (
    INTERRUPTED,
    FailureEntry,
    JobEntry,
    RequestTotals,
    ScopeEntry,
    group_failures,
)
from distilabel_openai_batch.ledger.states import NOT_FOUND, JobState
from tests.unit.ledger.samples import CHAT, SCOPE

JOB = JobEntry(
    scope=SCOPE,
    batch_id="batch_1",
    state=JobState.CREATED,
    status="in_progress",
    endpoint=CHAT,
    model="gpt-4o-mini",
    requests=3,
    answered=1,
    failed=0,
    pending=2,
    tokens_in=3,
    tokens_out=5,
    tokens_cached=0,
    bytes=99,
    created_at=1.0,
    ended_at=None,
    input_file_id="file-1",
    error=None,
    answered_by="",
)


@pytest.mark.parametrize(
    ("fields", "properties"),
    [
        ({}, {"is_open"}),
        ({"state": JobState.ENDED, "status": "completed"}, {"is_open", "has_ended"}),
        ({"state": JobState.ENDED, "status": "expired", "pending": 0}, {"has_ended"}),
        ({"state": JobState.COLLECTED, "status": "completed", "pending": 0}, {"has_ended"}),
        ({"state": JobState.DROPPED, "status": "failed"}, {"has_ended"}),
        ({"status": NOT_FOUND}, {"is_open", "has_ended"}),
        ({"state": JobState.PLANNED, "status": INTERRUPTED, "batch_id": None, "answered": 0}, {"is_interrupted"}),
        ({"state": JobState.SYNCHRONOUS, "status": "synchronous", "batch_id": None}, {"is_open", "is_synchronous"}),
        ({"state": JobState.COLLECTED, "status": "collected", "batch_id": None}, {"is_synchronous"}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_a_job_has_these_properties_only(fields, properties):
    job = replace(JOB, **fields)
    names = ("is_synchronous", "is_interrupted", "is_open", "has_ended")
    assert {name for name in names if getattr(job, name)} == properties


def test_failures_are_grouped_by_codes_the_most_frequent_first():
    codes = [(400, "bad"), (429, "slow"), (429, "slow"), (429, None), (429, "slow"), (429, "slow")]
    failures = [
        FailureEntry(SCOPE, f"{number}-0", "batch_1", *code, f"Message {number}.", 1)
        for number, code in enumerate(codes)
    ]

    first, *rest = group_failures(failures)

    assert (first.status_code, first.code, first.count) == (429, "slow", 4)
    assert first.message == "Message 1."
    assert first.custom_ids == ["1-0", "2-0", "4-0"]
    assert [(reason.status_code, reason.code, reason.count) for reason in rest] == [(400, "bad", 1), (429, None, 1)]
    assert group_failures([]) == []


@pytest.mark.parametrize(
    ("recorded", "fields", "totals"),
    [
        ((0, 0, 427), {"answered": 345, "failed": 2}, (345, 2)),
        ((40, 0, 387), {"answered": 60, "failed": 10}, (60, 10)),
        ((40, 3, 384), {"answered": 40, "failed": 3, "state": JobState.SYNCHRONOUS}, (40, 3)),
        ((420, 7, 0), {"answered": 420, "failed": 7, "state": JobState.COLLECTED}, (420, 7)),
    ],
    ids=["nothing recorded", "a growing output file", "synchronous", "collected"],
)
def test_totals_add_the_outcomes_that_only_the_server_has(recorded, fields, totals):
    scope = ScopeEntry(1, SCOPE, *recorded, 0, 0)
    job = replace(JOB, requests=427, pending=recorded[2], **fields)
    assert RequestTotals.of([scope], [job]) == RequestTotals(427, *totals)
