"""Tests of `report.page`."""

from __future__ import annotations

import re
import sys
from dataclasses import replace

import pytest

from distilabel_openai_batch.ledger.entries import FailureReason, JobEntry, JobTimeline
from distilabel_openai_batch.ledger.states import JobState, ScopeName
from distilabel_openai_batch.report import page
from distilabel_openai_batch.report.history import build_histories
from distilabel_openai_batch.report.page import ReportData, render
from tests.support.entries import COLLECTED_JOB

OPENAI = ScopeName("preferences", "generate", "https://api.openai.com/v1/")
JOB = replace(
    COLLECTED_JOB,
    scope=OPENAI,
    requests=10,
    answered=8,
    failed=2,
    tokens_in=12_345_678,
    tokens_out=23_456,
    created_at=1_795_500_000.0,
    ended_at=1_795_503_600.0,
    answered_by="gpt-4o-mini-2024-07-18",
)
OPEN_JOB = replace(
    JOB, batch_id="batch_2", state=JobState.CREATED, status="in_progress", answered=0, failed=0, ended_at=None
)
NOW = 1_795_590_000.0


@pytest.fixture(autouse=True)
def drawing_library():
    """Skip a test if the extra `report` is not installed."""
    pytest.importorskip("vl_convert", reason="the extra `report` is not installed")


def render_text(*jobs: JobEntry, reasons=(), answered=8, failed=2, pending=0) -> str:
    """Render a page and return its visible text, with single spaces."""
    histories = build_histories(jobs, [JobTimeline()] * len(jobs), NOW)
    html = render(ReportData("preferences", histories, reasons, answered, failed, pending, NOW))
    body = re.sub(r"<svg.*?</svg>|<style.*?</style>", "", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


@pytest.mark.parametrize("name", ["jinja2", "vl_convert"])
def test_the_extra_is_incomplete_without_one_of_its_packages(monkeypatch, name):
    assert page.is_installed()
    monkeypatch.setitem(sys.modules, name, None)
    assert not page.is_installed()


def test_an_empty_ledger_has_a_page():
    text = render_text(answered=0, failed=0)
    assert "Answered 0 no requests yet" in text
    assert "Jobs 0 none yet" in text
    assert "No jobs yet The ledger has no requests yet." in text
    assert "Tokens and costs" not in text


def test_the_cards_summarise_requests_jobs_and_tokens():
    text = render_text(JOB, OPEN_JOB, pending=10)
    assert "Answered 8 40.0% of 20 requests" in text
    assert "Failed 2 no answer so far" in text
    assert "Jobs 2 1 open, with 10 requests" in text
    assert "Tokens 12.4M 12.3M in, 23.5k out" in text
    assert "Jobs 1 all have ended" in render_text(JOB)


def test_the_period_names_the_last_day_only_if_it_differs():
    assert "24 Nov 2026, 06:00 to 07:00 UTC, 1 h 00 min." in render_text(JOB)
    assert "24 Nov 2026, 06:00 to 25 Nov 2026, 07:00 UTC, 1 d 01 h." in render_text(JOB, OPEN_JOB)


def test_known_costs_are_shown_as_savings():
    pytest.importorskip("genai_prices")
    unpriced = replace(JOB, answered=4, answered_by="mine", model="mine")
    text = render_text(JOB, unpriced)
    assert "Saved ≥ $" in text
    assert "; 8 of 12 answers have a price" in text
    assert "The price of mine is not known" in text
    assert "Saved $" not in render_text(unpriced)


def test_a_failure_reason_has_its_advice_and_no_key():
    message = "The key sk-proj-abcdef0123456789 at https://me:secret@example.com/ is wrong. " + "x" * 300
    reasons = [FailureReason(401, "invalid_api_key", message, ["a-0"], 1_234)]
    text = render_text(JOB, reasons=reasons)
    assert "1,234 401 invalid_api_key The key sk-… at https://example.com/ is wrong. xxx" in text
    assert "x… → Fix these rows" in text
    assert "No failures: every ended request has an answer." in render_text(JOB)


@pytest.mark.parametrize(("number", "rest"), [(20, None), (21, "1 more reason:"), (23, "3 more reasons:")])
def test_twenty_reasons_are_listed(number, rest):
    reasons = [FailureReason(400, f"code-{count}", "No.", ["a-0"], 1) for count in range(number)]
    text = render_text(JOB, reasons=reasons)
    assert text.count("→") == 20
    assert (rest in text) if rest else ("more reason" not in text)


def test_the_table_shows_each_job_with_its_state():
    text = render_text(JOB, OPEN_JOB, replace(JOB, batch_id=None), replace(JOB, status="expired", error="Too late."))
    assert "1 completed preferences/generate 8/10 2 24 Nov 2026, 06:00 1 h 00 min batch_1 api.openai.com" in text
    assert "2 in_progress preferences/generate 0/10 0" in text
    assert "3 completed preferences/generate 8/10 2 24 Nov 2026, 06:00 1 h 00 min synchronous api.openai.com" in text
    assert "4 expired" in text
    assert "api.openai.com Too late." in text
