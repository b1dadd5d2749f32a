"""Commands that call a server or write to the ledger: watch, cancel, adopt, forget."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from distilabel_openai_batch.api.addresses import is_same_server, public_address
from distilabel_openai_batch.cli.application import app
from distilabel_openai_batch.cli.arguments import (
    BaseUrlOption,
    ExecOption,
    HeaderOption,
    LedgerDirOption,
    OptionalBatchOrScopeArgument,
    ScopeArgument,
    YesOption,
    complete_batch,
    complete_scope,
    is_selected,
    open_reader,
    read_headers,
    select_batches,
    select_jobs,
    select_one_scope,
    select_watched,
)
from distilabel_openai_batch.cli.notice_commands import run_after_watch
from distilabel_openai_batch.cli.output import (
    LOGGER,
    console,
    echo,
    note_collected,
    note_dropped,
    note_interrupted,
    note_lost,
    note_past_jobs,
)
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.entries import JobEntry, ScopeEntry
from distilabel_openai_batch.ledger.ledger import Ledger
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import NOT_FOUND, JobState, ScopeName
from distilabel_openai_batch.text import plural

if TYPE_CHECKING:
    from distilabel_openai_batch.operations.adopt import ExternalBatch

_SHORTEST_INTERVAL_SECONDS = 0.05
_LONGEST_INTERVAL_SECONDS = 86_400

_RESUBMISSION_NOTE = (
    "A running pipeline submits the unanswered requests of a cancelled job again: to prevent that, stop the pipeline"
    " first."
)


@app.command()
def watch(
    name: OptionalBatchOrScopeArgument = None,
    base_url: BaseUrlOption = None,
    interval: Annotated[float, typer.Option(help="Seconds between two polls of the server, at least 0.05.")] = 5.0,
    header: HeaderOption = None,
    command: ExecOption = None,
    ledger_dir: LedgerDirOption = None,
) -> None:
    """Watch the open jobs of the ledger at the server until they end, including jobs that a run adds meanwhile.

    Ctrl+C stops only the watching: the jobs continue. A rejected batch is printed with its reason: exit status 1.
    """
    from distilabel_openai_batch.display.bars import Bars
    from distilabel_openai_batch.operations.server_access import LONG_PATIENCE, ServerAccess, single_server, watch_jobs

    if not interval <= _LONGEST_INTERVAL_SECONDS:
        raise typer.BadParameter(f"The interval must be at most {_LONGEST_INTERVAL_SECONDS:,} s.")
    reader = open_reader(ledger_dir)

    def open_jobs() -> list[JobEntry]:
        return [job for job in select_watched(reader, name, base_url) if job.is_open]

    server = single_server(open_jobs())
    if server is None:
        echo("No open jobs.")
        has_rejected = _report_ended(select_watched(reader, name, base_url), name)
        if command:
            run_after_watch(command, [])
        if has_rejected:
            raise typer.Exit(1)
        return
    access = ServerAccess.from_environment(server, read_headers(header))
    note_past_jobs(reader, open_jobs())
    with Bars(console()) as bars:

        async def run() -> list[JobEntry]:
            async with access.open(LONG_PATIENCE, LOGGER) as api:
                return await watch_jobs(
                    api,
                    lambda: [job for job in open_jobs() if is_same_server(job.scope.base_url, server)],
                    bars.show,
                    max(interval, _SHORTEST_INTERVAL_SECONDS),
                    reader.is_in_use,
                )

        watched = {job.batch_id: job for job in anyio.run(run)}
    has_rejected = _report_watched(list(watched.values()), {job.batch_id for job in open_jobs()})
    scopes = {job.scope for job in watched.values()}
    has_dropped = note_dropped([job for job in select_watched(reader, name, base_url) if job.scope in scopes])
    if command:
        run_after_watch(command, list(watched.values()))
    if has_rejected or has_dropped:
        raise typer.Exit(1)


def _report_ended(jobs: Sequence[JobEntry], name: str | None) -> bool:
    """Print why jobs are watched no longer; for all scopes, interrupted jobs alone.

    Args:
        jobs: the selected jobs, none of which is open.
        name: the name of the batch or scope that selected the jobs.

    Returns:
        Whether the server rejected a batch that no run has replaced.
    """
    note_interrupted(jobs)
    if name is None:
        return False
    if len(jobs) == 1 and jobs[0].batch_id and jobs[0].state is not JobState.DROPPED:
        note_collected(jobs[0])
    return note_dropped(jobs)


def _report_watched(watched: Sequence[JobEntry], open_ids: Set[str | None]) -> bool:
    """Print the failures of watched jobs, and the scopes whose jobs no run has collected yet.

    Args:
        watched: the jobs, which have ended at the server.
        open_ids: ids of the batches that the ledger still has as open.

    Returns:
        Whether the server rejected a batch that no run has replaced.
    """
    if failed := sum(job.failed for job in watched):
        echo(f"{plural(failed, 'request')} failed: `failures` lists them after a run has collected them.")
    uncollected = [job for job in watched if job.batch_id in open_ids]
    note_lost(uncollected)
    if scopes := sorted({job.scope.label for job in uncollected if job.status != NOT_FOUND}):
        echo(
            f"Ended but not collected yet: {', '.join(scopes)}. A running pipeline collects these jobs now; otherwise"
            " run the pipeline again; `LoadBatchResults` collects a submission."
        )
    rejected = [job for job in uncollected if job.status == "failed" and not job.answered]
    for job in rejected:
        echo(f"The server rejected batch {job.batch_id}: {job.error or 'it gave no reason.'}", err=True)
    return bool(rejected)


@app.command()
def cancel(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BATCH_OR_SCOPE]...",
            help="Batch ids, ends of such ids, or scopes, as `jobs` shows them.",
            autocompletion=complete_batch,
            show_default=False,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Cancel all open jobs.")] = False,
    yes: YesOption = False,
    base_url: BaseUrlOption = None,
    header: HeaderOption = None,
    ledger_dir: LedgerDirOption = None,
) -> None:
    """Cancel open jobs of the ledger at the server.

    Requests answered until then are billed, and the next run uses the answers.
    """
    from distilabel_openai_batch.operations.server_access import (
        SHORT_PATIENCE,
        ServerAccess,
        cancel_jobs,
        is_pollable,
        single_server,
    )

    if bool(names) == every:
        raise typer.BadParameter("Give batch ids, scopes or --all.")
    entries = select_jobs(open_reader(ledger_dir), None, base_url)
    selected = entries if every else select_batches(entries, names or [])
    open_jobs = [job for job in selected if is_pollable(job)]
    server = single_server(open_jobs)
    for job in [] if every else selected:
        if job not in open_jobs:
            echo(f"{job.batch_id} has ended already with status {job.status}.")
    if server is None:
        if every or not selected:
            echo("No open jobs at a server.")
            note_interrupted(entries)
        return
    access = ServerAccess.from_environment(server, read_headers(header))
    _confirm_cancellation(open_jobs, yes)

    async def run() -> list[JobEntry]:
        async with access.open(SHORT_PATIENCE, LOGGER) as api:
            return await cancel_jobs(api, open_jobs)

    cancelled = anyio.run(run)
    for job in cancelled:
        echo(f"{job.batch_id} is {job.status}.")
    note_lost(cancelled)


def _confirm_cancellation(jobs: list[JobEntry], yes: bool) -> None:
    """Print the jobs that are to be cancelled, and ask for a confirmation unless `yes`."""
    for job in jobs:
        echo(f"{job.batch_id} of {job.scope.label}: {plural(job.requests, 'request')}", err=True)
    echo(_RESUBMISSION_NOTE, err=True)
    if not yes:
        typer.confirm(f"Cancel {plural(len(jobs), 'job')}?", abort=True, err=True)


@app.command()
def adopt(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="[BATCH] SCOPE",
            help="Id of a batch at the server, unless --from is given, and the scope that takes the answers.",
            autocompletion=complete_batch,
            show_default=False,
        ),
    ],
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="SCOPE",
            help="Scope of the ledger whose answers are taken, as the LLM's `reuse_from` names the scope.",
            autocompletion=complete_scope,
            show_default=False,
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            "--base-url",
            help="Address of the server of the batch, and of the scope that takes the answers.",
            show_default="the scope's, else $OPENAI_BASE_URL, else OpenAI's",
        ),
    ] = None,
    header: HeaderOption = None,
    ledger_dir: LedgerDirOption = None,
) -> None:
    """Let a scope of the ledger, which may be a new scope, use answers of a batch or of another scope.

    A batch is one that was made elsewhere: its answers are imported. With --from, each run of the scope takes the
    answers of another scope, such as an earlier name of the pipeline, without another bill. A run uses an answer if its
    own request is the same word for word, parameters included.
    """
    reader = open_reader(ledger_dir)
    *batch_ids, scope = names
    if source is not None and not batch_ids:
        _adopt_scope(reader, _scope_for_import(reader, scope, base_url), source)
    elif source is None and len(batch_ids) == 1:
        _adopt_batch(reader, _scope_for_import(reader, scope, base_url), batch_ids[0], base_url, header)
    else:
        raise typer.BadParameter("Give a batch id and a scope, or a scope and --from SCOPE.")


def _adopt_scope(reader: LedgerReader, name: ScopeName, source: str) -> None:
    """Record that a scope takes the answers of another scope."""
    from distilabel_openai_batch.engine.answer_reuse import select_source

    entries = {entry.name: entry for entry in reader.scopes()}
    selected = select_source([other for other in entries if other != name], source, name)
    if selected is None:
        raise OpenAIBatchError(f"{source} is the scope that takes the answers. Name another scope with --from.")
    with closing(Ledger(reader.path.parent, name)) as ledger:
        ledger.other_scopes.add_source(selected)
    echo(
        f"{name.label} at {name.base_url}: each run takes the answers of {selected.label} at {selected.base_url} for"
        f" the same requests; {plural(entries[selected].answered, 'answer')} now."
    )


def _adopt_batch(
    reader: LedgerReader, name: ScopeName, batch_id: str, base_url: str | None, header: list[str] | None
) -> None:
    """Import the answers of a batch into a scope."""
    from distilabel_openai_batch.api.outcomes import Answer
    from distilabel_openai_batch.engine.scratch import scratch_directory
    from distilabel_openai_batch.operations.adopt import read_results
    from distilabel_openai_batch.operations.server_access import SHORT_PATIENCE, ServerAccess

    has_credentials = base_url is not None and base_url != public_address(base_url)
    address = base_url if base_url and has_credentials else name.base_url
    access = ServerAccess.from_environment(address, read_headers(header))

    async def run(directory: Path) -> ExternalBatch:
        async with access.open(SHORT_PATIENCE, LOGGER) as api:
            return await read_results(api, name.base_url, batch_id, directory)

    with scratch_directory() as directory:
        external = anyio.run(run, directory)
    batch, outcomes, outline = external.batch, external.outcomes, next(iter(external.outlines), None)
    with closing(Ledger(reader.path.parent, name)) as ledger:
        mismatch = _explain_mismatch(ledger, external)
        if not ledger.adopted_jobs.add_ended(batch, batch.key or batch.id, list(outcomes.items()), outline):
            raise OpenAIBatchError(f"The ledger has batch {batch_id} already.")
    answers = sum(isinstance(outcome, Answer) for outcome in outcomes.values())
    echo(
        f"{name.label} at {name.base_url}: imported {plural(answers, 'answer')};"
        f" {plural(len(outcomes) - answers, 'request')} without an answer."
    )
    if mismatch:
        echo(mismatch, err=True)


def _explain_mismatch(ledger: Ledger, external: ExternalBatch) -> str:
    """Return a sentence if no request of a batch is one that a run of the scope has submitted; else an empty text.

    Args:
        ledger: the ledger, opened for the scope, without the batch.
        external: the batch.
    """
    from distilabel_openai_batch.api.body_outline import describe_difference

    outlines = ledger.outlines.list_outlines(float("inf"))
    if not outlines or ledger.requests.look_up(list(external.outcomes)):
        return ""
    difference = describe_difference(external.outlines, outlines)
    differing = f" ({difference})" if difference else ""
    return (
        f"None of these requests is one that a run of the scope has submitted{differing}: a run with the same requests"
        " as before uses none of the answers."
    )


def _scope_for_import(reader: LedgerReader, scope: str, base_url: str | None) -> ScopeName:
    """Return the scope of the ledger with the given name and server, or a new one.

    Of several scopes with the name, the one at the server of the environment is meant.
    """
    from distilabel_openai_batch.operations.server_access import default_address

    entries = reader.scopes() if reader.path.exists() else []
    names = [entry.name for entry in entries if scope in (entry.name.label, entry.name.full_label)]
    address = base_url or default_address()
    for name in names:
        if is_selected(name, scope, address if len(names) > 1 else base_url):
            return name
    pipeline, _, task = scope.partition("//" if "//" in scope else "/")
    # A run has the scheme and the host in lower case.
    spelling = re.sub("^[^/]*//[^/]*", lambda match: match[0].lower(), public_address(address.strip()))
    return ScopeName(pipeline, task, f"{spelling.rstrip('/')}/")


@app.command()
def forget(
    scope: ScopeArgument,
    lost: Annotated[
        bool,
        typer.Option(
            "--lost", help="Only release jobs whose batch the server does not know, or cannot list; keep all answers."
        ),
    ] = False,
    yes: YesOption = False,
    base_url: BaseUrlOption = None,
    header: HeaderOption = None,
    ledger_dir: LedgerDirOption = None,
) -> None:
    """Drop a scope's answers, failures and interrupted jobs from the ledger, so that the next run submits them again.

    Jobs in progress stay in the ledger; batches and files stay at the server. If an interrupted job may have a batch,
    the server is called first. With --lost nothing but the requests of lost batches is submitted again. With the key
    of another project the server does not know a batch either: do not use --lost then.
    """
    from distilabel_openai_batch.operations.forget import Server, release_interrupted_jobs, release_lost_jobs

    reader = open_reader(ledger_dir)
    entry = select_one_scope(reader, scope, base_url)
    jobs = [job for job in reader.jobs() if job.scope == entry.name]
    interrupted = [job for job in jobs if job.is_interrupted]
    in_progress = sum(job.pending for job in jobs if job.is_open)
    content = _scope_content(entry, sum(job.pending for job in interrupted), in_progress, lost)
    echo(f"{entry.name.label} at {entry.name.base_url}: {content}.", err=True)
    if not (interrupted or (in_progress if lost else entry.answered + entry.failed)):
        echo("Nothing to forget.")
        return
    if not yes:
        question = (
            "Release the requests of lost batches? The next run submits and pays for them again."
            if lost
            else "Forget them? A run that needs them has to submit and pay for them again."
        )
        typer.confirm(question, abort=True, err=True)
    with closing(Ledger(reader.path.parent, entry.name)) as ledger:
        server = Server(entry.name.base_url, read_headers(header), LOGGER)
        release = release_interrupted_jobs(ledger, server, drops_unclear_jobs=lost)
        if lost:
            lost_count = release_lost_jobs(ledger, server)
            echo(f"Released {plural(lost_count, 'job')} with a batch that the server does not know.")
        else:
            forgotten = ledger.requests.forget()
            echo(f"Forgot the outcomes of {plural(forgotten, 'request')}.")
    for batch in release.found_batches:
        echo(f"Batch {batch.id} was found at the server: its requests are billed and stay in progress.")
    if release.unresolved:
        raise OpenAIBatchError(
            f"{plural(release.unresolved, 'interrupted job')} may have a batch at the server, and stays:"
            f" {release.error}"
        )


def _scope_content(entry: ScopeEntry, interrupted: int, in_progress: int, lost: bool) -> str:
    """Return the numbers of a scope's requests that `forget` drops or keeps, as a text."""
    cost = f", which cost {entry.tokens_in:,} tokens in and {entry.tokens_out:,} out"
    kept = ", which stay" if lost else ""
    condition = " if the server knows their batch" if lost else ""
    parts = [
        f"{plural(entry.answered, 'answer')}{kept or cost}" if entry.answered else "",
        f"{plural(entry.failed, 'failed request')}{kept}" if entry.failed else "",
        f"{plural(interrupted, 'request')} of interrupted jobs" if interrupted else "",
        f"{plural(in_progress, 'request')} in progress, which stay{condition}" if in_progress else "",
    ]
    return "; ".join(filter(None, parts)) or "nothing"
