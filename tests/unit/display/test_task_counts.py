"""Tests of `display.task_counts`."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from distilabel_openai_batch.display.task_counts import TaskCounts, sum_counts
from distilabel_openai_batch.pricing.prices import Cost

COST = Cost(Decimal(1), Decimal(2))


def test_numbers_and_reasons_are_added_and_the_longest_duration_counts():
    first = TaskCounts(10, 6, 1, {"500": 1}, jobs=1, statuses={"in_progress": 1}, seconds=5.0, seconds_left=3.0)
    second = TaskCounts(5, 0, 2, {"500": 1, "refusal": 1}, jobs=2, statuses={"in_progress": 2}, seconds=9.0)
    assert sum_counts([first, second]) == TaskCounts(
        *(15, 6, 3, {"500": 2, "refusal": 1}),
        jobs=3,
        statuses={"in_progress": 3},
        seconds=9.0,
        seconds_left=3.0,
    )
    assert (first.done, first.pending, sum_counts([]).pending) == (7, 3, 0)


def test_cost_of_all_is_a_lower_bound_if_a_billed_part_has_no_price():
    priced, waiting, unpriced = TaskCounts(tokens_in=1, cost=COST), TaskCounts(requests=1), TaskCounts(tokens_out=1)
    assert sum_counts([priced, waiting, priced]).cost == COST + COST
    total = sum_counts([priced, unpriced])
    assert total.cost == replace(COST, is_lower_bound=True)
    assert (total.facts()["dollars"], total.facts()["saved_dollars"]) == (None, None)
    assert sum_counts([unpriced]).cost is None
    assert sum_counts([waiting]).cost is None
