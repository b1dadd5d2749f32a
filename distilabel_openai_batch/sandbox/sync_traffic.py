"""Traffic of synchronous calls: service tiers, the capacity of the flex tier, and rate limits."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import ApiError
from .state import SandboxState

FLEX = "flex"
_TIERS = ("auto", "default", "flex", "priority", "scale")
_TIER_ENDPOINTS = ("/v1/chat/completions", "/v1/responses")

# Models with the flex tier, https://platform.openai.com/docs/pricing.
_FLEX_MODEL = re.compile(r"o3(-\d{4}.*)?|o4-mini(-\d{4}.*)?|gpt-(?!35\b)([5-9]|[1-9]\d)(?!.*chat).*")

_MINUTE_SECONDS = 60.0


class SyncTraffic:
    """Synchronous calls in flight and of the last minute.

    Args:
        state: settings and clock.

    Attributes:
        most_in_flight: maximum number of calls that were in flight at the same time.
    """

    def __init__(self, state: SandboxState) -> None:
        self._state = state
        self._in_flight = 0
        self._flex_in_flight = 0
        self._flex_calls = 0
        self._accepted_at: deque[float] = deque()
        self.most_in_flight = 0

    @contextmanager
    def admit(self, endpoint: str, body: dict[str, Any]) -> Iterator[str]:
        """Yield the tier that answers a call while the call is in flight.

        Args:
            endpoint: path of the endpoint.
            body: body of the call; `service_tier` is removed from the body, since it does not change the answer.

        Raises:
            ApiError: 400 for a tier that the model does not have; 429 above the rate limit, and for a flex call without
                capacity.
        """
        tier = self._check_tier(endpoint, body)
        self._check_rate_limit()
        is_flex = tier == FLEX
        if is_flex:
            self._check_capacity()
        self._accepted_at.append(self._state.clock())
        self._in_flight += 1
        self._flex_in_flight += is_flex
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            yield tier
        finally:
            self._in_flight -= 1
            self._flex_in_flight -= is_flex

    def _check_tier(self, endpoint: str, body: dict[str, Any]) -> str:
        if endpoint not in _TIER_ENDPOINTS or body.get("service_tier") is None:
            return "default"
        tier = body.pop("service_tier")
        if tier not in _TIERS:
            message = f"Invalid value: {tier!r}. Supported values are: {', '.join(map(repr, _TIERS))}."
            raise ApiError(400, message, param="service_tier", code="invalid_value")
        settings = self._state.settings
        if tier == FLEX:
            model = settings.resolve_model(str(body.get("model")))
            has_flex = _FLEX_MODEL.fullmatch(model) if settings.flex_models is None else model in settings.flex_models
            if not has_flex:
                raise ApiError(400, "Unsupported service_tier: flex", param="service_tier", code="unsupported_value")
        if tier == FLEX and settings.ignores_tiers:
            return "default"
        return tier if tier in (FLEX, "priority") else "default"

    def _check_capacity(self) -> None:
        """Raise 429 for the share of flex calls that the settings let fail, and above the flex calls at a time."""
        settings = self._state.settings
        self._flex_calls += 1
        share, number = settings.flex_refusals, self._flex_calls
        is_refused = int(number * share) > int((number - 1) * share)
        if is_refused or (settings.flex_slots is not None and self._flex_in_flight >= settings.flex_slots):
            message = "Resource unavailable: there is no capacity for flex processing now. Please try again later."
            raise ApiError(429, message, type="resource_unavailable", code="resource_unavailable")

    def _check_rate_limit(self) -> None:
        limit = self._state.settings.sync_requests_per_minute
        if limit is not None and self._count_last_minute() >= limit:
            message = f"Rate limit reached for requests per minute (RPM): Limit {limit}, Used {limit}, Requested 1."
            headers = self.headers() | {"Retry-After": f"{self._reset_seconds():.3f}"}
            raise ApiError(429, message, type="requests", code="rate_limit_exceeded", headers=headers)

    def headers(self) -> dict[str, str]:
        """Return the headers with the rate limit; none without a limit."""
        limit = self._state.settings.sync_requests_per_minute
        if limit is None:
            return {}
        return {
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-remaining-requests": str(max(0, limit - self._count_last_minute())),
            "x-ratelimit-reset-requests": f"{self._reset_seconds():.3f}s",
        }

    def _count_last_minute(self) -> int:
        """Return the number of calls that were accepted within the last minute."""
        start = self._state.clock() - _MINUTE_SECONDS
        while self._accepted_at and self._accepted_at[0] <= start:
            self._accepted_at.popleft()
        return len(self._accepted_at)

    def _reset_seconds(self) -> float:
        """Return the seconds until the oldest call of the last minute counts no more."""
        return self._accepted_at[0] + _MINUTE_SECONDS - self._state.clock() if self._accepted_at else 0.0
