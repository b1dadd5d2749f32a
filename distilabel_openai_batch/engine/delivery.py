"""Decorators of `deliver`, the function that takes the outcomes of requests to their callers."""

from __future__ import annotations

import time
from collections.abc import Mapping

from distilabel_openai_batch.api.outcomes import OVERDUE, Answer, Deliver, Failure, Outcome


def deliver_answers(deliver: Deliver) -> Deliver:
    """Return a `deliver` that passes answers on and drops failures, which a later look-up finds in the ledger."""

    def deliver_answers_only(outcomes: Mapping[str, Outcome]) -> None:
        deliver({custom_id: outcome for custom_id, outcome in outcomes.items() if isinstance(outcome, Answer)})

    return deliver_answers_only


def deliver_until(deadline: float, deliver: Deliver) -> Deliver:
    """Return a `deliver` that turns transient failures into `OVERDUE` once the deadline has passed.

    Args:
        deadline: the deadline, in seconds of the monotonic clock; no other job is waited for behind it.
        deliver: receives the outcomes.
    """

    def deliver_overdue(outcomes: Mapping[str, Outcome]) -> None:
        deliver(outcomes if time.monotonic() < deadline else _mark_overdue(outcomes))

    return deliver_overdue


def _mark_overdue(outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
    return {
        custom_id: OVERDUE if isinstance(outcome, Failure) and outcome.is_transient else outcome
        for custom_id, outcome in outcomes.items()
    }
