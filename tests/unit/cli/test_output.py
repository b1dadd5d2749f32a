"""Tests of tables, JSON text and notes that commands print."""

from __future__ import annotations

import io
import json
import re
import sys
from contextlib import closing
from dataclasses import replace

import pytest
from rich.table import Table

from distilabel_openai_batch.cli import output
from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.ledger.past_jobs import PastJobs
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import NOT_FOUND
from tests.support.entries import COLLECTED_JOB, OPEN_JOB
from tests.support.ledgers import LedgerWriter


@pytest.fixture
def job(tmp_path) -> JobEntry:
    """Return a collected job of `preferences/generate` at a server without known prices."""
    with closing(LedgerWriter(tmp_path)) as writer:
        writer.job(writer.scope("preferences", "generate", "http://one/v1/"), 0.0, requests=3)
    [job] = LedgerReader(tmp_path).jobs()
    return job


@pytest.mark.parametrize(("variable", "decision"), [("1", False), ("", None)])
def test_no_color_turns_colours_off(variable, decision, monkeypatch):
    monkeypatch.setenv("NO_COLOR", variable)
    assert output.may_colour() is decision


class Terminal(io.StringIO):
    """Stdout that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_console_is_as_wide_as_the_terminal_or_unlimited(monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert output.console().width == 70
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert output.console().width == 1_000_000
    monkeypatch.setattr(sys, "stdout", None)
    assert output.console().width == 1_000_000


def test_print_table_gives_the_table_its_rows_and_the_width(capsys):
    def table(rows, width) -> Table:
        table = Table("width", box=None)
        for row in rows:
            table.add_row(f"{row} {width}")
        return table

    output.print_table(table, ["a", "b"])
    assert capsys.readouterr().out.split() == ["width", "a", "1000000", "b", "1000000"]


def test_print_json_prints_indented_json(capsys):
    output.print_json([{"a": 1}])
    printed = capsys.readouterr().out
    assert json.loads(printed) == [{"a": 1}]
    assert printed.count("\n") > 1


def test_local_time_has_date_time_and_offset():
    assert re.fullmatch(r"2026-11-2\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", output.local_time(1_795_525_520.76))


def test_a_reason_for_unknown_costs_is_printed_once(job, capsys):
    output.note_unknown_costs([job, job])
    assert capsys.readouterr().err.count("? The prices of http://one/v1/ are not known") == 1


def test_interrupted_jobs_are_noted_with_their_scopes(job, capsys):
    output.note_interrupted([job])
    assert capsys.readouterr().err == ""
    interrupted = replace(job, batch_id=None, state=job.state.PLANNED, status="interrupted")
    assert interrupted.is_interrupted
    output.note_interrupted([job, interrupted, interrupted])
    printed = capsys.readouterr().err
    assert printed.startswith("Interrupted: 2 jobs of preferences/generate.")
    assert "`forget`" in printed


def test_lost_jobs_are_noted_with_their_scopes(job, capsys):
    output.note_lost([job])
    assert capsys.readouterr().err == ""
    output.note_lost([job, replace(job, status=NOT_FOUND)])
    printed = capsys.readouterr().err
    assert printed.startswith("The server does not know batches of preferences/generate.")
    assert "`forget SCOPE --lost`" in printed


def test_past_jobs_of_the_models_of_open_jobs_are_noted_once(capsys):
    """Ended jobs, and models without a history, have no note."""
    asked = []

    class Reader:
        def past_jobs(self, base_url: str, model: str) -> PastJobs | None:
            asked.append(model)
            return PastJobs(model, 20, 420.0) if model == "gpt-4o-mini" else None

    output.note_past_jobs(Reader(), [OPEN_JOB, OPEN_JOB, COLLECTED_JOB, replace(OPEN_JOB, model="new")])
    assert asked == ["gpt-4o-mini", "new"]
    assert capsys.readouterr().err == "Half of the last 20 jobs with gpt-4o-mini took at most 7 min 00 s.\n"
