"""Failures, cut answers and replaced requests that no job shows, recorded at the end of the session."""

from __future__ import annotations

from collections.abc import Collection

from distilabel_openai_batch.api.outcomes import Failure
from distilabel_openai_batch.api.prompts import prompt_start
from distilabel_openai_batch.api.requests import EncodedBody, Request
from distilabel_openai_batch.ledger.ledger import Ledger


class FailureLog:
    """Failures of rows: answers that lack a generation or are cut, replaced requests, and rows without a request.

    Recording them at once would block a caller, and requests that could share a job would go into two jobs. A run that
    dies reads the answers again in its next run, and then records the same failures.

    Attributes:
        rejected_before: `custom_id`s of the answers that lacked a generation in an earlier run.
        replaced_before: `custom_id`s of the requests that a retry replaced in an earlier run.
        is_replaced: whether a retry replaced a request, by `custom_id`; changes against the earlier run alone.

    Args:
        rejected_before, replaced_before: see the attributes.
    """

    def __init__(
        self, rejected_before: Collection[str] = frozenset(), replaced_before: Collection[str] = frozenset()
    ) -> None:
        self.rejected_before = rejected_before
        self.replaced_before = replaced_before
        self.is_replaced: dict[str, bool] = {}
        self._rejections: dict[str, Failure | None] = {}
        self._unsent: dict[str, Failure] = {}
        self._cut: set[str] = set()
        self._bodies: dict[str, EncodedBody] = {}

    @classmethod
    def of(cls, ledger: Ledger) -> FailureLog:
        """Return the log of a session whose ledger may have failures of earlier runs."""
        return cls(ledger.row_failures.list_rejected(), ledger.row_failures.list_replaced())

    def add_failed(self, request: Request) -> None:
        """Add a request that failed, or whose answer lacks a generation: the start of its prompt is recorded."""
        self._bodies[request.custom_id] = request.body

    def add_rejected(self, request: Request, failure: Failure) -> None:
        """Add an answer that lacks a generation."""
        self._rejections[request.custom_id] = failure
        # The row has this failure, whichever retries followed.
        self.add_counted(request.custom_id)
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

    def add_replaced(self, custom_id: str) -> None:
        """Add a request whose row has the outcome of another request."""
        self.is_replaced[custom_id] = True

    def add_counted(self, custom_id: str) -> None:
        """Add a request whose outcome its row has, although a retry may have replaced the request before."""
        self.is_replaced.pop(custom_id, None)
        if custom_id in self.replaced_before:
            self.is_replaced[custom_id] = False

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
        if self.is_replaced:
            ledger.row_failures.record_replaced(self.is_replaced)
        if self._bodies:
            starts = {custom_id: prompt_start(bytes(body)) for custom_id, body in self._bodies.items()}
            ledger.row_failures.record_prompt_starts(starts)
