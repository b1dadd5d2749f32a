"""Requests to the synchronous endpoints: retries, tiers and rate limits."""

from __future__ import annotations

import json

import httpx
import pytest

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.outcomes import Answer, Failure
from distilabel_openai_batch.api.rate_limits import RateLimits
from distilabel_openai_batch.api.sync_api import NoSuchEndpointError, ThrottledError
from distilabel_openai_batch.api.transport import Patience
from tests.support.batch_api import API_KEY, CHAT, connect, refusal, reply

BODY = b'{"model":"m","messages":[]}'
COMPLETION = {"model": "m", "choices": [{"message": {"content": "Hello"}}]}


@pytest.fixture
def endpoint(server):
    return server.post("/chat/completions")


async def test_a_synchronous_request_returns_the_answer(api, endpoint):
    endpoint.mock(return_value=reply(COMPLETION))
    assert (await api.sync.send(CHAT, BODY)).outcome == Answer.of(COMPLETION)
    assert json.loads(endpoint.calls.last.request.content) == json.loads(BODY)


async def test_a_refused_synchronous_request_is_a_failure(api, endpoint, clock):
    """The failure concerns one request, so that no error is raised; the key is masked."""
    endpoint.mock(return_value=refusal(400, f"Too long for {API_KEY}.", code="context_length_exceeded"))
    assert (await api.sync.send(CHAT, BODY)).outcome == Failure("Too long for ***.", 400, "context_length_exceeded")
    assert clock.pauses == []


@pytest.mark.parametrize(
    ("status_code", "fields", "kind"),
    [
        (401, {}, errors.AuthenticationError),
        (403, {}, errors.AuthenticationError),
        (429, {"code": "insufficient_quota"}, errors.QuotaError),
    ],
)
async def test_a_refusal_of_the_key_or_the_account_is_raised(api, endpoint, status_code, fields, kind):
    endpoint.mock(return_value=refusal(status_code, **fields))
    with pytest.raises(kind):
        await api.sync.send(CHAT, BODY)


async def test_a_synchronous_server_error_is_retried_a_few_times(clock, server, endpoint):
    """After `Patience.retries` the request fails, because only this request may be at fault."""
    endpoint.mock(return_value=refusal(500, "Oops."))
    async with connect(patience=Patience(retries=3)) as api:
        assert (await api.sync.send(CHAT, BODY)).outcome == Failure("Oops.", 500, "error_type")
    assert endpoint.call_count == 4


async def test_a_synchronous_refusal_that_passes_is_retried_a_few_times(clock, server, endpoint):
    refused = refusal(400, "Timeout while downloading https://example.com/a.jpg.", code="invalid_image_url")
    endpoint.mock(side_effect=[refused] * 4)
    async with connect(patience=Patience(retries=3)) as api:
        failure = (await api.sync.send(CHAT, BODY)).outcome
    assert failure == Failure("Timeout while downloading https://example.com/a.jpg.", 400, "invalid_image_url")
    assert endpoint.call_count == 4


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({}, 0),
        ({"retry-after": "7"}, 7),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m2s"}, 62),
        ({"retry-after": "Thu, 26 Nov 2026 12:00:00 GMT"}, 0),
    ],
)
async def test_a_rate_limit_is_raised_with_its_pause(api, endpoint, clock, headers, pause):
    """The caller decides about the retry: other requests are concerned too."""
    refused = refusal(429, "Slow down.", code="rate_limit_exceeded")
    endpoint.mock(return_value=httpx.Response(429, content=refused.content, headers=headers))
    with pytest.raises(ThrottledError) as error:
        await api.sync.send(CHAT, BODY)
    assert error.value.failure == Failure("Slow down.", 429, "rate_limit_exceeded")
    assert (error.value.pause, error.value.lacks_capacity) == (pause, False)
    assert (endpoint.call_count, clock.pauses) == (1, [])


@pytest.mark.parametrize(
    ("status_code", "code", "lacks_capacity"),
    [(429, "resource_unavailable", True), (429, "rate_limit_exceeded", False), (498, "capacity_exceeded", True)],
)
async def test_a_flex_tier_without_capacity_is_told_from_a_rate_limit(api, endpoint, status_code, code, lacks_capacity):
    endpoint.mock(return_value=refusal(status_code, "Not now.", code=code))
    with pytest.raises(ThrottledError) as error:
        await api.sync.send(CHAT, BODY, "flex")
    assert error.value.lacks_capacity is lacks_capacity


async def test_the_tier_is_sent_and_read(api, endpoint):
    """A flex request has more time, and its body is else the same."""
    endpoint.mock(return_value=reply({**COMPLETION, "service_tier": "flex"}))
    outcome = (await api.sync.send(CHAT, BODY, "flex")).outcome
    assert outcome.tier == "flex"
    request = endpoint.calls.last.request
    assert json.loads(request.content) == {**json.loads(BODY), "service_tier": "flex"}
    assert request.extensions["timeout"]["read"] == 900

    endpoint.mock(return_value=reply({**COMPLETION, "service_tier": "default"}))
    assert (await api.sync.send(CHAT, BODY)).outcome.tier == "default"
    request = endpoint.calls.last.request
    assert json.loads(request.content) == json.loads(BODY)
    assert request.extensions["timeout"]["read"] < 900


async def test_rate_limits_are_read_from_the_headers_of_an_answer(api, endpoint):
    headers = {
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "20ms",
    }
    endpoint.mock(return_value=httpx.Response(200, json=COMPLETION, headers=headers))
    assert (await api.sync.send(CHAT, BODY)).rate_limits == RateLimits(3, 0.02)


async def test_a_synchronous_reply_that_is_no_object_is_retried(api, endpoint):
    endpoint.mock(side_effect=[reply([]), reply(COMPLETION)])
    assert (await api.sync.send(CHAT, BODY)).outcome == Answer.of(COMPLETION)


@pytest.mark.parametrize(
    "absent",
    [
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(405),
        refusal(501),
        refusal(404, "Invalid URL (POST /v1/chat/completions)"),
    ],
)
async def test_an_absent_endpoint_is_told_from_an_absent_model(api, endpoint, absent):
    endpoint.mock(return_value=absent)
    with pytest.raises(NoSuchEndpointError, match="no synchronous endpoint /chat/completions"):
        await api.sync.send(CHAT, BODY)
    endpoint.mock(return_value=refusal(404, "The model `m` does not exist.", code="model_not_found"))
    assert (await api.sync.send(CHAT, BODY)).outcome == Failure("The model `m` does not exist.", 404, "model_not_found")
    other = "This model is only supported in v1/responses and not in v1/chat/completions."
    endpoint.mock(return_value=refusal(404, other, type="invalid_request_error"))
    assert (await api.sync.send(CHAT, BODY)).outcome == Failure(other, 404, "invalid_request_error")
