"""The estimate of what a step would submit and pay."""

from __future__ import annotations

from dataclasses import dataclass

from distilabel_openai_batch.api.usage import Usage
from distilabel_openai_batch.pricing.prices import Cost


@dataclass(frozen=True, slots=True)
class StepEstimate:
    """What a step would ask.

    Attributes:
        step: its name.
        model: the model that it asks.
        base_url: the server that it asks.
        depends_on: the steps whose answers its requests are made of; where there are any, nothing more is known.
        rows: those that it is given.
        requests: those that it asks, as far as that is known.
        known: those of them that the ledger has the answer of, or that are under way, and that are not bought again.
        usage: tokens of the others: those in are an estimate, those out a bound; `None` where they have none.
        cost: what the others cost, at most; `None` where that is not known.
        asks_in_rounds: whether later requests are made of earlier answers; as many as answers of no use would lead to.
        is_parted: whether a routing function gives it a part of the rows, so that all numbers are bounds.
    """

    step: str
    model: str
    base_url: str
    depends_on: tuple[str, ...] = ()
    rows: int = 0
    requests: int = 0
    known: int = 0
    usage: Usage | None = None
    cost: Cost | None = None
    asks_in_rounds: bool = False
    is_parted: bool = False
