"""Synchronous requests one by one: with the flex tier first, through the server's rate limits, to their outcomes."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from math import isfinite

import anyio

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.outcomes import Failure, Outcome
from distilabel_openai_batch.api.requests import Request
from distilabel_openai_batch.api.service_tiers import FLEX, is_tier_refused
from distilabel_openai_batch.api.sync_api import SyncAPI, ThrottledError
from distilabel_openai_batch.engine.concurrency import Concurrency
from distilabel_openai_batch.engine.lanes import FlexSupport, Route
from distilabel_openai_batch.engine.observer import Observer

FLEX_WAIT_SECONDS = 600.0
"""Seconds without any accepted flex request after which flex is given up, if no deadline gives the time.

OpenAI's SDK waits as long for the answer to one request. https://platform.openai.com/docs/guides/flex-processing
"""


class FlexUnavailableError(Exception):
    """Flex cannot answer requests that may not be sent at full price."""


class SyncSender:
    """Send requests to the synchronous endpoints of one server.

    Args:
        api: the endpoints.
        flex: the models with the flex tier.
        max_concurrency: requests in flight of one model and tier, at most.
        observer: receives the events of the run.
        clock: returns the seconds of a monotonic clock.
        sleep: waits for a number of seconds.

    Attributes:
        max_concurrency: requests in flight of one model and tier, at most.
    """

    def __init__(
        self,
        api: SyncAPI,
        flex: FlexSupport,
        max_concurrency: int,
        observer: Observer,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._api = api
        self._flex = flex
        self._observer = observer
        self._clock = clock
        self._sleep = sleep
        self._limits: dict[tuple[str, str | None], Concurrency] = {}
        self.max_concurrency = max_concurrency

    async def send(
        self, request: Request, route: Route, deadline: float, is_stopped: Callable[[], bool] = lambda: False
    ) -> Outcome | None:
        """Send a request, and wait for its outcome.

        Args:
            request: the request.
            route: its way.
            deadline: the time up to which a tier without capacity is waited for, in seconds of the monotonic clock;
                infinity for no deadline.
            is_stopped: returns whether no further attempt may begin.

        Returns:
            The answer, or the failure of this request; `None` if the request was stopped before it was sent.

        Raises:
            FlexUnavailableError: flex is refused or has no capacity, and the route does not fall back.
            NoSuchEndpointError: the server has no such synchronous endpoint.
            RunError: the run cannot go on.
        """
        if route.tries_flex and self._flex.has_flex(request.endpoint, request.model):
            outcome = await self._send_flex(request, route, deadline, is_stopped)
            if not isinstance(outcome, ThrottledError):
                if not _is_refusal(outcome):
                    return outcome
                self._flex.note_refusal(request.model, str(outcome))
            elif route.falls_back:
                self._observer.on_flex_fallback(request.model, str(outcome))
            elif self._clock() >= deadline:
                return outcome.failure
            else:
                raise FlexUnavailableError(f"Flex has no capacity for {request.model}: {outcome}")
        if route.tries_flex and route.by_lane and not route.falls_back:
            raise FlexUnavailableError(f"{request.model} is not answered by flex at this server.")
        return await self._send_default(request, is_stopped)

    async def _send_flex(
        self, request: Request, route: Route, deadline: float, is_stopped: Callable[[], bool]
    ) -> Outcome | ThrottledError | None:
        """Send a request with the flex tier; return the last refusal if flex has no capacity."""
        limit = self._limit(request, FLEX)
        while True:
            async with limit.admit() as attempt:
                if is_stopped():
                    return None
                try:
                    reply = await self._api.send(request.endpoint, bytes(request.body), FLEX)
                except ThrottledError as error:
                    limit.note_refused(attempt, error.pause)
                    self._observer.on_throttled(request.model, str(error), limit.size)
                    if error.lacks_capacity and self._is_given_up(limit, route, deadline):
                        return error
                    self._check_patience(limit, error, request)
                    continue
                limit.note_accepted(reply.rate_limits)
                if not _is_refusal(reply.outcome):
                    self._flex.note_answer(request.model, reply.outcome)
                return reply.outcome

    def _is_given_up(self, limit: Concurrency, route: Route, deadline: float) -> bool:
        """Return whether a request that flex has refused waits no longer for capacity.

        Without a deadline, and behind it, the time is bounded; behind it there is none if the default tier may answer
        now, or when the deadline has passed.
        """
        is_over = self._clock() >= deadline
        if is_over and (route.falls_back or route.by_lane):
            return True
        return (is_over or not isfinite(deadline)) and limit.refused_seconds >= FLEX_WAIT_SECONDS

    async def _send_default(self, request: Request, is_stopped: Callable[[], bool]) -> Outcome | None:
        """Send a request with the tier that the project at the server has by default."""
        limit = self._limit(request, None)
        while True:
            async with limit.admit() as attempt:
                if is_stopped():
                    return None
                try:
                    reply = await self._api.send(request.endpoint, bytes(request.body))
                except ThrottledError as error:
                    limit.note_refused(attempt, error.pause)
                    self._observer.on_throttled(request.model, str(error), limit.size)
                    self._check_patience(limit, error, request)
                    continue
                limit.note_accepted(reply.rate_limits)
                return reply.outcome

    def _check_patience(self, limit: Concurrency, error: ThrottledError, request: Request) -> None:
        """Raise an error of the run if the server has refused every request for the time of the retries."""
        if limit.refused_seconds > self._api.patience.total:
            raise errors.ConnectionFailedError(
                f"Failed to send a request to {request.endpoint.removeprefix('/v1')}: {error} All answers are kept; run"
                " again to continue."
            )

    def _limit(self, request: Request, tier: str | None) -> Concurrency:
        key = (request.model, tier)
        if key not in self._limits:
            self._limits[key] = Concurrency(self.max_concurrency, self._api.patience, self._clock, self._sleep)
        return self._limits[key]


def _is_refusal(outcome: Outcome | None) -> bool:
    """Return whether a flex request was refused because its model has no flex tier."""
    return isinstance(outcome, Failure) and is_tier_refused(outcome.status_code, outcome.message)
