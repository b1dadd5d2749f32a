"""Numbers of a Task's run, which a step's process sends to the pipeline's process. Pure data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from distilabel_openai_batch.pricing.prices import Cost, exact_dollars, sum_known


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """Numbers of the requests, jobs, tokens and dollars of a Task in one run.

    Attributes:
        requests: number of requests so far; each round adds its own, and retries count once.
        answered: number of usable answers, with the answers that open batches count.
        failed: number of requests without a usable answer, with the failures that open batches count.
        reasons: number of failed requests by reason: status code and error code.
        cut: number of answers that the limit of tokens cut.
        retried: number of retries: of requests that failed for now, of cut answers, and of answers that do not fit
            their schema.
        reused: number of answers of earlier runs.
        not_submitted: number of requests without an outcome, while no batch is in progress.
        jobs: number of jobs that the run created.
        statuses: number of batches in progress by status.
        synchronous: number of synchronous requests.
        tokens_in, tokens_out: billed tokens.
        cost: list price of the billed tokens, a lower bound if a part has no price; `None` if the price of all is
            unknown, or nothing was billed.
        seconds: duration of the session so far.
        seconds_left: estimated time until all requests are done; `None` if unknown.
    """

    requests: int = 0
    answered: int = 0
    failed: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    cut: int = 0
    retried: int = 0
    reused: int = 0
    not_submitted: int = 0
    jobs: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    synchronous: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: Cost | None = None
    seconds: float = 0.0
    seconds_left: float | None = None

    @property
    def done(self) -> int:
        """Number of requests with an outcome."""
        return min(self.requests, self.answered + self.failed)

    @property
    def pending(self) -> int:
        """Number of requests without an outcome."""
        return max(0, self.requests - self.answered - self.failed)

    @property
    def in_jobs(self) -> int:
        """Number of requests without an outcome, while a batch is in progress."""
        return max(0, self.pending - self.not_submitted)

    @property
    def is_unbilled(self) -> bool:
        """`True` if the run was billed nothing: no tokens, and no answer beside the reused answers."""
        return not self.cost and not self.tokens_in + self.tokens_out and self.answered <= self.reused

    def facts(self) -> dict[str, object]:
        """Return the final numbers by name, as JSON holds them."""
        names = ("requests", "answered", "failed", "cut", "retried", "reused", "jobs", "synchronous")
        return {
            **{name: getattr(self, name) for name in (*names, "tokens_in", "tokens_out")},
            "reasons": dict(self.reasons),
            "dollars": exact_dollars(self.cost),
            "saved_dollars": float(self.cost.saved) if self.cost and not self.cost.is_lower_bound else None,
            "seconds": round(self.seconds, 3),
        }


def sum_counts(counts: Iterable[TaskCounts]) -> TaskCounts:
    """Return the sum of counts; sessions of several Tasks run side by side, so the longest duration counts.

    The cost is a lower bound if a part that was billed has no price.
    """
    parts = list(counts)
    reasons: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    for part in parts:
        reasons.update(part.reasons)
        statuses.update(part.statuses)
    numbers = ("requests", "answered", "failed", "cut", "retried", "reused", "not_submitted", "jobs", "synchronous")
    costs = [part.cost for part in parts if part.cost or part.tokens_in + part.tokens_out]
    return TaskCounts(
        **{name: sum(getattr(part, name) for part in parts) for name in (*numbers, "tokens_in", "tokens_out")},
        reasons=dict(reasons.most_common()),
        statuses=dict(statuses),
        cost=sum_known(costs),
        seconds=max((part.seconds for part in parts), default=0.0),
        seconds_left=max((part.seconds_left for part in parts if part.seconds_left is not None), default=None),
    )
