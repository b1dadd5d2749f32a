"""Commands that read the ledger."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import orjson
import typer

from distilabel_openai_batch.cli.app import app
from distilabel_openai_batch.cli.arguments import (
    _SCOPE_HELP,
    _AnyScope,
    _BaseUrl,
    _BatchId,
    _complete_scope,
    _inventory,
    _is_meant,
    _jobs,
    _LedgerDir,
    _Look,
    _looked_at,
    _of_batches,
    _one_scope,
    _scopes,
)
from distilabel_openai_batch.cli.output import (
    _console,
    _costs_json,
    _job_json,
    _moment,
    _print_json,
    _print_table,
    _say_interrupted,
    _say_why_unknown,
)
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.entries import reasons
from distilabel_openai_batch.ledger.states import label
from distilabel_openai_batch.text import plural


@app.command()
def jobs(
    scope: _AnyScope = None,
    look: _Look = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list with all that is known of each job.")] = False,
    base_url: _BaseUrl = None,
    ledger_dir: _LedgerDir = None,
) -> None:
    """List the jobs: scope, batch, status, answered of all requests, failed, cost, what was saved, age, and time.

    The age counts from when a job was planned. What it took stands there when it has ended, the ETA before.
    """
    from distilabel_openai_batch.display.tables import is_to_come, jobs_table, timings

    entries = _jobs(_inventory(ledger_dir), scope, base_url)
    if look:
        entries = _looked_at(entries)
    rows = list(zip(entries, timings(entries, time.time()), strict=True))
    if as_json:
        _print_json([_job_json(*row) for row in rows])
    elif rows:
        _print_table(jobs_table, rows)
        _say_why_unknown([job for job in entries if not is_to_come(job)])
        _say_interrupted(entries)
        if not look and any(job.is_open and job.batch_id for job in entries):
            typer.echo("Open jobs stand as a run saw them last; `jobs --look` asks the server.", err=True)
    else:
        typer.echo("No jobs.")


@app.command()
def costs(
    scope: _AnyScope = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object.")] = False,
    base_url: _BaseUrl = None,
    ledger_dir: _LedgerDir = None,
) -> None:
    """Say what the answers in the ledger cost, and what they would have cost at once, by scope and model.

    Prices are OpenAI's and Azure's list prices of the day. What is not listed is unknown.
    """
    from distilabel_openai_batch.display.tables import costs_table
    from distilabel_openai_batch.pricing.job_costs import by_model

    meant = _jobs(_inventory(ledger_dir), scope, base_url)
    entries = by_model(meant)
    if as_json:
        _print_json(_costs_json(entries))
    elif entries:
        _print_table(costs_table, entries)
        _say_why_unknown(meant)
    else:
        typer.echo("No answers.")


@app.command()
def report(
    scope: _AnyScope = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("report.html"),
    base_url: _BaseUrl = None,
    ledger_dir: _LedgerDir = None,
) -> None:
    """Write a page to be looked at in a browser: jobs and answers over time, failures, tokens, and what was saved.

    It is one file that loads nothing, and has no questions and no answers in it.
    """
    from distilabel_openai_batch.report import charts, page
    from distilabel_openai_batch.report.history import histories

    inventory, now = _inventory(ledger_dir), time.time()
    # Jobs are only added: what is read first has no more of them.
    entries = inventory.jobs()
    scopes = _scopes(inventory, scope, base_url)
    if not page.is_installed():
        raise OpenAIBatchError(f"A report needs something to draw with. Install it: {charts.HOW_TO_INSTALL}")
    found = histories(entries, inventory.courses(), now)
    facts = page.Facts(
        title=label(scopes[0].name) if len(scopes) == 1 else (scope or "All scopes"),
        histories=[history for history in found if _is_meant(history.job.scope, scope, base_url)],
        reasons=reasons(inventory.failures(scopes)),
        answered=sum(entry.answered for entry in scopes),
        failed=sum(entry.failed for entry in scopes),
        under_way=sum(entry.asked for entry in scopes),
        now=now,
    )
    try:
        output.write_text(page.render(facts), encoding="utf-8")
    except OSError as error:
        raise OpenAIBatchError(f"The report cannot be written: {error}") from None
    typer.echo(f"{len(facts.histories):,} jobs in {output}")


@app.command()
def failures(
    scope: _AnyScope = None,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help="A line of JSON for each failed request.")] = False,
    base_url: _BaseUrl = None,
    ledger_dir: _LedgerDir = None,
) -> None:
    """List the requests that have no answer by reason, the most frequent one first."""
    from distilabel_openai_batch.display.tables import reasons_table

    inventory = _inventory(ledger_dir)
    found = inventory.failures(_scopes(inventory, scope, base_url))
    if as_jsonl:
        for failure in found:
            about = asdict(failure) | {"scope": label(failure.scope), "base_url": failure.scope.base_url}
            typer.echo(orjson.dumps(about).decode())
    elif by_reason := reasons(found):
        _print_table(reasons_table, by_reason)
    else:
        typer.echo("No failed requests.")


@app.command()
def show(
    batch_id: _BatchId,
    look: _Look = False,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object.")] = False,
    ledger_dir: _LedgerDir = None,
) -> None:
    """Show all that is known of one job."""
    from distilabel_openai_batch.display.tables import facts_table, is_to_come, money, timings
    from distilabel_openai_batch.pricing.job_costs import of_job
    from distilabel_openai_batch.text import duration

    entries = _inventory(ledger_dir).jobs()
    place = entries.index(_of_batches(entries, [batch_id])[0])
    if look:
        entries[place : place + 1] = _looked_at(entries[place : place + 1])
    # The scope's other jobs tell how long this one may take.
    job, timing = entries[place], timings(entries, time.time())[place]
    if as_json:
        _print_json(_job_json(job, timing))
        return
    cached = f" ({job.tokens_cached:,} of them cached)" if job.tokens_cached else ""
    spent, saved = money(of_job(job))
    facts = {
        "batch": batch_id,
        "scope": label(job.scope),
        "server": job.scope.base_url,
        "status": f"{job.status}; in the ledger: {job.state.value}",
        "endpoint": job.endpoint,
        "model": job.model or job.answered_by,
        "answered by": job.answered_by if job.answered_by != job.model else "",
        "requests": f"{job.requests:,}; {job.answered:,} answered, {job.failed:,} failed",
        "tokens": "" if is_to_come(job) else f"{job.tokens_in:,} in{cached}, {job.tokens_out:,} out",
        "cost": "" if is_to_come(job) else f"{spent}; saved {saved}",
        "input file": f"{job.input_file_id or 'unknown'}{f', {job.bytes:,} bytes' if job.bytes else ''}",
        "planned": f"{_moment(job.created_at)}, {duration(timing.age)} ago",
        "ended": f"{_moment(job.ended_at)}, after {duration(timing.took)}" if job.ended_at else "",
        "ETA": duration(timing.eta) if timing.eta is not None else "",
        "error": job.error or "",
    }
    _console().print(facts_table((name, value) for name, value in facts.items() if value))
    _say_why_unknown([job])


@app.command()
def results(
    scope: Annotated[
        str | None,
        typer.Argument(help=_SCOPE_HELP, autocompletion=_complete_scope, show_default="the only one there is"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file, `.jsonl` or `.parquet`.", show_default="JSONL to the terminal"),
    ] = None,
    base_url: _BaseUrl = None,
    ledger_dir: _LedgerDir = None,
) -> None:
    """Write out the answers of a scope: custom_id, batch, model, generations, tokens, and the API's whole response.

    The ledger keeps answers, not questions: a `custom_id` is a hash of its question.
    """
    from distilabel_openai_batch.operations import export

    inventory = _inventory(ledger_dir)
    answers = inventory.answers(_one_scope(inventory, scope, base_url))
    if output is None:
        if sys.stdout is None:
            raise OpenAIBatchError("There is no stdout to write to: name a file with --output.")
        export.write_jsonl(answers, typer.get_binary_stream("stdout"))
    else:
        count = export.write(answers, output)
        typer.echo(f"{plural(count, 'answer')} in {output}", err=True)
