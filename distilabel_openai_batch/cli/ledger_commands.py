"""Commands that read the ledger: jobs, costs, report, failures, show, results."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distilabel_openai_batch.cli.application import app
from distilabel_openai_batch.cli.arguments import (
    SCOPE_HELP,
    BaseUrlOption,
    BatchOrScopeArgument,
    HeaderOption,
    LedgerDirOption,
    OptionalScopeArgument,
    PollOption,
    complete_scope,
    find_batch,
    is_selected,
    open_reader,
    poll,
    read_headers,
    select_answers,
    select_jobs,
    select_scopes,
    unknown_batch,
)
from distilabel_openai_batch.cli.output import (
    LOGGER,
    JSONOutput,
    echo,
    local_time,
    note_interrupted,
    note_past_jobs,
    note_uncollected,
    note_unknown_costs,
    print_facts,
    print_json,
    print_table,
)
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.entries import RequestTotals, group_failures
from distilabel_openai_batch.replaced_file import replaced_file
from distilabel_openai_batch.text import duration, plural

if TYPE_CHECKING:
    from distilabel_openai_batch.api.usage import Usage
    from distilabel_openai_batch.display.tables import JobTotals
    from distilabel_openai_batch.display.timings import Timing
    from distilabel_openai_batch.ledger.entries import AnswerEntry, FailureEntry, FailureReason, JobEntry, ScopeEntry
    from distilabel_openai_batch.ledger.reader import LedgerReader
    from distilabel_openai_batch.ledger.states import ScopeName

_JOBS_SHOWN = 20
"""Number of jobs that `jobs` lists by default: one screen."""


@app.command()
def jobs(
    scope: OptionalScopeArgument = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, help="Number of jobs to list.", show_default="20, or all with --json"),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="List all jobs.")] = False,
    look: PollOption = False,
    header: HeaderOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list with every field of each job, the oldest job first.")
    ] = False,
    base_url: BaseUrlOption = None,
    ledger_dir: LedgerDirOption = None,
) -> None:
    """List the latest jobs of the ledger: scope, batch, status, answered and failed requests, cost, saving, plan, time.

    The last column is the duration of an ended job, or the ETA of an open one. The total counts all jobs, listed or
    not, and counts a request once that was in several jobs. A narrow terminal gets the ends of the batch ids.
    """
    from distilabel_openai_batch.cli.json_output import job_json
    from distilabel_openai_batch.display.timings import job_timings

    reader = open_reader(ledger_dir)
    entries = select_jobs(reader, scope, base_url)
    if look:
        entries = poll(entries, header)
    rows = list(zip(entries, job_timings(entries, time.time()), strict=True))
    shown = len(rows) if every else limit or (len(rows) if as_json else _JOBS_SHOWN)
    if as_json:
        print_json([job_json(*row) for row in rows[-shown:]])
    elif rows:
        _print_jobs(rows, RequestTotals.of(select_scopes(reader, scope, base_url), entries), shown)
        note_past_jobs(reader, entries)
        if not look and any(job.is_open and job.batch_id for job in entries):
            echo("Open jobs have the status that a run saw last; `jobs --look` polls the server.", err=True)
    else:
        echo("No jobs.")


def _print_jobs(rows: Sequence[tuple[JobEntry, Timing]], requests: RequestTotals, shown: int) -> None:
    """Print the table of jobs, and notes about the jobs.

    Args:
        rows: all selected jobs, the oldest one first.
        requests: the totals of their requests.
        shown: the number of jobs in the table.
    """
    from distilabel_openai_batch.display.tables import JobTotals, has_no_cost_yet, jobs_table

    entries = [job for job, _ in rows]
    submitted = requests.without_copies()
    totals = JobTotals.of(entries, submitted) if len(rows) > 1 else None
    print_table(partial(jobs_table, totals=totals), rows[: -shown - 1 : -1])
    if len(rows) > shown:
        echo(f"The latest {shown:,} of {len(rows):,} jobs; `jobs --all` lists all.", err=True)
    if (repeated := sum(job.requests for job in entries if not job.is_reused) - submitted.requests) > 0:
        echo(f"The total counts each request once: jobs submitted {plural(repeated, 'request')} again.", err=True)
    if totals and requests.copied:
        copies = plural(requests.copied, "answer")
        echo(f"The total leaves out {copies} of `reused` jobs, which other scopes were billed for.", err=True)
    note_unknown_costs([job for job in entries if not has_no_cost_yet(job)])
    note_interrupted(entries)


@app.command()
def costs(
    scope: OptionalScopeArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    base_url: BaseUrlOption = None,
    ledger_dir: LedgerDirOption = None,
) -> None:
    """List the cost of the answers in the ledger, and their cost without the Batch API, by scope and model.

    Prices are those of the field `prices` in the run of each job, else $DISTILABEL_OPENAI_BATCH_PRICES, else list
    prices on the day of the job. Without any of these the cost is unknown.
    """
    from distilabel_openai_batch.cli.json_output import costs_json
    from distilabel_openai_batch.display.tables import costs_table
    from distilabel_openai_batch.pricing.job_costs import costs_by_model

    selected = select_jobs(open_reader(ledger_dir), scope, base_url)
    entries = costs_by_model(selected)
    if as_json:
        print_json(costs_json(entries))
    elif entries:
        print_table(costs_table, entries)
        note_uncollected(entries)
        note_unknown_costs(selected)
    else:
        echo("No answers.")


@app.command()
def report(
    scope: OptionalScopeArgument = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write.")] = Path("report.html"),
    base_url: BaseUrlOption = None,
    ledger_dir: LedgerDirOption = None,
) -> None:
    """Write an HTML page about the ledger: jobs and answers over time, failures, tokens and savings.

    The page is one file that loads nothing else. It contains no prompts and no answers.
    """
    from distilabel_openai_batch.report import page
    from distilabel_openai_batch.report.vega import HOW_TO_INSTALL

    if output.suffix.lower() not in (".html", ".htm", ""):
        raise OpenAIBatchError(
            f"The report {output} cannot be written: `report` writes HTML, so the name has to end with .html. A browser"
            " prints the page as PDF."
        )
    reader = open_reader(ledger_dir)
    scopes = select_scopes(reader, scope, base_url)
    if not page.is_installed():
        raise OpenAIBatchError(f"`report` needs a drawing library. Install it: {HOW_TO_INSTALL}")
    title = scopes[0].name.label if len(scopes) == 1 else (scope or "All scopes")
    data = page.read_report(reader, scopes, title, time.time())
    try:
        with replaced_file(output) as file:
            file.write(page.render(data).encode())
    except OSError as error:
        raise OpenAIBatchError(f"The report {output} cannot be written: {error.strerror}") from None
    echo(f"{plural(len(data.histories), 'job')} in {output}")


@app.command()
def failures(
    scope: OptionalScopeArgument = None,
    every: Annotated[
        bool, typer.Option("--all", help="List the failures of earlier runs, and those that retries replaced, too.")
    ] = False,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help="Print a line of JSON for each failed request.")] = False,
    base_url: BaseUrlOption = None,
    ledger_dir: LedgerDirOption = None,
) -> None:
    """List the failed requests of each scope's last run by reason, the most frequent reason first.

    The first requests of each reason are shown with the start of their prompt. A failed request of an earlier run is no
    part of the last run: the last run would have submitted it again. Failures that retries with a higher limit replaced
    are listed with --all alone.
    """
    from distilabel_openai_batch.display.tables import reasons_table

    reader = open_reader(ledger_dir)
    failed = list(reader.failures(select_scopes(reader, scope, base_url)))
    entries = [failure for failure in failed if every or failure.is_current]
    if as_jsonl:
        for failure in entries:
            fields = asdict(failure) | {"scope": failure.scope.label, "base_url": failure.scope.base_url}
            print_json(fields, is_indented=False)
    elif by_reason := _group_by_scope(entries):
        print_table(reasons_table, by_reason)
        if not every:
            runs = {failure.scope: failure.run_at for failure in entries}
            for name, run_at in runs.items():
                echo(f"The last run of {name.label} began at {local_time(run_at)}.", err=True)
    else:
        echo("No failed requests.")
    if every:
        return
    replaced = sum(failure.is_replaced for failure in failed)
    if earlier := len(failed) - len(entries) - replaced:
        echo(f"Earlier runs had {plural(earlier, 'failed request')} more: `failures --all` lists all.", err=True)
    if replaced:
        echo(f"Retries replaced {plural(replaced, 'failed request')} more: `failures --all` lists all.", err=True)


def _group_by_scope(failures: Iterable[FailureEntry]) -> list[tuple[ScopeName, FailureReason]]:
    """Group failures by scope and reason, the most frequent reason first."""
    by_scope: dict[ScopeName, list[FailureEntry]] = {}
    for failure in failures:
        by_scope.setdefault(failure.scope, []).append(failure)
    reasons = [(scope, reason) for scope, entries in by_scope.items() for reason in group_failures(entries)]
    return sorted(reasons, key=lambda pair: -pair[1].count)


@app.command()
def show(
    name: BatchOrScopeArgument,
    look: PollOption = False,
    header: HeaderOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    ledger_dir: LedgerDirOption = None,
) -> None:
    """Show every field of one job in the ledger, or the sums of a scope or of each scope of a pipeline."""
    from distilabel_openai_batch.cli.json_output import job_json
    from distilabel_openai_batch.display.timings import job_timings

    reader = open_reader(ledger_dir)
    entries = reader.jobs()
    found = find_batch(entries, name)
    if found is None:
        found_scopes = _find_scopes(reader, entries, name)
        _show_scopes([(scope, poll(jobs, header) if look else jobs) for scope, jobs in found_scopes], as_json)
        return
    place = entries.index(found)
    if look:
        entries[place : place + 1] = poll(entries[place : place + 1], header)
    # The ETA of a job follows from the durations of the scope's other jobs → compute the timings of all jobs.
    job, timing = entries[place], job_timings(entries, time.time())[place]
    if as_json:
        print_json(job_json(job, timing))
        return
    print_facts(_job_facts(job, timing))
    note_unknown_costs([job])


def _find_scopes(reader: LedgerReader, entries: list[JobEntry], name: str) -> list[tuple[ScopeEntry, list[JobEntry]]]:
    """Return the scopes of a name, which may be a pipeline's, each with its jobs.

    Raises:
        OpenAIBatchError: if the ledger has no such scope.
    """
    if not any(is_selected(entry.name, name, None) for entry in reader.scopes()):
        raise unknown_batch(entries, name)
    selected = select_scopes(reader, name, None)
    # A script may have the name of a pipeline → prefer the exact name.
    scopes = [scope for scope in selected if scope.name.label == name] or selected
    return [(scope, [job for job in entries if job.scope == scope.name]) for scope in scopes]


def _show_scopes(scopes: Sequence[tuple[ScopeEntry, list[JobEntry]]], as_json: bool) -> None:
    """Print the sums of each scope; several scopes are a list in JSON."""
    from distilabel_openai_batch.cli.json_output import scope_json
    from distilabel_openai_batch.display.tables import JobTotals

    sums = [(scope, jobs, JobTotals.of(jobs, RequestTotals.of([scope], jobs))) for scope, jobs in scopes]
    if as_json:
        objects = [
            scope_json(scope, totals.requests, jobs, totals.cost if totals.has_cost else None)
            for scope, jobs, totals in sums
        ]
        print_json(objects[0] if len(objects) == 1 else objects)
        return
    for place, (scope, jobs, totals) in enumerate(sums):
        if place:
            echo("")
        print_facts(_scope_facts(scope, jobs, totals))


def _scope_facts(scope: ScopeEntry, jobs: Sequence[JobEntry], totals: JobTotals) -> dict[str, str]:
    """Return the lines that `show` prints about a scope; a line without a value is empty."""
    from distilabel_openai_batch.api.usage import NO_USAGE
    from distilabel_openai_batch.pricing.prices import format_cost

    numbers, (spent, saved, _) = totals.requests, format_cost(totals.cost)
    usage = sum((job.usage for job in jobs), NO_USAGE)
    return {
        "scope": scope.name.label,
        "server": scope.name.base_url,
        "jobs": f"{len(jobs):,}; {sum(job.is_open for job in jobs):,} open",
        "requests": f"{numbers.requests:,}; {numbers.answered:,} answered, {numbers.failed:,} failed"
        + _describe_rare(totals.cut, 0),
        "reused": f"{plural(numbers.copied, 'answer')}, billed to other scopes" if numbers.copied else "",
        "retried": f"{plural(numbers.replaced, 'other request')}, replaced by retries" if numbers.replaced else "",
        "tokens": _describe_tokens(usage) if any(usage.totals()) else "",
        "cost": f"{spent}; saved {saved}" if totals.has_cost else "",
        "first job": local_time(jobs[0].created_at) if jobs else "",
        "last job": local_time(jobs[-1].created_at) if jobs else "",
    }


def _job_facts(job: JobEntry, timing: Timing) -> dict[str, str]:
    """Return the lines that `show` prints about a job; a line without a value is empty."""
    from distilabel_openai_batch.display.tables import has_no_cost_yet
    from distilabel_openai_batch.operations.server_access import name_endpoint
    from distilabel_openai_batch.pricing.job_costs import cost_of_job
    from distilabel_openai_batch.pricing.prices import format_cost

    lost = job.unaccounted
    spent, saved, _ = format_cost(cost_of_job(job))
    return {
        "batch": job.batch_id or "",
        "scope": job.scope.label,
        "server": job.scope.base_url,
        "status": f"{job.status}; in the ledger: {job.state.value}",
        "endpoint": name_endpoint(job),
        "model": job.model or job.answered_by,
        "answered by": job.answered_by if job.answered_by != job.model else "",
        "requests": f"{job.requests:,}; {job.answered:,} answered, {job.failed:,} failed"
        + _describe_rare(job.cut, job.replaced),
        "tokens": "" if has_no_cost_yet(job) else _describe_tokens(job.usage),
        "not collected": f"{_describe_tokens(lost)}; billed, but in no answer of the ledger"
        if any(lost.totals())
        else "",
        "cost": "" if has_no_cost_yet(job) else f"{spent}; saved {saved}",
        "input file": f"{job.input_file_id or 'unknown'}{f', {job.bytes:,} bytes' if job.bytes else ''}",
        "planned": f"{local_time(job.created_at)}, {duration(timing.age)} ago",
        "ended": f"{local_time(job.end_at)}, after {duration(timing.took)}" if job.end_at else "",
        "end seen": local_time(job.ended_at) if job.ended_at and job.ended_at != job.end_at else "",
        "ETA": duration(timing.eta) if timing.eta is not None else "",
        "error": job.error or "",
    }


def _describe_rare(cut: int, replaced: int) -> str:
    """Return the end of a line of numbers: cut answers, and requests that retries replaced, if there are any."""
    parts = [(cut, "cut at the limit of tokens"), (replaced, "replaced by retries")]
    return "".join(f", {number:,} {text}" for number, text in parts if number)


def _describe_tokens(usage: Usage) -> str:
    """Return the numbers of tokens, with the parts that have a price or a meaning of their own."""
    parts_in = [(usage.tokens_cached, "cached"), (usage.tokens_written, "written to the cache")]
    notes = ", ".join(f"{count:,} of them {text}" for count, text in parts_in if count)
    reasoning = f" ({usage.tokens_reasoning:,} of them for reasoning)" if usage.tokens_reasoning else ""
    return f"{usage.tokens_in:,} in{f' ({notes})' if notes else ''}, {usage.tokens_out:,} out{reasoning}"


@app.command()
def results(
    scope: Annotated[
        str | None,
        typer.Argument(help=SCOPE_HELP, autocompletion=complete_scope, show_default="the only scope of the ledger"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File to write: `.jsonl` or `.parquet`.", show_default="JSONL to the terminal"
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Write the answers of earlier runs, and those that retries replaced, too.")
    ] = False,
    questions: Annotated[
        bool, typer.Option("--questions", help="Add the prompt of each answer, from the input files at the server.")
    ] = False,
    header: HeaderOption = None,
    base_url: BaseUrlOption = None,
    ledger_dir: LedgerDirOption = None,
) -> None:
    """Write the answers of a scope's last run: custom_id, batch, model, generations, tokens, API response, and times.

    The name of a pipeline selects the last run of each of its Tasks; the field `scope` names the Task. An answer that a
    retry replaced, since it was cut or did not fit its schema, is written with --all alone, with `replaced` set.
    The ledger keeps answers but no prompts: a `custom_id` is a hash of its request. With --questions the prompts come
    from the input files, which the server may have deleted. Synchronous requests have none.
    """
    from distilabel_openai_batch.operations import export

    reader = open_reader(ledger_dir)
    entries = select_answers(reader, scope, base_url)
    if output is None and sys.stdout is None:
        raise OpenAIBatchError("There is no stdout to write to: name a file with --output.")
    skipped: Counter[bool] = Counter()
    with ExitStack() as stack:
        parts = []
        for entry in entries:
            part = reader.answers(entry, of_last_run=not every)
            part = part if every else _without_replaced(part, skipped)
            parts.append(stack.enter_context(_with_questions(reader, part, entry, header)) if questions else part)
        answers = chain.from_iterable(parts)
        count = export.write(answers, output) if output else export.write_jsonl(answers, JSONOutput())
    if output:
        echo(f"{plural(count, 'answer')} in {output}", err=True)
    if replaced := skipped[True]:
        echo(f"Retries replaced {plural(replaced, 'answer')} more: `results --all` writes all.", err=True)
    if (earlier := sum(map(reader.count_answers, entries)) - count - replaced) > 0:
        echo(f"Earlier runs used {plural(earlier, 'answer')} more: `results --all` writes all.", err=True)


def _without_replaced(answers: Iterable[AnswerEntry], skipped: Counter[bool]) -> Iterator[AnswerEntry]:
    """Yield the answers that no retry replaced, and count the others as `skipped[True]`."""
    for answer in answers:
        skipped[answer.is_replaced] += 1
        if not answer.is_replaced:
            yield answer


@contextmanager
def _with_questions(
    reader: LedgerReader, answers: Iterator[AnswerEntry], scope: ScopeEntry, header: list[str] | None
) -> Iterator[Iterator[AnswerEntry]]:
    """Yield the answers of a scope with the prompts of their requests."""
    from distilabel_openai_batch.engine.scratch import scratch_directory
    from distilabel_openai_batch.operations.input_files import InputFiles
    from distilabel_openai_batch.operations.questions import add_questions

    jobs = [job for job in reader.jobs() if job.scope == scope.name]
    with scratch_directory() as directory, closing(InputFiles(directory, LOGGER, read_headers(header))) as files:
        yield add_questions(answers, jobs, files, partial(echo, err=True))
