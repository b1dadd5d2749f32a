"""Tests of `display.progress`: the text and the number of its log lines."""

from __future__ import annotations

import dataclasses
import inspect
import io
import json
import logging
from datetime import datetime, timezone

import pytest
from msgspec import structs

from distilabel_openai_batch.api.batches import Batch, BatchError
from distilabel_openai_batch.api.outcomes import OTHER_BATCH, Answer, Failure, build_result_line
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.api.result_files import JobResults
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.display import progress as progress_module
from distilabel_openai_batch.display.progress import Progress
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.ledger.past_jobs import PastJobs
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.pricing import run_costs as run_costs_module
from distilabel_openai_batch.pricing.price_book import PriceBook

OPENAI = PriceBook("https://api.openai.com/v1/")

IN_NOVEMBER = datetime(2026, 11, 1, tzinfo=timezone.utc).timestamp()


class Clock:
    """Clock whose time a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now + IN_NOVEMBER


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    monkeypatch.setattr(run_costs_module, "time", clock)
    return clock


@pytest.fixture
def progress(clock, caplog) -> Progress:
    caplog.set_level(logging.INFO)
    return Progress(logging.getLogger("test.progress"), scope="my pipeline/generate")


def shard(requests: int) -> Shard:
    return Shard([Request(f"{n}", "/v1/chat/completions", "m", b"{}") for n in range(requests)], 2_500_000)


def running(completed: int, failed: int = 0, status: str = "in_progress") -> Batch:
    return Batch("batch_1", status, completed=completed, failed=failed, total=1_000)


def answers(requests: int, model: str = "m") -> JobResults:
    usage = {"prompt_tokens": 1_000, "completion_tokens": 10}
    lines = [build_result_line(f"{n}", {"model": model, "usage": usage}) for n in range(requests)]
    return JobResults([f"{n}" for n in range(requests)], [io.BytesIO(b"".join(lines))])


def test_a_run_without_requests_logs_nothing(progress, caplog):
    progress.on_finished()
    assert caplog.messages == []


def test_a_submission_logs_its_batch_and_its_size(progress, caplog):
    progress.on_requested(1_000)
    progress.on_job_created(running(0), shard(1_000))
    assert caplog.messages == ["📤 Submitted job 1, batch batch_1: 1,000 requests, 2.50 MB."]


def test_a_submission_of_a_part_logs_the_number_of_requests_so_far(progress, caplog):
    progress.on_requested(5_000)
    progress.on_job_created(running(0), shard(1_000))
    assert caplog.messages == ["📤 Submitted job 1, batch batch_1: 1,000 requests of 5,000 so far, 2.50 MB."]


def test_submission_and_progress_of_retries_say_so(progress, caplog):
    """Log lines of a second round would otherwise look as the first round over again."""
    retries = [structs.replace(request, retry_of="cut answer") for request in shard(12).requests]
    progress.on_requested(1_000)
    progress.on_answered(1_000)
    progress.on_resubmitted(12)
    progress.on_requested(12)
    progress.on_job_created(running(0), Shard(retries, 2_500))
    progress.on_polled(running(12))
    assert caplog.messages[0] == "📤 Submitted job 1, batch batch_1: retry of 12 cut answers, 2.5 kB."
    assert "jobs: 1 in_progress; retry of 12 cut answers; 0 s" in caplog.messages[-1]


def test_time_left_of_a_retry_round_follows_the_pace_of_the_round(progress, clock):
    """The time of the first round says nothing: the requests that it answered are pending again."""
    progress.on_requested(1_000)
    progress.on_job_created(running(0), shard(1_000))
    clock.now = 600.0
    progress.on_answered(1_000)
    progress.on_resubmitted(1_000)
    progress.on_requested(1_000)
    assert progress.counts().seconds_left is None
    progress.on_job_created(Batch("batch_2", "in_progress", total=1_000), shard(1_000))
    clock.now = 660.0
    progress.on_answered(100)
    assert progress.counts().seconds_left == pytest.approx(540.0)


def test_submission_of_first_requests_and_retries_names_both(progress, caplog):
    requests = shard(3).requests
    progress.on_requested(5)
    progress.on_retried(2)
    kinds = ["", "failed request", "unfit answer"]
    mixed = [structs.replace(request, retry_of=kind) for request, kind in zip(requests, kinds, strict=True)]
    progress.on_job_created(running(0), Shard(mixed, 2_500))
    parts = "3 requests of 5 so far, retry of 1 failed request and 1 unfit answer, 2.5 kB."
    assert caplog.messages == [f"📤 Submitted job 1, batch batch_1: {parts}"]


def test_one_request_is_singular(progress, caplog):
    progress.on_requested(1)
    progress.on_job_created(running(0), shard(1))
    progress.on_reused(1)
    progress.on_deadline_passed(1)
    progress.on_finished()
    assert "1 requests" not in caplog.text
    assert "1 request, 2.50 MB." in caplog.text


def test_each_tenth_of_the_requests_is_logged_once(progress, caplog):
    progress.on_requested(1_000)
    progress.on_job_created(running(0), shard(1_000))
    caplog.clear()
    for completed in range(0, 1_001, 10):
        progress.on_polled(running(completed, failed=3))
        progress.on_polled(running(completed, failed=3))
    assert len(caplog.messages) == 10
    assert caplog.messages[0] == "⏳ 100 of 1,000 requests answered (10 %), 3 failed; jobs: 1 in_progress; 0 s."


def test_progress_estimates_the_time_left_by_the_pace_since_the_first_job(progress, clock, caplog):
    """Reused answers took no time, and the time before the first job is the time of the rows' producers."""
    progress.on_requested(1_000)
    progress.on_reused(400)
    progress.on_answered(400)
    clock.now = 1_000.0
    progress.on_job_created(running(0), shard(600))
    caplog.clear()
    clock.now = 1_060.0
    progress.on_polled(running(99, failed=1))
    # 100 requests in 60 s, 500 requests are left.
    assert caplog.messages == [
        "⏳ 499 of 1,000 requests answered (49 %), 1 failed; jobs: 1 in_progress; 17 min 40 s, about 5 min 00 s left."
    ]


def test_progress_of_a_continued_job_counts_its_earlier_answers(progress, clock, caplog):
    progress.on_requested(1_000)
    progress.on_job_resumed(running(800), 1_000)
    clock.now = 60.0
    progress.on_polled(running(900))
    assert "about 1 min 00 s left" in caplog.messages[-1]


def test_progress_logs_the_cost_of_ended_jobs(clock, caplog):
    pytest.importorskip("genai_prices")
    caplog.set_level(logging.INFO)
    progress = Progress(logging.getLogger("test.progress"), OPENAI, scope="a")
    progress.on_requested(2_000)
    progress.on_job_created(running(0), shard(1_000))
    progress.on_collected(running(1_000, status="completed"), answers(1_000, "gpt-4o-mini"))
    progress.on_answered(1_000)
    other = dataclasses.replace(running(0), id="batch_2")
    progress.on_job_created(other, shard(1_000))
    progress.on_polled(other)
    # A million tokens in at 7.5 cents, and 10,000 tokens out at 30 cents a million.
    assert caplog.messages[-1].endswith("; $0.0780 for the jobs that have ended.")


def test_interrupted_run_logs_the_answers_that_the_server_has(progress, caplog):
    progress.on_requested(427)
    progress.on_job_created(running(0), shard(427))
    progress.on_polled(running(345, failed=2))
    progress.on_finished()
    assert caplog.messages[-1].startswith(
        "🏁 345 of 427 requests answered (345 not collected yet), 0 failed, 82 pending, 0 retried;"
    )


def test_a_stalled_run_logs_a_line_every_five_minutes(progress, clock, caplog):
    progress.on_requested(1_000)
    progress.on_job_created(running(0, status="validating"), shard(1_000))
    caplog.clear()
    for clock.now in range(0, 3_600, 10):
        progress.on_polled(running(0, status="validating"))
    assert len(caplog.messages) == 11
    assert "1 validating" in caplog.messages[0]


def test_a_pending_request_is_no_failure(progress, clock, caplog):
    """A run that does not wait, or that is interrupted, leaves pending requests to the next run."""
    progress.on_requested(12)
    progress.on_job_created(running(0), shard(12))
    caplog.clear()
    progress.on_finished()
    assert caplog.messages == [
        "🏁 0 of 12 requests answered, 0 failed, 12 pending, 0 retried; 0 tokens in, 0 out; 1 job; 0.0 s."
    ]


def test_the_end_logs_failures_advice_and_a_summary(progress, clock, caplog):
    progress.on_requested(12)
    progress.on_job_created(running(0), shard(12))
    progress.on_collected(running(10, 2, "completed"), answers(10))
    progress.on_answered(10)
    progress.on_retried(2)
    for custom_id in ("a", "b"):
        progress.on_failed(Failure("Bad prompt.", 400, "bad"), custom_id)
    clock.now = 90.0
    caplog.clear()
    progress.on_finished()
    assert caplog.messages == [
        "⚠️ 2 requests failed: Bad prompt. (400, bad). The first custom_ids: a, b. → Fix these rows and run again"
        " (`use_cache=False`): only changed and unanswered rows are submitted.",
        "🔎 `distilabel-openai-batch failures 'my pipeline/generate'` lists all failed requests; `add_failures=True`"
        " adds the reason to each row. Run the same script again, a pipeline with `use_cache=False`, to submit these"
        " requests again.",
        "🏁 10 of 12 requests answered, 2 failed, 2 retried; 10,000 tokens in, 100 out; 1 job; 90.0 s.",
    ]


@pytest.mark.parametrize(
    ("base_url", "model", "line"),
    [
        # 10,000 tokens in at 15 cents a million and 100 out at 60, half of them in a batch.
        ("https://api.openai.com/v1/", "gpt-4o-mini-2024-07-18", "cost $0.0023 by list prices, $0.0008 less"),
        # A snapshot without a listed price has the price of the requested model.
        ("https://api.openai.com/v1/", "gpt-4o-mini-2031-01-01", "cost $0.0023 by list prices, $0.0008 less"),
        ("http://127.0.0.1:8000/v1/", "gpt-4o-mini", None),
    ],
)
def test_the_end_logs_the_cost_if_all_prices_are_known(clock, caplog, base_url, model, line):
    """The cost contains batches and synchronous requests."""
    pytest.importorskip("genai_prices")
    caplog.set_level(logging.INFO)
    progress = Progress(logging.getLogger("test.progress"), PriceBook(base_url))
    submitted = Shard([Request("0", "/v1/chat/completions", "gpt-4o-mini", b"{}")], 100)
    progress.on_requested(20)
    progress.on_job_created(running(0), submitted)
    progress.on_collected(running(10, status="completed"), answers(10, model))
    for _ in range(10):
        body = {"model": model, "usage": {"prompt_tokens": 1_000, "completion_tokens": 10}}
        progress.on_sync_answered("gpt-4o-mini", Answer.of(body))
    progress.on_finished()
    lines = [message for message in caplog.messages if "💵" in message]
    assert len(lines) == bool(line)
    assert not line or line in lines[0]


def test_a_partly_unknown_cost_is_not_logged(clock, caplog):
    progress = Progress(logging.getLogger("test.progress"), OPENAI)
    progress.on_requested(2)
    progress.on_sync_answered("gpt-4o-mini", Answer.of({"model": "gpt-4o-mini", "usage": {"prompt_tokens": 9}}))
    progress.on_sync_answered("gpt-4o-mini", Answer.of({"model": "gpt-4o-mini-of-mine", "usage": {"prompt_tokens": 9}}))
    progress.on_sync_answered("nobody-s", Answer.of({"model": "nobody-s", "usage": {"prompt_tokens": 9}}))
    progress.on_finished()
    assert "$" not in caplog.text


def test_failures_are_logged_by_kind_with_three_custom_ids(progress, caplog):
    """The most frequent kind comes first."""
    progress.on_requested(6)
    progress.on_failed(Failure("Rare.", 422), "z")
    for custom_id in "abcde":
        progress.on_failed(Failure("Often.", 400), custom_id)
    progress.on_finished()
    assert [message.partition(" → ")[0] for message in caplog.messages[:2]] == [
        "⚠️ 5 requests failed: Often. (400). The first custom_ids: a, b, c.",
        "⚠️ 1 request failed: Rare. (422). The first custom_ids: z.",
    ]


def test_failures_with_figures_of_their_own_are_one_kind(progress, caplog):
    """The line has the whole message of the first failure."""
    progress.on_requested(300)
    for number in range(300):
        message = f"Your messages resulted in {138_839 + number} tokens."
        progress.on_failed(Failure(message, 400, "context_length_exceeded"), f"id-{number}")
    progress.on_finished()
    assert [line.partition(" The first")[0] for line in caplog.messages if "⚠️" in line] == [
        "⚠️ 300 requests failed: Your messages resulted in 138839 tokens. (400, context_length_exceeded)."
    ]


def test_more_than_twenty_kinds_of_failures_are_counted_in_one_line(progress, caplog):
    """A message may quote the row in a way that nothing marks."""
    progress.on_requested(30)
    for word in range(30):
        progress.on_failed(Failure(f"Bad word {'ab' * word}x.", 400), f"id-{word}")
    progress.on_finished()
    lines = [line for line in caplog.messages if "⚠️" in line]
    assert len(lines) == 21
    assert lines[-1] == "⚠️ 10 more requests failed for 10 other reasons."


def test_answers_in_another_scope_are_logged_with_the_way_to_use_them(progress, caplog):
    scope = ScopeName("old", "generate", "http://one/v1/")
    progress.on_answers_elsewhere(scope, "old/generate at http://one", 40, 50, "http://two/v1/")
    progress.on_taken_from(ScopeName("old", "generate", "http://one/v1/"), 40)
    warning, info = caplog.messages
    assert "scope of the ledger, 'old/generate' at http://one/v1/, has 40 of 50 sampled requests." in warning
    assert 'set `reuse_from="old/generate at http://one"`' in warning
    assert "--from 'old/generate at http://one' --base-url http://two/v1/`." in warning
    assert info.startswith("♻️ 40 answers of scope 'old/generate' at http://one/v1/")


def test_an_early_end_stray_lines_and_missing_files_are_logged(progress, caplog):
    progress.on_requested(3)
    progress.on_job_created(running(0), shard(3))
    caplog.clear()
    progress.on_result_file_missing("file-9")
    progress.on_collected(running(1, status="expired"), JobResults([], [io.BytesIO(b"?\n" * 4)]))
    assert caplog.messages == [
        "⚠️ The server no longer has result file file-9; its requests are submitted again.",
        "Batch batch_1 ended as expired; partial results are kept.",
        "Batch batch_1 has 4 result lines that match no request.",
    ]


def test_a_failed_batch_that_is_created_again_is_logged(progress, caplog):
    batch = Batch("batch_1", "failed", errors=(BatchError("Try again.", "server_error"),))
    progress.on_batch_retried(batch, 15.0)
    assert caplog.messages == [
        "⚠️ Batch batch_1 failed: server_error: Try again. Another batch is created from its input file in 15 s."
    ]


def test_the_first_wait_for_file_storage_is_logged(progress, caplog):
    progress.on_storage_full("The storage is full.")
    progress.on_storage_full("The storage is full.")
    assert caplog.messages == ["⏳ Uploads wait until jobs end and their files are deleted: The storage is full."]


def test_reused_answers_and_batches_of_other_runs_are_logged(progress, caplog):
    """An earlier run, another machine or another process submitted the requests."""
    progress.on_reused(0)
    progress.on_reused(1_200)
    progress.on_batch_adopted(running(0), 7)
    progress.on_job_resumed(running(0), 7)
    progress.on_job_of_another_process("batch_2")
    progress.on_job_of_another_process("batch_2")
    assert caplog.messages == [
        "♻️ An earlier run answered 1,200 requests: the answers are reused, not billed again.",
        "🔁 Found batch batch_1 on the server: 7 requests, which are not billed again.",
        "🔁 Continuing batch batch_1 (status in_progress): 7 requests.",
        "⏳ Another process runs batch batch_2; waiting for its answers.",
    ]


def test_answers_reused_in_several_flushes_are_logged_first_and_in_total(progress, caplog):
    progress.on_requested(6)
    for _ in range(3):
        progress.on_reused(2)
    progress.on_finished()
    assert [line for line in caplog.messages if "♻️" in line] == [
        "♻️ An earlier run answered 2 requests: the answers are reused, not billed again.",
        "♻️ Earlier runs answered 6 requests in total: the answers were reused, not billed again.",
    ]


def test_earlier_answers_without_text_are_no_reused_answers(progress, caplog):
    progress.on_empty_reused(55)
    assert caplog.messages == [
        '♻️ 55 earlier answers lack a generation: the same requests with a higher limit follow (`on_truncated="retry"`).'
    ]
    assert progress.counts().reused == 0


def test_requests_are_pending_only_while_a_batch_is_in_progress(progress, caplog):
    progress.on_requested(20)
    assert (progress.counts().not_submitted, progress.counts().in_jobs) == (20, 0)
    progress.on_job_created(running(0), shard(20))
    assert (progress.counts().not_submitted, progress.counts().in_jobs) == (0, 20)
    progress.on_batch_refused(running(0))
    progress.on_finished()
    assert "0 of 20 requests answered, 0 failed, 20 not submitted," in caplog.text


def test_early_answers_are_counted_once(progress, clock, caplog):
    """The batch's own count contains the early answers too."""
    batch = Batch("batch_1", "in_progress", completed=2, total=4)
    progress.on_requested(4)
    progress.on_job_created(batch, shard(4))
    progress.on_early_answers(batch, 2)
    progress.on_answered(1)
    progress.on_answered(1)
    clock.now = 1_000.0
    progress.on_polled(batch)
    assert "2 of 4 requests answered" in caplog.text


def test_a_request_of_a_batch_that_is_not_selected_counts_nowhere(progress, caplog):
    progress.on_requested(2)
    progress.on_failed(OTHER_BATCH, "a-0")
    progress.on_answered(1)
    progress.on_finished()
    assert "1 of 1 request answered, 0 failed" in caplog.text


def test_rejected_answers_of_one_code_are_one_kind(progress, caplog):
    """Nearly every message about an answer that does not fit its schema differs."""
    progress.on_requested(3)
    for number in range(2):
        progress.on_rejected(Failure(f"Answer {number} does not fit.", code="invalid_structured_output"), f"{number}")
    progress.on_answered(3)
    progress.on_finished()
    assert "2 requests failed: Answer 0 does not fit. (invalid_structured_output). The first custom_ids: 0, 1." in (
        caplog.text
    )
    assert "1 of 3 requests answered, 2 failed, 0 retried" in caplog.text


def test_each_change_of_the_way_of_sending_is_logged(progress, caplog):
    progress.on_batch_not_adoptable(running(0), "its input file is gone")
    progress.on_preflight_skipped("no endpoint")
    progress.on_sync_unavailable("no endpoint")
    progress.on_deadline_passed(7)
    progress.on_deadline_passed(7, running(0))
    assert caplog.messages == [
        "⚠️ Batch batch_1 of this task is in_progress, but its input file is gone: its requests may be submitted and"
        " billed a second time.",
        "⚠️ The preflight is skipped, all requests are submitted untested: no endpoint",
        "⚠️ Requests that should be synchronous go into a batch: no endpoint",
        "⏰ The deadline has passed. Up to 7 requests go to the synchronous endpoint, at full price.",
        "⏰ The deadline has passed; batch batch_1 is cancelled, and its answers are kept. Up to 7 requests go to the"
        " synchronous endpoint, at full price.",
    ]


def test_cut_answers_are_counted_by_their_limit(progress, caplog):
    progress.on_requested(5_000)
    progress.on_answered(5_000)
    for number in range(37):
        progress.on_cut(128, f"{number}")
    progress.on_cut(None, "a")

    progress.on_finished()

    assert "✂️ 37 of 5,000 answers were cut at max_new_tokens=128; their text is kept." in caplog.text
    assert "✂️ 1 of 5,000 answers were cut at the model's limit" in caplog.text


def test_a_rejected_synchronous_request_is_not_reported_at_full_price(progress, caplog):
    progress.on_requested(3)
    for _ in range(2):
        progress.on_sync_answered("gpt-4o-mini", Answer.of({"usage": {"prompt_tokens": 5, "completion_tokens": 7}}))
    progress.on_sync_answered("gpt-4o-mini", Failure("The model does not exist.", 404, "model_not_found"))
    caplog.set_level(logging.INFO)
    progress.on_finished()
    assert "💸 2 requests went to the synchronous endpoint, at full price" in caplog.text
    assert "🚫 1 request to the synchronous endpoint was rejected, and not billed." in caplog.text


def test_retries_of_answered_requests_are_no_further_requests(progress):
    """Of three cut answers, one gets a whole answer, one retry is refused, and one answer has no text at the end."""
    progress.on_requested(10)
    progress.on_answered(10)
    progress.on_resubmitted(3)
    progress.on_requested(3)
    assert (progress.counts().requests, progress.counts().pending) == (10, 3)
    progress.on_answered(2)
    progress.on_failed(Failure("The limit is too large.", 400, "invalid_value"), "a-0")
    progress.on_resubmission_failed(1)
    progress.on_rejected(Failure("Spent.", 200, "length"), "b-0")
    counts = progress.counts()
    assert (counts.requests, counts.answered, counts.failed, counts.pending, counts.retried) == (10, 9, 1, 0, 3)


def test_retries_of_cut_answers_are_logged(progress, caplog):
    progress.on_cut_retried(3, 256)
    progress.on_cut_unaffordable(1)

    assert (
        "3 answers cut or empty at the limit of tokens: submitted again with limits of up to 256 tokens" in caplog.text
    )
    assert "1 answer cut or empty at the limit of tokens: not submitted again" in caplog.text


@pytest.mark.parametrize("parameter", ["max_tokens", "max_completion_tokens", "tools"])
def test_refused_parameter_and_its_replacement_are_logged(progress, caplog, parameter):
    progress.on_parameter_refused("alias", parameter)

    assert f"alias refuses `{parameter}`: its requests are submitted again with" in caplog.text


@pytest.mark.parametrize(
    ("reasoning", "words"),
    [(120, "took 128 of 128 tokens per generation, 120 of them for reasoning"), (0, "generation:")],
)
def test_preflight_that_spends_its_limit_is_logged(progress, caplog, reasoning, words):
    for _ in range(3):
        progress.on_limit_spent("gpt-6-luna", 128, 128, reasoning)

    [line] = caplog.messages
    assert words in line


@pytest.mark.parametrize(
    ("billed", "collected", "text"),
    [
        (
            Usage(10, 5),
            Usage(4, 5),
            "6 tokens in and 0 out were billed, not collected. `costs` counts the billed tokens.",
        ),
        (Usage(4, 5), Usage(10, 5), "6 tokens in and 0 out were collected, not billed."),
    ],
)
def test_a_difference_between_the_bill_and_the_lines_is_logged(progress, caplog, billed, collected, text):
    progress.on_usage_differs(running(2, status="completed"), billed, collected)
    assert caplog.messages == [f"⚠️ Batch batch_1 shows another usage than its result lines: {text}"]


def test_the_summary_says_how_many_tokens_reasoning_took(progress, caplog):
    usage = {"prompt_tokens": 9, "completion_tokens": 50, "completion_tokens_details": {"reasoning_tokens": 40}}
    line = build_result_line("a", {"model": "m", "usage": usage})
    progress.on_requested(1)
    progress.on_collected(running(1, status="completed"), JobResults(["a"], [io.BytesIO(line)]))
    progress.on_answered(1)
    progress.on_finished()
    assert "9 tokens in, 50 out (40 for reasoning);" in caplog.messages[-1]


def test_counts_hold_the_numbers_of_the_run_so_far(progress, clock):
    """Open batches add their own counts; a rejected answer has failed; a refused request names its status."""
    progress.on_requested(1_000)
    progress.on_job_created(running(0), shard(1_000))
    clock.now = 100.0
    progress.on_polled(running(200, failed=5))
    counts = progress.counts()
    assert (counts.requests, counts.answered, counts.failed, counts.jobs) == (1_000, 200, 5, 1)
    assert (counts.statuses, counts.seconds, counts.tokens_in) == ({"in_progress": 1}, 100.0, 0)
    assert round(counts.seconds_left) == round(795 * 100 / 205)
    progress.on_collected(running(1_000, status="completed"), answers(2))
    progress.on_answered(998)
    progress.on_rejected(Failure("I cannot.", 200, "refusal"), "0")
    progress.on_failed(Failure("Odd.", 400, "invalid_prompt"), "1")
    progress.on_failed(Failure("Gone."), "2")
    progress.on_batches_reused(["batch_0"])
    clock.now = 200.0
    progress.on_finished()
    clock.now = 900.0
    counts = progress.counts()
    assert (counts.answered, counts.failed, counts.pending, counts.statuses) == (997, 3, 0, {})
    assert counts.reasons == {"refusal": 1, "400 invalid_prompt": 1, "no code": 1}
    assert (counts.tokens_in, counts.tokens_out, counts.seconds) == (2_000, 20, 200.0)
    assert list(progress.batch_ids) == ["batch_1", "batch_0"]


def test_each_line_of_the_log_names_its_event_with_facts_that_json_holds(progress, clock, caplog):
    """The names are those of the observer's methods, and of the lines about the whole run."""
    arguments = {
        "batch": running(2),
        "shard": shard(3),
        "results": answers(2),
        "failure": Failure("Odd.", 400, "invalid_prompt"),
        "scope": ScopeName("other", "generate", ""),
        "outcome": Failure("Odd.", 400),
        "billed": Usage(10, 5),
        "collected": Usage(4, 5),
        "past": PastJobs("gpt-4o-mini", 3, 60.0),
        "parameter": "max_tokens",
        "batch_ids": ["batch_1"],
        "seconds": 60.0,
        "pause": 60.0,
    }
    texts = ("custom_id", "reason", "file_id", "model", "name", "batch_id", "own_address")
    names = [name for name in dir(Observer) if name.startswith("on_")]
    # The requests that `on_resubmitted` takes back.
    progress.on_requested(3)
    for name in sorted(names, key=lambda name: name == "on_finished"):
        parameters = list(inspect.signature(getattr(Observer, name)).parameters)[1:]
        values = {each: arguments.get(each, "text" if each in texts else 3) for each in parameters}
        getattr(progress, name)(**values)
        clock.now += 400.0
    records = caplog.records
    assert len(records) > 25
    assert {record.event for record in records} - {name[3:] for name in names} == {
        *("progress", "failures", "synchronous"),
    }
    assert {record.scope for record in records} == {"my pipeline/generate"}
    assert {record.funcName for record in records if record.event == "job_created"} == {"on_job_created"}
    [created] = [record for record in records if record.event == "job_created"]
    assert (created.batch_id, created.requests, created.bytes) == ("batch_1", 3, 2_500_000)
    plain = vars(logging.makeLogRecord({}))
    for record in records:
        json.dumps({name: value for name, value in vars(record).items() if name not in plain})
    [finished] = [record for record in records if record.event == "finished"]
    assert (finished.jobs, finished.synchronous, finished.reasons) == (1, 1, {"400 invalid_prompt": 2})
