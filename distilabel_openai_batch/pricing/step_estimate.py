"""Estimate of a step's requests and cost."""

from __future__ import annotations

from dataclasses import dataclass

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.ledger.past_jobs import PastJobs
from distilabel_openai_batch.pricing.prices import Cost


@dataclass(frozen=True, slots=True)
class AnswersElsewhere:
    """Another scope of the ledger that knows the same requests, as of a step that was renamed.

    Attributes:
        name: name of the scope, as `reuse_from` takes the name.
        known: number of requests that the scope has as answered or in progress, out of a sample.
        sampled: number of requests in the sample.
    """

    name: str
    known: int
    sampled: int


@dataclass(frozen=True, slots=True)
class StepEstimate:
    """Estimated requests, tokens and cost of one step.

    Attributes:
        step: name of the step.
        model: model of the requests.
        base_url: address of the server.
        depends_on: names of the steps whose answers the requests depend on; if there are any, nothing else is known.
        behind: names of the nearest steps before whose answers the prompts may contain, with their full lengths.
        rows: number of rows that the step receives.
        requests: number of requests that the step submits.
        known: number of requests that the ledger has as answered or in progress, which a run does not submit again.
        resubmitted: number of known requests that the run submits again with higher limits, since answers were cut.
        usage: tokens of the requests to submit, an approximation of the input and an upper bound of the output;
            `None` if a request sets no limit for its answer.
        cost: upper bound of the cost of the requests to submit; `None` if unknown.
        cost_without_retries: upper bound of the cost if no new answer is cut, for a step that submits cut answers
            again; else `None`.
        asks_in_rounds: whether later requests depend on earlier answers, so that the number of requests may differ.
        is_parted: whether a routing function gives the step only a part of the rows, so that all numbers are bounds.
        unknown_price: the reason why the model has no price, as sentences; `None` for a known price.
        small_limit: the user's limit of an answer's tokens, if reasoning probably spends most of it; else `None`.
        earlier_answers: number of the step's answers in the ledger, for a step behind others.
        answers_elsewhere: another scope that knows the requests to submit; `None` if there is none.
        past_jobs: durations of the model's past jobs at the server; `None` if there are too few.
    """

    step: str
    model: str
    base_url: str
    depends_on: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    rows: int = 0
    requests: int = 0
    known: int = 0
    resubmitted: int = 0
    usage: Usage | None = None
    cost: Cost | None = None
    cost_without_retries: Cost | None = None
    asks_in_rounds: bool = False
    is_parted: bool = False
    unknown_price: str | None = None
    small_limit: int | None = None
    past_jobs: PastJobs | None = None
    earlier_answers: int = 0
    answers_elsewhere: AnswersElsewhere | None = None

    @property
    def to_submit(self) -> int:
        """The number of requests that the run submits first, requests with cut answers included."""
        return self.requests - self.known + self.resubmitted
