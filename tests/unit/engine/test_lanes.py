"""Choice between batches, the flex tier and the synchronous endpoint."""

from __future__ import annotations

import math

import pytest

from distilabel_openai_batch.engine.lanes import BATCH_ROUTE, FlexSupport, LaneChoice, LaneSettings, Route
from distilabel_openai_batch.engine.observer import Observer
from tests.unit.engine.fake_batch_api import CHAT

OPENAI = "https://api.openai.com/v1/"
FULL_PRICE = Route(is_synchronous=True, falls_back=True)
FLEX = Route(is_synchronous=True, tries_flex=True)
FLEX_OR_FULL_PRICE = Route(is_synchronous=True, tries_flex=True, falls_back=True)
LATE = Route(is_synchronous=True, tries_flex=True, falls_back=True, by_lane=False)
LATE_WITHOUT_FALLBACK = Route(is_synchronous=True, tries_flex=True, falls_back=False, by_lane=False)
LATE_WITHOUT_FLEX = Route(is_synchronous=True, falls_back=True, by_lane=False)


@pytest.mark.parametrize(
    ("settings", "with_flex", "without_flex"),
    [
        ({}, BATCH_ROUTE, BATCH_ROUTE),
        ({"flex_fallback": True}, BATCH_ROUTE, BATCH_ROUTE),
        ({"lane": "flex"}, FLEX, BATCH_ROUTE),
        ({"lane": "flex", "flex_fallback": True}, FLEX_OR_FULL_PRICE, FULL_PRICE),
        ({"lane": "auto", "flex_below": 10}, BATCH_ROUTE, BATCH_ROUTE),
        ({"lane": "auto", "flex_below": 11}, FLEX, BATCH_ROUTE),
        ({"lane": "auto", "flex_below": 11, "flex_fallback": True}, FLEX_OR_FULL_PRICE, BATCH_ROUTE),
        ({"lane": "sync"}, FULL_PRICE, FULL_PRICE),
        ({"sync_below": 10}, BATCH_ROUTE, BATCH_ROUTE),
        ({"sync_below": 11}, LATE, LATE_WITHOUT_FLEX),
        ({"sync_below": math.inf}, LATE, LATE_WITHOUT_FLEX),
        ({"sync_below": 11, "lane": "flex"}, LATE, LATE_WITHOUT_FLEX),
        ({"sync_below": 11, "flex_fallback": False}, LATE_WITHOUT_FALLBACK, LATE_WITHOUT_FLEX),
    ],
)
def test_lane_model_and_number_of_requests_decide(settings, with_flex, without_flex):
    routes = [LaneChoice(LaneSettings(**settings), lambda *_, has=has: has) for has in (True, False)]
    assert [choice.choose(CHAT, "m", 10, is_late=False) for choice in routes] == [with_flex, without_flex]
    late = LATE_WITHOUT_FALLBACK if settings.get("flex_fallback") is False else LATE
    assert [choice.choose(CHAT, "m", 10, is_late=True) for choice in routes] == [late, LATE_WITHOUT_FLEX]
    assert [choice.choose_for_trial(CHAT, "m") for choice in routes] == [late, LATE_WITHOUT_FLEX]


@pytest.mark.parametrize(
    ("route", "may"),
    [(BATCH_ROUTE, False), (FLEX, False), (FLEX_OR_FULL_PRICE, True), (FULL_PRICE, True), (LATE_WITHOUT_FLEX, True)],
)
def test_only_a_route_with_the_default_tier_may_cost_the_full_price(route, may):
    assert route.may_cost_full_price is may


@pytest.mark.parametrize(
    ("model", "has_flex"),
    [("gpt-6-luna", True), ("gpt-5-mini-2025-08-07", True), ("gpt-4o-mini", False), ("gpt-5-pro", False)],
)
def test_the_price_list_names_models_with_flex(ledger, model, has_flex):
    pytest.importorskip("genai_prices")
    flex = FlexSupport(LaneSettings(), OPENAI, ledger.refused_parameters, Observer())
    assert flex.has_flex(CHAT, model) is has_flex


def test_setting_endpoint_and_name_decide_elsewhere(ledger):
    def has_flex(model: str, endpoint: str = CHAT, **settings) -> bool:
        flex = FlexSupport(LaneSettings(**settings), "http://localhost/v1/", ledger.refused_parameters, Observer())
        return flex.has_flex(endpoint, model)

    assert has_flex("gpt-5-mini")
    assert has_flex("gpt-5-mini", "/chat/completions")
    assert has_flex("gpt-5-mini", "/v1/responses")
    assert not has_flex("gpt-5-mini", "/v1/embeddings", supports_flex=True)
    assert not has_flex("gpt-5-mini", supports_flex=False)
    assert not has_flex("my-deployment")
    assert has_flex("my-deployment", supports_flex=True)
