"""Synchronous requests with the flex tier first: capacity, fallbacks and refusals, with a fake clock."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from distilabel_openai_batch import ConnectionFailedError
from distilabel_openai_batch.api.outcomes import Failure, Outcome, read_answer
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.api.sync_api import Reply, ThrottledError
from distilabel_openai_batch.api.transport import Patience
from distilabel_openai_batch.engine.lanes import FlexSupport, LaneSettings, Route
from distilabel_openai_batch.engine.observer import Observer
from distilabel_openai_batch.engine.sync_sender import FLEX_WAIT_SECONDS, FlexUnavailableError, SyncSender
from distilabel_openai_batch.ledger.refused_parameters import RefusedParameters
from tests.unit.engine.fake_batch_api import CHAT
from tests.unit.engine.fake_clock import FakeClock

NEVER, PASSED = float("inf"), float("-inf")
SMALL_ROUND = Route(is_synchronous=True, tries_flex=True, falls_back=True, by_lane=False)
FLEX_ONLY = Route(is_synchronous=True, tries_flex=True)
FLEX_OR_FULL_PRICE = Route(is_synchronous=True, tries_flex=True, falls_back=True)
PATIENT = Route(is_synchronous=True, tries_flex=True, falls_back=False, by_lane=False)
REQUEST = Request("0-0", CHAT, "gpt-5-mini", b"{}")
NO_CAPACITY = ThrottledError(Failure("Resource unavailable", 429, "resource_unavailable"), 0, lacks_capacity=True)
RATE_LIMIT = ThrottledError(Failure("Rate limit reached", 429, "rate_limit_exceeded"), 0, lacks_capacity=False)
REFUSAL = Failure("Unsupported service_tier: flex", 400, "unsupported_value")
BAD = Failure("Bad.", 400)


def answered_by(tier: str | None) -> Outcome:
    return read_answer({"model": "gpt-5-mini", "service_tier": tier, "choices": [{"message": {"content": "Hi"}}]})


class FakeSyncAPI:
    """Endpoint that answers each request with the requested tier.

    Attributes:
        refusals: outcomes and errors of the next flex requests; the last one stays if `is_endless`.
        default_refusals: the same for requests of the default tier.
        tiers: the tier of each request so far.
    """

    patience = Patience(first=1.0)

    def __init__(self) -> None:
        self.refusals: list[Outcome | Exception] = []
        self.default_refusals: list[Outcome | Exception] = []
        self.is_endless = False
        self.tiers: list[str | None] = []

    async def send(self, endpoint: str, body: bytes, tier: str | None = None) -> Reply:
        self.tiers.append(tier)
        refusals = self.refusals if tier else self.default_refusals
        if refusals:
            refusal = refusals[0] if self.is_endless else refusals.pop(0)
            if isinstance(refusal, Exception):
                raise refusal
            return Reply(refusal)
        return Reply(answered_by(tier or "default"))


class Recorder(Observer):
    """Observer that records the names of the events and their arguments."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def on_flex_refused(self, model: str, reason: str) -> None:
        self.events.append(("refused", model))

    def on_flex_ignored(self, model: str, tier: str) -> None:
        self.events.append(("ignored", tier))

    def on_flex_fallback(self, model: str, reason: str) -> None:
        self.events.append(("fallback", model))

    def on_throttled(self, model: str, reason: str, concurrency: int) -> None:
        self.events.append(("throttled", concurrency))


class Parts:
    """A sender and the objects around it."""

    def __init__(self, refusals: RefusedParameters, **settings) -> None:
        self.api = FakeSyncAPI()
        self.clock = FakeClock()
        self.observer = Recorder()
        self.flex = FlexSupport(LaneSettings(**settings), "http://localhost/v1/", refusals, self.observer)
        self.sender = SyncSender(
            self.api,  # type: ignore[arg-type]
            self.flex,
            100,
            self.observer,
            self.clock,
            self.clock.sleep,
        )

    async def send(self, route: Route, deadline: float = NEVER, refusals: Sequence[Outcome | Exception] = ()):
        self.api.refusals += refusals
        return await self.sender.send(REQUEST, route, deadline)


@pytest.fixture
def parts(ledger) -> Parts:
    return Parts(ledger.refused_parameters)


@pytest.mark.parametrize("route", [SMALL_ROUND, FLEX_ONLY, FLEX_OR_FULL_PRICE])
async def test_flex_is_tried_first(parts, route):
    assert (await parts.send(route)).tier == "flex"
    assert parts.api.tiers == ["flex"]
    assert parts.observer.events == []


@pytest.mark.parametrize("route", [SMALL_ROUND, FLEX_ONLY])
async def test_a_tier_without_capacity_is_waited_for(parts, route):
    assert (await parts.send(route, refusals=[NO_CAPACITY] * 5)).tier == "flex"
    assert parts.observer.events == [("throttled", size) for size in (8, 4, 2, 1, 1)]


@pytest.mark.parametrize("route", [SMALL_ROUND, FLEX_OR_FULL_PRICE])
@pytest.mark.parametrize(
    ("deadline", "waited"), [(NEVER, FLEX_WAIT_SECONDS), (100.0 + 3_600, 3_600), (PASSED, 0)], ids=str
)
async def test_the_default_tier_answers_if_the_route_falls_back(parts, route, deadline, waited):
    """Flex is waited for until the deadline; without one, for ten minutes."""
    parts.api.is_endless = True
    assert (await parts.send(route, deadline, [NO_CAPACITY])).tier == "default"
    assert waited <= parts.clock.now - 100 < waited + 65
    assert parts.observer.events[-1] == ("fallback", "gpt-5-mini")
    assert parts.api.tiers[-1] is None


async def test_a_lane_without_fallback_gives_flex_up_after_its_time(parts):
    parts.api.is_endless = True
    with pytest.raises(FlexUnavailableError, match="Resource unavailable"):
        await parts.send(FLEX_ONLY, refusals=[NO_CAPACITY])
    assert None not in parts.api.tiers


@pytest.mark.parametrize("route", [FLEX_ONLY, PATIENT])
async def test_without_fallback_a_passed_deadline_leaves_the_refusal(parts, route):
    """A later job may hold the request."""
    parts.api.is_endless = True
    outcome = await parts.send(route, 200.0, [NO_CAPACITY])
    assert outcome == NO_CAPACITY.failure
    assert outcome.is_transient
    assert None not in parts.api.tiers


async def test_a_late_request_that_may_not_cost_more_waits_for_flex(parts):
    assert (await parts.send(PATIENT, PASSED, [NO_CAPACITY] * 5)).tier == "flex"


async def test_a_rate_limit_is_no_reason_to_fall_back(parts):
    """The limit holds for the default tier too."""
    assert (await parts.send(SMALL_ROUND, PASSED, [RATE_LIMIT] * 30)).tier == "flex"
    assert set(parts.api.tiers) == {"flex"}


async def test_each_tier_has_a_limit_of_its_own(parts):
    await parts.send(SMALL_ROUND, PASSED, [NO_CAPACITY])
    assert parts.sender._limit(REQUEST, "flex").size == 8
    assert parts.sender._limit(REQUEST, None).size == 16


async def test_endless_rate_limits_end_the_run(parts):
    parts.api.default_refusals, parts.api.is_endless = [RATE_LIMIT], True
    with pytest.raises(ConnectionFailedError, match="Rate limit reached"):
        await parts.send(Route(is_synchronous=True, falls_back=True))
    assert parts.clock.now > 6 * 3_600


async def test_a_refused_tier_is_learned(parts, ledger):
    """Later requests, and later runs, do not try the tier."""
    assert (await parts.send(SMALL_ROUND, refusals=[REFUSAL])).tier == "default"
    assert (await parts.send(SMALL_ROUND)).tier == "default"
    assert parts.api.tiers == ["flex", None, None]
    assert parts.observer.events == [("refused", "gpt-5-mini")]
    assert not Parts(ledger.refused_parameters).flex.has_flex(CHAT, "gpt-5-mini")
    assert Parts(ledger.refused_parameters).flex.has_flex(CHAT, "gpt-5-nano")


async def test_a_lane_without_fallback_ends_with_the_refusal(parts):
    for _ in range(2):
        with pytest.raises(FlexUnavailableError):
            await parts.send(FLEX_ONLY, refusals=[REFUSAL])
    assert parts.api.tiers == ["flex"]


async def test_another_refusal_is_the_outcome(parts):
    assert await parts.send(FLEX_ONLY, refusals=[BAD]) == BAD
    assert (await parts.send(FLEX_ONLY)).tier == "flex"


@pytest.mark.parametrize("tier", ["default", None, "priority"])
async def test_an_ignored_tier_is_reported_once_and_not_requested_again(parts, tier):
    """A gateway may drop the parameter: each such answer is billed in full."""
    assert (await parts.send(SMALL_ROUND, refusals=[answered_by(tier)])).tier == (tier or "default")
    await parts.send(SMALL_ROUND)
    assert parts.api.tiers == ["flex", None]
    assert parts.observer.events == [("ignored", tier or "default")]


async def test_the_user_decides_about_a_tier_that_the_answers_do_not_show(ledger):
    parts = Parts(ledger.refused_parameters, supports_flex=True)
    for _ in range(2):
        await parts.send(SMALL_ROUND, refusals=[answered_by(None)])
    assert parts.api.tiers == ["flex", "flex"]
    assert parts.observer.events == [("ignored", "default")]


async def test_a_stopped_request_is_not_sent(parts):
    for route in (FLEX_ONLY, Route(is_synchronous=True, falls_back=True)):
        assert await parts.sender.send(REQUEST, route, NEVER, lambda: True) is None
    assert parts.api.tiers == []
