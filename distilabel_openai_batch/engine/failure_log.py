"""Failures and cut answers of a session's rows that no job shows, recorded at the end of the session."""

from __future__ import annotations

from collections.abc import Collection

from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.api.prompts import prompt_start
from distilabel_openai_batch.api.requests import EncodedBody, Request
from distilabel_openai_batch.ledger.ledger import Ledger


class FailureLog:
    """Failures of rows: answers that lack a generation or are cut, and rows that no request was sent for.

    Recording them at once would block a caller, and requests that could share a job would go into two jobs. A run that
    dies reads the answers again in its next run, and then records the same failures.

    Attributes:
        rejected_before: `custom_id`s of the answers that lacked a generation in an earlier run.

    Args:
        rejected_before: see the attribute.
    """

    def __init__(self, rejected_before: Collection[str] = frozenset()) -> None:
        self.rejected_before = rejected_before
        self._rejections: dict[str, Failure | None] = {}
        self._unsent: dict[str, Failure] = {}
        self._cut: set[str] = set()
        self._bodies: dict[str, EncodedBody] = {}

    def add_failed(self, request: Request) -> None:
        """Add a request that failed, or whose answer lacks a generation: the start of its prompt is recorded."""
        self._bodies[request.custom_id] = request.body

    def add_rejected(self, request: Request, failure: Failure) -> None:
        """Add an answer that lacks a generation."""
        self._rejections[request.custom_id] = failure
        self.add_failed(request)

    def add_accepted(self, custom_id: str) -> None:
        """Add an answer that lacks no generation any more, as after a repair."""
        if custom_id in self.rejected_before:
            self._rejections[custom_id] = None

    def add_unsent(self, custom_id: str, failure: Failure) -> None:
        """Add a row that no request was sent for."""
        self._unsent[custom_id] = failure

    def add_cut(self, custom_id: str) -> None:
        """Add an answer that the limit of tokens cut."""
        self._cut.add(custom_id)

    def record(self, ledger: Ledger) -> None:
        """Record all failures in the ledger.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        if self._rejections:
            ledger.row_failures.record_rejections(self._rejections)
        if self._unsent:
            ledger.row_failures.record_unsent(self._unsent)
        if self._cut:
            ledger.row_failures.record_cut(self._cut)
        if self._bodies:
            starts = {custom_id: prompt_start(bytes(body)) for custom_id, body in self._bodies.items()}
            ledger.row_failures.record_prompt_starts(starts)
