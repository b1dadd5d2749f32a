"""Tests of `display.summary`."""

from __future__ import annotations

import io
from dataclasses import replace
from decimal import Decimal

import pytest
from rich.console import Console

from distilabel_openai_batch.display import summary
from distilabel_openai_batch.display.summary import (
    RunSummary,
    TaskSummary,
    next_command,
    print_summary,
    summary_lines,
    summary_text,
)
from distilabel_openai_batch.display.task_counts import TaskCounts
from distilabel_openai_batch.pricing.prices import Cost

REASONS = {"content_filter": 9, "400 invalid_prompt": 3, "refusal": 2, "length": 1}
GENERATE = TaskCounts(
    *(427, 412, 15, REASONS),
    retried=4,
    jobs=1,
    tokens_in=12_345,
    tokens_out=67_890,
    cost=Cost(Decimal(2), Decimal(4)),
    seconds=240.0,
)
JUDGE = TaskCounts(412, 412, reused=400, jobs=1, tokens_in=1, cost=Cost(Decimal(1), Decimal(2)), seconds=250.0)
TASKS = [
    TaskSummary("generate", 427, 427, GENERATE, ("my prefs/generate",)),
    TaskSummary("judge", 427, 427, JUDGE, ("my prefs/judge",)),
]
SUMMARY = RunSummary("my prefs", 427, 427, TASKS, "/cache/my prefs/executions/0123456789abcdef/data")


def printed(summary: RunSummary, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_summary(summary, console)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_table_has_rows_failures_costs_the_dataset_and_the_next_command():
    lines = printed(SUMMARY, 140)
    assert lines[1] == "my prefs: 427 rows in, 427 in the dataset"
    assert lines[2].split() == [
        "Task",
        "rows",
        "answered",
        "failed",
        "retried",
        "reused",
        "jobs",
        "tokens",
        "cost",
        "saved",
        "time",
    ]
    assert lines[3].split()[4:8] == ["412/427", "15", "4", "0"]
    assert lines[5].split()[:3] == ["all", "824/839", "15"]
    assert "$3.00" in lines[5]
    assert lines[6:] == [
        "Failed in generate: 9 × content_filter, 3 × 400 invalid_prompt, 2 × refusal, 1 × others",
        "Dataset: /cache/my prefs/executions/0123456789abcdef/data",
        "Next: distilabel-openai-batch failures 'my prefs/generate' lists the failed requests with reasons",
    ]


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_shows_the_most_important_columns(width):
    """The place and the command stay on one line, so that both can be copied."""
    lines = printed(SUMMARY, width)
    assert max(map(len, lines[2:6])) <= width
    assert lines[2].split()[:4] == ["Task", "rows", "answered", "failed"]
    assert f"Dataset: {SUMMARY.dataset}" in lines


def test_unknown_costs_have_no_columns():
    tasks = [replace(task, counts=replace(task.counts, cost=None)) for task in TASKS]
    assert "cost" not in printed(replace(SUMMARY, tasks=tasks), 140)[2]


def test_the_log_gets_a_line_for_each_task():
    lines = summary_lines(SUMMARY)
    assert lines[1] == (
        "📊 generate: 427 rows in, 427 out; 412 of 427 requests answered, 15 failed (9 × content_filter, 3 × 400"
        " invalid_prompt, 2 × refusal, 1 × others), 4 retried; 1 job; 12,345 tokens in, 67,890 out; $2.00, $2.00 saved;"
        " 4 min 00 s."
    )
    assert lines[2].startswith("📊 judge: 427 rows in, 427 out; 412 of 412 requests answered, 0 failed, 400 reused;")
    assert lines[3] == "📂 Dataset: /cache/my prefs/executions/0123456789abcdef/data"
    assert len(lines) == 5


def in_scopes(counts: TaskCounts, *scopes: str) -> TaskSummary:
    return TaskSummary("step", 5, 5, counts, scopes)


IDLE = replace(TASKS[0], counts=replace(TASKS[0].counts, jobs=0))
"""A Task whose run was refused before its first job."""

OPEN = replace(TASKS[0], counts=replace(TASKS[0].counts, statuses={"in_progress": 1}))
"""A Task whose run was interrupted while a job was in progress."""


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({"rows_out": None, "tasks": [OPEN, TASKS[1]]}, "distilabel-openai-batch watch 'my prefs'"),
        ({"rows_out": None}, "distilabel-openai-batch failures 'my prefs/generate'"),
        ({"rows_out": None, "tasks": TASKS[1:]}, "distilabel-openai-batch jobs 'my prefs'"),
        ({"rows_out": None, "tasks": [IDLE]}, "distilabel-openai-batch jobs"),
        ({"tasks": TASKS[1:]}, "distilabel-openai-batch jobs 'my prefs'"),
        ({"tasks": [in_scopes(JUDGE, "sky")]}, "distilabel-openai-batch jobs sky"),
        ({"tasks": [in_scopes(JUDGE, "sky"), TASKS[1]]}, "distilabel-openai-batch jobs"),
        ({"tasks": [in_scopes(replace(JUDGE, requests=0), "sky")]}, "distilabel-openai-batch jobs"),
        ({"tasks": [in_scopes(GENERATE, "my sky")]}, "distilabel-openai-batch failures 'my sky'"),
        (
            {"tasks": [in_scopes(replace(JUDGE, statuses={"in_progress": 1}), "sky")]},
            "distilabel-openai-batch watch sky",
        ),
        (
            {"ledger_dir": "/mine"},
            "distilabel-openai-batch failures 'my prefs/generate' --ledger-dir /mine",
        ),
        (
            {"tasks": [*TASKS, replace(TASKS[0], name="third", scopes=("my prefs/third",))]},
            "distilabel-openai-batch failures 'my prefs'",
        ),
    ],
)
def test_the_next_command_fits_the_end_of_the_run(monkeypatch, changes, command):
    monkeypatch.setattr(summary, "find_spec", lambda name: None)
    assert next_command(replace(SUMMARY, **changes))[0] == command


@pytest.mark.parametrize(
    ("reason", "purpose"),
    [
        ("length", "again: raise `max_new_tokens` first"),
        ("truncated", "again: raise `max_new_tokens` first"),
        ("500", "submits the failed requests again"),
    ],
)
def test_the_next_command_of_a_run_without_an_open_job_warns_of_the_bill(reason, purpose):
    task = in_scopes(replace(GENERATE, reasons={reason: 15}), "sky")
    command, text = next_command(replace(SUMMARY, rows_out=None, tasks=[task]))
    assert command == "distilabel-openai-batch failures sky"
    assert text.endswith(purpose)


@pytest.mark.parametrize(
    ("counts", "cost"),
    [
        (TaskCounts(requests=55, answered=55, reused=55), "$0.00"),
        (TaskCounts(), "$0.00"),
        (TaskCounts(requests=5, answered=5, tokens_in=9), "?"),
        (TaskCounts(requests=5, answered=5), "?"),
    ],
    ids=["all answers are reused", "never started", "no price", "no usage"],
)
def test_a_question_mark_is_an_unknown_price_alone(counts, cost):
    [line] = [
        line for line in printed(replace(SUMMARY, tasks=[TASKS[0], in_scopes(counts, "sky")]), 160) if "step" in line
    ]
    assert line.split().count(cost) == 2


def test_requests_in_no_job_are_not_submitted():
    waiting = in_scopes(TaskCounts(requests=20, not_submitted=20), "sky")
    summary = replace(SUMMARY, rows_out=None, tasks=[OPEN, waiting])
    assert "0 of 20 requests answered, 0 failed, 20 not submitted; 0 jobs" in summary_lines(summary)[2]
    header = next(line for line in printed(summary, 160) if "answered" in line)
    assert "not submitted" in header
    assert "pending" not in header


CACHED = TaskSummary("write", 427, 427, TaskCounts(2, failed=2, reasons={"length": 2}), is_cached=True)


def test_a_task_of_distilabels_cache_has_its_rows_and_the_failures_of_its_run():
    """The other numbers, and the sums, are those of this run."""
    summary = replace(SUMMARY, tasks=[CACHED, TASKS[1]])
    assert summary_lines(summary)[1] == "📊 write: 427 rows from distilabel's cache, 2 failed (2 × length)."
    lines = printed(summary, 140)
    assert lines[3].split() == ["write", "427", "cached", "2"]
    assert lines[5].split()[:3] == ["all", "412/412", "0"]
    assert "Failed in write: 2 × length" in lines


def test_the_next_command_is_the_live_page_if_the_extra_is_installed(monkeypatch):
    monkeypatch.setattr(summary, "find_spec", lambda name: name)
    command, _ = next_command(replace(SUMMARY, tasks=TASKS[1:]))
    assert command == "distilabel-openai-batch ui 'my prefs'"


def test_an_incomplete_dataset_is_called_so():
    incomplete = replace(SUMMARY, rows_out=None, rows_in=None, dataset="")
    assert summary_lines(incomplete)[0] == "📊 my prefs: the dataset is incomplete."
    assert not any("Dataset:" in line for line in [*summary_lines(incomplete), *printed(incomplete, 80)])


def test_names_are_printed_as_they_are():
    assert "[red]\\x1b[31m: 427 rows" in summary_text(replace(SUMMARY, pipeline="[red]\x1b[31m"))
