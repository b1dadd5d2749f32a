"""Synchronous endpoints of one server: one request, one answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import openai

from distilabel_openai_batch import errors
from distilabel_openai_batch.api.encoding import decode_json
from distilabel_openai_batch.api.outcomes import Failure, Outcome, read_answer
from distilabel_openai_batch.api.rate_limits import NO_RATE_LIMITS, RateLimits, read_duration, read_rate_limits
from distilabel_openai_batch.api.replies import UnexpectedReplyError
from distilabel_openai_batch.api.responses import names_responses
from distilabel_openai_batch.api.service_tiers import FLEX, FLEX_SECONDS, TIER_PARAMETER, lacks_capacity
from distilabel_openai_batch.api.transport import TransientError, Transport, error_code

# Header by which the SDK's `with_raw_response` asks the SDK for the response itself, in all of its releases.
_RAW_RESPONSE = {"X-Stainless-Raw-Response": "true"}


# Version in front of an endpoint's path: the base URL contains the version already.
_VERSION = re.compile(r"^/v\d+(?=/)")


class NoSuchEndpointError(Exception):
    """The server has no such synchronous endpoint."""


class ThrottledError(Exception):
    """Refusal of a request that the server would accept later: a rate limit, or a tier without capacity.

    Attributes:
        failure: the refusal.
        pause: seconds that the server asks to wait; 0 if it does not ask.
        lacks_capacity: whether the flex tier has no capacity, so that another tier may answer now.
    """

    def __init__(self, failure: Failure, pause: float, *, lacks_capacity: bool) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.pause = pause
        self.lacks_capacity = lacks_capacity


@dataclass(frozen=True, slots=True)
class Reply:
    """Reply to a synchronous request.

    Attributes:
        outcome: the answer, or the failure of this request.
        rate_limits: the rest of the server's rate limits.
    """

    outcome: Outcome
    rate_limits: RateLimits = NO_RATE_LIMITS


class SyncAPI:
    """The synchronous endpoints of one server.

    Args:
        transport: makes the calls.

    Attributes:
        patience: pauses and number of the attempts of a failing call.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.patience = transport.patience

    async def send(self, endpoint: str, body: bytes, tier: str | None = None) -> Reply:
        """Send one request to its synchronous endpoint.

        A server that cannot be reached is retried for `Patience.total` seconds, any other transient failure
        `Patience.retries` times; a 429 is not retried.

        Args:
            endpoint: the path, as in a batch (`"/v1/chat/completions"`).
            body: the body as JSON.
            tier: the service tier; `None` leaves the tier to the body, and to the project's settings at the server.

        Raises:
            ThrottledError: the server accepts no request now.
            NoSuchEndpointError: the server answers such requests in batches only.
            RunError: the server rejects the key, or could not be reached.
        """
        path, content = _VERSION.sub("", endpoint), decode_json(body)
        options: dict[str, Any] = {"headers": _RAW_RESPONSE}
        if tier:
            content[TIER_PARAMETER] = tier
        if tier == FLEX:
            options["timeout"] = max(FLEX_SECONDS, _seconds(self._transport.client.timeout))
        # The header replaces the object by the response, which the SDK's types do not know.
        client: Any = self._transport.client
        attempts = 0

        async def attempt() -> Reply:
            nonlocal attempts
            attempts += 1
            try:
                response = await client.post(path, cast_to=object, body=content, options=options)
            except openai.APIStatusError as error:
                return Reply(self._read_refusal(error, path, attempts, is_flex=tier == FLEX))
            return Reply(_read_outcome(response.content), read_rate_limits(response.headers))

        return await self._transport.retry(f"send a request to {path}", attempt)

    def _read_refusal(self, error: openai.APIStatusError, path: str, attempts: int, *, is_flex: bool) -> Failure:
        """Return the failure of a refused request; raise an error that concerns more than the request."""
        transport = self._transport
        status_code, code, message = error.status_code, error_code(error), transport.message_of(error)
        if _is_no_endpoint(status_code, code, message):
            raise NoSuchEndpointError(f"The server has no synchronous endpoint {path}.") from None
        failure = Failure(message, status_code, code)
        if errors.is_key_rejected(status_code) or errors.is_out_of_quota(code):
            raise error
        is_without_capacity = is_flex and lacks_capacity(status_code, code, message)
        if status_code == 429 or is_without_capacity:
            transport.note_reached()
            limits, retry_after = read_rate_limits(error.response.headers), error.response.headers.get("retry-after")
            pause = max(limits.pause, read_duration(retry_after) or 0.0)
            raise ThrottledError(failure, pause, lacks_capacity=is_without_capacity) from None
        if failure.is_transient and attempts <= transport.patience.retries:
            # A 400 of a single request may pass, a 400 of another call does not → name the failure transient.
            if status_code == 400:
                raise TransientError(str(failure), did_nothing=True) from None
            raise error
        return failure


def _read_outcome(content: bytes) -> Outcome:
    try:
        answer = decode_json(content)
    except ValueError:
        raise UnexpectedReplyError("of this API", content) from None
    if not isinstance(answer, dict):
        raise UnexpectedReplyError("of this API", content)
    return read_answer(answer)


def _seconds(timeout: Any) -> float:
    """Return the seconds of the SDK's time-out, which may be a number or an object of httpx."""
    seconds = getattr(timeout, "read", timeout)
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _is_no_endpoint(status_code: int, code: str | None, message: str) -> bool:
    """Return whether a refusal means that the path is unknown, and not the model, or that another path serves it."""
    is_unnamed = code is None and not names_responses(message)
    return status_code in (405, 501) or (status_code == 404 and (is_unnamed or "invalid url" in message.lower()))
