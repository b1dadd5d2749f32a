"""What the log says, and how often."""

from __future__ import annotations

import io
import logging
from datetime import datetime, timezone

import pytest

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import OTHER_BATCH, Answer, Failure, build_result_line
from distilabel_openai_batch.api.requests import Request, Shard
from distilabel_openai_batch.api.result_files import JobResults
from distilabel_openai_batch.display import progress as progress_module
from distilabel_openai_batch.display.progress import Progress

IN_NOVEMBER = datetime(2026, 11, 1, tzinfo=timezone.utc).timestamp()


class Clock:
    """Time that passes when it is told to."""

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


def test_nothing_asked_is_nothing_said(progress, caplog):
    """A session that was opened for nothing leaves no line."""
    progress.on_finished()
    assert caplog.messages == []


def test_a_submission_tells_its_size(progress, caplog):
    """Requests, megabytes, and which batch."""
    progress.on_submitted(1_000)
    progress.on_job_created(running(0), shard(1_000))
    assert caplog.messages == ["📤 Submitted job 1, batch batch_1: 1,000 requests, 2.50 MB, of 1,000 requests so far."]


def test_each_tenth_is_told_once(progress, caplog):
    """However often the job is looked at."""
    progress.on_submitted(1_000)
    progress.on_job_created(running(0), shard(1_000))
    caplog.clear()
    for completed in range(0, 1_001, 10):
        progress.on_polled(running(completed, failed=3))
        progress.on_polled(running(completed, failed=3))
    assert len(caplog.messages) == 10
    assert caplog.messages[0] == "⏳ 100 of 1,000 requests answered, 3 failed; jobs: 1 in_progress; 0 s."


def test_every_few_minutes_there_is_a_line(progress, clock, caplog):
    """Even where nothing moves."""
    progress.on_submitted(1_000)
    progress.on_job_created(running(0, status="validating"), shard(1_000))
    caplog.clear()
    for clock.now in range(0, 3_600, 10):
        progress.on_polled(running(0, status="validating"))
    assert len(caplog.messages) == 11
    assert "1 validating" in caplog.messages[0]


def test_what_is_left_open_is_no_failure(progress, clock, caplog):
    """Submitted and not waited for, or interrupted: the next run collects it."""
    progress.on_submitted(12)
    progress.on_job_created(running(0), shard(12))
    caplog.clear()
    progress.on_finished()
    [said] = caplog.messages
    assert said == "🏁 0 of 12 requests answered, 0 failed, 12 open, 0 asked again; 0 tokens in, 0 out; 1 job; 0.0 s."


def test_the_end_tells_what_it_cost(progress, clock, caplog):
    """Answered, failed, asked again, tokens, jobs and time."""
    progress.on_submitted(12)
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
        "⚠️ 2 requests failed: Bad prompt. (400, bad). The first custom_ids: a, b. → Mend these rows and run again"
        " (`use_cache=False`): only changed rows, and those without an answer, are asked.",
        "🔎 `distilabel-openai-batch failures 'my pipeline/generate'` lists them; `add_failures=True` says why in"
        " each row. Run again to ask for what has no answer.",
        "🏁 10 of 12 requests answered, 2 failed, 2 asked again; 10,000 tokens in, 100 out; 1 job; 90.0 s.",
    ]


@pytest.mark.parametrize(
    ("base_url", "model", "line"),
    [
        # 10,000 tokens in at 15 cents a million and 100 out at 60, half of them in a batch.
        ("https://api.openai.com/v1/", "gpt-4o-mini-2024-07-18", "cost $0.0023 by list prices, $0.0008 less"),
        # A snapshot that nobody has a price of: that of the model that was asked.
        ("https://api.openai.com/v1/", "gpt-4o-mini-2031-01-01", "cost $0.0023 by list prices, $0.0008 less"),
        ("http://127.0.0.1:8000/v1/", "gpt-4o-mini", None),
    ],
)
def test_the_end_tells_the_money_where_it_is_known(clock, caplog, base_url, model, line):
    """What this run was answered, in batches and at once; nothing where a price is not known."""
    pytest.importorskip("genai_prices")
    caplog.set_level(logging.INFO)
    progress = Progress(logging.getLogger("test.progress"), base_url)
    asked = Shard([Request("0", "/v1/chat/completions", "gpt-4o-mini", b"{}")], 100)
    progress.on_submitted(20)
    progress.on_job_created(running(0), asked)
    progress.on_collected(running(10, status="completed"), answers(10, model))
    for _ in range(10):
        body = {"model": model, "usage": {"prompt_tokens": 1_000, "completion_tokens": 10}}
        progress.on_sync_answered("gpt-4o-mini", Answer.of(body))
    progress.on_finished()
    told = [message for message in caplog.messages if "💵" in message]
    assert len(told) == bool(line)
    assert not line or line in told[0]


def test_no_money_is_told_where_a_part_of_it_is_unknown(clock, caplog):
    """A sum that leaves something out misleads."""
    progress = Progress(logging.getLogger("test.progress"), "https://api.openai.com/v1/")
    progress.on_submitted(2)
    progress.on_sync_answered("gpt-4o-mini", Answer.of({"model": "gpt-4o-mini", "usage": {"prompt_tokens": 9}}))
    progress.on_sync_answered("gpt-4o-mini", Answer.of({"model": "gpt-4o-mini-of-mine", "usage": {"prompt_tokens": 9}}))
    progress.on_sync_answered("nobody-s", Answer.of({"model": "nobody-s", "usage": {"prompt_tokens": 9}}))
    progress.on_finished()
    assert "$" not in caplog.text


def test_failures_are_told_by_kind_with_the_first_few(progress, caplog):
    """The most frequent first; of each three custom_ids."""
    progress.on_submitted(6)
    progress.on_failed(Failure("Rare.", 422), "z")
    for custom_id in "abcde":
        progress.on_failed(Failure("Often.", 400), custom_id)
    progress.on_finished()
    assert [message.partition(" → ")[0] for message in caplog.messages[:2]] == [
        "⚠️ 5 requests failed: Often. (400). The first custom_ids: a, b, c.",
        "⚠️ 1 request failed: Rare. (422). The first custom_ids: z.",
    ]


def test_what_is_odd_about_a_job_is_told(progress, caplog):
    """How it ended, lines of nobody, files that are gone."""
    progress.on_submitted(3)
    progress.on_job_created(running(0), shard(3))
    caplog.clear()
    progress.on_result_file_missing("file-9")
    progress.on_collected(running(1, status="expired"), JobResults([], [io.BytesIO(b"?\n" * 4)]))
    assert caplog.messages == [
        "⚠️ The server does not have file file-9 any more; what it said is asked again.",
        "Batch batch_1 ended as expired; what it answered is used.",
        "Batch batch_1 has 4 result lines that belong to no request.",
    ]


def test_what_need_not_be_bought_is_told(progress, caplog):
    """By an earlier run, on another machine, by another process."""
    progress.on_reused(0)
    progress.on_reused(1_200)
    progress.on_batch_adopted(running(0), 7)
    progress.on_job_resumed(running(0), 7)
    progress.on_job_of_another_process("batch_2")
    progress.on_job_of_another_process("batch_2")
    assert caplog.messages == [
        "♻️ 1,200 requests were answered before, and are not bought again.",
        "🔁 Found batch batch_1 on the server: 7 requests that need not be bought.",
        "🔁 Carrying on with batch batch_1, which is in_progress: 7 requests.",
        "⏳ Another process runs batch batch_2; waiting for it.",
    ]


def test_what_many_flushes_reuse_is_told_twice(progress, caplog):
    """When there is some for the first time, and at the end, if that was not all."""
    progress.on_submitted(6)
    for _ in range(3):
        progress.on_reused(2)
    progress.on_finished()
    assert [line for line in caplog.messages if "♻️" in line] == [
        "♻️ 2 requests were answered before, and are not bought again.",
        "♻️ 6 requests in all were answered before, and were not bought again.",
    ]


def test_answers_taken_early_are_counted_once(progress, clock, caplog):
    """The batch says that it has them, and so does whoever was given them."""
    batch = Batch("batch_1", "in_progress", completed=2, total=4)
    progress.on_submitted(4)
    progress.on_job_created(batch, shard(4))
    progress.on_early_answers(batch, 2)
    progress.on_answered(1)
    progress.on_answered(1)
    clock.now = 1_000.0
    progress.on_polled(batch)
    assert "2 of 4 requests answered" in caplog.text


def test_requests_of_batches_that_are_not_asked_for_are_no_failures(progress, caplog):
    """They are none of this run's."""
    progress.on_submitted(2)
    progress.on_failed(OTHER_BATCH, "a-0")
    progress.on_answered(1)
    progress.on_finished()
    assert "1 of 1 requests answered, 0 failed" in caplog.text
