"""Store the origin of a Task's answers as an artifact of its step.

distilabel lists the metadata of each artifact in the card of a dataset, copies artifacts with `save_to_disk`, and
uploads them with `push_to_hub`.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilabel_openai_batch.display.origin import describe_origin, list_batches
from distilabel_openai_batch.display.progress import Progress
from distilabel_openai_batch.display.task_counts import sum_counts
from distilabel_openai_batch.errors import LedgerError
from distilabel_openai_batch.ledger.entries import JobEntry
from distilabel_openai_batch.ledger.reader import LedgerReader
from distilabel_openai_batch.ledger.states import ScopeName

ARTIFACT = "openai_batch"
"""Name of the artifact, and of its directory below the directory of the step's artifacts."""

BATCHES_FILE = "batches.json"
"""Name of the artifact's file, a list with the facts about each batch."""

_PACKAGE = "distilabel-openai-batch"


@dataclass(frozen=True, slots=True)
class FollowedSession:
    """A session of a step.

    Attributes:
        progress: the numbers of the session.
        scope: the session's scope.
        ledger_directory: the directory of the session's ledger.
    """

    progress: Progress
    scope: ScopeName
    ledger_directory: Path

    def jobs(self) -> list[JobEntry]:
        """Return the jobs whose answers the session used; an empty list if the ledger cannot be read."""
        with suppress(LedgerError):
            batch_ids = self.progress.batch_ids
            return [job for job in LedgerReader(self.ledger_directory).jobs(self.scope) if job.batch_id in batch_ids]
        return []


def save_origin(step: Any, sessions: Iterable[FollowedSession]) -> None:
    """Store the origin of a step's answers in the directory of the step's artifacts.

    Args:
        step: the step.
        sessions: the step's sessions, which have ended.
    """
    followed = list(sessions)
    counts = sum_counts(session.progress.counts() for session in followed)
    if not counts.requests or step.artifacts_directory is None:
        return
    jobs = list({job.batch_id: job for session in followed for job in session.jobs()}.values())
    package = f"{_PACKAGE} {importlib.metadata.version(_PACKAGE)}"

    def write(directory: Path) -> None:
        text = json.dumps(list_batches(jobs), ensure_ascii=False, indent=1)
        (directory / BATCHES_FILE).write_text(text, encoding="utf-8")

    step.save_artifact(ARTIFACT, write, describe_origin(counts, jobs, package))
