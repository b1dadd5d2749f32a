"""Tests of `pricing.budget`."""

from __future__ import annotations

import pytest

from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.errors import BudgetError
from distilabel_openai_batch.pricing.budget import NO_BUDGET, Budget
from distilabel_openai_batch.pricing.price_book import PriceBook

pytest.importorskip("genai_prices")

PRICES = PriceBook("https://api.openai.com/v1/")

# 10,000 tokens out of gpt-4o-mini are bounded by $0.006, in a batch by $0.003; a few tokens in cost below $0.00001.
BODY = b'{"messages":[{"role":"user","content":"Why?"}],"max_tokens":10000}'


def create_requests(*custom_ids: str, model: str = "gpt-4o-mini", body: bytes = BODY) -> list[Request]:
    return [Request(custom_id, "/v1/chat/completions", model, body) for custom_id in custom_ids]


def answer(tokens_in: int = 0, tokens_out: int = 0) -> Answer:
    return Answer.of({"usage": {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}})


async def test_reservations_add_up_to_the_limit():
    budget = Budget(0.0065, PRICES)
    await budget.reserve(create_requests("a", "b"), is_sync=False)
    with pytest.raises(BudgetError, match=r"1 request of gpt-4o-mini may cost up to \$0\.0030\. With \$0\.00 spent"):
        await budget.reserve(create_requests("c"), is_sync=False)


async def test_a_refused_reservation_reserves_nothing():
    budget = Budget(0.0065, PRICES)
    with pytest.raises(BudgetError, match=r"3 requests of gpt-4o-mini .* exceeds the budget of \$0\.0065"):
        await budget.reserve(create_requests("a", "b", "c"), is_sync=False)
    await budget.reserve(create_requests("a", "b"), is_sync=False)


async def test_a_synchronous_request_reserves_the_full_price():
    budget = Budget(0.0065, PRICES)
    with pytest.raises(BudgetError, match="at full price"):
        await budget.reserve(create_requests("a", "b"), is_sync=True)
    await budget.reserve(create_requests("a"), is_sync=True)


async def test_a_retry_replaces_its_own_reservation():
    budget = Budget(0.0065, PRICES)
    await budget.reserve(create_requests("a", "b"), is_sync=False)
    await budget.reserve(create_requests("a", "b"), is_sync=False)


async def test_as_many_first_requests_as_fit_are_reserved():
    budget = Budget(0.0065, PRICES)
    assert await budget.reserve_some(create_requests("a", "b", "c"), is_sync=False) == 2
    assert await budget.reserve_some(create_requests("d"), is_sync=False) == 0
    await budget.reserve(create_requests("a", "b"), is_sync=False)
    assert await NO_BUDGET.reserve_some(create_requests("a"), is_sync=False) == 1


async def test_no_requests_need_no_budget():
    await Budget(0, PRICES).reserve([], is_sync=False)


async def test_the_billed_dollars_of_an_answer_replace_its_reservation():
    budget = Budget(0.0065, PRICES)
    delivered = {}
    deliver = budget.settle_on_delivery(delivered.update)
    await budget.reserve(create_requests("a", "b"), is_sync=False)
    outcomes = {"a": answer(tokens_out=10_000), "b": answer(tokens_out=100), "unknown": answer(tokens_out=100)}

    deliver(outcomes)

    assert delivered == outcomes
    with pytest.raises(BudgetError, match=r"With \$0\.0030 spent and up to \$0\.00 for requests in progress"):
        await budget.reserve(create_requests("c", "d"), is_sync=False)
    await budget.reserve(create_requests("c"), is_sync=False)


async def test_an_answer_without_reported_tokens_costs_its_upper_bound():
    budget = Budget(0.0065, PRICES)
    await budget.reserve(create_requests("a"), is_sync=False)
    budget.settle_on_delivery({}.update)({"a": answer()})
    with pytest.raises(BudgetError, match=r"With \$0\.0030 spent"):
        await budget.reserve(create_requests("b", "c"), is_sync=False)


async def test_a_failed_request_costs_nothing():
    budget = Budget(0.0035, PRICES)
    await budget.reserve(create_requests("a"), is_sync=False)
    budget.settle_on_delivery({}.update)({"a": Failure("No.", 400)})
    await budget.reserve(create_requests("b"), is_sync=False)


async def test_a_released_request_costs_nothing():
    budget = Budget(0.0035, PRICES)
    await budget.reserve(create_requests("a"), is_sync=False)
    budget.release(create_requests("a", "unknown"))
    await budget.reserve(create_requests("b"), is_sync=False)


async def test_the_job_of_a_dead_run_counts_even_above_the_limit():
    budget = Budget(0.001, PRICES)
    await budget.expect(create_requests("a"))
    with pytest.raises(BudgetError, match=r"up to \$0\.0030 for requests in progress"):
        await budget.reserve(create_requests("b"), is_sync=False)


async def test_a_request_without_a_token_limit_is_refused():
    with pytest.raises(BudgetError, match="sets no limit on the tokens of its answer"):
        await Budget(100, PRICES).reserve(create_requests("a", body=b'{"messages":[]}'), is_sync=False)


async def test_a_model_without_a_price_is_refused():
    budget = Budget(5, PRICES)
    budget.check_price("gpt-4o-mini")
    with pytest.raises(BudgetError, match=r"The budget of \$5\.00 cannot be kept\. The price of mine is not known"):
        budget.check_price("mine")
    with pytest.raises(BudgetError, match="Remove `budget` to run without a limit"):
        await budget.reserve(create_requests("a", model="mine"), is_sync=False)


async def test_without_a_budget_every_request_may_be_submitted():
    requests = create_requests("a", model="mine", body=b"not even JSON")
    await NO_BUDGET.reserve(requests, is_sync=True)
    await NO_BUDGET.expect(requests)
    NO_BUDGET.release(requests)
    deliver = {}.update
    assert NO_BUDGET.settle_on_delivery(deliver) is deliver


@pytest.mark.parametrize(("tier", "spent"), [("flex", "0.0030"), ("default", "0.0060"), (None, "0.0030")])
async def test_the_tier_of_an_answer_decides_its_bill(tier, spent):
    """The reservation of a flex request is the price of a batch; a server may bill another tier all the same."""
    budget = Budget(0.0065, PRICES)
    await budget.reserve(create_requests("a"), is_sync=False)
    billed = answer(20_000, 5_000)
    billed.tier = tier
    budget.settle_on_delivery({}.update)({"a": billed})
    with pytest.raises(BudgetError) as error:
        await budget.reserve(create_requests("b", "c", "d"), is_sync=False)
    assert f"With ${spent} spent" in str(error.value)
