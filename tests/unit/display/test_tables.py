"""How jobs are drawn, and what is said of the time they take."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from distilabel_openai_batch.api.outcomes import Answer
from distilabel_openai_batch.display import tables
from distilabel_openai_batch.display.bars import Bars
from distilabel_openai_batch.display.tables import Timing, jobs_table, remaining, timings
from distilabel_openai_batch.ledger.entries import AnswerEntry, FailureEntry, JobEntry, group_failures
from distilabel_openai_batch.ledger.states import JobState, ScopeName
from distilabel_openai_batch.operations.export import record
from distilabel_openai_batch.text import duration

SCOPE = ScopeName("preferences", "text_generation_0", "http://127.0.0.1:9/v1/")
JOB = JobEntry(
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
COLLECTED = replace(
    JOB,
    batch_id="batch_1",
    state=JobState.COLLECTED,
    status="completed",
    answered=50_000,
    failed=0,
    pending=0,
    ended_at=1_600.0,
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "–"), (0.2, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (7_499, "2 h 04 min"), (100_000, "1 d 03 h")],
)
def test_durations_are_said_in_two_units(seconds, words):
    """At most, and rounded down but for seconds."""
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("age", "done", "total", "earlier", "left"),
    [
        (100.0, 10, 50, (), 400.0),
        (100.0, 10, 50, (1.0,), 400.0),
        (100.0, 50, 50, (), 0.0),
        (100.0, 60, 50, (), 0.0),
        (100.0, 0, 50, (150.0, 130.0, 9_000.0), 50.0),
        (100.0, 0, 50, (90.0,), None),
        (100.0, 0, 50, (), None),
    ],
)
def test_what_remains_is_told_by_the_pace_or_by_earlier_jobs(age, done, total, earlier, left):
    """Or not at all."""
    assert remaining(age, done, total, earlier) == left


def test_only_jobs_under_way_have_something_left():
    """Those that have ended took some time, and grow older all the same."""
    waiting = replace(JOB, answered=0, failed=0)
    elsewhere = replace(waiting, scope=ScopeName("other", "", SCOPE.base_url))
    ended = replace(JOB, status="completed")
    assert timings([COLLECTED, JOB, waiting, elsewhere, ended], now=1_500.0) == [
        Timing(500.0, took=600.0),
        Timing(500.0, eta=1_500.0),
        Timing(500.0, eta=100.0),
        Timing(500.0),
        Timing(500.0),
    ]


def test_reasons_are_told_apart_by_status_and_code():
    """The most frequent one first, with three custom_ids."""
    kinds = [(400, "bad"), (None, "missing_result"), (None, "missing_result"), (400, "bad"), (400, "bad"), (400, "bad")]
    found = group_failures(FailureEntry(SCOPE, f"{n}", "b", *kind, f"message {n}", 1) for n, kind in enumerate(kinds))
    assert [(reason.count, reason.message, reason.custom_ids) for reason in found] == [
        (4, "message 0", ["0", "3", "4"]),
        (2, "message 1", ["1", "2"]),
    ]


def drawn(*jobs: JobEntry, width: int) -> list[str]:
    """What is left on a terminal."""
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width, legacy_windows=False)
    with Bars(console) as bars:
        bars.show(jobs)
        bars.show([replace(job, answered=job.answered + 1) for job in jobs])
        written = console.file.getvalue()
    last = written.rpartition("\x1b[1A")[2]
    return [line.replace("\x1b[2K", "").rstrip() for line in last.splitlines()]


@pytest.mark.parametrize("width", [60, 80, 160])
def test_progress_fits_the_terminal(width, monkeypatch):
    """A line for all and one for each job, of which the numbers are kept whatever is cut."""
    monkeypatch.setattr(tables.time, "time", lambda: 2_250.0)
    lines = drawn(JOB, COLLECTED, width=width)
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("all ")
    assert "62501/100000" in lines[0]
    assert "12501/50000" in lines[1]
    assert "in_progress" in lines[1]
    assert lines[1].endswith("ETA 1 h 02 min")
    assert "c6e7f8" in lines[1]


JOBS = [(JOB, Timing(500.0, eta=60.0)), (COLLECTED, Timing(9_000.0, took=600.0))]


def printed(table, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table(width))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("width", "first", "second"),
    [
        (180, "scope batch status answered failed cost saved age took", "preferences/text_generation_0 batch_6840f1d7"),
        (120, "scope", "batch status answered failed cost saved age took"),
        (97, "scope", "batch status answered failed cost took"),
        (91, "scope", "batch status answered failed took"),
    ],
)
def test_a_batch_can_be_copied_from_a_narrow_terminal(width, first, second):
    """Its id is in one piece; what is needed least is left out."""
    lines = printed(lambda room: jobs_table(JOBS, room), width)
    assert " ".join(lines[0].split()) == first
    assert " ".join(lines[1].split()).startswith(second)
    assert all(sum(job.batch_id in line for line in lines) == 1 for job, _ in JOBS)
    assert max(map(len, lines)) <= width
    assert " ".join(lines[-1].split()).startswith("total 62,000/100,000 500")


@pytest.mark.parametrize("width", [80, 120])
def test_failures_can_be_copied_from_a_narrow_terminal(width):
    """custom_ids are in one piece."""
    custom_id = "5acd45b53d64e0b5cc4b107d9758d5af-0"
    failure = FailureEntry(SCOPE, custom_id, "b", 400, "context_length_exceeded", "Too long, by far. " * 9, 1)
    assert any(
        custom_id in line for line in printed(lambda room: tables.reasons_table(group_failures([failure]), room), width)
    )


def test_names_are_no_markup():
    """A pipeline may be called what it likes."""
    console = Console(file=io.StringIO(), width=160)
    scope = ScopeName("[red]odd[/]", "[/]", SCOPE.base_url)
    console.print(jobs_table([(replace(JOB, scope=scope, status="[/x]"), Timing(1.0))]))
    assert "[red]odd[/]/[/]" in console.file.getvalue()
    assert "[/x]" in console.file.getvalue()


@pytest.mark.parametrize(
    ("body", "generations"),
    [
        ({"choices": [{"message": {"content": "a"}}, {"message": {"content": None, "refusal": "No."}}]}, ["a", None]),
        ({"choices": [{"text": "b"}]}, ["b"]),
        ({"data": [{"embedding": [0.5]}]}, []),
        ({"choices": ["odd"]}, [None]),
    ],
)
def test_what_is_written_of_an_answer_are_its_texts(body, generations):
    """Those of a chat and of a completion; an embedding has none."""
    assert record(AnswerEntry("a-0", None, Answer.of(body)))["generations"] == generations
