"""Adaptive limit for the synchronous requests in flight, learned from the server's refusals.

A server limits requests and tokens per minute, and the flex tier has as much capacity as other customers leave over.
No server says how many requests it accepts at once. So the limit doubles as long as every request is accepted, halves
when a request is refused, and grows by one for each round of accepted requests after that (additive increase,
multiplicative decrease, as in TCP: https://www.rfc-editor.org/rfc/rfc5681#section-3.1).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from distilabel_openai_batch.api.rate_limits import RateLimits
from distilabel_openai_batch.api.transport import Patience

# A request takes some seconds → 16 at once are about a hundred a minute, which the lowest tier's rate limit allows.
# https://platform.openai.com/docs/guides/rate-limits
_FIRST_SIZE = 16

# Seconds of a pause that rate-limit headers ask for, at most: OpenAI counts requests and tokens per minute.
_LONGEST_HEADER_PAUSE = 60.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """Admission of one attempt of a request.

    Attributes:
        decreases: number of decreases of the limit before the attempt began.
    """

    decreases: int


class Concurrency:
    """Limit for the requests in flight of one model and one service tier.

    Args:
        most: the highest limit.
        patience: pauses after refusals in a row.
        clock: returns the seconds of a monotonic clock.
        sleep: waits for a number of seconds.

    Attributes:
        refused_since: the time of the first refusal since the last accepted request, in seconds of the clock; `None`
            if the last request was accepted.
    """

    def __init__(
        self,
        most: int,
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._most = most
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._capacity = anyio.CapacityLimiter(min(_FIRST_SIZE, most))
        self._decreases = 0
        self._accepted = 0
        self._refusals = 0
        self._resume_at = 0.0
        self.refused_since: float | None = None

    @property
    def size(self) -> int:
        """Return the number of requests that may be in flight."""
        return int(self._capacity.total_tokens)

    @property
    def refused_seconds(self) -> float:
        """Return the seconds since the first refusal in a row; 0 if the last request was accepted."""
        return 0.0 if self.refused_since is None else self._clock() - self.refused_since

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[Attempt]:
        """Wait until an attempt may begin; the attempt ends with the context."""
        async with self._capacity:
            while (pause := self._resume_at - self._clock()) > 0:
                await self._sleep(pause)
            yield Attempt(self._decreases)

    def note_accepted(self, limits: RateLimits) -> None:
        """Raise the limit after a round of accepted requests, and obey the rate limits of a reply.

        Args:
            limits: the rest of the server's rate limits.
        """
        self.refused_since, self._refusals = None, 0
        if limits.pause:
            self._pause(min(limits.pause, _LONGEST_HEADER_PAUSE))
        self._accepted += 1
        if self._accepted < self.size:
            return
        self._accepted = 0
        increase = 1 if self._decreases else self.size
        highest = self._most if limits.remaining_requests is None else min(self._most, limits.remaining_requests)
        self._capacity.total_tokens = max(self.size, min(highest, self.size + increase))

    def note_refused(self, attempt: Attempt, pause: float) -> None:
        """Halve the limit, and begin no attempt during a pause.

        Refusals of requests that were in flight together halve the limit once.

        Args:
            attempt: the attempt that was refused.
            pause: seconds that the server asks to wait; 0 if it does not ask.
        """
        if self.refused_since is None:
            self.refused_since = self._clock()
        if attempt.decreases == self._decreases:
            self._decreases += 1
            self._refusals += 1
            self._accepted = 0
            self._capacity.total_tokens = max(1, self.size // 2)
            self._pause(self._patience.pause(self._refusals))
        self._pause(pause)

    def _pause(self, seconds: float) -> None:
        self._resume_at = max(self._resume_at, self._clock() + seconds)
