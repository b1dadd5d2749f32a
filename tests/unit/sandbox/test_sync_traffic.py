"""Synchronous calls of the sandbox: service tiers, capacity and rate limits."""

from __future__ import annotations

import anyio
import pytest

from .conftest import CHAT, chat_body


async def ask(api, text: str = "Why?", tier: str | None = "flex", model: str = "gpt-5-mini"):
    tier_field = {"service_tier": tier} if tier else {}
    return await api.http.post(CHAT, json=chat_body(text) | {"model": model} | tier_field)


@pytest.mark.parametrize(
    ("tier", "answered_by"),
    [(None, "default"), ("auto", "default"), ("default", "default"), ("flex", "flex"), ("priority", "priority")],
)
async def test_the_answer_names_its_tier(api, tier, answered_by):
    """The tier does not change the answer, nor the digest in the books."""
    answer = (await ask(api, tier=tier)).json()
    assert answer.pop("service_tier") == answered_by
    other = (await ask(api, tier=None)).json()
    assert answer == {name: value for name, value in other.items() if name != "service_tier"}
    books = await api.books()
    assert list(books["sync_bodies"].values()) == [2]
    assert books["sync_tiers"][answered_by] >= 1


@pytest.mark.parametrize("model", ["gpt-4o-mini", "o3-mini", "gpt-5-chat-latest"])
async def test_models_without_flex_refuse_the_tier(api, model):
    error = (await ask(api, model=model)).json()["error"]
    assert (error["message"], error["param"]) == ("Unsupported service_tier: flex", "service_tier")


async def test_the_models_with_flex_can_be_named(api):
    await api.configure(flex_models=["gpt-4o-mini"])
    assert [(await ask(api, model=model)).status_code for model in ("gpt-4o-mini", "gpt-5-mini")] == [200, 400]


async def test_an_unknown_tier_is_refused(api):
    reply = await ask(api, tier="fast")
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_value")


@pytest.mark.parametrize(("share", "refused"), [(0, 0), (0.25, 2), (0.5, 4), (1, 8)])
async def test_a_share_of_the_flex_calls_is_refused(api, share, refused):
    """A refused call is not billed; calls of the default tier pass."""
    await api.configure(flex_refusals=share)
    replies = [await ask(api, f"Question {i}") for i in range(8)]
    errors = [reply.json()["error"] for reply in replies if reply.status_code == 429]
    assert [error["code"] for error in errors] == ["resource_unavailable"] * refused
    assert (await api.books())["sync"] == 8 - refused
    assert (await ask(api, tier=None)).status_code == 200


async def test_flex_calls_beyond_the_slots_are_refused(api):
    await api.configure(flex_slots=2, sync_seconds=0.2)
    codes = []

    async def call(number: int) -> None:
        codes.append((await ask(api, f"Question {number}")).status_code)

    async with anyio.create_task_group() as task_group:
        for number in range(5):
            task_group.start_soon(call, number)
    assert sorted(codes) == [200, 200, 429, 429, 429]
    assert (await api.books())["most_sync_in_flight"] == 2


async def test_a_rate_limit_is_shown_and_kept(api):
    """The limit counts the calls of the last minute."""
    await api.configure(sync_requests_per_minute=2)
    headers = [(await ask(api, f"Question {i}", tier=None)).headers for i in range(2)]
    assert [header["x-ratelimit-remaining-requests"] for header in headers] == ["1", "0"]
    api.advance_clock(20)
    refused = await ask(api)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert float(refused.headers["retry-after"]) == 40
    assert refused.headers["x-ratelimit-reset-requests"] == "40.000s"
    api.advance_clock(40)
    assert (await ask(api)).status_code == 200


async def test_a_gateway_may_ignore_the_tier(api):
    await api.configure(ignores_tiers=True)
    assert (await ask(api)).json()["service_tier"] == "default"
