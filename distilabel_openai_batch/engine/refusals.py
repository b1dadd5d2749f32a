"""Record of the parameters that a server refuses, written beside the run."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from distilabel_openai_batch.errors import LedgerError


class RefusalStore(Protocol):
    """Store of pairs of a model's name and a parameter that the server refused for the model."""

    def load(self) -> list[tuple[str, str]]:
        """Return all pairs."""

    def record(self, model: str, parameter: str) -> None:
        """Add a pair."""


class BackgroundRefusals:
    """Store whose pairs are added in a worker thread, so that the event loop never waits for the ledger.

    Args:
        store: the ledger's record of refusals.
        task_group: runs the writes; the ledger is open until the group has ended.
    """

    def __init__(self, store: RefusalStore, task_group: TaskGroup) -> None:
        self._store = store
        self._task_group = task_group

    def load(self) -> list[tuple[str, str]]:
        """Return all pairs."""
        return self._store.load()

    def record(self, model: str, parameter: str) -> None:
        """Begin to add a pair; no run depends on the pair, since a later run learns again → ignore a failure."""
        self._task_group.start_soon(self._record, model, parameter)

    async def _record(self, model: str, parameter: str) -> None:
        with anyio.CancelScope(shield=True), suppress(LedgerError):
            await anyio.to_thread.run_sync(self._store.record, model, parameter)
