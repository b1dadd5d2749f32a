"""Output of the commands: tables, JSON text, and notes about jobs on stderr."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson
import typer
from rich.console import Console

from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import NOT_FOUND, JobState
from distilabel_openai_batch.text import escape_log_lines, plural, printable, printable_json, shortlist

if TYPE_CHECKING:
    from rich.table import Table

    from distilabel_openai_batch.pricing.job_costs import CostEntry

LOGGER = escape_log_lines(logging.getLogger(__name__))
"""Logger of the commands' calls to a server."""

_PIPE_COLUMNS = 1_000_000
"""Width of a pipe or a file: programs that read a table need unbroken lines."""


def may_colour() -> bool | None:
    """Return `False` if the user turned colours off (https://no-color.org), else `None`: the terminal decides."""
    return False if os.getenv("NO_COLOR") else None


def console() -> Console:
    """Return a console as wide as the terminal, or wide enough for any table if stdout is a pipe or a file."""
    return Console() if sys.stdout and sys.stdout.isatty() else Console(width=_PIPE_COLUMNS)


def print_table(table: Callable[[Sequence[Any], int], Table], rows: Sequence[Any]) -> None:
    """Print a table.

    Args:
        table: builds the table from the rows and the number of terminal columns.
        rows: objects shown, one per line of the table.
    """
    stdout = console()
    _print(stdout, table(rows, stdout.width))


def print_facts(facts: Mapping[str, str]) -> None:
    """Print a line for each name and value; a name with an empty value is left out."""
    from distilabel_openai_batch.display.tables import facts_table

    _print(console(), facts_table((name, value) for name, value in facts.items() if value))


def _print(stdout: Console, table: Table) -> None:
    """Print a table; without the spaces that fill its lines if stdout is no terminal."""
    if stdout.is_terminal:
        stdout.print(table)
        return
    with stdout.capture() as capture:
        stdout.print(table)
    stdout.file.write("".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))
    # Later lines on stderr must not come first.
    stdout.file.flush()


def echo(text: str, *, err: bool = False, nl: bool = True, fg: str | None = None) -> None:
    """Print a text for people; every command prints through this function, `print_table` or `print_json`.

    Args:
        text: the text, which may quote a server: its control characters are escaped.
        err: whether to print to stderr.
        nl: whether to end the line.
        fg: the colour, unless the user turned colours off.
    """
    typer.secho(printable(text), err=err, nl=nl, fg=fg, color=may_colour())


def print_json(value: object, *, is_indented: bool = True) -> None:
    """Print a value as JSON whose texts cannot command a terminal."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if is_indented else None).decode()
    typer.echo(printable_json(text))


class JSONOutput(io.BytesIO):
    """File that prints each written line of JSON to stdout, with the escapes of `printable_json`."""

    def write(self, line: Any) -> int:
        """Print bytes of UTF-8, and return the length of the bytes."""
        typer.get_binary_stream("stdout").write(printable_json(bytes(line).decode()).encode())
        return len(line)


def local_time(seconds: float) -> str:
    """Return seconds since the epoch as local date and time: `2026-11-24 13:04:49+00:00`."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")


def note_unknown_costs(jobs: Sequence[JobEntry]) -> None:
    """Print each reason for which a cost of these jobs is unknown, once."""
    from distilabel_openai_batch.pricing.job_costs import cost_of_job, explain_unknown_cost

    for reason in dict.fromkeys(explain_unknown_cost(job) for job in jobs if cost_of_job(job) is None):
        echo(f"? {reason}", err=True)


def note_uncollected(entries: Sequence[CostEntry]) -> None:
    """Print the sum of the tokens that servers billed, and that no answer in the ledger has."""
    from distilabel_openai_batch.api.usage import NO_USAGE

    lost = sum((entry.unaccounted for entry in entries), NO_USAGE)
    if any(lost.totals()):
        echo(
            f"Of these tokens, {lost.tokens_in:,} in and {lost.tokens_out:,} out were billed, and no answer in the"
            " ledger has them: `show BATCH` lists them for each batch.",
            err=True,
        )


def note_interrupted(jobs: Sequence[JobEntry]) -> None:
    """Print the scopes with interrupted jobs, and how to continue or drop these jobs."""
    interrupted = [job for job in jobs if job.is_interrupted]
    if interrupted:
        scopes = shortlist((job.scope.label for job in interrupted), "")
        echo(
            f"Interrupted: {plural(len(interrupted), 'job')} of {scopes}. The run ended before the server confirmed a"
            " batch: run the pipeline again to look for the batch and continue, or `forget` the scope.",
            err=True,
        )


def note_dropped(jobs: Sequence[JobEntry]) -> bool:
    """Print the end of the batches that a run dropped, if no later job of their scope has taken the requests.

    Args:
        jobs: all jobs of some scopes, or the job of a batch.

    Returns:
        Whether a batch was printed.
    """
    latest = {job.scope: job for job in jobs}
    dropped = [job for job in latest.values() if job.state is JobState.DROPPED and job.batch_id]
    for job in dropped:
        echo(
            f"Batch {job.batch_id} of {job.scope.label} is watched no longer: its status is {job.status}, and a run has"
            f" dropped the batch. {(job.error or 'The server gave no reason').rstrip('.')}. When the cause is removed,"
            " the next run, or a load with `resubmit=True`, submits the requests without an answer.",
            err=True,
        )
    return bool(dropped)


def note_collected(job: JobEntry) -> None:
    """Print that a run has collected a batch, and the commands that show its outcomes."""
    scope = job.scope.label
    echo(
        f"Batch {job.batch_id} is watched no longer: its status is {job.status}, and a run has collected its outcomes."
        f" `results {scope}` writes the answers, `failures {scope}` lists the failed requests.",
        err=True,
    )


def note_past_jobs(reader: LedgerReader, jobs: Sequence[JobEntry]) -> None:
    """Print the durations of the past jobs of the models that open jobs have."""
    from distilabel_openai_batch.display.timings import describe_past_jobs

    models = dict.fromkeys((job.scope.base_url, job.model) for job in jobs if job.is_open and job.batch_id)
    for past in [reader.past_jobs(*model) for model in models]:
        if past:
            echo(describe_past_jobs(past), err=True)


def note_lost(jobs: Sequence[JobEntry]) -> None:
    """Print the scopes with jobs whose batches the server does not know, and how to release their requests."""
    if lost := sorted({job.scope.label for job in jobs if job.status == NOT_FOUND}):
        echo(
            f"The server does not know batches of {shortlist(lost, '')}. Check that the key belongs to the project that"
            " made them. If the batches are gone for good, `forget SCOPE --lost` releases their requests, and the next"
            " run submits them again.",
            err=True,
        )
