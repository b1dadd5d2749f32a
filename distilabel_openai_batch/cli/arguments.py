"""Arguments that several commands share, and the jobs and scopes that they select."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import anyio
import typer

from distilabel_openai_batch.cli.output import _LOGGER
from distilabel_openai_batch.errors import OpenAIBatchError
from distilabel_openai_batch.ledger.entries import JobEntry, ScopeEntry
from distilabel_openai_batch.ledger.files import DIRECTORY_ENV_NAME, directory
from distilabel_openai_batch.ledger.reader import Inventory
from distilabel_openai_batch.ledger.states import ScopeName, in_full, label
from distilabel_openai_batch.text import NAMES_SHOWN, shortlist


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


def _inventory(ledger_dir: Path | None) -> Inventory:
    return Inventory(directory(ledger_dir))


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
        has = f"It has: {shortlist(there, scope)}" if there else "Nothing was asked through it yet."
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
    some = meant[-NAMES_SHOWN:]
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
                f"The ledger does not know batch {batch_id}. It knows: {shortlist(filter(None, by_id), batch_id)}"
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
