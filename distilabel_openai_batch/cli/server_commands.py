"""Commands that call the server, or change the ledger."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import anyio
import typer

from distilabel_openai_batch.api.batches import Batch
from distilabel_openai_batch.api.outcomes import Answer, Outcome
from distilabel_openai_batch.cli.app import app
from distilabel_openai_batch.cli.arguments import (
    _AnyScope,
    _BaseUrl,
    _complete_batch,
    _inventory,
    _is_meant,
    _jobs,
    _LedgerDir,
    _of_batches,
    _one_scope,
    _OneScope,
    _Yes,
)
from distilabel_openai_batch.cli.output import _LOGGER, _console, _say_interrupted, _say_lost
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.states import LOST, ScopeName, in_full, label
from distilabel_openai_batch.text import plural

_SHORTEST_INTERVAL_SECONDS = 0.05


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
