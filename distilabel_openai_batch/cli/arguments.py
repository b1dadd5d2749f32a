"""Arguments and options that several commands share, and the jobs and scopes that they select."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer

from distilabel_openai_batch.api.addresses import public_address
from distilabel_openai_batch.api.azure_addresses import names_server
from distilabel_openai_batch.cli.output import LOGGER
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.entries import JobEntry, ScopeEntry
from distilabel_openai_batch.ledger.files import DIRECTORY_ENV_NAME, ledger_directory
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import ScopeName
from distilabel_openai_batch.text import NAMES_SHOWN, shortlist


def complete_scope(incomplete: str) -> list[str]:
    """Return the names of scopes that begin with `incomplete`; none if the ledger cannot be read."""
    try:
        scopes = open_reader(None).scopes()
    except OpenAIBatchError:
        return []
    return _completions((entry.name.label for entry in scopes), incomplete)


def complete_batch(incomplete: str) -> list[str]:
    """Return the ids of batches and the scopes that begin with `incomplete`; none if the ledger cannot be read."""
    try:
        jobs = open_reader(None).jobs()
    except OpenAIBatchError:
        return []
    scopes = dict.fromkeys(job.scope.label for job in jobs)
    return _completions([*(job.batch_id for job in jobs if job.batch_id), *scopes], incomplete)


def _completions(names: Iterable[str], incomplete: str) -> list[str]:
    """Return the names that begin with a text; a shell prints the names as they are, so names with controls fail."""
    return [name for name in names if name.startswith(incomplete) and name.isprintable()]


# Characters of the end of a batch id by which a command finds the batch.
_SHORTEST_END = 4

SCOPE_HELP = "Name of a pipeline, of a `pipeline/task` or of a script, as `jobs` shows it."

ScopeArgument = Annotated[str, typer.Argument(help=SCOPE_HELP, autocompletion=complete_scope)]

OptionalScopeArgument = Annotated[
    str | None, typer.Argument(help=SCOPE_HELP, autocompletion=complete_scope, show_default="all scopes")
]

BatchOrScopeArgument = Annotated[
    str,
    typer.Argument(
        metavar="BATCH_OR_SCOPE",
        help="Batch id, the end of such an id, or a scope, as `jobs` shows them.",
        autocompletion=complete_batch,
    ),
]

OptionalBatchOrScopeArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[BATCH_OR_SCOPE]",
        help="Batch id, the end of such an id, or a scope, as `jobs` shows them.",
        autocompletion=complete_batch,
        show_default="all scopes",
    ),
]

ExecOption = Annotated[
    str | None,
    typer.Option(
        "--exec",
        help="Shell command to run at the event. The command reads JSON from its standard input.",
        show_default=False,
    ),
]
LedgerDirOption = Annotated[
    Path | None,
    typer.Option(
        "--ledger-dir",
        help=f"Directory of the ledger. Default: ${DIRECTORY_ENV_NAME}, else ~/.cache/distilabel/openai_batch.",
        show_default=False,
    ),
]

BaseUrlOption = Annotated[
    str | None,
    typer.Option("--base-url", help="Select only scopes at this server address.", show_default=False),
]

HeaderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="NAME:VALUE",
        help="Header of each call, as the LLM's `default_headers`; may be repeated. $OPENAI_CUSTOM_HEADERS has further"
        " headers, a line for each.",
        show_default=False,
    ),
]

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]

PollOption = Annotated[
    bool,
    typer.Option("--look", help="Poll the server for the status of open jobs. Default: the status a run saw last."),
]


def open_reader(ledger_dir: Path | None) -> LedgerReader:
    """Return a reader of the ledger in `ledger_dir`, or in the default directory.

    Raises:
        LedgerError: if no directory is given and there is no home directory.
    """
    return LedgerReader(ledger_directory(ledger_dir))


def is_selected(name: ScopeName, scope: str | None, base_url: str | None) -> bool:
    """Return whether a scope has the given name (label, pipeline or full name) and server; `None` selects any."""
    is_at_server = base_url is None or names_server(base_url, name.base_url)
    return is_at_server and (scope is None or scope in (name.label, name.pipeline, name.full_label))


def select_jobs(reader: LedgerReader, scope: str | None, base_url: str | None) -> list[JobEntry]:
    """Return the jobs of the selected scopes; a scope without jobs has none.

    Raises:
        OpenAIBatchError: if the ledger has no scope of the given name.
    """
    jobs = [job for job in reader.jobs() if is_selected(job.scope, scope, base_url)]
    if scope and not jobs:
        select_scopes(reader, scope, base_url)
    return jobs


def select_scopes(reader: LedgerReader, scope: str | None, base_url: str | None) -> list[ScopeEntry]:
    """Return the selected scopes.

    Raises:
        OpenAIBatchError: if the ledger has no scope of the given name.
    """
    entries = reader.scopes()
    selected = [entry for entry in entries if is_selected(entry.name, scope, base_url)]
    if scope and not selected:
        names = [entry.name.label for entry in entries]
        hint = f"Its scopes: {shortlist(names, scope)}" if names else "The ledger is empty."
        raise OpenAIBatchError(f"The ledger has no scope {scope}{_at(base_url)}. {hint}")
    # A ledger may have two spellings of one server → prefer the given one.
    given = (base_url or "").rstrip("/")
    return [entry for entry in selected if entry.name.base_url.rstrip("/") == given] or selected


def select_answers(reader: LedgerReader, scope: str | None, base_url: str | None) -> list[ScopeEntry]:
    """Return the one selected scope, or the scopes of a pipeline: its Tasks at one server.

    Raises:
        OpenAIBatchError: if no scope is selected, or several that are no pipeline's, or at several servers.
    """
    selected = select_scopes(reader, scope, base_url)
    is_pipeline = all(entry.name.pipeline == scope and entry.name.task for entry in selected)
    if len(selected) > 1 and is_pipeline and len({entry.name.base_url for entry in selected}) == 1:
        return selected
    return [select_one_scope(reader, scope, base_url)]


def select_one_scope(reader: LedgerReader, scope: str | None, base_url: str | None) -> ScopeEntry:
    """Return the one selected scope. A scope with exactly the given name is preferred to the Tasks of that pipeline.

    Raises:
        OpenAIBatchError: if no scope is selected, or more than one.
    """
    selected = select_scopes(reader, scope, base_url)
    # A script may have the name of a pipeline → prefer the exact name.
    selected = [entry for entry in selected if entry.name.label == scope] or selected
    if not selected:
        raise OpenAIBatchError(f"The ledger has no scope{_at(base_url)}.")
    if len(selected) > 1:
        raise OpenAIBatchError(_ambiguous_scope([entry.name for entry in selected]))
    return selected[0]


def _at(base_url: str | None) -> str:
    return f" at {public_address(base_url)}" if base_url else ""


def _ambiguous_scope(names: Sequence[ScopeName]) -> str:
    shown = names[-NAMES_SHOWN:]
    uses = Counter((name.label, name.base_url) for name in names)
    listed = "".join(
        f"\n  {name.full_label if uses[name.label, name.base_url] > 1 else name.label} --base-url {name.base_url}"
        for name in shown
    )
    more = f"\nand {len(names) - len(shown):,} earlier scopes." if len(names) > len(shown) else ""
    return f"Several scopes match. Choose one:{listed}{more}"


def find_batch(jobs: Sequence[JobEntry], name: str) -> JobEntry | None:
    """Return the job of a batch, by the batch's id or by the end of the id; `None` if no batch has the name.

    Raises:
        OpenAIBatchError: if several ids have the end.
    """
    end = name.lstrip("…")
    by_id = {job.batch_id: job for job in jobs if job.batch_id}
    if name in by_id:
        return by_id[name]
    ids = [batch_id for batch_id in by_id if len(end) >= _SHORTEST_END and batch_id.endswith(end)]
    if len(ids) > 1:
        raise OpenAIBatchError(f"Several batches end with {end}: {shortlist(ids, name)}")
    return by_id[ids[0]] if ids else None


def select_batches(jobs: Sequence[JobEntry], names: Sequence[str]) -> list[JobEntry]:
    """Return the jobs of the given batches, and the open jobs of the given scopes, each once.

    Args:
        jobs: the jobs to select from.
        names: ids of batches, ends of such ids, or names of scopes.

    Raises:
        OpenAIBatchError: if no job has one of the names.
    """
    selected: dict[str | None, JobEntry] = {}
    for name in names:
        if job := find_batch(jobs, name):
            selected[job.batch_id] = job
            continue
        in_scope = [job for job in jobs if is_selected(job.scope, name, None)]
        if not in_scope:
            raise unknown_batch(jobs, name)
        selected |= {job.batch_id: job for job in in_scope if job.is_open and job.batch_id}
    return list(selected.values())


def select_watched(reader: LedgerReader, name: str | None, base_url: str | None) -> list[JobEntry]:
    """Return the job of a batch, or the jobs of the selected scopes.

    Args:
        reader: the ledger.
        name: id of a batch, end of such an id, or name of a scope; `None` for all scopes.
        base_url: address of the scopes' server; `None` for any.

    Raises:
        OpenAIBatchError: if no batch and no scope has the name.
    """
    # A scope may have the name of the end of a batch id → prefer the scope.
    if name is None or any(is_selected(entry.name, name, None) for entry in reader.scopes()):
        return select_jobs(reader, name, base_url)
    job = find_batch(reader.jobs(), name)
    return [job] if job else select_jobs(reader, name, base_url)


def unknown_batch(jobs: Sequence[JobEntry], name: str) -> OpenAIBatchError:
    """Return the error about a name that is no batch and no scope of the ledger."""
    known_ids = shortlist(filter(None, (job.batch_id for job in jobs)), name)
    scopes = shortlist((job.scope.label for job in jobs), name)
    return OpenAIBatchError(
        f"The ledger has no batch {name}, and no such scope. Its batches: {known_ids}; its scopes: {scopes}"
    )


def read_headers(header: Sequence[str] | None) -> dict[str, str]:
    """Return the headers of the option `--header` by name.

    Raises:
        InvalidSettingError: if a text is no header. The message shows no value.
    """
    from distilabel_openai_batch.api.custom_headers import parse_headers

    return parse_headers(header or (), "--header")


def poll(jobs: list[JobEntry], header: Sequence[str] | None = None) -> list[JobEntry]:
    """Return jobs with the status and counts that the server reports for open batches.

    Args:
        jobs: jobs in any state.
        header: values of the option `--header`.

    Raises:
        OpenAIBatchError: if the jobs are at several servers, or the server cannot be reached.
    """
    from distilabel_openai_batch.operations.server_access import (
        SHORT_PATIENCE,
        ServerAccess,
        is_pollable,
        poll_jobs,
        single_server,
    )

    pollable = [job for job in jobs if is_pollable(job)]
    base_url = single_server(pollable)
    if base_url is None:
        return jobs
    access = ServerAccess.from_environment(base_url, read_headers(header))

    async def run() -> list[JobEntry]:
        async with access.open(SHORT_PATIENCE, LOGGER) as api:
            return await poll_jobs(api, pollable)

    polled = {job.batch_id: job for job in anyio.run(run)}
    return [polled.get(job.batch_id, job) if job.batch_id else job for job in jobs]


def parse_parameters(assignments: Sequence[str]) -> dict[str, Any]:
    """Return `step.llm.parameter=value` texts as the nested dictionary that `Pipeline.run` takes.

    Raises:
        typer.BadParameter: if a text has no step, no parameter or no `=`.
    """
    parameters: dict[str, Any] = {}
    for assignment in assignments:
        name, is_given, value = assignment.partition("=")
        *steps, parameter = name.split(".")
        if not is_given or not steps:
            raise typer.BadParameter(f"{assignment!r} is not `step.parameter=value`.", param_hint="--param")
        owner = parameters
        for step in steps:
            owner = owner.setdefault(step, {})
        owner[parameter] = value
    return parameters


def parse_aliases(aliases: Sequence[str]) -> dict[str, str]:
    """Return `NAME=MODEL` texts as models by name.

    Raises:
        typer.BadParameter: if a text has no name, no model or no `=`.
    """
    models: dict[str, str] = {}
    for alias in aliases:
        name, _, model = alias.partition("=")
        if not (name and model):
            raise typer.BadParameter(f"{alias!r} is not `NAME=MODEL`.", param_hint="--alias")
        models[name] = model
    return models
