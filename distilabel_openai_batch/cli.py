"""The command line, `distilabel-openai-batch`.

It imports neither distilabel nor, before a server is to be asked, the SDK: both take their time.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import orjson
import typer
from rich.console import Console
from typer.core import TyperGroup

from distilabel_openai_batch import __version__
from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Answer, Outcome
from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.entries import JobEntry, ScopeEntry, reasons
from distilabel_openai_batch.ledger.files import DIRECTORY_ENV_NAME, directory
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.reader import Inventory
from distilabel_openai_batch.ledger.states import LOST, ScopeName, in_full, label
from distilabel_openai_batch.pricing.prices import Cost
from distilabel_openai_batch.text import _NAMED, _few, plural

if TYPE_CHECKING:
    from rich.table import Table

    from distilabel_openai_batch.display.tables import Timing
    from distilabel_openai_batch.pricing.job_costs import CostEntry
    from distilabel_openai_batch.pricing.step_estimate import Forecast

_LOGGER = logging.getLogger(__name__)

# What reads from a pipe, or a file, wants whole lines. Tables take no more than they need.
_PIPE_COLUMNS = 1_000_000

_SHORTEST_INTERVAL_SECONDS = 0.05


def _may_colour() -> bool | None:
    """`False` where the user wants no colours (https://no-color.org); otherwise the terminal decides."""
    return False if os.getenv("NO_COLOR") else None


class _Commands(TyperGroup):
    """The one boundary between our errors and the user, who is told what is wrong and sees no traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OpenAIBatchError as error:
            typer.secho(str(error), err=True, fg=typer.colors.RED, color=_may_colour())
            raise typer.Exit(1) from None


app = typer.Typer(
    name="distilabel-openai-batch",
    cls=_Commands,
    help="Run distilabel pipelines through the OpenAI Batch API.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,
)


def _complete_scope(incomplete: str) -> list[str]:
    try:
        return [name for entry in _inventory(None).scopes() if (name := label(entry.name)).startswith(incomplete)]
    except OpenAIBatchError:
        return []


def _complete_batch(incomplete: str) -> list[str]:
    try:
        return [job.batch_id for job in _inventory(None).jobs() if job.batch_id and job.batch_id.startswith(incomplete)]
    except OpenAIBatchError:
        return []


_LedgerDir = Annotated[
    Path | None,
    typer.Option(
        "--ledger-dir",
        help=f"The ledger's directory; else ${DIRECTORY_ENV_NAME}, else ~/.cache/distilabel/openai_batch.",
        show_default=False,
    ),
]
_BaseUrl = Annotated[
    str | None,
    typer.Option("--base-url", help="Only what was asked there, where several servers were.", show_default=False),
]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_Look = Annotated[
    bool, typer.Option("--look", help="Ask the server how open jobs are now. Otherwise: as a run saw them last.")
]
_BatchId = Annotated[str, typer.Argument(help="A batch's id, as `jobs` shows it.", autocompletion=_complete_batch)]

_SCOPE_HELP = "A pipeline's name, `pipeline/task`, or a script's name, as `jobs` shows it."
_OneScope = Annotated[str, typer.Argument(help=_SCOPE_HELP, autocompletion=_complete_scope)]
_AnyScope = Annotated[
    str | None, typer.Argument(help=_SCOPE_HELP, autocompletion=_complete_scope, show_default="all scopes")
]


def _tell_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _commands(
    _version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version, and exit.")
    ] = False,
) -> None:
    """Run distilabel pipelines through the OpenAI Batch API.

    These commands look at the ledger, in which every run writes down what it asks, buys and is answered. They can be
    used while a pipeline runs. Those that ask a server take the key from $OPENAI_API_KEY.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a log may not have each letter: better a `?` there than nothing.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


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
def estimate(
    pipeline: Annotated[Path, typer.Argument(help="The pipeline's YAML or JSON file.")],
    param: Annotated[
        list[str] | None,
        typer.Option(help="A runtime parameter, as for `distilabel pipeline run`: `step.llm.max_jobs=5`."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object.")] = False,
    ledger_dir: _LedgerDir = None,
) -> None:
    """Say how much a pipeline would ask through the Batch API and what that may cost. Nothing is sent, or bought.

    The steps before the first Tasks are run, here. What the ledger has answered, or under way, is not bought again.
    """
    # distilabel and what it imports warn of each other, to those who cannot mend it.
    warnings.simplefilter("ignore")
    from distilabel_openai_batch.display.tables import forecast_notes, forecasts_table
    from distilabel_openai_batch.operations.estimate import estimate_pipeline

    forecasts = estimate_pipeline(pipeline, _parameters(param or []), ledger_dir)
    if as_json:
        _print_json(_forecasts_json(forecasts))
        return
    if not forecasts:
        typer.echo("No step of it asks through the Batch API.")
        return
    _print_table(forecasts_table, forecasts)
    for note in forecast_notes(forecasts):
        typer.echo(note)


@app.command()
def watch(
    scope: _AnyScope = None,
    base_url: _BaseUrl = None,
    interval: Annotated[float, typer.Option(help="Seconds between two looks at the server, 0.05 at least.")] = 5.0,
    ledger_dir: _LedgerDir = None,
) -> None:
    """Watch open jobs at the server until they end, and those that a run makes meanwhile.

    Ctrl+C ends the watching alone: the jobs go on.
    """
    from distilabel_openai_batch.display.bars import Bars
    from distilabel_openai_batch.operations.server import (
        FOR_LONG,
        Access,
        server_of,
        watch_jobs,
    )

    inventory = _inventory(ledger_dir)

    def open_jobs() -> list[JobEntry]:
        return [job for job in _jobs(inventory, scope, base_url) if job.is_open]

    server = server_of(open_jobs())
    if server is None:
        typer.echo("No open jobs.")
        _say_interrupted(_jobs(inventory, scope, base_url))
        return
    access = Access.to(server)
    with Bars(_console()) as bars:

        async def run() -> list[JobEntry]:
            async with access.open(FOR_LONG, _LOGGER) as api:
                return await watch_jobs(
                    api,
                    lambda: [job for job in open_jobs() if job.scope.base_url == server],
                    bars.show,
                    max(interval, _SHORTEST_INTERVAL_SECONDS),
                    inventory.is_in_use,
                )

        seen = {job.batch_id: job for job in anyio.run(run)}
    if failed := sum(job.failed for job in seen.values()):
        typer.echo(f"{plural(failed, 'request')} failed: `failures` lists them once they are collected.")
    left_open = [seen[job.batch_id] for job in open_jobs() if job.batch_id in seen]
    _say_lost(left_open)
    if left := sorted({label(job.scope) for job in left_open if job.status != LOST}):
        typer.echo(
            f"Ended, and not collected yet: {', '.join(left)}. A pipeline that runs does that now; otherwise run it"
            " again."
        )


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


@app.command()
def cancel(
    batch_ids: Annotated[
        list[str] | None,
        typer.Argument(help="Batches' ids, as `jobs` shows them.", autocompletion=_complete_batch, show_default=False),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All open jobs.")] = False,
    yes: _Yes = False,
    base_url: _BaseUrl = None,
    ledger_dir: _LedgerDir = None,
) -> None:
    """Cancel jobs at the server. What they answered until then is billed, and kept by the next run."""
    from distilabel_openai_batch.operations.server import (
        AT_ONCE,
        Access,
        can_be_looked_at,
        looked_at,
        server_of,
    )

    if bool(batch_ids) == every:
        raise typer.BadParameter("Give the ids of batches, or --all.")
    entries = _jobs(_inventory(ledger_dir), None, base_url)
    meant = entries if every else _of_batches(entries, batch_ids or [])
    chosen = [job for job in meant if can_be_looked_at(job)]
    server = server_of(chosen)
    if not every:
        for job in meant:
            if job not in chosen:
                typer.echo(f"{job.batch_id} has ended: it is {job.status}.")
    if server is None:
        if every:
            typer.echo("No open jobs at a server.")
            _say_interrupted(entries)
        return
    access = Access.to(server)
    for job in chosen:
        typer.echo(f"{job.batch_id} of {label(job.scope)}: {plural(job.requests, 'request')}", err=True)
    typer.echo(
        "A pipeline that waits for them asks again what they do not answer: end it first, if that is not wanted.",
        err=True,
    )
    if not yes:
        typer.confirm(f"Cancel {plural(len(chosen), 'job')}?", abort=True, err=True)

    async def run() -> list[JobEntry]:
        async with access.open(AT_ONCE, _LOGGER) as api:
            for job in chosen:
                assert job.batch_id
                await api.cancel(job.batch_id)
            return await looked_at(api, chosen)

    now = anyio.run(run)
    for job in now:
        typer.echo(f"{job.batch_id} is {job.status}.")
    _say_lost(now)


@app.command()
def adopt(
    batch_id: Annotated[str, typer.Argument(help="The batch's id at the server.")],
    scope: _OneScope,
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", help="The server it is at.", show_default="the scope's, $OPENAI_BASE_URL, OpenAI's"),
    ] = None,
    ledger_dir: _LedgerDir = None,
) -> None:
    """Take the answers of a batch made elsewhere into a scope, known to the ledger or new.

    A run there takes them for those of its questions that the batch was asked word for word, parameters included.
    """
    from distilabel_openai_batch.api.batches import KEY
    from distilabel_openai_batch.operations import import_batch
    from distilabel_openai_batch.operations.server import (
        AT_ONCE,
        DEFAULT_BASE_URL,
        Access,
    )

    inventory = _inventory(ledger_dir)
    known = [entry.name for entry in inventory.scopes()] if inventory.path.exists() else []
    name = next(
        (name for name in known if scope in (label(name), in_full(name)) and _is_meant(name, scope, base_url)), None
    )
    if name is None:
        pipeline, _, task = scope.partition("//" if "//" in scope else "/")
        address = base_url or os.getenv("OPENAI_BASE_URL") or DEFAULT_BASE_URL
        name = ScopeName(pipeline, task, f"{address.rstrip('/')}/")
    access = Access.to(name.base_url)

    async def run(directory: Path) -> tuple[Batch, list[tuple[str, Outcome]]]:
        async with access.open(AT_ONCE, _LOGGER) as api:
            return await import_batch.read(api, name.base_url, batch_id, directory)

    with TemporaryDirectory() as directory:
        batch, outcomes = anyio.run(run, Path(directory))
    with closing(Ledger(inventory.path.parent, name)) as file:
        if not file.adopt_results(batch, batch.metadata.get(KEY, batch.id), outcomes):
            raise OpenAIBatchError(f"The ledger knows batch {batch_id} already.")
    answers = sum(isinstance(outcome, Answer) for _, outcome in outcomes)
    typer.echo(
        f"{label(name)} at {name.base_url}: took {plural(answers, 'answer')}; {len(outcomes) - answers:,} without one."
    )


@app.command()
def forget(
    scope: _OneScope,
    lost: Annotated[bool, typer.Option("--lost", help="Also the jobs whose batches the server does not know.")] = False,
    yes: _Yes = False,
    base_url: _BaseUrl = None,
    ledger_dir: _LedgerDir = None,
) -> None:
    """Drop what became of a scope's requests, and its interrupted jobs, so that the next run buys them again.

    Jobs under way stay, and so do the batches and files at the server. It is asked where an interrupted job may have a
    batch there. A batch may be unknown to it because the key is another project's: that is no loss.
    """
    from distilabel_openai_batch.operations.forget import settle_interrupted, settle_lost

    inventory = _inventory(ledger_dir)
    entry = _one_scope(inventory, scope, base_url)
    jobs = [job for job in inventory.jobs() if job.scope == entry.name]
    interrupted = [job for job in jobs if job.is_interrupted]
    under_way = sum(job.asked for job in jobs if job.is_open)
    cost = f", which cost {entry.tokens_in:,} tokens in and {entry.tokens_out:,} out"
    parts = [
        f"{plural(entry.answered, 'answer')}{cost}" if entry.answered else "",
        plural(entry.failed, "failed request") if entry.failed else "",
        f"{plural(sum(job.asked for job in interrupted), 'request')} of interrupted jobs" if interrupted else "",
        f"{plural(under_way, 'request')} under way, which stay{' where the server knows their batch' if lost else ''}"
        if under_way
        else "",
    ]
    there = "; ".join(filter(None, parts)) or "nothing"
    typer.echo(f"{label(entry.name)} at {entry.name.base_url}: {there}.", err=True)
    if not (entry.answered + entry.failed or interrupted or (lost and under_way)):
        typer.echo("Nothing to forget.")
        return
    if not yes:
        typer.confirm("Forget them? A run that needs them has to buy them again.", abort=True, err=True)
    with closing(Ledger(inventory.path.parent, entry.name)) as file:
        settled = settle_interrupted(file, entry.name.base_url, _LOGGER)
        gone = settle_lost(file, entry.name.base_url, _LOGGER) if lost else 0
        forgotten = file.forget()
    typer.echo(f"Forgot what became of {plural(forgotten, 'request')}.")
    if lost:
        typer.echo(f"{plural(gone, 'job')} had a batch that the server does not know.")
    for batch in settled.found:
        typer.echo(f"Batch {batch.id} was found at the server: its requests were bought, and stay.")
    if settled.unknown:
        raise OpenAIBatchError(
            f"{plural(settled.unknown, 'interrupted job')} may have a batch at the server, and stays:"
            f" {settled.why_unknown}"
        )


@app.command()
def doctor(
    base_url: Annotated[
        str | None,
        typer.Option("--base-url", envvar="OPENAI_BASE_URL", help="The server's address.", show_default="OpenAI's"),
    ] = None,
    ledger_dir: _LedgerDir = None,
) -> None:
    """Check versions, ledger, base URL and key, and the server by two small calls that cost nothing."""
    from distilabel_openai_batch.operations.doctor import diagnose
    from distilabel_openai_batch.operations.server import (
        DEFAULT_BASE_URL,
    )

    findings = anyio.run(partial(diagnose, ledger_dir, base_url or DEFAULT_BASE_URL))
    for finding in findings:
        sign, colour = ("✗ ", "red") if finding.mend else ("✓ ", "green")
        typer.secho(sign, fg=colour, nl=False, color=_may_colour())
        typer.echo(f"{finding.subject}: {finding.says}")
        if finding.mend:
            typer.echo(f"  → {finding.mend}")
    if any(finding.mend for finding in findings):
        raise typer.Exit(1)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    in_progress_seconds: Annotated[float, typer.Option(help="Seconds that each job takes.", min=0)] = 0.0,
    seconds_per_request: Annotated[float, typer.Option(help="Seconds more for each of its requests.", min=0)] = 0.0,
    window_seconds: Annotated[
        float, typer.Option(help="Seconds after which a job expires, with what was answered by then.", min=0)
    ] = 86_400.0,
    fail_share: Annotated[
        float, typer.Option(help="The share of the requests that fail, the same ones each time.", min=0, max=1)
    ] = 0.0,
    fail_status: Annotated[int, typer.Option(help="The HTTP status that they fail with.", min=400, max=599)] = 400,
) -> None:
    """Serve the sandbox: a local server that speaks the Batch API, for trying pipelines without a key or money.

    It answers at once and without thought, unless it is told to take its time, or to fail.
    """
    try:
        from distilabel_openai_batch.sandbox import RequestFailure, Settings
        from distilabel_openai_batch.sandbox import serve as serve_sandbox
    except ImportError as error:
        typer.echo(
            f"The sandbox needs `{error.name}`. Install it: pip install 'distilabel-openai-batch[sandbox]'", err=True
        )
        raise typer.Exit(1) from None
    try:
        failures = [RequestFailure(contains="", share=fail_share, status=fail_status)] if fail_share else []
        settings = Settings(
            in_progress_seconds=in_progress_seconds,
            seconds_per_request=seconds_per_request,
            window_seconds=window_seconds,
            failures=failures,
        )
        serve_sandbox(settings, host=host, port=port)
    except OSError as error:
        typer.echo(f"{host}:{port} cannot be listened on: {error.strerror}. Choose another --port; 0 is any.", err=True)
        raise typer.Exit(1) from None


def _inventory(ledger_dir: Path | None) -> Inventory:
    return Inventory(directory(ledger_dir))


def _console() -> Console:
    return Console() if sys.stdout and sys.stdout.isatty() else Console(width=_PIPE_COLUMNS)


def _print_table(table: Callable[[Sequence[Any], int], Table], rows: Sequence[Any]) -> None:
    console = _console()
    console.print(table(rows, console.width))


def _is_meant(name: ScopeName, scope: str | None, base_url: str | None) -> bool:
    is_at = base_url is None or base_url.rstrip("/") == name.base_url.rstrip("/")
    return is_at and (scope is None or scope in (label(name), name.pipeline, in_full(name)))


def _jobs(inventory: Inventory, scope: str | None, base_url: str | None) -> list[JobEntry]:
    """The jobs that are meant, of which there may be none in a scope that there is."""
    meant = [job for job in inventory.jobs() if _is_meant(job.scope, scope, base_url)]
    if scope and not meant:
        _scopes(inventory, scope, base_url)
    return meant


def _scopes(inventory: Inventory, scope: str | None, base_url: str | None) -> list[ScopeEntry]:
    """The scopes that are meant; at least one where one is named."""
    entries = inventory.scopes()
    meant = [entry for entry in entries if _is_meant(entry.name, scope, base_url)]
    if scope and not meant:
        there = [label(entry.name) for entry in entries]
        has = f"It has: {_few(there, scope)}" if there else "Nothing was asked through it yet."
        raise OpenAIBatchError(f"The ledger has no scope {scope}{f' at {base_url}' if base_url else ''}. {has}")
    return meant


def _one_scope(inventory: Inventory, scope: str | None, base_url: str | None) -> ScopeEntry:
    meant = _scopes(inventory, scope, base_url)
    # A pipeline's name may be that of a script, too.
    meant = [entry for entry in meant if label(entry.name) == scope] or meant
    if len(meant) == 1:
        return meant[0]
    if not meant:
        raise OpenAIBatchError(f"The ledger has no scope{f' at {base_url}' if base_url else ''}.")
    some = meant[-_NAMED:]
    labels = Counter((label(entry.name), entry.name.base_url) for entry in meant)
    listed = "".join(
        f"\n  {in_full(name) if labels[label(name), name.base_url] > 1 else label(name)} --base-url {name.base_url}"
        for name in (entry.name for entry in some)
    )
    more = f"\nand {len(meant) - len(some):,} before these." if len(meant) > len(some) else ""
    raise OpenAIBatchError(f"Which scope is meant? There are:{listed}{more}")


def _of_batches(entries: Sequence[JobEntry], batch_ids: Sequence[str]) -> list[JobEntry]:
    by_id = {job.batch_id: job for job in entries}
    for batch_id in batch_ids:
        if batch_id not in by_id:
            raise OpenAIBatchError(
                f"The ledger does not know batch {batch_id}. It knows: {_few(filter(None, by_id), batch_id)}"
            )
    return [by_id[batch_id] for batch_id in dict.fromkeys(batch_ids)]


def _looked_at(entries: list[JobEntry]) -> list[JobEntry]:
    """The jobs as they are at the server, where it knows more of them than the ledger."""
    from distilabel_openai_batch.operations.server import (
        AT_ONCE,
        Access,
        can_be_looked_at,
        looked_at,
        server_of,
    )

    there = [job for job in entries if can_be_looked_at(job)]
    server = server_of(there)
    if server is None:
        return entries
    access = Access.to(server)

    async def run() -> list[JobEntry]:
        async with access.open(AT_ONCE, _LOGGER) as api:
            return await looked_at(api, there)

    seen = {job.batch_id: job for job in anyio.run(run)}
    return [seen.get(job.batch_id, job) if job.batch_id else job for job in entries]


def _job_json(job: JobEntry, timing: Timing) -> dict[str, Any]:
    from distilabel_openai_batch.pricing.job_costs import of_job

    seconds = {f"{name}_seconds": value for name, value in asdict(timing).items()}
    facts = {name: value for name, value in asdict(job).items() if name != "long"}
    return facts | _scope_json(job.scope) | seconds | _cost_json(of_job(job))


def _scope_json(scope: ScopeName) -> dict[str, str]:
    return {"scope": label(scope), "pipeline": scope.pipeline, "task": scope.task, "base_url": scope.base_url}


def _cost_json(cost: Cost | None) -> dict[str, float | None]:
    """Dollars; null where they are not known."""
    if cost is None:
        return {"cost": None, "cost_at_once": None, "saved": None}
    return {"cost": float(cost.spent), "cost_at_once": float(cost.at_once), "saved": float(cost.saved)}


def _costs_json(entries: Sequence[CostEntry]) -> dict[str, Any]:
    def numbers(some: Sequence[CostEntry]) -> dict[str, Any]:
        answers, unknown = sum(entry.answers for entry in some), sum(entry.unknown for entry in some)
        usage = sum((entry.usage for entry in some), Usage(0, 0))
        known = sum((entry.cost for entry in some), Cost()) if answers > unknown or not answers else None
        return {"answers": answers, "unknown": unknown} | usage.counts() | _cost_json(known)

    scopes = [_scope_json(entry.scope) | {"model": entry.model} | numbers([entry]) for entry in entries]
    return {"scopes": scopes, "total": numbers(entries)}


def _parameters(params: Sequence[str]) -> dict[str, Any]:
    """Runtime parameters as `Pipeline.run` takes them."""
    parameters: dict[str, Any] = {}
    for param in params:
        name, is_given, value = param.partition("=")
        *steps, last = name.split(".")
        if not is_given or not steps:
            raise typer.BadParameter(f"{param!r} is not `step.parameter=value`.", param_hint="--param")
        place = parameters
        for step in steps:
            place = place.setdefault(step, {})
        place[last] = value
    return parameters


def _forecasts_json(forecasts: Sequence[Forecast]) -> dict[str, Any]:
    """Costs and tokens out are bounds, tokens in an estimate."""
    known = [forecast for forecast in forecasts if not forecast.depends_on]
    steps = [
        asdict(forecast)
        | {"to_buy": forecast.requests - forecast.known}
        | ({"usage": forecast.usage.counts()} if forecast.usage else {})
        | _cost_json(forecast.cost)
        for forecast in forecasts
    ]
    total = sum((forecast.cost for forecast in known if forecast.cost), Cost())
    return {
        "steps": steps,
        "is_complete": len(known) == len(forecasts) and all(forecast.cost for forecast in known),
        "total": _cost_json(total if any(forecast.cost for forecast in known) else None),
    }


def _say_why_unknown(jobs: Sequence[JobEntry]) -> None:
    """Explains each `?`, so that no sum is taken for more than it is."""
    from distilabel_openai_batch.pricing.job_costs import of_job, why_unknown

    for reason in dict.fromkeys(why_unknown(job) for job in jobs if of_job(job) is None):
        typer.echo(f"? {reason}", err=True)


def _say_interrupted(jobs: Sequence[JobEntry]) -> None:
    """Says what to do about jobs that nobody works on."""
    interrupted = [job for job in jobs if job.is_interrupted]
    if interrupted:
        scopes = _few((label(job.scope) for job in interrupted), "")
        typer.echo(
            f"Interrupted: {plural(len(interrupted), 'job')} of {scopes}. The run was gone before it knew of a batch:"
            " run it again, which finds out and carries on, or `forget` the scope.",
            err=True,
        )


def _say_lost(jobs: Sequence[JobEntry]) -> None:
    """Says what to do about jobs whose batches the server does not know."""
    if lost := sorted({label(job.scope) for job in jobs if job.status == LOST}):
        typer.echo(
            f"The server does not know batches of {_few(lost, '')}. Is the key another project's? If they are gone"
            " for good, `forget SCOPE --lost` frees their requests, to be bought again.",
            err=True,
        )


def _print_json(value: object) -> None:
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
